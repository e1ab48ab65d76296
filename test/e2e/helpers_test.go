// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/node"
)

// waitLog waits until the kept output of a detached sandbox contains a text.
func waitLog(t *testing.T, n *node.Node, name, text string) string {
	t.Helper()
	var r node.Result
	for range 200 {
		r = n.CLI(t, "logs", name)
		if strings.Contains(r.Stdout, text) {
			return r.Stdout
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%q did not appear in the log of %s: %q %s", text, name, r.Stdout, r.Stderr)
	return ""
}
