// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

func pendingID(t *testing.T, n *node.Node, target string) (id string) {
	t.Helper()
	eventually(t, "a request for "+target+" in the inbox", func() bool {
		if p := inboxOf(t, n)[target]; p.State == "pending" {
			id = p.ID
		}
		return id != ""
	})
	return id
}

// TestADestinationBecomesARule: a person makes a rule of what an agent waits for.
// It is shown first; then the very connection goes on, that agent is not asked
// about again, and every other agent and destination is.
func TestADestinationBecomesARule(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"asked.test", "else.test", "never.test"} {
		w.site(t, name, doubles.Page(name))
	}
	n := w.start(t, node.Options{Policies: map[string]string{"ask.yaml": "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\negress:\n" +
		"  - {id: ask, to: \"asked.test:443\", action: require-approval}\n  - {id: else, to: \"else.test:443\", action: require-approval}\n" +
		"  - {id: never, to: \"never.test:443\", action: require-approval, mandatory: true}\n  - {id: some, allow: \"never.test:443\"}\n"}})
	a := w.waitingAgent(t, n, "asker", "--as", "org:local/team:default/agent:one")
	b := w.waitingAgent(t, n, "other", "--as", "org:local/team:default/agent:two")
	got := make(chan string)
	go func() { got <- a.ask(t, "https://asked.test/") }()
	id := pendingID(t, n, "asked.test:443/tcp")
	if r := n.CLI(t, "approvals", "show", id); !strings.Contains(r.Stdout, "--persist") {
		t.Errorf("it is not offered: %s", r.Stdout)
	}

	before := n.CLI(t, "policy", "show", "-o", "json").Stdout
	r := n.CLI(t, "approvals", "approve", id, "--persist")
	for _, want := range []string{"+    allow: \"asked.test:443\"", "+    for: \"org:local/team:default/agent:one\"", "approved-org-local", "scope org:local,"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("no %q in %s", want, r.Stdout)
		}
	}
	if r.Code != 0 || !strings.Contains(r.Stderr, "--yes") || n.CLI(t, "policy", "show", "-o", "json").Stdout != before || inboxOf(t, n)["asked.test:443/tcp"].State != "pending" {
		t.Errorf("looking has changed something, or exit %d: %s", r.Code, r.Stderr)
	}
	if r = n.CLI(t, "approvals", "approve", id, "--persist", "--yes", "--comment", "release day"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if s := <-got; !strings.HasPrefix(s, "200") {
		t.Errorf("the connection that waited: %s", s)
	}
	a.expect(t, "https://asked.test/", "200")
	if p := inboxOf(t, n, "--all")["asked.test:443/tcp"]; p.ID != id || p.State != "superseded" || p.Count != 1 {
		t.Errorf("%+v", p)
	}
	if h := n.CLI(t, "policy", "history", "approved-org-local").Stdout; !strings.Contains(h, "uid=0(root)") || !strings.Contains(h, "release day") {
		t.Errorf("the history says %s", h)
	}
	n.WaitEvent(t, "the record of it", func(e *event.Event) bool {
		return e.Kind == event.KindApproval && e.Activity == "supersede" && e.RequestID == id && e.Actor == "uid=0(root)" && strings.Contains(e.Reason, "approved-org-local")
	})

	// The controls: another agent, another destination, a rule that nothing opens.
	go func() { got <- b.ask(t, "https://asked.test/") }()
	if r = n.CLI(t, "approvals", "deny", pendingID(t, n, "asked.test:443/tcp")); r.Code != 0 {
		t.Error(r.Stderr)
	}
	if s := <-got; strings.HasPrefix(s, "200") {
		t.Errorf("another agent: %s", s)
	}
	go func() { got <- a.ask(t, "https://else.test/") }()
	if r = n.CLI(t, "approvals", "approve", pendingID(t, n, "else.test:443/tcp"), "--persist", "--yes"); r.Code != 0 {
		t.Error(r.Stderr)
	}
	if s := <-got; !strings.HasPrefix(s, "200") {
		t.Errorf("a second rule: %s", s)
	}
	if d := n.CLI(t, "policy", "get", "approved-org-local").Stdout; strings.Count(d, "allow:") != 2 {
		t.Errorf("the document is %s", d)
	}
	go func() { got <- a.ask(t, "https://never.test/") }()
	never := pendingID(t, n, "never.test:443/tcp")
	if r = n.CLI(t, "approvals", "approve", never, "--persist", "--yes"); r.Code != 1 || !strings.Contains(r.Stderr, "would not open") || !strings.Contains(r.Stderr, "eng/never") {
		t.Errorf("a mandatory rule: exit %d %s", r.Code, r.Stderr)
	}
	n.CLI(t, "approvals", "deny", never)
	<-got
	if r = n.CLI(t, "policy", "delete", "approved-org-local", "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	go func() { got <- a.ask(t, "https://asked.test/") }()
	n.CLI(t, "approvals", "deny", pendingID(t, n, "asked.test:443/tcp"))
	if s := <-got; strings.HasPrefix(s, "200") {
		t.Errorf("after the rule was taken back: %s", s)
	}
}

// TestDenialsByDefaultAreDrafts: what no rule is about stands in the inbox, counted,
// and what a rule denies does not. Allowing one shows the rule first.
func TestDenialsByDefaultAreDrafts(t *testing.T) {
	w := newWorld(t)
	w.site(t, "wanted.test", doubles.Page("wanted"))
	n := w.start(t, node.Options{Policies: map[string]string{"p.yaml": "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\negress:\n" +
		"  - {id: no, deny: \"bad.test\"}\n"}})
	a := w.waitingAgent(t, n, "asker")
	for _, url := range []string{"https://wanted.test/", "https://wanted.test/", "https://bad.test/"} {
		if s := a.ask(t, url); strings.HasPrefix(s, "200") {
			t.Fatalf("control: %s answers %s", url, s)
		}
	}
	var list []api.Draft
	eventually(t, "a draft", func() bool {
		r := n.CLI(t, "approvals", "list", "--drafts", "-o", "json")
		list = nil
		if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
			t.Fatal(err, r.Stderr)
		}
		return len(list) > 0 && list[0].Count >= 2
	})
	if d := list[0]; len(list) != 1 || d.Destination != "wanted.test:443" || d.Scope != "org:local/team:default/agent:sh" || len(d.Sandboxes) != 1 {
		t.Errorf("%+v", list)
	}
	id := list[0].ID
	if r := n.CLI(t, "approvals", "approve", id); r.Code != 0 || !strings.Contains(r.Stdout, "+  - id: \"wanted.test-443\"") || !strings.Contains(r.Stderr, "--yes") {
		t.Errorf("exit %d %s %s", r.Code, r.Stdout, r.Stderr)
	}
	if s := a.ask(t, "https://wanted.test/"); strings.HasPrefix(s, "200") {
		t.Errorf("looking has opened it: %s", s)
	}
	if r := n.CLI(t, "approvals", "deny", id); r.Code != 2 {
		t.Errorf("denying a draft: exit %d %s", r.Code, r.Stderr)
	}
	if r := n.CLI(t, "approvals", "approve", id, "--yes"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	a.expect(t, "https://wanted.test/", "200")
	if r := n.CLI(t, "approvals", "list", "--drafts", "-o", "json"); strings.TrimSpace(r.Stdout) != "[]" {
		t.Errorf("it is a draft still: %s", r.Stdout)
	}
	if r := n.CLI(t, "approvals", "approve", id, "--yes"); r.Code != 3 {
		t.Errorf("again: exit %d %s", r.Code, r.Stderr)
	}
}
