// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/node"
)

// TestNewcomer is what somebody tries in the first hour.
func TestNewcomer(t *testing.T) {
	n := node.Start(t, node.Options{})
	t.Run("no workspace", func(t *testing.T) { noWorkspace(t, n) })
}

// noWorkspace: the sandbox has its home and nothing of where the caller stands.
func noWorkspace(t *testing.T, n *node.Node) {
	ws := n.Workspace(t)
	file := put(t, ws, "file", "seen\n")
	for _, profile := range []string{"default", "coding"} {
		look := []string{"--profile", profile, "--", "sh", "-c", `pwd; echo "$HOME"; cat "$0" || echo unseen; cd; echo x > own && cat own`, file}
		r := n.CLIIn(t, ws, append([]string{"run", "-q"}, look...)...)
		if !strings.Contains(r.Stdout, "seen\n") || strings.Contains(r.Stdout, "unseen") {
			t.Errorf("%s, the control, with the workspace: exit %d %s%s", profile, r.Code, r.Stdout, r.Stderr)
		}
		r = n.CLIIn(t, ws, append([]string{"run", "-q", "--workspace", "none"}, look...)...)
		lines := strings.Split(r.Stdout, "\n")
		if r.Code != 0 || len(lines) < 4 || lines[0] != lines[1] || !filepath.IsAbs(lines[0]) || lines[2] != "unseen" || lines[3] != "x" {
			t.Errorf("%s: exit %d %s%s", profile, r.Code, r.Stdout, r.Stderr)
		}
	}
	if r := n.CLIIn(t, "/", "run", "--workspace", "none", "--detach", "--", "true"); r.Code != 0 {
		t.Errorf("from /, detached: exit %d %s", r.Code, r.Stderr)
	}
}
