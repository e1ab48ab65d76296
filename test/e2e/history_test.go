// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// applied applies one document and returns the revision.
func applied(t *testing.T, n *node.Node, name, rule string, more ...string) uint64 {
	t.Helper()
	path := filepath.Join(n.Dir, name+".yaml")
	need(t, os.WriteFile(path, []byte(policyText(name, rule)), 0o644))
	return revisionOf(t, n, append([]string{"policy", "apply", path}, more...)...)
}

// revisionOf runs a change of the policy and returns its number.
func revisionOf(t *testing.T, n *node.Node, args ...string) uint64 {
	t.Helper()
	r := n.CLI(t, args...)
	m := regexp.MustCompile(`revision ([0-9]+)`).FindStringSubmatch(r.Stdout)
	if r.Code != 0 || m == nil {
		t.Fatalf("%v: exit %d %s%s", args, r.Code, r.Stdout, r.Stderr)
	}
	rev, err := strconv.ParseUint(m[1], 10, 64)
	need(t, err)
	return rev
}

func history(t *testing.T, n *node.Node, args ...string) []api.Revision {
	t.Helper()
	r := n.CLI(t, append([]string{"policy", "history", "-o", "json"}, args...)...)
	var res api.Revisions
	if err := json.Unmarshal([]byte(r.Stdout), &res); r.Code != 0 || err != nil {
		t.Fatalf("%v: exit %d %v %s%s", args, r.Code, err, r.Stdout, r.Stderr)
	}
	return res.Revisions
}

func TestPolicyHistory(t *testing.T) {
	n := node.Start(t, node.Options{Policies: map[string]string{"house.yaml": policyText("house", `allow: "house.test:443"`)}})
	again := func() { // as after a crash
		n.KillDaemon(t)
		n.StartDaemon(t)
	}
	first := applied(t, n, "one", `allow: "one.test:443"`, "--comment", "ticket 4711")
	again()
	second := applied(t, n, "one", `allow: "other.test:443"`)
	two := applied(t, n, "two", `allow: "two.test:443"`)
	again()
	if deleted := revisionOf(t, n, "policy", "delete", "one"); !(first < second && second < two && two < deleted) {
		t.Errorf("revisions %d, %d, %d, %d", first, second, two, deleted)
	}
	again()

	t.Run("history", func(t *testing.T) {
		list := history(t, n, "one")
		if len(list) != 3 || list[0].Action != "delete" || list[1].Number != second || list[2].Number != first {
			t.Fatalf("%+v", list)
		}
		if r := list[2]; r.UID == nil || *r.UID != 0 || r.Author != "uid=0(root)" || r.PID == 0 || r.Program != "ringfence" || r.Comment != "ticket 4711" || r.Changes[0].Change != "added" || r.Changes[0].Owner != "api" {
			t.Errorf("%+v", r)
		}
		house := history(t, n, "house")
		if len(house) != 1 || house[0].Author != "directory" || house[0].UID != nil || house[0].Changes[0].Owner != "directory" {
			t.Errorf("%+v", house)
		}
	})
	t.Run("get and diff", func(t *testing.T) {
		contains(t, "get", n.CLI(t, "policy", "get", "one", "--revision", fmt.Sprint(first)).Stdout, `allow: "one.test:443"`)
		contains(t, "get", n.CLI(t, "policy", "get", "one", "--revision", fmt.Sprint(second)).Stdout, `allow: "other.test:443"`)
		contains(t, "get", n.CLI(t, "policy", "get", "house").Stdout, `allow: "house.test:443"`)
		if r := n.CLI(t, "policy", "get", "one"); r.Code != 3 {
			t.Errorf("a removed document: exit %d %s", r.Code, r.Stdout)
		}
		if r := n.CLI(t, "policy", "get", "one", "--revision", "4000"); r.Code != 3 || !strings.Contains(r.Stderr, "there is no policy revision 4000 yet") {
			t.Errorf("exit %d %s", r.Code, r.Stderr)
		}
		contains(t, "diff", n.CLI(t, "policy", "diff", fmt.Sprint(first), fmt.Sprint(second)).Stdout,
			"changed Policy one, scope org:local, of the API\n", `-  - {id: a, allow: "one.test:443"}`+"\n", `+  - {id: a, allow: "other.test:443"}`+"\n")
		contains(t, "diff to now", n.CLI(t, "policy", "diff", fmt.Sprint(first)).Stdout, "removed Policy one", "added Policy two")
	})
	t.Run("rollback", func(t *testing.T) {
		before := documents(t, n)
		back := revisionOf(t, n, "policy", "rollback", fmt.Sprint(first), "--comment", "as it was", "--wait")
		again()
		contains(t, "in force", documents(t, n), `allow: \"one.test:443\"`, "house.test")
		if s := documents(t, n); strings.Contains(s, "two.test") || strings.Contains(s, "other.test") || s == before {
			t.Errorf("in force is %s", s)
		}
		list := history(t, n, "--limit", "1")
		if r := list[0]; r.Number != back || r.Action != "rollback" || r.Comment != fmt.Sprintf("revision %d: as it was", first) || len(r.Changes) != 2 || r.Author != "uid=0(root)" {
			t.Errorf("%+v", r)
		}
		n.WaitEvent(t, "what came back, by whom", func(e *event.Event) bool {
			return e.Kind == event.KindPolicy && e.Activity == "apply" && e.Revision == back && strings.Contains(e.Object, "applied-policy-one.yaml") && e.Actor == "uid=0(root)" && strings.Contains(e.Reason, fmt.Sprintf("rollback to revision %d: as it was", first))
		})
		n.WaitEvent(t, "what went", func(e *event.Event) bool {
			return e.Kind == event.KindPolicy && e.Activity == "remove" && e.Revision == back && strings.Contains(e.Object, "applied-policy-two.yaml") && e.Actor == "uid=0(root)"
		})
		r := n.CLI(t, "policy", "rollback", fmt.Sprint(first))
		if r.Code != 0 || !strings.Contains(r.Stdout, "nothing was changed") || history(t, n, "--limit", "1")[0].Number != back {
			t.Errorf("once more: exit %d %s%s", r.Code, r.Stdout, r.Stderr)
		}
		if r := n.CLI(t, "policy", "rollback", "4000"); r.Code != 3 {
			t.Errorf("to what is not there yet: exit %d %s", r.Code, r.Stderr)
		}
	})
	t.Run("rollback and the directory", func(t *testing.T) {
		n.WritePolicy(t, "house.yaml", policyText("house", `deny: "house.test"`))
		eventually(t, "the edit is in the history", func() bool { return len(history(t, n, "house")) == 2 })
		before := documents(t, n)
		r := n.CLI(t, "policy", "rollback", fmt.Sprint(two))
		if r.Code != 1 || !strings.Contains(r.Stderr, `Policy "house" (house.yaml) was changed`) || !strings.Contains(r.Stderr, "--api-only") || documents(t, n) != before {
			t.Errorf("exit %d %s", r.Code, r.Stderr)
		}
		revisionOf(t, n, "policy", "rollback", fmt.Sprint(two), "--api-only")
		contains(t, "in force", documents(t, n), "two.test", "other.test", `deny: \"house.test\"`)
	})
	t.Run("a file that claims what the API owns", func(t *testing.T) {
		before := documents(t, n)
		n.WritePolicy(t, "claim.yaml", policyText("two", `allow: "claimed.test:443"`))
		eventually(t, "the problem is told", func() bool {
			r := n.CLI(t, "policy", "show")
			return r.Code == 7 && strings.Contains(r.Stderr, `claim.yaml:1:1: the Policy "two" is owned by the API`)
		})
		if s := documents(t, n); strings.Contains(s, "claimed.test") || !strings.Contains(s, "two.test") {
			t.Errorf("in force is %s, was %s", s, before)
		}
		revisionOf(t, n, "policy", "delete", "two")
		eventually(t, "the file counts when nobody else has the name", func() bool { return strings.Contains(documents(t, n), "claimed.test") })
	})
	exported(t, n)
}

// exported takes what is in force to another node.
func exported(t *testing.T, n *node.Node) {
	dir := filepath.Join(t.TempDir(), "out")
	r := n.CLI(t, "policy", "export", dir)
	if r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	all := n.CLI(t, "policy", "export").Stdout
	contains(t, "export", all, "other.test", "claimed.test", "house.test", "\n---\n")
	if r := n.CLI(t, "policy", "export", dir); r.Code != 1 || !strings.Contains(r.Stderr, "nothing is replaced") {
		t.Errorf("into a directory that has them: exit %d %s", r.Code, r.Stderr)
	}
	other := node.Start(t, node.Options{})
	if r := other.CLI(t, "policy", "apply", "--wait", dir); r.Code != 0 {
		t.Fatalf("%s%s", r.Stdout, r.Stderr)
	}
	if got := other.CLI(t, "policy", "export").Stdout; got != all {
		t.Errorf("on the other node\n%s\nwas\n%s", got, all)
	}
}

// TestDocumentsThatWereFiles starts on a state directory of a version before the
// store.
func TestDocumentsThatWereFiles(t *testing.T) {
	n := node.Start(t, node.Options{NoStart: true})
	dir := filepath.Join(n.StateDir, "documents")
	need(t, os.MkdirAll(dir, 0o700))
	texts := map[string]string{
		"applied-policy-one.yaml":     "# ringfence policy apply, by uid 0\n" + policyText("one", `allow: "one.test:443"`),
		"allow-a.test-443-00000.yaml": policyText("allow-a.test-443", `allow: "a.test:443"`),
		"by-hand.yaml":                policyText("hand", `allow: "hand.test:443"`) + "---\n" + policyText("hand-2", `allow: "hand2.test:443"`),
		"broken.yaml":                 policyText("broken", `alow: "broken.test:443"`),
	}
	for name, text := range texts {
		need(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	need(t, os.WriteFile(filepath.Join(n.StateDir, "format"), []byte("1 before\n"), 0o644))
	n.StartDaemon(t)
	for range 2 {
		s := documents(t, n)
		contains(t, "in force", s, "Policy/one", "one.test", "Policy/allow-a.test-443", `"Policy/hand"`, `"Policy/hand-2"`)
		if strings.Contains(s, "broken.test") {
			t.Errorf("%s", s)
		}
		n.KillDaemon(t)
		n.StartDaemon(t)
	}
	contains(t, "log", n.Log(), "was not in force and is left out", "broken.yaml")
	for name, text := range texts {
		if b, err := os.ReadFile(filepath.Join(n.StateDir, "backup", "format-1", "documents", name)); err != nil || string(b) != text {
			t.Errorf("the backup of %s: %q, %v", name, b, err)
		}
		if _, err := os.Stat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	if list := history(t, n); len(list) != 1 || list[0].Action != "import" || len(list[0].Changes) != 4 {
		t.Errorf("%+v", list)
	}
	revisionOf(t, n, "policy", "delete", "hand-2")
}
