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
