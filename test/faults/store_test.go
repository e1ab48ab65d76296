// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/test/node"
)

// oneRule is a Policy document with one rule.
func oneRule(name, rule string) string {
	return "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: " + name + "}\nscope: org:local\negress:\n  - {id: a, " + rule + "}\n"
}

// On a full disk what would have to be stored is refused, what takes rules away
// is not, and the policy directory counts; and all of that survives kill -9.
func TestAFullDiskUnderTheStore(t *testing.T) {
	n := node.Start(t, node.Options{NoStart: true})
	smallState(t, n, "8m")
	n.StartDaemon(t)
	apply := func(name, rule string) node.Result {
		path := filepath.Join(n.Dir, name+".yaml")
		if err := os.WriteFile(path, []byte(oneRule(name, rule)), 0o644); err != nil {
			t.Fatal(err)
		}
		return n.CLI(t, "policy", "apply", path)
	}
	var goes string // the revision that brought it
	for _, name := range []string{"stays", "goes"} {
		r := apply(name, `allow: "`+name+`.test:443"`)
		if r.Code != 0 {
			t.Fatal(r.Stderr)
		}
		_, goes, _ = strings.Cut(strings.TrimSpace(r.Stdout), "revision ")
	}
	n.WritePolicy(t, "house.yaml", oneRule("house", `allow: "before.test:443"`))
	inForce := func() string { return n.CLI(t, "policy", "export").Stdout }
	eventually(t, "the file counts", func() bool { return strings.Contains(inForce(), "before.test") })

	free := fill(t, n.StateDir)
	if r := apply("stays", `deny: "stays.test"`); r.Code == 0 || !strings.Contains(r.Stderr, "make room on the file system") {
		t.Errorf("apply: exit %d %s", r.Code, r.Stderr)
	}
	if r := n.CLI(t, "policy", "delete", "goes"); r.Code != 0 {
		t.Errorf("delete: exit %d %s", r.Code, r.Stderr)
	}
	_ = fill(t, n.StateDir) // the reserve was for the removal; now it is really full
	if r := n.CLI(t, "policy", "rollback", goes, "--api-only"); r.Code == 0 || !strings.Contains(r.Stderr, "make room") {
		t.Errorf("a rollback: exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	n.WritePolicy(t, "house.yaml", oneRule("house", `allow: "after.test:443"`))
	eventually(t, "an edit of the directory counts", func() bool { return strings.Contains(inForce(), "after.test") })
	if r := n.CLI(t, "doctor"); !strings.Contains(r.Stdout+r.Stderr, "store") {
		t.Errorf("doctor does not say that the store lags behind: %s", r.Stdout)
	}
	for range 2 {
		if s := inForce(); !strings.Contains(s, `allow: "stays.test:443"`) || strings.Contains(s, "goes.test") || !strings.Contains(s, "after.test") {
			t.Errorf("in force is %s", s)
		}
		n.KillDaemon(t)
		n.StartDaemon(t)
	}
	free()
	eventually(t, "what the store lacked is in the history", func() bool {
		return strings.Count(n.CLI(t, "policy", "history", "house").Stdout, "Policy/house") == 2
	})
	if r := apply("stays", `deny: "stays.test"`); r.Code != 0 {
		t.Errorf("with room: %s", r.Stderr)
	}
}

// A store that is damaged, or an older copy, is refused with what to do; and
// what that says works.
func TestAStoreThatCannotBeUsed(t *testing.T) {
	n := node.Start(t, node.Options{})
	path := filepath.Join(n.Dir, "one.yaml")
	if err := os.WriteFile(path, []byte(oneRule("one", `deny: "one.test"`)), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := n.CLI(t, "policy", "apply", path); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	n.StopDaemon(t, syscall.SIGTERM)
	file := filepath.Join(n.StateDir, "store", "ringfence.db")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), whole...)
	clear(damaged[4096:])
	if err := os.WriteFile(file, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := n.Refused(t); code == 0 || !strings.Contains(said, "the store is damaged") || !strings.Contains(said, file) || !strings.Contains(said, "from a backup") {
		t.Errorf("damaged: exit %d, %s", code, said)
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	n.StartDaemon(t) // the control
	n.StopDaemon(t, syscall.SIGTERM)

	if err := os.Rename(filepath.Join(n.StateDir, "store"), filepath.Join(n.Dir, "away")); err != nil {
		t.Fatal(err)
	}
	code, said := n.Refused(t)
	marker := filepath.Join(n.StateDir, "documents", ".stored")
	if code == 0 || !strings.Contains(said, "the store ends with policy revision 0, and had revision") || !strings.Contains(said, "remove "+marker) {
		t.Errorf("lost: exit %d, %s", code, said)
	}
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	n.StartDaemon(t)
	if r := n.CLI(t, "policy", "apply", path); r.Code != 0 {
		t.Errorf("%s", r.Stderr)
	}
}
