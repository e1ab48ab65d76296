// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

func proofDocs(t *testing.T, scope string, body string) []Document {
	t.Helper()
	text := "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: " + scope + "\n" + body
	if strings.Contains(body, "apiVersion:") {
		text = body
	}
	docs, problems := ParseWhole("p.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(Problems(problems), "\n", text)
	}
	return docs
}

func TestProve(t *testing.T) {
	for name, c := range map[string]struct {
		newer, older string
		want         string // in the counterexample; "" when it holds
	}{
		"the same":                 {"egress: [{id: a, allow: 'x.org:443'}]", "egress: [{id: b, allow: 'x.org:443'}]", ""},
		"a narrower host":          {"egress: [{id: a, allow: 'a.x.org:443'}]", "egress: [{id: a, allow: '*.x.org:443'}]", ""},
		"a wider host":             {"egress: [{id: a, allow: '**.x.org:443'}]", "egress: [{id: a, allow: '*.x.org:443'}]", "x.org:443"},
		"two cover what one says":  {"egress: [{id: a, allow: '**.x.org:443'}]", "egress: [{id: a, allow: 'x.org:443'}, {id: b, allow: '*.x.org:443'}]", "other.other.x.org:443"},
		"a hole":                   {"egress: [{id: a, allow: '**.x.org:443'}, {id: b, deny: 'a.b.x.org'}]", "egress: [{id: a, allow: '**.x.org:443'}, {id: b, deny: '*.b.x.org'}]", "other.b.x.org:443"},
		"another port":             {"egress: [{id: a, allow: 'x.org:80'}]", "egress: [{id: a, allow: 'x.org:443'}]", "x.org:80"},
		"datagrams":                {"egress: [{id: a, allow: 'x.org:443/udp'}]", "egress: [{id: a, allow: 'x.org:443'}]", "x.org:443/udp"},
		"fewer requests":           {"egress: [{id: a, allow: 'x.org:443', http: {methods: [GET], paths: ['/v1/a']}}]", "egress: [{id: a, allow: 'x.org:443', http: {methods: [GET], paths: ['/v1/**']}}]", ""},
		"more paths":               {"egress: [{id: a, allow: 'x.org:443', http: {paths: ['/v1/*/b']}}]", "egress: [{id: a, allow: 'x.org:443', http: {paths: ['/v1/a*/b']}}]", "GET /v1/b/b on"},
		"not looked into":          {"egress: [{id: a, allow: 'x.org:443'}]", "egress: [{id: a, allow: 'x.org:443', http: {paths: ['/**']}}]", "instead of"},
		"an ambiguous path":        {"egress: [{id: a, allow: 'x.org:443', http: {methods: [GET]}}]", "egress: [{id: a, allow: 'x.org:443', http: {methods: [GET], paths: ['/**']}}]", "GET // on"},
		"an approval instead":      {"egress: [{id: a, to: 'x.org:443', action: require-approval}]", "egress: [{id: a, allow: 'x.org:443'}]", ""},
		"an approval no more":      {"egress: [{id: a, allow: 'x.org:443'}]", "egress: [{id: a, to: 'x.org:443', action: require-approval}]", "allow instead of require-approval"},
		"friendlier approvers":     {"egress: [{id: a, to: 'x.org:443', action: require-approval}]", "egress: [{id: a, to: 'x.org:443', action: require-approval, approval: {approvers: ['group:sre']}}]", "demands"},
		"addresses":                {"egress: [{id: a, allow: '10.1.0.0/16:443'}]", "egress: [{id: a, allow: '10.0.0.0/8:443'}]", ""},
		"more addresses":           {"egress: [{id: a, allow: '10.0.0.0/8:443'}]", "egress: [{id: a, allow: '10.0.0.0/9:443'}]", "10.128.0.0:443"},
		"what a broad allow skips": {"egress: [{id: a, allow: '0.0.0.0/0:443'}, {id: b, allow: '10.0.0.0/8:443'}]", "egress: [{id: a, allow: '0.0.0.0/0:443'}]", "10.0.0.0:443"},
		"a name resolves to it":    {"egress: [{id: a, allow: 'x.org:443'}]", "egress: [{id: a, allow: 'x.org:443'}, {id: b, deny: '8.8.0.0/16'}]", "resolves to 8.8.0.0"},
		"a private address":        {"egress: [{id: a, allow: 'x.org:443', resolvesTo: [10.0.0.0/8]}]", "egress: [{id: a, allow: 'x.org:443', resolvesTo: [10.0.0.0/9]}]", "resolves to 10.128.0.0"},
		"one that is denied":       {"egress: [{id: a, allow: 'x.org:443', resolvesTo: [10.0.0.0/8]}, {id: b, deny: '10.128.0.0/9'}]", "egress: [{id: a, allow: 'x.org:443', resolvesTo: [10.0.0.0/9]}]", ""},
		"a principal more":         {"egress: [{id: a, allow: 'x.org:443', for: 'agent:b*'}]", "egress: [{id: a, allow: 'x.org:443', for: 'agent:bot'}]", "agent:b"},
		"all models":               {"inference: [{id: a, deny: 'gpt-4*'}]", "inference: [{id: a, deny: 'gpt-*'}]", "model gpt-"},
		"the builtin layer":        {"egress: [{id: a, deny: x.org}]", "inference: [{id: a, deny: '*'}]", "model other"},
		"tools":                    {"tools: [{id: a, match: 'server:jira/tool:read_*', action: allow}]", "tools: [{id: a, match: 'server:jira', action: allow}]", ""},
		"a tool more":              {"tools: [{id: a, match: 'server:jira', action: allow}]", "tools: [{id: a, match: 'server:jira', action: allow}, {id: b, match: 'tool:read_*', action: block}]", "jira/read_"},
		"a risk more":              {"tools: [{id: a, match: 'server:jira', action: allow}]", "tools: [{id: a, match: 'server:jira', action: allow}, {id: b, match: 'tool:*', risk: [money], action: block}]", "risk money"},
		"conditions are unknown":   {"tools: [{id: a, match: 'tool:x', action: allow, when: {expression: 'args.n < 5'}}]", "tools: [{id: a, match: 'tool:x', action: allow, when: {expression: 'args.n < 10'}}]", `assuming "args.n < 5" true, "args.n < 10" false`},
		"the same condition":       {"tools: [{id: a, match: 'tool:x', action: allow, when: {expression: 'args.n < 5'}}]", "tools: [{id: b, match: 'tool:*', action: allow, when: {expression: 'args.n < 5'}}]", ""},
		"an error of a condition":  {"tools: [{id: a, match: 'tool:x', action: allow}]", "tools: [{id: b, match: 'tool:*', action: allow}, {id: c, match: 'tool:*', action: block, when: {expression: 'args.ok'}}]", `assuming "args.ok"`},
		"a lower rate":             {"tools: [{id: a, match: 'tool:x', action: allow, rate: {requests: 5/m}}]", "tools: [{id: a, match: 'tool:x', action: allow, rate: {requests: 10/m}}]", ""},
		"a rate less":              {"tools: [{id: a, match: 'tool:x', action: allow}]", "tools: [{id: a, match: 'tool:x', action: allow, rate: {requests: 10/m}}]", "without the rate of"},
		"fewer at a time":          {"inference: [{id: a, allow: x, rate: {concurrency: 5}}]", "inference: [{id: a, allow: x, rate: {concurrency: 6}}]", ""},
		"more at a time":           {"inference: [{id: a, allow: x, rate: {concurrency: 7}}]", "inference: [{id: a, allow: x, rate: {concurrency: 6}}]", "without the rate of"},
		"any number at a time":     {"inference: [{id: a, allow: x, rate: {requests: 1/m}}]", "inference: [{id: a, allow: x, rate: {requests: 1/m, concurrency: 6}}]", "without the rate of"},
		"a team for its agents":    {"inference: [{id: a, allow: x, rate: {requests: 1/m, per: [team]}}]", "inference: [{id: a, allow: x, rate: {requests: 1/m, per: [agent]}}]", ""},
		"agents for their team":    {"inference: [{id: a, allow: x, rate: {requests: 1/m, per: [agent]}}]", "inference: [{id: a, allow: x, rate: {requests: 1/m, per: [team]}}]", "without the rate of"},
		"models for agents":        {"inference: [{id: a, allow: x, rate: {requests: 1/m, per: [model]}}]", "inference: [{id: a, allow: x, rate: {requests: 1/m, per: [agent]}}]", "without the rate of"},
		"one rate becomes two":     {"tools: [{id: a, match: 'tool:x', action: allow, rate: {requests: 10/m}}, {id: b, match: 'tool:y', action: allow, rate: {requests: 10/m}}]", "tools: [{id: a, match: 'tool:*', action: allow, rate: {requests: 10/m}}]", "counts together"},
		"stricter treatment":       {"tools: [{id: a, match: 'tool:x', action: allow, pii: {in: redact}}]", "tools: [{id: a, match: 'tool:x', action: allow, pii: {in: mask, entities: [email]}}]", ""},
		"milder treatment":         {"tools: [{id: a, match: 'tool:x', action: allow, pii: {in: log}}]", "tools: [{id: a, match: 'tool:x', action: allow, pii: {in: mask}}]", "without the pii"},
		"a waive":                  {"tools: [{id: a, match: 'tool:*', action: allow, audit: full}, {id: b, match: 'tool:x', action: allow, waive: [audit]}]", "tools: [{id: a, match: 'tool:*', action: allow, audit: full}]", "without the audit"},
		"shadow does not count":    {"egress: [{id: a, allow: 'x.org:443'}, {id: b, deny: 'x.org', mode: shadow}]", "egress: [{id: a, allow: 'x.org:443'}]", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Prove(proofDocs(t, "org:acme", c.newer), proofDocs(t, "org:acme", c.older), MaxQuestions)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if !p.Holds {
				got = p.Counterexample.String()
			}
			if p.Holds != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// What only an error makes stricter is found: a rule whose condition is one is
// not delegable.
func TestProofsTryErrors(t *testing.T) {
	team := "---\napiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: t}\nscope: org:acme/team:t\ntools: [{id: a, match: 'tool:x', action: allow}]\n"
	org := "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: o}\nscope: org:acme\ntools: [{id: b, match: 'tool:x', action: block, delegable: true, when: {expression: 'args.ok'}}]\n"
	p, err := Prove(proofDocs(t, "", team), proofDocs(t, "", org+team), MaxQuestions)
	if err != nil || p.Holds || !slices.Equal(p.Counterexample.Assuming, []Assumption{{"args.ok", "error"}}) {
		t.Errorf("%+v %v", p, err)
	}
}

func TestProveProviders(t *testing.T) {
	provider := func(url string) string {
		return "apiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: up}\nscope: org:acme\ndialect: openai\nbaseURL: " + url + "\nsecret: k\nmodels: [{match: gpt-4}]\n"
	}
	none := proofDocs(t, "org:acme", "egress: [{id: a, deny: x.org}]")
	one, other := proofDocs(t, "", provider("https://a.example")), proofDocs(t, "", provider("https://b.example"))
	for _, c := range []struct {
		newer, older []Document
		want         string
	}{
		{one, one, ""}, {none, none, ""}, {one, none, "answered on the node before"}, {other, one, "base URL"}, {none, one, "other"},
	} {
		p, err := Prove(c.newer, c.older, MaxQuestions)
		if err != nil {
			t.Fatal(err)
		}
		if p.Holds != (c.want == "") || !p.Holds && !strings.Contains(p.Counterexample.String(), c.want) {
			t.Errorf("want %q, got %v", c.want, p.Counterexample)
		}
	}
}

// A call has the classes that ToolServers give its tool: what they say is compared,
// for whom they say it, and what conditions make of it.
func TestProveToolServers(t *testing.T) {
	server := func(scope, tools string) string {
		return "---\n" + serverHead + "scope: " + scope + "\nstdio: {command: /bin/s}\ntools: [" + tools + "]\n"
	}
	rule := func(rule string) string {
		return "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:acme\ntools: [" + rule + "]\n"
	}
	reads := rule("{id: a, match: 'server:jira', risk: [read], action: allow}")
	cond := rule("{id: a, match: 'server:jira', action: allow}, {id: b, match: 'tool:*', action: block, when: {expression: \"'exfil' in risk\"}}")
	args := rule("{id: a, match: 'server:jira', action: allow, when: {expression: 'args.n < 5'}}")
	one, read := server("org:acme", "{name: one, risk: [read]}"), "{name: one, risk: [read]}, {name: delete_all, risk: [read]}"
	exfil := server("org:acme", "{name: one, risk: [exfil]}")
	for name, c := range map[string]struct{ newer, older, want string }{
		"the same":             {reads + one, reads + one, ""},
		"a tool more":          {reads + server("org:acme", read), reads + one, "tool jira/delete_all: allow instead of block (by the documents, its risk is read and was unclassified)"},
		"a tool less":          {reads + one, reads + server("org:acme", read), ""},
		"a prefix more":        {reads + server("org:acme", "{name: 'd*', risk: [read]}"), reads + one, "tool jira/d: allow"},
		"a milder exact entry": {reads + server("org:acme", "{name: '*', risk: [write]}, {name: x, risk: [read]}"), reads + server("org:acme", "{name: '*', risk: [write]}"), "tool jira/x: allow"},
		"for others, too":      {reads + server("org:acme", read), reads + server("org:acme/team:eng", read), "allow instead of block"},
		"a server more":        {reads + one, reads, "tool jira/one: allow"},
		"a server less":        {reads, reads + one, ""},
		"a condition on risk":  {cond + one, cond + exfil, "assuming \"'exfil' in risk\" false, \"'exfil' in risk (older)\" true"},
		"another condition":    {args + one, args + exfil, ""},
	} {
		p, err := Prove(proofDocs(t, "", c.newer), proofDocs(t, "", c.older), MaxQuestions)
		if err != nil {
			t.Fatal(name, err)
		}
		got := ""
		if !p.Holds {
			got = p.Counterexample.String()
		}
		if p.Holds != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// proofRounds is how many random pairs of documents proofs are tried on.
const proofRounds = 80

// Random documents: what is proved is compared with every question of a small
// universe, and a counterexample is asked of the engine again.
func TestProofsEqualBruteForce(t *testing.T) {
	held, failed, alike := 0, 0, 0
	for seed := range uint64(proofRounds) {
		g := newGen3(seed)
		older := g.docs(scope.LevelSandbox, seed%3 == 0)
		newer := g.changed(older)
		p, err := Prove(newer, older, MaxQuestions)
		if err != nil {
			t.Fatal(seed, err)
		}
		n, o := compileAll(t, newer), compileAll(t, older)
		if !p.Holds {
			failed++
			c := p.Counterexample
			a, b := n.View(c.As), o.View(c.As)
			d, e := a.Explain(c.Question).Decision, b.Explain(c.Question).Decision
			if len(c.Assuming) == 0 && !c.Resolved.IsValid() && d.permits() <= e.permits() && !strings.Contains(c.Difference, "demands") {
				t.Fatalf("seed %d: %s is no counterexample: %s and %s", seed, c, d.Verdict(), e.Verdict())
			}
			continue
		}
		held++
		if alikeDocs(older, newer) {
			alike++
		}
		for _, who := range append(somePrincipals, scope.Principal{Org: "acme", Team: "eng", Agent: "b"}, scope.Principal{Org: "z", Team: "z", Agent: "z", Sandbox: "sz"}) {
			a, b := n.View(who), o.View(who)
			for _, q := range bruteQuestions() {
				if d, e := a.Ask(&q), b.Ask(&q); d.permits() > e.permits() {
					t.Fatalf("seed %d: proved, and %s gets %s instead of %s for %s", seed, who, d.Verdict(), e.Verdict(), &q)
				}
			}
		}
	}
	if t.Logf("%d held (%d of them on equal documents), %d failed", held, alike, failed); held-alike < proofRounds/10 || failed < proofRounds/10 {
		t.Errorf("lopsided: %d held (%d alike), %d failed", held, alike, failed)
	}
}

func alikeDocs(a, b []Document) bool { return fmt.Sprint(policies(a)) == fmt.Sprint(policies(b)) }

func policies(docs []Document) (out []Policy) {
	for _, d := range docs {
		out = append(out, *d.Policy)
	}
	return out
}

// changed takes rules away, adds some and changes some.
func (g gen) changed(docs []Document) []Document {
	out := slices.Clone(docs)
	for i := range out {
		p := *out[i].Policy
		for _, rules := range []*[]Rule{&p.Egress, &p.Inference, &p.Tools} {
			*rules = slices.Clone(*rules)
			for j := range *rules {
				switch r := &(*rules)[j]; g.IntN(4) {
				case 0:
					if r.Effect == Allow {
						r.Effect = pick(g, []Effect{Block, RequireApproval})
					}
				case 1:
					if r.Effect != Allow && g.IntN(2) == 0 && !r.Mandatory && (r.Port != 0 || r.Section != SectionEgress) {
						r.Effect = Allow
					}
				case 2:
					if r.Effect == Allow && r.Host.Kind == HostDeep {
						r.Host.Kind = HostStar
						if r.Host.Name == "" {
							r.Host.Name = "org"
						}
					}
				}
			}
		}
		out[i].Policy = &p
	}
	return out
}

func bruteQuestions() (out []Question) {
	for _, h := range append(someHosts, "org", "z.org", "z", "z.z.x.org", "10.1.2.3", "10.1.2.4", "10.1.9.9", "10.9.9.9", "8.8.8.8", "8.8.8.9", "8.9.9.9", "1.1.1.1", "fd00:1::1", "fd00:2::1", "2001:4860::1", "192.168.1.1", "172.16.0.1", "2606::1") {
		for _, p := range append(somePorts, 22) {
			out = append(out, Question{Section: SectionEgress, Host: h, Port: p}, Question{Section: SectionEgress, Host: h, Port: p, Proto: UDP})
			for _, m := range []string{"GET", "POST", "DELETE", "PUT"} {
				for _, path := range []string{"/", "/v1", "/v1/a", "/v1/b", "/v1/a/b", "//", "/other"} {
					out = append(out, Question{Section: SectionEgress, Host: h, Port: p, Method: m, Path: path})
				}
			}
		}
	}
	for _, m := range append(someModels, "z", "claude-", "gpt-", "gpt-4x") {
		out = append(out, Question{Section: SectionInference, Dialect: DialectOpenAI, Model: m}, Question{Section: SectionTools, Server: scope.ServerProvider, Tool: m}, Question{Section: SectionTools, Server: "z", Tool: m})
	}
	return out
}

// With obligations, conditions and risk: who proves both ways has found two
// documents that decide everything alike, and so does whoever compares one with itself.
func TestProofsOfDocumentsWithConditions(t *testing.T) {
	for seed := range uint64(20) {
		g := newGen(seed)
		docs := proofDocs(t, "", algText(g.algDocs(scope.LevelOrg, scope.LevelSandbox, "d")))
		if p, err := Prove(docs, docs, MaxQuestions); err != nil || !p.Holds {
			t.Fatalf("seed %d: not itself: %v %v", seed, err, p)
		}
		mandatory := proofDocs(t, "", g.algDoc(scope.LevelSandbox, "floor", "mandatory").String())
		p, err := Prove(append(slices.Clone(docs), mandatory...), docs, MaxQuestions)
		if err != nil || !p.Holds {
			t.Fatalf("seed %d: a mandatory rule loosens: %v %v", seed, err, p.Counterexample)
		}
	}
}

// Taking rules away proves in one direction what may be; where it does, no call
// with real arguments at any time contradicts.
func TestProofsWithConditionsEqualBruteForce(t *testing.T) {
	held, failed := 0, 0
	for seed := range uint64(proofRounds) {
		g := newGen(seed)
		docs := g.algDocs(scope.LevelOrg, scope.LevelSandbox, "d")
		less := slices.Clone(docs)
		for i := range less {
			for s, rules := range less[i].rules {
				less[i].rules[s] = slices.DeleteFunc(slices.Clone(rules), func(string) bool { return g.IntN(8) == 0 })
			}
		}
		less = slices.DeleteFunc(less, func(d algDoc) bool { return len(d.rules[0])+len(d.rules[1])+len(d.rules[2]) == 0 })
		if len(less) == 0 {
			continue
		}
		older, newer := proofDocs(t, "", algText(docs)), proofDocs(t, "", algText(less))
		p, err := Prove(newer, older, MaxQuestions)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Holds {
			failed++
			continue
		}
		held++
		n, o := compileAll(t, newer), compileAll(t, older)
		for _, q := range g.algAsks(algQuestions) {
			if d, e := algEngine(t, n, q), algEngine(t, o, q); looser(&d, &e) != "" {
				t.Fatalf("seed %d: proved, and %+v: %s", seed, q, looser(&d, &e))
			}
		}
	}
	if t.Logf("%d held, %d failed", held, failed); held < proofRounds/10 || failed < proofRounds/10 {
		t.Errorf("lopsided: %d held, %d failed", held, failed)
	}
}

// algServers writes ToolServers that classify the tools of the calls.
func (g gen) algServers() string {
	var b strings.Builder
	for _, name := range []string{"jira", "bank"} {
		fmt.Fprintf(&b, "---\n%sscope: %q\nstdio: {command: /bin/s}\ntools:\n", strings.Replace(serverHead, "jira", name, 1), pick(g, []string{"org:*", "org:acme", "org:acme/team:eng", "agent:b*"}))
		entries := 0
		for _, tool := range []string{"read_x", "read_*", "pay", "*"} {
			if entries == 0 && tool == "*" || g.IntN(3) == 0 {
				entries++
				fmt.Fprintf(&b, "  - {name: %q, risk: %s}\n", tool, pick(g, []string{"[read]", "[read]", "[read, write]", "[destructive]", "[money]"}))
			}
		}
	}
	return b.String()
}

// The same rules, and other classes of tools: where it is proved, no call that
// does not say its classes contradicts.
func TestProofsOfToolServersEqualBruteForce(t *testing.T) {
	held, failed := 0, 0
	for seed := range uint64(2 * proofRounds) {
		g := newGen(seed)
		rules := algText(g.algDocs(scope.LevelOrg, scope.LevelSandbox, "d"))
		older, newer := proofDocs(t, "", rules+g.algServers()), proofDocs(t, "", rules+g.algServers())
		p, err := Prove(newer, older, MaxQuestions)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Holds {
			failed++
			continue
		}
		held++
		n, o := compileAll(t, newer), compileAll(t, older)
		for _, who := range []string{"bot", "cat", "rep", "alien"} {
			for _, call := range append(algCalls, "bank/other", "jira/other") {
				for _, args := range algArguments {
					q := algAsk{As: who, At: algMoments[0], Tool: call, Args: args}
					if d, e := algEngine(t, n, q), algEngine(t, o, q); looser(&d, &e) != "" {
						t.Fatalf("seed %d: proved, and %+v: %s", seed, q, looser(&d, &e))
					}
				}
			}
		}
	}
	if t.Logf("%d held, %d failed", held, failed); held < proofRounds/10 || failed < proofRounds/10 {
		t.Errorf("lopsided: %d held, %d failed", held, failed)
	}
}

func TestProofsAreBounded(t *testing.T) {
	docs := proofDocs(t, "org:acme", "egress: [{id: a, allow: '**:443'}, {id: b, allow: 'x.org:443'}]")
	var large *TooLargeError
	if _, err := Prove(docs, docs, 1); !errors.As(err, &large) || large.Of < 4 || !strings.Contains(err.Error(), "limit of 1 questions") {
		t.Errorf("%v", err)
	}
	var paths []string
	for i := range 20 {
		paths = append(paths, fmt.Sprintf("'/*%c*%c*/**'", 'a'+i, 'b'+i))
	}
	docs = proofDocs(t, "org:acme", "egress: [{id: a, allow: 'x.org:443', http: {paths: ["+strings.Join(paths, ", ")+"]}}]")
	if _, err := Prove(docs, docs, MaxQuestions); !errors.As(err, &large) || !strings.Contains(err.Error(), "states of the path patterns") {
		t.Errorf("%v", err)
	}
}

func TestPathCellsAreAll(t *testing.T) {
	patterns := []string{"/**", "/a/**", "/a/*", "/a/b*", "/a/%20", "/*0", "/a.b", "/*/c/**"}
	cells, ok := pathCells(patterns, maxPathStates)
	if !ok {
		t.Fatal("too many")
	}
	key := func(path string) string {
		var out []byte
		for _, p := range patterns {
			out = fmt.Appendf(out, "%t ", matchPath(p, path))
		}
		return string(out)
	}
	known := map[string]string{}
	for _, c := range cells {
		if got, ok := canonicalPath(c); !ok || got != c {
			t.Errorf("%q is not canonical", c)
		}
		if other, twice := known[key(c)]; twice {
			t.Errorf("%q and %q are one set", c, other)
		}
		known[key(c)] = c
	}
	g := newGen(1)
	for range 200000 {
		path := ""
		for range 1 + g.IntN(4) {
			path += "/"
			for range g.IntN(4) {
				path += pick(g, []string{"a", "b", "c", "0", "%20", "%A0", ".", ";", "z", "*"})
			}
		}
		if c, ok := canonicalPath(path); ok && known[key(c)] == "" {
			t.Fatalf("no path stands for %q", c)
		}
	}
}

func TestHostCellsAreAll(t *testing.T) {
	patterns := []HostPattern{{HostDeep, ""}, {HostExact, "x.org"}, {HostStar, "x.org"}, {HostDeep, "x.org"}, {HostStar, "a.x.org"}, {HostDeep, "b.x.org"}, {HostExact, "other.x.org"}, {HostDeep, "org"}}
	var names []string
	for _, p := range patterns {
		names = append(names, p.Name)
	}
	key := func(h string) string {
		var out []byte
		for _, p := range patterns {
			out = fmt.Appendf(out, "%t ", p.Matches(h))
		}
		return string(out)
	}
	known := map[string]bool{}
	for _, c := range hostCells(names) {
		known[key(c)] = true
	}
	g := newGen(2)
	for range 20000 {
		h := pick(g, []string{"x.org", "org", "net", "a.x.org", "b.x.org"})
		for range g.IntN(3) {
			h = pick(g, []string{"a", "b", "other", "x", "q"}) + "." + h
		}
		if !known[key(h)] {
			t.Fatalf("no name stands for %s", h)
		}
	}
}

func TestAddrCellsAreAll(t *testing.T) {
	var prefixes []netip.Prefix
	for _, p := range append(somePrefixes, "10.0.0.0/9", "10.128.0.0/9") {
		prefixes = append(prefixes, netip.MustParsePrefix(p))
	}
	key := func(a netip.Addr) string {
		out := fmt.Appendf(nil, "%d ", specialOf(netip.PrefixFrom(a, a.BitLen())))
		for _, p := range prefixes {
			out = fmt.Appendf(out, "%t ", p.Contains(a))
		}
		return string(out)
	}
	known := map[string]bool{}
	for _, a := range addrCells(prefixes) {
		if a != JudgedAddr(a) {
			t.Errorf("%s is judged as another", a)
		}
		known[key(a)] = true
	}
	g := newGen(3)
	for range 20000 {
		if a := JudgedAddr(g.addr()); !known[key(a)] {
			t.Fatalf("no address stands for %s", a)
		}
	}
}
