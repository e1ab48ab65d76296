// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// TestABudgetHoldsOverKills: calls are counted once each in their budget, one that
// does not fit is not sent, and what was under way when the gateway was killed is
// settled at what it could have cost. Nothing stays leased by who is gone.
func TestABudgetHoldsOverKills(t *testing.T) {
	a := newAgents(t)
	file := filepath.Join(a.ws, "prices.yaml")
	need(t, os.WriteFile(file, []byte(madeUpPrices), 0o644))
	if r := a.n.CLI(t, "prices", "import", file); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	doc := put(t, a.ws, "money.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\nbudgets:\n"+
		"  - {id: year, limit: 0.01 USD, window: year, alerts: [1]}\n")
	if r := a.n.CLI(t, "policy", "apply", doc, "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	ask := func(most string) string {
		return curl("https://api.openai.com/v1/chat/completions", jsonHeader+`-d '{"model":"priced","max_tokens":`+most+`,"messages":[{"role":"user","content":"hi"}]}'`)
	}
	standing := func(what string, is func(b *api.Budget) bool) {
		t.Helper()
		eventually(t, what, func() bool {
			var list []api.Budget
			r := a.n.CLI(t, "budgets", "-o", "json")
			if err := json.Unmarshal([]byte(r.Stdout), &list); r.Code != 0 || err != nil || len(list) != 1 {
				t.Fatal(r.Stdout, r.Stderr, err)
			}
			return is(&list[0])
		})
	}
	const one = 8*2000 + 3*500 + 7*10000 // the double says 11 tokens in, 3 of them cached, and 7 out

	r := sandboxed(t, a.n, a.ws, "default", ask("100")+ask("100")+ask("2000"))
	if strings.Count(r.Stdout, "status=200") != 2 || strings.Count(r.Stdout, "status=429") != 1 || !strings.Contains(r.Stdout, "ringfence_budget_exceeded") || len(a.double.Received()) != 2 {
		t.Fatalf("%s %s; %d at the provider", r.Stdout, r.Stderr, len(a.double.Received()))
	}
	standing("two calls", func(b *api.Budget) bool { return b.Spent == 2*one && b.Estimated == 0 })
	a.n.WaitEvent(t, "the refusal", func(e *event.Event) bool {
		return e.Kind == event.KindInference && e.Verdict == event.Denied && e.ReasonCode == "budget"
	})
	a.n.WaitEvent(t, "the alert", func(e *event.Event) bool {
		return e.Kind == event.KindBudget && e.Activity == "alert" && e.Rule == "eng/year"
	})

	// kill -9 of the daemon: the gateway goes on with what it has, and tells the next.
	a.n.KillDaemon(t)
	a.w.near.do(func() { a.n.StartDaemon(t) })
	if r := sandboxed(t, a.n, a.ws, "default", ask("100")); !strings.Contains(r.Stdout, "status=200") {
		t.Fatalf("%s %s", r.Stdout, r.Stderr)
	}
	standing("one more, after another daemon", func(b *api.Budget) bool { return b.Spent == 3*one && b.Estimated == 0 })

	// kill -9 of the gateway, with a call at the provider.
	a.double.Reset()
	a.double.Fail(doubles.Fault{Hang: true})
	out := make(chan node.Result, 1)
	go func() { out <- sandboxed(t, a.n, a.ws, "default", ask("100")) }()
	eventually(t, "the call at the provider", func() bool { return len(a.double.Received()) == 1 })
	a.n.KillGateway(t)
	<-out
	a.n.WaitEvent(t, "the settlement", func(e *event.Event) bool {
		return e.Kind == event.KindBudget && e.Activity == "crash" && strings.Contains(e.Detail, "sent=1") && strings.Contains(e.Detail, "unknown=false")
	})
	standing("the call that was under way", func(b *api.Budget) bool {
		return b.Spent > 3*one && b.Spent == 3*one+b.Estimated && b.Leased == 0
	})
	if r := sandboxed(t, a.n, a.ws, "default", ask("100")); !strings.Contains(r.Stdout, "status=200") {
		t.Errorf("after the kill: %s %s", r.Stdout, r.Stderr)
	}
}
