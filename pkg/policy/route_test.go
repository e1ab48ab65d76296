// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"reflect"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

const routeHead = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: r}\nscope: org:acme\nroutes:\n"

func TestRoutesAreStrict(t *testing.T) {
	for text, want := range map[string]string{
		`[{id: a, models: [fast]}]`:                                                                 "leads nowhere",
		`[{id: a, models: [], to: [{model: m}]}]`:                                                   "empty list",
		`[{id: a, models: [fast], to: []}]`:                                                         "empty list",
		`[{id: a, models: [fast], to: [{weight: 2}]}]`:                                              "neither a provider nor a model",
		`[{id: a, models: [fast], to: [{model: "gpt-*"}]}]`:                                         "one model's name",
		`[{id: a, models: [fast], to: [{model: m, weight: 0}]}]`:                                    "from 1 to 1000",
		`[{id: a, models: [fast], to: [{model: m}], balance: speed}]`:                               "unknown balance",
		`[{id: a, models: [fast], to: [{model: m}], tiers: [{name: x, to: [{model: n}]}]}]`:         "not both",
		`[{id: a, models: [f], tiers: [{name: x, below: 0.5, to: [{model: n}]}]}]`:                  "the last tier has a bound",
		`[{id: a, models: [f], tiers: [{name: x, to: [{model: n}]}, {name: y, to: [{model: n}]}]}]`: `needs the field "below"`,
		`[{id: a, models: [f], tiers: [{name: x, below: 0.5, to: [{model: n}]}, {name: y, below: 0.4, to: [{model: n}]}, {name: z, to: [{model: n}]}]}]`: "above 0.5",
		`[{id: a, models: [f], tiers: [{name: x, below: 0.5555, to: [{model: n}]}, {name: z, to: [{model: n}]}]}]`:                                       "three decimals",
		`[{id: a, models: [fast], to: [{model: m}]}, {id: a, models: [slow], to: [{model: m}]}]`:                                                         "used twice",
	} {
		_, problems := Parse("f.yaml", []byte(routeHead[:len(routeHead)-1]+" "+text+"\n"))
		if len(problems) == 0 || !strings.Contains(Problems(problems).Error(), want) || problems[0].Line != 5 {
			t.Errorf("%s: %v", text, Problems(problems))
		}
	}
}

const someRoutes = routeHead + `
  - id: fast
    models: [fast, "gpt-*"]
    to: [{provider: eu, model: gpt-5-mini, weight: 3}, {model: claude-haiku, priority: 2}]
    balance: latency
    sticky: true
    tooLong: [{model: long}]
    refused: [{provider: eu}]
  - {id: smart, models: [smart], tiers: [{name: low, below: 0.35, to: [{model: a}]}, {name: high, to: [{model: b}]}]}
---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: team}
scope: org:acme/team:t
routes:
  - {id: own, models: ["*"], to: [{model: mine}]}
---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: forced}
scope: org:acme
routes:
  - {id: now, models: [gpt-5], override: true, to: [{model: other}]}
`

func TestWhichRouteCounts(t *testing.T) {
	v := viewOf(t, someRoutes)
	s, _ := Compile(1, mustParse(t, someRoutes))
	for _, c := range []struct{ team, model, want string }{
		{"t", "gpt-5", "forced/now"}, {"t", "gpt-4", "team/own"}, {"t", "fast", "team/own"},
		{"u", "gpt-5", "forced/now"}, {"u", "gpt-4", "r/fast"}, {"u", "fast", "r/fast"}, {"u", "smart", "r/smart"}, {"u", "claude", ""},
	} {
		got := ""
		if r := s.View(scope.Principal{Org: "acme", Team: c.team, Agent: "a"}).RouteFor(c.model); r != nil {
			got = r.Doc + "/" + r.ID
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.team, c.model, got, c.want)
		}
	}
	if len(v.Snapshot().View(scope.Principal{Org: "other", Team: "t", Agent: "a"}).routes) != 0 {
		t.Error("another organisation has the routes")
	}
}

func TestRoutesAndProvidersTravel(t *testing.T) {
	text := someRoutes + "---\n" + strings.Replace(providerHead, "{name: p}", "{name: eu}", 1) + `dialect: openai
baseURL: https://eu.example/v1
hosts: [api.openai.com, llm.example]
region: eu
weight: 7
keys: [{secret: k1, weight: 2}, {secret: k2}]
unknownPrice: flag
timeouts: {firstByte: 20s, idle: 30s, total: 10m}
models: [{match: "gpt-*", upstream: gpt, context: 128000, maxOutput: 4096, features: [tools, vision]}, {match: x, features: []}]
`
	s, problems := Compile(4, mustParse(t, text))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	b, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	back, err := UnmarshalSnapshot(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s.routes, back.routes) || !reflect.DeepEqual(s.providers, back.providers) {
		t.Errorf("%+v\n%+v\n%+v\n%+v", s.routes, back.routes, s.providers, back.providers)
	}
	p := &back.providers[0]
	if e := p.Entry("x"); !e.Declared || e.Features != 0 || p.Entry("gpt-5").Features != FeatureTools|FeatureVision || p.Entry("y") != nil {
		t.Errorf("%+v", p.Models)
	}
	for host, want := range map[string]bool{"api.openai.com": true, "llm.example": true, "eu.example": true, "api.groq.com": false} {
		if p.At(host) != want {
			t.Errorf("at %s: %v", host, !want)
		}
	}
	if h, ok := back.View(scope.Principal{Org: "acme", Team: "t", Agent: "a"}).ProviderHost("llm.example"); !ok || h.Dialect != DialectOpenAI {
		t.Errorf("a host that a provider names: %+v %v", h, ok)
	}
	for cut := range b {
		if _, err := UnmarshalSnapshot(b[:cut]); err == nil {
			t.Fatalf("cut at %d of %d it is taken", cut, len(b))
		}
	}
}

func TestRoutesThatLeadNowhereAreFound(t *testing.T) {
	provider := strings.Replace(providerHead, "{name: p}", "{name: openai}", 1) + "dialect: openai\nbaseURL: https://x.example\nsecret: k\nmodels: [{match: gpt-5}]\n"
	text := routeHead + `
  - {id: good, models: [a], to: [{provider: openai, model: gpt-5}, {model: anything}, {provider: openai}]}
  - {id: name, models: [b], to: [{provider: openia}]}
  - {id: model, models: [c], tiers: [{name: t, to: [{provider: openai, model: gpt-6}]}]}
---
` + provider
	found, err := Lint(mustParse(t, text), nil, 10_000_000)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range found {
		if f.Kind == LintUnreachable {
			got[f.Rule.ID] = f.Why + "; " + f.Do
			if f.Line == 0 || f.File != "f.yaml" {
				t.Errorf("%+v", f)
			}
		}
	}
	if len(got) != 2 || !strings.Contains(got["name"], `"openia"`) || !strings.Contains(got["name"], `did you mean "openai"?`) || !strings.Contains(got["model"], `"gpt-6"`) {
		t.Errorf("%v", got)
	}
}

func mustParse(t *testing.T, text string) []Document {
	t.Helper()
	docs, problems := Parse("f.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	return docs
}

// A rule may look at who would answer; where that is not known yet it counts
// against the agent.
func TestConditionsOnRegions(t *testing.T) {
	provider := func(name, region string) string {
		return strings.Replace(providerHead, "{name: p}", "{name: "+name+"}", 1) + "dialect: openai\nbaseURL: https://" + name + ".example\nsecret: k\nregion: " + region + "\n"
	}
	head := "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: r}\nscope: org:acme\ninference:\n"
	for rules, want := range map[string][3]bool{ // eu, us, not known yet
		`  - {id: a, deny: "*", mandatory: true, when: {expression: 'region != "eu"'}}`:                       {true, false, false},
		`  - {id: a, deny: "*", when: {expression: 'provider == "us"'}}`:                                      {true, false, false},
		`  - {id: a, deny: "*"}` + "\n" + `  - {id: b, allow: "gpt-*", when: {expression: 'region == "eu"'}}`: {true, false, false},
		`  - {id: a, allow: "*"}`: {true, true, true},
	} {
		s, problems := Compile(1, mustParse(t, head+rules+"\n---\n"+provider("eu", "eu")+"---\n"+provider("us", "us")))
		if len(problems) > 0 {
			t.Fatal(Problems(problems))
		}
		v := s.View(scope.Principal{Org: "acme", Team: "t", Agent: "a"})
		p := v.Providers()
		got := [3]bool{v.InferenceAt(p[0], "gpt-5").Allowed(), v.InferenceAt(p[1], "gpt-5").Allowed(), v.Inference(DialectOpenAI, "gpt-5").Allowed()}
		if got != want {
			t.Errorf("%s: %v, want %v", rules, got, want)
		}
		if nd := v.Name("api.openai.com"); !nd.Resolves {
			t.Errorf("%s: the host does not resolve: %+v", rules, nd)
		}
	}
	if d := (&View{s: newSnapshot(1)}).InferenceAt(nil, "gpt-5"); d.Allowed() {
		t.Error("no provider is allowed")
	}
}
