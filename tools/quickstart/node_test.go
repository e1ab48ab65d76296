// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"testing"
)

// In a fresh checkout nothing is built: the message says how.
func TestQuickstartWithoutPrograms(t *testing.T) {
	if _, err := startNode(context.Background(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "make quickstart") {
		t.Error(err)
	}
}
