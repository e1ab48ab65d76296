// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

const suiteDocs = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: eng}
scope: org:acme/team:eng
egress:
  - {id: read, allow: "*.git.example:443", http: {methods: [GET]}}
  - {id: db, allow: "db.example:5432"}
  - {id: time, allow: "time.example:123/udp"}
  - {id: net, allow: "192.0.2.0/24:443"}
  - {id: paste, deny: "**.paste.example", mandatory: true}
inference:
  - {id: old, deny: "gpt-3*"}
tools:
  - {id: search, match: "server:provider/tool:web_search", action: allow}
`

const suiteHead = "apiVersion: ringfence.dev/v1\nkind: PolicyTest\nmetadata: {name: t}\nas: org:acme/team:eng/agent:bot\ntests:\n"

const suiteText = suiteHead + `  - {egress: "api.git.example:443", want: http, rule: eng/read}
  - {egress: "api.git.example:443", request: GET /x, want: allow, rule: eng/read}
  - {egress: "api.git.example:443", request: POST /x, want: block, rule: none}
  - {egress: "db.example:5432", want: allow}
  - {egress: "time.example:123/udp", want: allow}
  - {egress: "time.example:123", want: block, rule: none}
  - {egress: "192.0.2.7:443", want: allow, rule: eng/net}
  - {model: gpt-3.5, want: block, rule: eng/old}
  - {model: claude-x, dialect: anthropic, want: allow, rule: builtin/models}
  - {tool: provider/web_search, want: allow}
  - {as: org:other/team:eng/agent:bot, egress: "db.example:5432", want: block}
`

func suiteOf(t testing.TB, text string) *Suite {
	t.Helper()
	suites, problems := ParseSuite("t.yaml", []byte(text))
	if len(problems) > 0 || len(suites) != 1 {
		t.Fatal(Problems(problems))
	}
	return suites[0]
}

func suitePolicies(t testing.TB) []Document {
	t.Helper()
	docs, problems := Parse("eng.yaml", []byte(suiteDocs))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	return docs
}

func TestSuite(t *testing.T) {
	docs := suitePolicies(t)
	s := suiteOf(t, suiteText)
	out := s.Run(compileAll(t, docs))
	if len(out) != 11 {
		t.Fatalf("%d outcomes", len(out))
	}
	for _, o := range out {
		if !o.OK || o.Why == "" || o.Test.Line == 0 {
			t.Errorf("line %d: got %s by %q: %s", o.Test.Line, o.Got, o.Rule, o.Why)
		}
	}
	var untested []string
	for _, c := range Cover(docs, out) {
		if c.Hits == 0 {
			untested = append(untested, c.Rule.String())
		}
	}
	if fmt.Sprint(untested) != "[eng/paste]" {
		t.Errorf("untested: %v", untested)
	}
	if left := Mutate(docs, []*Suite{s}); fmt.Sprint(left) != "[eng/paste]" {
		t.Errorf("may be deleted: %v", left)
	}
	if n := len(docs[0].Policy.Egress); n != 5 {
		t.Errorf("the mutations left %d egress rules", n)
	}
}

// The table of the algebra as tests: what one harness says, the other does.
func TestSuiteOnTheAlgebra(t *testing.T) {
	asked := 0
	for _, c := range algCases(t) {
		docs, problems := ParseWhole("a.yaml", []byte(c.Docs))
		if len(problems) > 0 {
			t.Fatal(Problems(problems))
		}
		text := "apiVersion: ringfence.dev/v1\nkind: PolicyTest\nmetadata: {name: t}\ntests:\n"
		for _, q := range c.Ask {
			if q.Model != "" && !q.Builtin {
				continue // of a model that is not configured
			}
			test := map[string]any{"as": algPrincipals[q.As].String(), "want": q.Want, "rule": q.By, "at": q.At}
			if q.By == "" {
				test["rule"] = NoRule
			}
			if q.At == "" {
				test["at"] = "2026-03-02T10:00:00Z"
			}
			for k, v := range map[string]string{"tool": q.Tool, "egress": q.Egress, "model": q.Model} {
				if v != "" {
					test[k] = v
				}
			}
			if len(q.Risk) > 0 {
				test["risk"] = q.Risk
			}
			if q.Args != nil {
				test["args"] = q.Args
			}
			if q.Obligations != nil {
				test["obligations"] = *q.Obligations
			}
			if q.Demands != nil {
				test["demands"] = *q.Demands
			}
			line, err := json.Marshal(test)
			if err != nil {
				t.Fatal(err)
			}
			text += "  - " + string(line) + "\n"
			asked++
		}
		if !strings.Contains(text, "\n  - ") {
			continue
		}
		for _, o := range suiteOf(t, text).Run(compileAll(t, docs)) {
			if !o.OK {
				t.Errorf("%s: line %d of\n%s\tgot %s by %q, %q, %q", c.Name, o.Test.Line, text, o.Got, o.Rule, o.Obligations, o.Demands)
			}
		}
	}
	if asked < 100 {
		t.Errorf("only %d questions", asked)
	}
}

func TestSuiteFails(t *testing.T) {
	snap := compileAll(t, suitePolicies(t))
	for _, line := range []string{
		`{egress: "api.git.example:443", want: allow}`, `{egress: "db.example:5432", want: block}`, `{egress: "x.example:443", want: allow}`,
		`{egress: "db.example:5432", want: allow, rule: eng/read}`, `{egress: "db.example:5432", want: allow, rule: none}`,
		`{model: gpt-3.5, want: allow}`, `{tool: provider/code, want: allow}`,
	} {
		if out := suiteOf(t, suiteHead+"  - "+line+"\n").Run(snap); out[0].OK {
			t.Errorf("%s passes", line)
		}
	}
}

// A rule that a test hits and that another rule makes superfluous may go.
func TestMutateFindsWhatNothingNeeds(t *testing.T) {
	docs, problems := Parse("a.yaml", []byte(`apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: a}
scope: org:acme
egress:
  - {id: one, allow: "a.example:443"}
  - {id: wide, allow: "*.example:443"}
`))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	s := suiteOf(t, suiteHead+"  - {egress: \"a.example:443\", want: allow}\n  - {egress: \"b.example:443\", want: allow}\n")
	if left := Mutate(docs, []*Suite{s}); fmt.Sprint(left) != "[a/one]" {
		t.Errorf("%v", left)
	}
	s = suiteOf(t, suiteHead+"  - {egress: \"a.example:443\", want: allow, rule: a/one}\n  - {egress: \"b.example:443\", want: allow}\n")
	if left := Mutate(docs, []*Suite{s}); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

func TestSuiteProblems(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{suiteHead + `  - {egress: "a.example:443", want: alow}`, `t.yaml:6:37: unknown want "alow" (did you mean "allow"?)`},
		{suiteHead + `  - {egres: "a.example:443", want: allow}`, `unknown field "egres" in test (did you mean "egress"?)`},
		{suiteHead + `  - {egress: "a.example", want: allow}`, `a question names its port`},
		{suiteHead + `  - {egress: "*.example:443", want: allow}`, `stands for many`},
		{suiteHead + `  - {egress: "10.0.0.0/8:443", want: allow}`, `stands for many`},
		{suiteHead + `  - {egress: "a.example:443", request: /x, want: allow}`, `is not METHOD /path`},
		{suiteHead + `  - {egress: "a.example:443/udp", request: GET /x, want: allow}`, `a request on datagrams`},
		{suiteHead + `  - {model: x, dialect: opnai, want: allow}`, `did you mean "openai"?`},
		{suiteHead + `  - {model: x, request: GET /x, want: allow}`, `"request" goes with "egress"`},
		{suiteHead + `  - {tool: jira/read, risk: [raed], want: allow}`, `did you mean "read"?`},
		{suiteHead + `  - {tool: jira/read, args: [1], want: allow}`, `args must be a mapping`},
		{suiteHead + `  - {tool: jira/read, at: noon, want: allow}`, `at "noon" is no time`},
		{suiteHead + `  - {model: x, args: {a: 1}, want: allow}`, `"args" goes with "tool"`},
		{suiteHead + `  - {tool: read, want: allow}`, `is not SERVER/TOOL`},
		{suiteHead + `  - {want: allow}`, `nothing is asked`},
		{suiteHead + `  - {egress: "a.example:443"}`, `test needs the field "want"`},
		{suiteHead + `  - {egress: "a.example:443", model: x, want: allow}`, `"egress" and "model" in one test`},
		{suiteHead + `  - {as: "org:acme", egress: "a.example:443", want: allow}`, `as: `},
		{suiteHead + "  []", `tests is an empty list`},
		{strings.Replace(suiteHead, "as: org:acme/team:eng/agent:bot\n", "", 1) + `  - {egress: "a.example:443", want: allow}`, `nobody asks`},
		{"apiVersion: ringfence.dev/v1\nkind: Policy\n", `this is no document of tests`},
		{"- a\n", `this is no document of tests`},
	} {
		suites, problems := ParseSuite("t.yaml", []byte(c.text))
		if len(suites) > 0 || !strings.Contains(Problems(problems).Error(), c.want) {
			t.Errorf("%s\n\t%d suites, %v", c.text, len(suites), Problems(problems))
		}
	}
	if docs, problems := Parse("t.yaml", []byte(suiteText)); len(docs) > 0 || !strings.Contains(Problems(problems).Error(), "is never in force (run it with ringfence policy test)") {
		t.Errorf("%v", problems)
	}
}

// Whatever is read has somebody who asks and gets an answer; whatever is not has a place.
func FuzzParseSuite(f *testing.F) {
	f.Add([]byte(suiteText))
	f.Add([]byte(suiteHead + "  - {}\n---\n" + suiteHead))
	data, err := os.ReadFile("testdata/golden.yaml")
	if err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		suites, problems := ParseSuite("f", in)
		for _, p := range problems {
			if p.Line < 1 || p.Msg == "" {
				t.Fatalf("%+v", p)
			}
		}
		snap, _ := Compile(1, nil)
		for _, s := range suites {
			for _, o := range s.Run(snap) {
				if o.Got == "" || o.Test.As.Valid() != nil {
					t.Fatalf("%+v", o)
				}
			}
		}
	})
}
