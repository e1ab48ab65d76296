// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

// A budget counts a model whose price nobody knows: its calls are refused in words,
// and those of other models are not. The account is shown, and raised.
func TestABudgetOfAModelWithoutAPrice(t *testing.T) {
	a := newAgents(t)
	doc := put(t, a.ws, "money.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\nbudgets:\n"+
		"  - {id: month, limit: 5 USD, window: month, models: ['big-*'], per: [agent]}\n")
	if r := a.n.CLI(t, "policy", "apply", doc, "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	r := sandboxed(t, a.n, a.ws, "default", chat("small-1", "hi")+chat("big-1", "hi"))
	if strings.Count(r.Stdout, "status=200") != 1 || !strings.Contains(r.Stdout, "ringfence_budget_exceeded") || !strings.Contains(r.Stdout, "is not known, and a budget counts its calls") || len(a.double.Received()) != 1 {
		t.Errorf("%s %s; %d at the provider", r.Stdout, r.Stderr, len(a.double.Received()))
	}
	a.n.WaitEvent(t, "the refusal", func(e *event.Event) bool {
		return e.Kind == event.KindInference && e.Verdict == event.Denied && e.Model == "big-1" && e.ReasonCode == "unknown-price"
	})
	budgets := func() (list []api.Budget) {
		t.Helper()
		r := a.n.CLI(t, "budgets", "-o", "json")
		if err := json.Unmarshal([]byte(r.Stdout), &list); r.Code != 0 || err != nil {
			t.Fatal(r.Stdout, r.Stderr, err)
		}
		return list
	}
	if l := budgets(); len(l) != 1 || l[0].Name != "eng/month" || l[0].Limit != 5e9 || l[0].Spent != 0 {
		t.Errorf("%+v", l)
	}
	if r := a.n.CLI(t, "budgets", "increase", "eng/month", "--by", "2USD", "--for", "1h", "--reason", "release"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if l := budgets(); l[0].Limit != 7e9 || l[0].Increased != 2e9 {
		t.Errorf("%+v", l)
	}
	a.n.WaitEvent(t, "the increase", func(e *event.Event) bool {
		return e.Kind == event.KindBudget && e.Activity == "increase" && e.Rule == "eng/month" && e.Actor != "" && e.Detail == "release"
	})
}

// A hard budget ends where it says: with prices, calls are settled at what they cost,
// calls side by side overshoot nothing, the agent is told in its dialect, what is
// spent is what the records say, and a killed gateway and daemon lose none of it.
func TestAHardBudgetHolds(t *testing.T) {
	a := newAgents(t)
	prices := put(t, a.ws, "prices.yaml", "version: made-up-1\neffective: 2020-01-01\nsource: made up for a test\nmodels:\n"+
		"  - {provider: openai, model: dear, rates: {input: \"1000\", output: \"10000\"}}\n") // 11 in and 7 out: 0.081 USD
	if r := a.n.CLI(t, "prices", "import", prices); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	doc := put(t, a.ws, "money.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\nbudgets:\n"+
		"  - {id: day, limit: 5 USD, window: day, hard: true, models: [dear], per: [team]}\n")
	if r := a.n.CLI(t, "policy", "apply", doc, "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	call := `curl -sS -m 60 -o /dev/null -w '%{http_code}\n' https://api.openai.com/v1/chat/completions -H 'content-type: application/json' -d '{"model":"dear","max_tokens":20,"messages":[{"role":"user","content":"hi"}]}'` + "\n"
	many := "for i in $(seq 1 20); do (" + strings.TrimSpace(call) + ") & done; wait\n"
	account := func() (b api.Budget) {
		t.Helper()
		r := a.n.CLI(t, "budgets", "-o", "json")
		var list []api.Budget
		if err := json.Unmarshal([]byte(r.Stdout), &list); r.Code != 0 || err != nil || len(list) == 0 {
			t.Fatal(r.Stdout, r.Stderr, err)
		}
		return list[0]
	}
	const each = 81e6
	done := 0
	for round := range 12 { // 240 calls would be 19 USD
		r := sandboxed(t, a.n, a.ws, "default", many)
		ok := strings.Count(r.Stdout, "200\n")
		done += ok
		if ok+strings.Count(r.Stdout, "429\n") != 20 {
			t.Fatalf("round %d: %s %s", round, r.Stdout, r.Stderr)
		}
		if ok == 0 {
			break
		}
	}
	if got := len(a.double.Received()); got != done || done < 20 || float64(done)*each > 5e9 {
		t.Errorf("%d calls of 0.081 USD passed, %d at the provider", done, got)
	}
	eventually(t, "the account is settled", func() bool { b := account(); return b.Leased == 0 || b.Spent == int64(done)*each })
	if b := account(); b.Spent != int64(done)*each || b.Spent > b.Limit {
		t.Errorf("%d calls, %+v", done, b)
	}
	if r := sandboxed(t, a.n, a.ws, "default", chat("dear", "hi")); !strings.Contains(r.Stdout, "status=429") || !strings.Contains(r.Stdout, "ringfence_budget_exceeded") {
		t.Errorf("%s %s", r.Stdout, r.Stderr)
	}
	a.n.WaitEvent(t, "the refusal", func(e *event.Event) bool {
		return e.Kind == event.KindInference && e.Verdict == event.Denied && e.Model == "dear" && e.ReasonCode == "budget" && e.Rule == "eng/day" && strings.HasPrefix(e.Remedy, "ringfence budgets increase eng/day")
	})
	a.n.WaitEvent(t, "the alert", func(e *event.Event) bool { return e.Kind == event.KindBudget && e.Rule == "eng/day" })

	// What is known of the money outlives the daemon.
	a.n.KillDaemon(t)
	a.w.near.do(func() { a.n.StartDaemon(t) })
	if b := account(); b.Spent != int64(done)*each {
		t.Errorf("after a kill: %+v", b)
	}
	if r := a.n.CLI(t, "budgets", "increase", "eng/day", "--by", "1USD", "--for", "1h", "--reason", "release"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if r := sandboxed(t, a.n, a.ws, "default", strings.Replace(chat("dear", "hi"), `"model":"dear"`, `"model":"dear","max_tokens":20`, 1)); !strings.Contains(r.Stdout, "status=200") {
		t.Errorf("after the increase: %s %s", r.Stdout, r.Stderr)
	}
}
