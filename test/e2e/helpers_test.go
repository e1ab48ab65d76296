// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/node"
)

func need(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// missing skips for want of a tool, or fails where everything must be there.
func missing(t *testing.T, what string) {
	t.Helper()
	env.Lack(t, true, what)
}

// tool finds a program that sandboxes can run: below /usr or /bin, as their
// PATH has it.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"} {
		if p := filepath.Join(dir, name); exec.Command("test", "-x", p).Run() == nil {
			return p
		}
	}
	missing(t, name)
	return ""
}

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

// eventually waits until f says yes.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second) // clean-ups wait too
	defer cancel()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("did not happen: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sandboxed runs a shell script in a sandbox of the coding profile, for a team.
func sandboxed(t *testing.T, n *node.Node, ws, team, script string, flags ...string) node.Result {
	t.Helper()
	args := append([]string{"run", "--profile", "coding", "--as", "org:local/team:" + team}, flags...)
	return n.CLIIn(t, ws, append(args, "--", "sh", "-c", script)...)
}

// put writes a file of a workspace.
func put(t *testing.T, dir, name, text string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	need(t, os.MkdirAll(filepath.Dir(p), 0o755))
	need(t, os.WriteFile(p, []byte(text), 0o644))
	return p
}

// contains checks one output for texts.
func contains(t *testing.T, what, have string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(have, w) {
			t.Errorf("%s: missing %q in:\n%s", what, w, have)
		}
	}
}
