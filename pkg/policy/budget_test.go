// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

func budgetDoc(rows string) string { return head + "budgets:\n  - " + rows + "\n" }

func TestBudgetMistakesHaveTheirPlace(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no id", budgetDoc("{limit: 5 USD, window: day}"), `f:6:5: budget needs the field "id"`},
		{"no limit", budgetDoc("{id: a, window: day}"), `f:6:5: budget needs the field "limit" (limit: 500 USD)`},
		{"no window", budgetDoc("{id: a, limit: 5 USD}"), `f:6:5: budget needs the field "window" (window: month)`},
		{"a number", budgetDoc("{id: a, limit: 5, window: day}"), `f:6:20: limit must be a string, found a number "5"`},
		{"another currency", budgetDoc("{id: a, limit: 5 EUR, window: day}"), `f:6:20: "5 EUR" is not an amount`},
		{"nothing", budgetDoc("{id: a, limit: 0.00 USD, window: day}"), `f:6:20: "0.00 USD" is not an amount above zero`},
		{"below a nano-dollar", budgetDoc("{id: a, limit: 0.0000000001 USD, window: day}"), `is not an amount`},
		{"below zero", budgetDoc("{id: a, limit: -5 USD, window: day}"), `is not an amount`},
		{"misspelt window", budgetDoc("{id: a, limit: 5 USD, window: moth}"), `f:6:35: unknown window "moth" (did you mean "month"?, or a rolling one`},
		{"short window", budgetDoc("{id: a, limit: 5 USD, window: 30m}"), `f:6:35: window "30m" is not a time from 1h0m0s to`},
		{"fraction of a second", budgetDoc("{id: a, limit: 5 USD, window: 3600.5s}"), `no whole number of seconds`},
		{"zone of a rolling window", budgetDoc("{id: a, limit: 5 USD, window: 30d, zone: UTC}"), `f:6:40: a rolling window has no time zone`},
		{"unknown zone", budgetDoc("{id: a, limit: 5 USD, window: day, zone: Europe/Nowhere}"), `f:6:46: zone "Europe/Nowhere" is not known`},
		{"the machine's zone", budgetDoc("{id: a, limit: 5 USD, window: day, zone: Local}"), `depends on the machine`},
		{"unknown part", budgetDoc("{id: a, limit: 5 USD, window: day, per: [tool]}"), `f:6:46: unknown part "tool"`},
		{"for elsewhere", budgetDoc("{id: a, limit: 5 USD, window: day, for: org:b}"), `for "org:b" has nobody in common`},
		{"bad pattern", budgetDoc("{id: a, limit: 5 USD, window: day, models: ['a*b']}"), `"*" may stand alone or at the end only`},
		{"alert of nothing", budgetDoc("{id: a, limit: 5 USD, window: day, alerts: [0]}"), `f:6:49: an entry of alerts must be a number from 1 to 100`},
		{"alert twice", budgetDoc("{id: a, limit: 5 USD, window: day, alerts: [50, 50]}"), `50 is listed twice`},
		{"unknown action", budgetDoc("{id: a, limit: 5 USD, window: day, onAlert: [{at: 80, action: stop}]}"), `f:6:67: unknown action "stop"`},
		{"two actions", budgetDoc("{id: a, limit: 5 USD, window: day, onAlert: [{at: 80, action: notify}, {at: 80, action: block}]}"), `two actions at 80 percent`},
		{"unknown field", budgetDoc("{id: a, limit: 5 USD, windw: day}"), `unknown field "windw" in budget (did you mean "window"?)`},
		{"id of a rule", head + "egress: [{id: a, deny: x.org}]\nbudgets:\n  - {id: a, limit: 5 USD, window: day}\n", `f:7:5: rule id "a" is used twice, first in line 5`},
		{"not built", budgetDoc("{id: a, limit: 5 USD, window: day, onAlert: [{at: 80, action: downgrade}]}"), `f:6:50: action "downgrade" of a budget is not enforced by this version`},
	} {
		docs, problems := Parse("f", []byte(c.text))
		found := false
		for _, p := range problems {
			found = found || strings.Contains(p.Error(), c.want)
		}
		if !found || len(docs) > 0 {
			t.Errorf("%s: %v, want %s", c.name, problems, c.want)
		}
	}
}

func TestBudgetsAreReadAndSurviveTheWire(t *testing.T) {
	docs, problems := Parse("f", []byte(head+"budgets:\n"+
		"  - {id: month, limit: 500 USD, window: month, zone: Europe/Berlin, per: [team, model], alerts: [80, 20], onAlert: [{at: 90, action: block}, {at: 20, action: notify}], models: [claude-*, x], maxOutput: 4000}\n"+
		"  - {id: roll, limit: 0.25 USD, window: 30d, hard: false, for: 'team:pay'}\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s, problems := Compile(7, docs)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	b, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	again, err := UnmarshalSnapshot(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Snapshot{s, again} {
		list := s.AllBudgets()
		month, roll := list[0], list[1]
		if month.Limit != 500e9 || !month.Hard || month.Window.Unit != BudgetMonth || month.Window.Location().String() != "Europe/Berlin" || month.Per != PerTeam|PerModel ||
			!reflect.DeepEqual(month.Alerts, []uint8{20, 80}) || month.MaxOutput != 4000 || month.Ref.String() != "p/month" || month.Ref.Scope != "org:acme" {
			t.Errorf("%+v", month)
		}
		if roll.Limit != 25e7 || roll.Hard || roll.Window.Length != 30*24*time.Hour || roll.Window.String() != "30d" || !reflect.DeepEqual(roll.Alerts, usualAlerts) {
			t.Errorf("%+v", roll)
		}
		if d, ok := month.Deed(19); ok || d != BudgetNotify {
			t.Error("a deed below the first")
		}
		if d, ok := month.Deed(95); !ok || d != BudgetBlock {
			t.Error(d, ok)
		}
		if !month.Covers("claude-5") || month.Covers("y") || !roll.Covers("y") {
			t.Error("models")
		}
		p := scope.Principal{Org: "acme", Team: "pay", Agent: "a"}
		if got := month.Who(p); got != "org:acme/team:pay" {
			t.Error(got)
		}
		if got := roll.Who(p); got != "org:acme/team:pay" {
			t.Error(got)
		}
		if n := len(s.Budgets(p)); n != 2 {
			t.Error(n)
		}
		if n := len(s.Budgets(scope.Principal{Org: "acme", Team: "hr", Agent: "a"})); n != 1 {
			t.Error(n)
		}
		if n := len(s.Budgets(scope.Principal{Org: "other", Team: "pay", Agent: "a"})); n != 0 {
			t.Error(n)
		}
	}
	if KeyOfBudget("a", "bc", "d") == KeyOfBudget("ab", "c", "d") {
		t.Error("two budgets have one key")
	}
}

func TestAmounts(t *testing.T) {
	for text, want := range map[string]int64{"500 USD": 500e9, "0.25 USD": 25e7, "0.000000001 USD": 1, "999999999.999999999 USD": 999999999999999999, "50USD": 50e9, "1 EUR": 0, "01 USD": 0, "1. USD": 0, ".5 USD": 0, "1e3 USD": 0, "+1 USD": 0, "1000000000 USD": 0, "": 0, "USD": 0} {
		if got, err := ParseUSD(text); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d %v", text, got, err)
		}
	}
	for nano, want := range map[int64]string{0: "0.00 USD", 5: "0.000000005 USD", 12_500_000_000: "12.50 USD", -1e9: "-1.00 USD", math.MinInt64: "-9223372036.854775808 USD"} {
		if got := FormatUSD(nano); got != want {
			t.Errorf("%d: %s", nano, got)
		}
	}
}

// What is read is printed as what it is, and nothing else is read.
func FuzzUSD(f *testing.F) {
	for _, s := range []string{"500 USD", "0.25USD", "1e9 USD", "-1 USD"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseUSD(s)
		if err != nil {
			if n != 0 {
				t.Errorf("%q: %d with %v", s, n, err)
			}
			return
		}
		if again, err := ParseUSD(FormatUSD(n)); n <= 0 || err != nil || again != n {
			t.Errorf("%q: %d, again %d %v", s, n, again, err)
		}
	})
}
