// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestWildcardBudgetBoundsWhatNamesCarry(t *testing.T) {
	var b wildcardBudget
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if why := b.spend(strings.Repeat("x", maxWildcardLabel+1)+".example.com", now); why == "" {
		t.Error("a long label passed")
	}
	passed := 0
	for i := range 5000 {
		if b.spend(fmt.Sprintf("n%d.example.com", i), now.Add(time.Duration(i)*10*time.Millisecond)) == "" {
			passed++
		}
	}
	if passed != maxWildcardMinute { // 50 s: one calendar minute
		t.Errorf("%d names in one minute, want %d", passed, maxWildcardMinute)
	}
	for i := range 5000 {
		if b.spend(fmt.Sprintf("m%d.example.com", i), now.Add(time.Duration(i)*time.Minute)) == "" {
			passed++
		}
	}
	if passed != maxWildcardNames {
		t.Errorf("%d names in all, want %d", passed, maxWildcardNames)
	}
}
