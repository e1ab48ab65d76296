// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// chat asks a model, and says what was answered.
func chat(model, text string) string {
	return curl("https://api.openai.com/v1/chat/completions", jsonHeader+`-d '{"model":"`+model+`","messages":[{"role":"user","content":"`+text+`"}]}'`)
}

func message(model, text string) string {
	return curl("https://api.anthropic.com/v1/messages", jsonHeader+`-d '{"model":"`+model+`","max_tokens":9,"messages":[{"role":"user","content":"`+text+`"}]}'`)
}

// TestAModelRequestWaitsForAPerson: a rule demands approval for some models. A
// request waits before it goes to the provider; an approval for one use lets
// exactly one of two that are alike go; one for a time is for the model.
func TestAModelRequestWaitsForAPerson(t *testing.T) {
	a := newAgents(t)
	doc := put(t, a.ws, "ask.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\ninference:\n"+
		"  - {id: big, model: \"big-*\", action: require-approval, reason: \"it costs much\"}\n")
	if r := a.n.CLI(t, "policy", "apply", doc, "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	atProvider := func() int { return len(a.double.Received()) }
	run := func(script string) <-chan node.Result {
		out := make(chan node.Result, 1)
		go func() { out <- sandboxed(t, a.n, a.ws, "default", script) }()
		return out
	}
	if r := <-run(chat("small-1", "hi")); !strings.Contains(r.Stdout, "status=200") || atProvider() != 1 {
		t.Fatalf("control: a model that nobody is asked about: %s %s", r.Stdout, r.Stderr)
	}

	// Two that are alike, in one sandbox, and one approval for one use.
	a.double.Reset()
	both := run("{ " + strings.TrimSpace(chat("big-1", "hi")) + " > one; } & { " + strings.TrimSpace(chat("big-1", "hi")) + " > two; } & wait; cat one two")
	var first api.Approval
	eventually(t, "both wait as one", func() bool {
		first = inboxOf(t, a.n)["openai/big-1"]
		return first.State == "pending" && first.Count == 2
	})
	if first.Kind != "model" || !strings.Contains(first.Arguments, "chat") || strings.Contains(first.Arguments, "hi\"") || atProvider() != 0 {
		t.Errorf("%+v, %d at the provider", first, atProvider())
	}
	if r := a.n.CLI(t, "approvals", "approve", first.ID); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	second := ""
	eventually(t, "the other waits as a new request", func() bool {
		if p := inboxOf(t, a.n)["openai/big-1"]; p.State == "pending" && p.ID != first.ID {
			second = p.ID
		}
		return second != ""
	})
	eventually(t, "the first at the provider", func() bool { return atProvider() == 1 })
	if r := a.n.CLI(t, "approvals", "deny", second, "--comment", "once is enough"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	r := <-both
	if strings.Count(r.Stdout, "status=200") != 1 || strings.Count(r.Stdout, "status=403") != 1 || !strings.Contains(r.Stdout, `"ringfence_denied"`) || atProvider() != 1 {
		t.Errorf("%s; %d at the provider", r.Stdout, atProvider())
	}
	if strings.Contains(r.Stdout, "root") || strings.Contains(r.Stdout, "once is enough") {
		t.Errorf("the sandbox is told who denied: %s", r.Stdout)
	}
	for _, verb := range []string{"ask", "approve", "consume", "deny"} {
		a.n.WaitEvent(t, "the record of "+verb, func(e *event.Event) bool {
			return e.Kind == event.KindApproval && e.Activity == verb && e.Rule == "eng/big" && e.Object == "model openai/big-1"
		})
	}
	a.n.WaitEvent(t, "the call that was approved", func(e *event.Event) bool {
		return e.Kind == event.KindInference && e.Verdict == event.Allowed && e.Model == "big-1" && e.ReasonCode == "approved" && e.Rule == "eng/big"
	})

	// For a time: the same model, whatever is said, in that sandbox; no other model.
	a.double.Reset()
	some := run(message("big-2", "one") + message("big-2", "two") + message("big-3", "three"))
	id := pendingID(t, a.n, "anthropic/big-2")
	if r := a.n.CLI(t, "approvals", "approve", id, "--for", "1h"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if r := a.n.CLI(t, "approvals", "deny", pendingID(t, a.n, "anthropic/big-3")); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if r = <-some; strings.Count(r.Stdout, "status=200") != 2 || !strings.Contains(r.Stdout, `"permission_error"`) || atProvider() != 2 {
		t.Errorf("%s; %d at the provider", r.Stdout, atProvider())
	}

	// While it waits the rule goes: it is decided on what is in force then.
	a.double.Reset()
	last := run(chat("big-4", "hi"))
	id = pendingID(t, a.n, "openai/big-4")
	if r := a.n.CLI(t, "policy", "delete", "eng", "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if r = <-last; !strings.Contains(r.Stdout, "status=200") || atProvider() != 1 {
		t.Errorf("after the rule has gone: %s", r.Stdout)
	}
	if p := inboxOf(t, a.n, "--all")["openai/big-4"]; p.ID != id || p.State != "superseded" {
		t.Errorf("%+v", p)
	}
}
