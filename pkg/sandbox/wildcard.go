// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"strings"
	"time"
)

// A name that only a wildcard allows carries what the agent writes into its
// labels to the resolver of the host. These budgets bound how much: about 30
// bytes a name, 1,024 names in a sandbox's life.
const (
	maxWildcardLabel  = 48
	maxWildcardMinute = 120
	maxWildcardNames  = 1024
)

// wildcardBudget counts fresh names that only a wildcard allows.
type wildcardBudget struct {
	total  int
	minute time.Time
	inside int // in that minute
}

// spend takes one fresh name from the budget; why not, if it does not fit.
func (b *wildcardBudget) spend(name string, now time.Time) (why string) {
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > maxWildcardLabel {
			return fmt.Sprintf("a label of this name is longer than the %d bytes that a wildcard rule lets through; name the host in a rule of its own", maxWildcardLabel)
		}
	}
	if b.total >= maxWildcardNames {
		return fmt.Sprintf("this sandbox has asked for %d different names under wildcard rules; name the hosts in rules of their own", maxWildcardNames)
	}
	if m := now.Truncate(time.Minute); !m.Equal(b.minute) {
		b.minute, b.inside = m, 0
	}
	if b.inside >= maxWildcardMinute {
		return fmt.Sprintf("more than %d different names a minute under wildcard rules", maxWildcardMinute)
	}
	b.total++
	b.inside++
	return ""
}
