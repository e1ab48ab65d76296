// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func TestWhoCan(t *testing.T) {
	docs, problems := Parse("p.yaml", []byte(`apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: acme}
scope: org:acme
egress:
  - {id: no-db, deny: "db.example:5432", delegable: true}
  - {id: wiki, allow: "wiki.example:443"}
---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: eng}
scope: org:acme/team:eng
egress:
  - {id: db, allow: "db.example:5432", for: "agent:bot*"}
  - {id: wiki, allow: "wiki.example:443"}
`))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	snap := compileAll(t, docs)
	for target, want := range map[string]string{
		"db.example:5432":   "org:* no rule; org:acme acme/no-db; org:acme/team:eng/agent:bot* eng/db",
		"wiki.example:443":  "org:* no rule; org:acme acme/wiki", // that the team says it too changes nothing
		"other.example:443": "org:* no rule",
	} {
		q, err := EgressQuestion(target, "")
		if err != nil {
			t.Fatal(err)
		}
		rows, err := snap.WhoCan(q, noon)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range rows {
			name := r.Decision.Rule.String()
			if name == "" {
				name = "no rule"
			}
			got = append(got, r.Scope.String()+" "+name)
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%s: %q", target, got)
		}
	}
}

// Whoever asks, each of the rows that most narrowly hold it says what the
// decision is.
func TestWhoCanIsExact(t *testing.T) {
	principals := slices.Clone(somePrincipals)
	for _, org := range []string{"acme", "another", "b"} {
		for _, team := range []string{"eng", "eve", "ops", "x"} {
			for _, agent := range []string{"bot", "bee", "cat", "x"} {
				for _, sandbox := range []string{"", "s1", "s3", "x"} {
					principals = append(principals, scope.Principal{Org: org, Team: team, Agent: agent, Sandbox: sandbox})
				}
			}
		}
	}
	rows := 0
	for seed := range uint64(60) {
		snap := compileAll(t, newGen(seed).docs(scope.LevelSandbox, false))
		for _, q := range []Question{
			{Section: SectionEgress, Host: "a.x.org", Port: 443}, {Section: SectionEgress, Host: "a.x.org", Port: 443, Method: "GET", Path: "/v1/a"},
			{Section: SectionEgress, Host: "y.net", Port: 80}, {Section: SectionInference, Dialect: DialectOpenAI, Model: "gpt-4"}, {Section: SectionTools, Tool: "gpt-4"},
		} {
			who, err := snap.WhoCan(q, noon)
			if err != nil {
				t.Fatal(err)
			}
			rows += len(who)
			for _, p := range principals {
				want := snap.View(p).At(noon).Explain(q).Decision
				for _, w := range narrowest(who, p) {
					if w.Decision.Verdict() != want.Verdict() || w.Decision.Rule != want.Rule {
						t.Fatalf("seed %d: %+v for %s: row %s says %s by %s, it is %s by %s", seed, q, p, w.Scope, w.Decision.Verdict(), w.Decision.Rule, want.Verdict(), want.Rule)
					}
				}
			}
		}
	}
	if rows < 600 {
		t.Errorf("only %d rows: nothing was told apart", rows)
	}
}

func narrowest(rows []Who, p scope.Principal) (out []Who) {
	for _, r := range rows {
		if r.Scope.Matches(p, "", "") {
			out = slices.DeleteFunc(out, func(o Who) bool { return o.Scope.Contains(r.Scope) })
			out = append(out, r)
		}
	}
	return out
}

func TestWhoCanIsBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:*\negress:\n")
	for i := range 80 {
		fmt.Fprintf(&text, "  - {id: a%d, deny: x.example, for: \"team:t%d\"}\n  - {id: b%d, deny: x.example, for: \"agent:a%d\"}\n", i, i, i, i)
	}
	docs, problems := Parse("p.yaml", []byte(text.String()))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	snap := compileAll(t, docs)
	if _, err := snap.WhoCan(Question{Section: SectionEgress, Host: "x.example", Port: 443}, noon); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
	if rows, err := snap.WhoCan(Question{Section: SectionEgress, Host: "y.example", Port: 443}, noon); err != nil || len(rows) != 1 {
		t.Errorf("what no rule speaks of: %v, %v", rows, err)
	}
}
