// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ringfence/ringfence/pkg/wire"
	"github.com/ringfence/ringfence/test/node"
)

// Launches that fail, each of which takes the prepared sandbox along, leave
// nothing behind, however many there are, and the next one works.
func TestNothingIsLeftOfLaunchesThatFail(t *testing.T) {
	w := newWorld(t)
	n := node.Start(t, w.options())
	ws := n.Workspace(t)
	bad := filepath.Join(ws, "bad.yaml") // good by itself, and not for this sandbox
	if err := os.WriteFile(bad, []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: bad}\nscope: org:other\negress:\n  - {id: a, allow: \"own.example:443\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := n.CLI(t, "run", "--detach", "--name", "taken", "--workspace", ws, "--", "sleep", "100000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	fails := func(times int) {
		for i := range times {
			kind := [][]string{
				{"run", "-q", "--policy", bad, "--workspace", ws, "--", "true"},
				{"run", "-q", "--name", "taken", "--workspace", ws, "--", "true"},
				{"run", "-q", "--profile", "coding", "--workspace", "/proc/sys/net", "--", "true"},
			}[i%3]
			if r := n.CLI(t, kind...); r.Code != 125 {
				t.Fatalf("%v: exit %d: %s", kind, r.Code, r.Stderr)
			}
		}
	}
	settled := func() (h held) {
		eventually(t, "the spare is made, with its listeners", func() bool {
			dirs, err := os.ReadDir(filepath.Join(n.RunDir, "sandboxes"))
			h = inventory(t, n)
			return err == nil && len(dirs) == 2 && h["keeper descriptors: socket:"] >= 2*wire.Listeners
		})
		return h
	}
	fails(6)
	before := settled()
	fails(60)
	for _, g := range settled().grown(before) {
		t.Errorf("left behind: %s", g)
	}
	if r := n.CLI(t, "run", "-q", "--workspace", ws, "--", "echo", "works"); r.Code != 0 || r.Stdout != "works\n" {
		t.Errorf("exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
}
