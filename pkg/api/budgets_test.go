// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"slices"
	"testing"
)

// Who sees what of budgets, and who may raise them: an approver of the whole scope of
// the document, not of a part of it.
func TestBudgetsByRole(t *testing.T) {
	needRootTest(t)
	const month = `{"name":"eng/month","amount":5,"for":"1h"}`
	for _, c := range []struct {
		role  string
		sees  []string // names
		wants map[string]int
	}{
		{"org:local viewer", []string{"eng/month", "eng/each", "all/day"}, map[string]int{month: 403, `{"name":"all/day","amount":5,"for":"1h"}`: 403}},
		{"org:local approver", []string{"eng/month", "eng/each", "all/day"}, map[string]int{month: 200, `{"name":"all/day","amount":5,"for":"1h"}`: 200, `{"name":"eng/each","who":"org:local/team:default/agent:a","amount":5,"for":"1h"}`: 200}},
		{"org:local/team:default/agent:a approver", []string{"eng/each"}, map[string]int{month: 404, `{"name":"eng/each","amount":5,"for":"1h"}`: 403}},
		{"org:local/team:default launcher", []string{"eng/month", "eng/each"}, map[string]int{month: 403}},
		{"org:else admin", nil, map[string]int{month: 404}},
	} {
		f := newFake()
		f.access = func() Access { return bound(t, c.role+" uid:64060", "org:local -") }
		socket := serve(t, f, Options{})
		list := []attempt{{"budgets", "GET", "/v1/budgets", "", false}}
		for body := range c.wants {
			list = append(list, attempt{body, "POST", "/v1/budgets/increase", body, false})
		}
		got := asPeer(t, socket, 64060, 64060, nil, -1, list)
		var budgets []Budget
		if err := json.Unmarshal([]byte(got[0].Body), &budgets); err != nil {
			t.Fatal(err, got[0].Body)
		}
		var names []string
		for _, b := range budgets {
			names = append(names, b.Name)
		}
		if !slices.Equal(names, c.sees) {
			t.Errorf("%s sees %v, want %v", c.role, names, c.sees)
		}
		for i, o := range got[1:] {
			if body := list[i+1].Body; o.Status != c.wants[body] {
				t.Errorf("%s: %s: %d %s, want %d", c.role, body, o.Status, o.Body, c.wants[body])
			}
		}
	}
}
