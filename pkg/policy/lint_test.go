// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

func TestLint(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want string // "id kind", sorted; with "?" for notes
	}{
		"nothing to find":           {"egress: [{id: a, allow: '**.x.org:443'}, {id: b, deny: 'b.x.org:443'}]", ""},
		"a rule that gives way":     {"egress: [{id: a, deny: 'x.org'}, {id: b, allow: 'x.org:443'}]", "a default?"},
		"one shadowed by two":       {"egress: [{id: a, allow: '*.x.org:443', http: {methods: [GET]}}, {id: b, deny: '*.x.org:443', http: {methods: [GET]}}]", "a contradiction"},
		"contradiction":             {"egress: [{id: a, allow: 'x.org:443'}, {id: b, deny: 'x.org:443'}]", "a contradiction"},
		"contradiction by approval": {"egress: [{id: a, allow: 'x.org:443'}, {id: b, to: 'x.org:443', action: require-approval}]", "a contradiction"},
		"other protocols":           {"egress: [{id: a, allow: 'x.org:443'}, {id: b, allow: 'x.org:443/udp'}]", ""},
		"repeated":                  {"egress: [{id: a, allow: '**.x.org:443'}, {id: b, allow: 'a.x.org:443'}]", "b repeated"},
		"looked into by one alone":  {"egress: [{id: a, allow: '**.x.org:443'}, {id: b, allow: 'a.x.org:443', http: {methods: [GET]}}]", ""},
		"both the same":             {"egress: [{id: a, allow: 'x.org:443'}, {id: b, allow: 'x.org:443'}]", "a repeated; b repeated"},
		"a guard":                   {"egress: [{id: a, allow: 'x.org:443'}, {id: b, deny: '**.paste.example', mandatory: true}]", "b default?"},
		"addresses of names":        {"egress: [{id: a, allow: 'x.org:443'}, {id: b, deny: '8.8.0.0/16'}]", ""},
		"private without admission": {"egress: [{id: a, allow: 'x.org:443'}, {id: b, deny: '10.0.0.0/8'}]", "b default?"},
		"admission":                 {"egress: [{id: a, allow: 'x.org:443', resolvesTo: [10.0.0.0/8]}, {id: b, deny: '10.0.0.0/8:443'}]", ""},
		"the builtin layer":         {"inference: [{id: a, allow: 'gpt-*'}]", "a default?"},
		"a rate":                    {"tools: [{id: a, match: 'tool:*', action: allow}, {id: b, match: 'tool:x', action: rate-limit, rate: {requests: 5/m}}]", ""},
		"a rate that another has":   {"tools: [{id: a, match: 'tool:*', action: allow, rate: {requests: 5/m}}, {id: b, match: 'tool:x', action: rate-limit, rate: {requests: 9/m}}]", "b repeated"},
		"parts of a rate":           {"tools: [{id: all, match: 'tool:*', action: allow}, {id: a, match: 'server:j*', action: rate-limit, rate: {requests: 5/m}}, {id: b, match: 'server:j*/tool:x', action: rate-limit, rate: {requests: 5/m}}, {id: c, match: 'server:j*/tool:y', action: rate-limit, rate: {requests: 5/m}}]", "b repeated; c repeated"},
		"the union of two rates":    {"egress: [{id: t, allow: 'x.org:443'}, {id: u, allow: 'x.org:443/udp'}, {id: a, to: 'x.org:443', action: rate-limit, rate: {requests: 5/m}}, {id: b, to: 'x.org:443/tcp', action: rate-limit, rate: {requests: 5/m}}, {id: c, to: 'x.org:443/udp', action: rate-limit, rate: {requests: 5/m}}]", "b repeated; c repeated"},
		"approval and deny":         {"egress: [{id: o, allow: 'x.org:443', for: 'team:o'}, {id: a, to: 'x.org:443', action: require-approval}, {id: b, deny: 'x.org:443'}]", "a contradiction"},
		"an obligation on nothing":  {"tools: [{id: a, match: 'tool:x', action: block}, {id: b, match: 'tool:x', action: redact}]", "a default?; b shadowed"},
		"a shadow rule":             {"egress: [{id: a, allow: 'x.org:443'}, {id: b, allow: 'x.org:443', mode: shadow}]", ""},
		"conditions":                {"tools: [{id: a, match: 'tool:x', action: allow, when: {expression: 'args.ok'}}, {id: b, match: 'tool:x', action: block, when: {expression: 'args.ok'}}]", "a contradiction"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := findings(t, proofDocs(t, "org:acme", c.body), nil); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func findings(t *testing.T, docs []Document, known []scope.Principal) string {
	t.Helper()
	found, err := Lint(docs, known, MaxQuestions)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		if f.Line == 0 || f.Col == 0 || f.Why == "" || f.Do == "" {
			t.Errorf("%+v is incomplete", f)
		}
		note := ""
		if f.Note {
			note = "?"
		}
		name := f.Rule.ID
		if name == "" {
			name = f.Doc
		}
		got = append(got, name+" "+f.Kind+note)
	}
	return strings.Join(got, "; ")
}

func TestLintOfProvidersAndScopes(t *testing.T) {
	docs := proofDocs(t, "", `apiVersion: ringfence.dev/v1
kind: Provider
metadata: {name: up}
scope: org:acme
dialect: openai
baseURL: https://llm.example
secret: k
---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
scope: org:acme
egress:
  - {id: never, allow: "llm.example:443", for: "team:enng"}
  - {id: wide, deny: "**.example", for: "team:eng"}
`)
	for i := range docs { // as if the provider came later
		if docs[i].Policy != nil {
			docs[i].Policy.Egress[0].Host = HostPattern{HostStar, "openai.azure.com"}
		}
	}
	known := []scope.Principal{{Org: "acme", Team: "eng", Agent: "bot"}}
	if got := findings(t, docs, known); got != "up default?; never unreachable; never nobody; wide default?" {
		t.Error(got)
	}
	if got := findings(t, docs, []scope.Principal{{Org: "other", Team: "eng", Agent: "bot"}}); !strings.Contains(got, "p nobody") {
		t.Error(got)
	}
}

// A rule is found to do nothing if and only if documents with and without it
// are proved to decide everything alike.
func TestLintEqualsProofs(t *testing.T) {
	idle, busy := 0, 0
	for seed := range uint64(24) {
		g := newGen3(seed)
		docs := g.docs(scope.LevelSandbox, seed%3 == 0)
		if seed%2 == 0 {
			docs = proofDocs(t, "", algText(g.algDocs(scope.LevelOrg, scope.LevelSandbox, "d")))
		}
		for i := range docs {
			docs[i].Name = fmt.Sprintf("d%d", i)
		}
		found, err := Lint(docs, nil, MaxQuestions)
		if err != nil {
			t.Fatal(err)
		}
		for i := range docs {
			whole := *docs[i].Policy
			for _, part := range []func(*Policy) *[]Rule{func(p *Policy) *[]Rule { return &p.Egress }, func(p *Policy) *[]Rule { return &p.Inference }, func(p *Policy) *[]Rule { return &p.Tools }} {
				for j, r := range *part(&whole) {
					if r.Shadow || g.IntN(6) != 0 {
						continue
					}
					if r.For != nil {
						if _, ok := docs[i].Scope.Intersect(*r.For); !ok {
							continue // for nobody: Parse refuses it
						}
					}
					less := slices.Clone(docs)
					p := whole
					*part(&p) = slices.Delete(slices.Clone(*part(&whole)), j, j+1)
					less[i].Policy = &p
					a, err := Prove(less, docs, MaxQuestions)
					b, err2 := Prove(docs, less, MaxQuestions)
					if err != nil || err2 != nil {
						t.Fatal(err, err2)
					}
					at := slices.IndexFunc(found, func(f Finding) bool { return f.Doc == docs[i].Name && f.Rule.ID == r.ID })
					if (a.Holds && b.Holds) != (at >= 0) {
						t.Fatalf("%+v\nseed %d: %s/%s does nothing: %v %v; finding %d\n%v %v", r, seed, docs[i].Name, r.ID, a.Holds, b.Holds, at, a.Counterexample, b.Counterexample)
					}
					if at >= 0 {
						idle++
					} else {
						busy++
					}
				}
			}
		}
	}
	if t.Logf("%d rules do nothing, %d something", idle, busy); idle < 5 || busy < 5 {
		t.Errorf("lopsided: %d and %d", idle, busy)
	}
}
