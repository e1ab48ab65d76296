// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// policyText is one Policy document with one rule.
func policyText(name, rule string) string {
	return "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: " + name + "}\nscope: org:local\negress:\n  - {id: a, " + rule + "}\n"
}

func TestPolicyApply(t *testing.T) {
	n := node.Start(t, node.Options{Policies: map[string]string{"house.yaml": policyText("house", `allow: "house.test:443"`)}})
	file := func(name, text string) string {
		path := filepath.Join(n.Dir, name)
		need(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	if r := n.CLI(t, "allow", "kept.test:443", "--scope", "org:local/team:default", "--always"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	two := file("two.yaml", policyText("one", `allow: "one.test:443"`)+"---\n# the second\n"+policyText("two", `allow: "two.test:443"`))
	r := n.CLI(t, "policy", "apply", "--wait", two)
	if r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	contains(t, "apply", r.Stdout, "applied Policy one (two.yaml), revision ", "applied Policy two (two.yaml), revision ", "is in force in 0 running sandboxes")
	in := documents(t, n)
	contains(t, "in force", in, "Policy/one", "Policy/two", "house.yaml")

	// The same again is no revision.
	before := history(t, n)[0].Number
	again := n.CLI(t, "policy", "apply", "--comment", "nobody reads it", two)
	contains(t, "apply of the same", again.Stdout, "unchanged Policy one (two.yaml)", "unchanged Policy two (two.yaml)")
	if now := history(t, n)[0].Number; again.Code != 0 || now != before {
		t.Errorf("the same applied again: exit %d, revision %d after %d", again.Code, now, before)
	}

	for _, tt := range []struct {
		name string
		args []string
		code int
		said []string
	}{
		{"a name of the policy directory", []string{"apply", file("house.yaml", policyText("house", `deny: "x.test"`))}, 1,
			[]string{`a Policy named "house" stands in ` + n.PolicyDir + "/house.yaml:1, which was not applied; nothing was applied", "the policy directory is in force as it is"}},
		{"a name that allow gave", []string{"apply", file("kept.yaml", policyText("allow-kept.test-443", `deny: "x.test"`))}, 1,
			[]string{"which was not applied", "take it back with `ringfence allow --remove`"}},
		{"one mistake of two", []string{"apply", file("typo.yaml", policyText("one", `deny: "one.test"`)+"---\n"+policyText("three", `alow: "three.test:443"`))}, 2,
			[]string{n.Dir + "/typo.yaml:13:", `unknown field "alow"`, "nothing was applied"}},
		{"two that do not go together, where they are", []string{"apply", file("provider.yaml", "apiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: mine}\ndialect: openai\nbaseURL: https://llm.test\ncredential: passthrough\n---\n\n"+policyText("three", `allow: "llm.test:443"`))}, 2,
			[]string{n.Dir + "/provider.yaml:14:"}},
		{"one name twice", []string{"apply", file("twice.yaml", policyText("three", `deny: "x.test"`)+"---\n"+strings.Replace(policyText("three", `deny: "x.test"`), "org:local", "org:acme", 1))}, 2,
			[]string{"twice.yaml:8:1: a Policy named \"three\" stands in", "known by its kind and name"}},
		{"an empty file", []string{"apply", file("empty.yaml", "")}, 1, []string{"is empty"}},
		{"delete of the policy directory's", []string{"delete", "house"}, 1, []string{`the Policy "house" was not applied: it stands in`}},
		{"delete of nothing", []string{"delete", "nosuch"}, 3, []string{`no document "nosuch" was applied`}},
		{"a revision that is not there", []string{"wait", "4000"}, 3, []string{"there is no policy revision 4000 yet: the newest is "}},
	} {
		r := n.CLI(t, append([]string{"policy"}, tt.args...)...)
		if r.Code != tt.code {
			t.Errorf("%s: exit %d, want %d: %s", tt.name, r.Code, tt.code, r.Stderr)
		}
		contains(t, tt.name, r.Stderr, tt.said...)
		if got := documents(t, n); got != in {
			t.Errorf("%s: in force is\n%s\nwas\n%s", tt.name, got, in)
		}
	}

	// Applied again it is replaced; a restart changes nothing.
	if r := n.CLI(t, "policy", "apply", file("again.yaml", policyText("one", `deny: "one.test"`))); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	in = documents(t, n)
	n.StopDaemon(t, syscall.SIGTERM)
	n.StartDaemon(t)
	documentsOnly := func(s string) string { _, list, _ := strings.Cut(s, `"documents"`); return list } // a start is a revision
	if got := documents(t, n); documentsOnly(got) != documentsOnly(in) {
		t.Errorf("after a restart\n%s\nwas\n%s", got, in)
	}
	contains(t, "stored", n.CLI(t, "policy", "get", "one").Stdout, `deny: "one.test"`)
	// Two documents of one name, and one of them is meant.
	people := "apiVersion: ringfence.dev/v1\nkind: Access\nmetadata: {name: one}\nscope: org:local\nbindings:\n  - {role: viewer, users: [\"uid:64321\"]}\n"
	if r := n.CLI(t, "policy", "apply", file("people.yaml", people)); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	both := documents(t, n)
	r = n.CLI(t, "policy", "delete", "one")
	contains(t, "delete of a name that two have", r.Stderr, `"one" is the name of several documents: `, "Access/one", "Policy/one")
	if r.Code != 1 || documents(t, n) != both {
		t.Errorf("delete of a name that two have: exit %d", r.Code)
	}
	if r := n.CLI(t, "policy", "delete", "Access/one"); r.Code != 0 || !strings.Contains(documents(t, n), "Policy/one") {
		t.Errorf("delete of one of two: %d %s", r.Code, r.Stderr)
	}
	r = n.CLI(t, "policy", "delete", "one", "--wait")
	if r.Code != 0 || strings.Contains(documents(t, n), "Policy/one") {
		t.Errorf("delete: %d %s", r.Code, r.Stderr)
	}
	n.WaitEvent(t, "the removal and who asked for it", func(e *event.Event) bool {
		return e.Kind == event.KindPolicy && e.Activity == "remove" && strings.HasSuffix(e.Object, "applied-policy-one.yaml") && e.Actor == "uid=0(root)"
	})
}
