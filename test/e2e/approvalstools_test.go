// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// withTools asks a model that may use tools of the provider's.
func withTools(model, text string, tools ...string) string {
	return curl("https://api.anthropic.com/v1/messages", jsonHeader+`-d '{"model":"`+model+`","max_tokens":9,"messages":[{"role":"user","content":"`+text+`"}],"tools":[`+strings.Join(tools, ",")+`]}'`)
}

func searchTool(settings string) string {
	return `{"type":"web_search_20250305","name":"web_search"` + settings + `}`
}

const fetchTool = `{"type":"web_fetch_20250910","name":"web_fetch"}`

// toolInbox waits for a request about a tool that is in a state and no earlier one.
func toolInbox(t *testing.T, n *node.Node, tool, state string, not ...string) (found api.Approval) {
	t.Helper()
	eventually(t, "a request for "+tool+" that is "+state, func() bool {
		r := n.CLI(t, "approvals", "list", "--all", "-o", "json")
		var list []api.Approval
		if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
			t.Fatalf("%v %s", err, r.Stderr)
		}
		for _, a := range list {
			if found = a; a.Target == tool && a.State == state && !strings.Contains(strings.Join(not, " "), a.ID) {
				return true
			}
		}
		return false
	})
	return found
}

// TestToolsOfTheProviderWaitForPeople: a request whose model and two tools need
// approval asks for all in one; nothing of it is used up before all are given. An
// approval for a time is for the same settings, and for those that are freed.
func TestToolsOfTheProviderWaitForPeople(t *testing.T) {
	const model, search, fetch = "anthropic/big-1", "server:provider/tool:web_search", "server:provider/tool:web_fetch"
	a := newAgents(t)
	doc := put(t, a.ws, "ask.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\ninference:\n"+
		"  - {id: big, model: \"big-*\", action: require-approval}\ntools:\n  - {id: out, match: \"server:provider/tool:web_*\", action: require-approval, reason: \"it leaves the fence\"}\n")
	if r := a.n.CLI(t, "policy", "apply", doc, "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	atProvider := func() int { return len(a.double.Received()) }
	do := func(args ...string) node.Result {
		t.Helper()
		r := a.n.CLI(t, append([]string{"approvals"}, args...)...)
		if r.Code != 0 {
			t.Errorf("%s: exit %d %s", args, r.Code, r.Stderr)
		}
		return r
	}
	done := make(chan node.Result, 1)
	go func() {
		done <- sandboxed(t, a.n, a.ws, "default", withTools("small-1", "hi")+withTools("big-1", "a secret plan", searchTool(`,"max_uses":5`), fetchTool)+
			withTools("big-1", "a secret plan", searchTool(`,"max_uses":5`), fetchTool)+
			withTools("small-1", "other words", searchTool(`,"max_uses":5`))+
			withTools("small-1", "more", searchTool(`,"max_uses":7`))+withTools("small-1", "still more", searchTool(`,"max_uses":9`))+
			withTools("small-1", "elsewhere", searchTool(`,"max_uses":9,"allowed_domains":["a.test"]`)))
	}()

	// All three are in the inbox at once; two of them approved use nothing up.
	m, s, f := toolInbox(t, a.n, model, "pending"), toolInbox(t, a.n, search, "pending"), toolInbox(t, a.n, fetch, "pending")
	if atProvider() != 1 {
		t.Fatalf("%d at the provider: the control asks nobody, and all else waits", atProvider())
	}
	if s.Kind != "tool" || !strings.Contains(s.Arguments, "max_uses=5") || strings.Contains(s.Arguments+m.Arguments+f.Arguments, "secret") || len(s.Args) != 1 || s.Args[0].Path != "max_uses" {
		t.Errorf("%+v", s)
	}
	if r := do("show", s.ID); !strings.Contains(r.Stdout, "max_uses=5") {
		t.Errorf("%s", r.Stdout)
	}
	do("approve", m.ID)
	do("approve", s.ID)
	time.Sleep(1200 * time.Millisecond) // it is asked about twice a second
	if atProvider() != 1 {
		t.Error("a request went on before all of it was approved")
	}
	for _, id := range []string{m.ID, s.ID} {
		if r := do("show", id, "-o", "json"); !strings.Contains(r.Stdout, `"approved"`) {
			t.Errorf("it is used up before the other is given: %s", r.Stdout)
		}
	}
	do("approve", f.ID)
	for _, target := range []string{model, search, fetch} {
		toolInbox(t, a.n, target, "consumed")
	}

	// The same again is a new request; what people give for a time stays when they
	// deny another part of it.
	m2, s2, f2 := toolInbox(t, a.n, model, "pending", m.ID), toolInbox(t, a.n, search, "pending", s.ID), toolInbox(t, a.n, fetch, "pending", f.ID)
	do("approve", s2.ID, "--for", "1h")
	do("approve", m2.ID)
	do("deny", f2.ID)

	// The same settings pass, whatever is said; others ask, and what is freed passes.
	s3 := toolInbox(t, a.n, search, "pending", s.ID, s2.ID)
	if r := a.n.CLI(t, "approvals", "approve", s3.ID, "--args", "max_use=*", "--for", "1h"); r.Code != 2 || !strings.Contains(r.Stderr, "the nearest is max_uses") {
		t.Errorf("exit %d %s", r.Code, r.Stderr)
	}
	if r := a.n.CLI(t, "approvals", "approve", s3.ID, "--args", "max_uses=8*", "--for", "1h"); r.Code != 2 || !strings.Contains(r.Stderr, `is "7"`) {
		t.Errorf("exit %d %s", r.Code, r.Stderr)
	}
	do("approve", s3.ID, "--args", "max_uses=*", "--for", "1h")
	s4 := toolInbox(t, a.n, search, "pending", s.ID, s2.ID, s3.ID)
	if !strings.Contains(s4.Arguments, "allowed_domains.0=a.test") {
		t.Errorf("%+v", s4)
	}
	do("deny", s4.ID)
	r := <-done
	if strings.Count(r.Stdout, "status=200") != 5 || strings.Count(r.Stdout, "status=403") != 2 || atProvider() != 5 {
		t.Errorf("%s; %d at the provider", r.Stdout, atProvider())
	}
	if r := do("show", m2.ID); !strings.Contains(r.Stdout, "approved") || strings.Contains(r.Stdout, "consumed") {
		t.Errorf("what was refused has used it up: %s", r.Stdout)
	}
	if r := do("show", s3.ID); !strings.Contains(r.Stdout, "for 1h0m0s: this target with max_uses=*, all other arguments the same") {
		t.Errorf("%s", r.Stdout)
	}
	a.n.WaitEvent(t, "the record of a tool", func(e *event.Event) bool {
		return e.Kind == event.KindApproval && e.Activity == "consume" && e.Rule == "eng/out" && e.Object == "tool "+search
	})
}

// TestAToolWaitsWhileItsRuleChanges: it is decided on what is in force then: a rule
// that allows lets it go on, and where none speaks of it any more it is refused.
func TestAToolWaitsWhileItsRuleChanges(t *testing.T) {
	const search = "server:provider/tool:web_search"
	a := newAgents(t)
	apply := func(rule string) {
		t.Helper()
		doc := put(t, a.ws, "ask.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\ntools:\n  - {id: out, match: \""+rule+"}\n")
		if r := a.n.CLI(t, "policy", "apply", doc, "--wait"); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	var before []string
	for _, c := range []struct{ then, status string }{
		{search + `", action: allow`, "status=200"},
		{`server:provider/tool:mcp", action: allow`, "status=403"},
	} {
		apply(search + `", action: require-approval`)
		done := make(chan node.Result, 1)
		go func() { done <- sandboxed(t, a.n, a.ws, "default", withTools("small-1", "hi", searchTool(""))) }()
		q := toolInbox(t, a.n, search, "pending", before...)
		apply(c.then)
		if r := <-done; !strings.Contains(r.Stdout, c.status) {
			t.Errorf("%s: %s", c.then, r.Stdout)
		}
		if r := a.n.CLI(t, "approvals", "show", q.ID); !strings.Contains(r.Stdout, "superseded") {
			t.Errorf("%s: %s", c.then, r.Stdout)
		}
		before = append(before, q.ID)
	}
	if n := len(a.double.Received()); n != 1 {
		t.Errorf("%d at the provider", n)
	}
}
