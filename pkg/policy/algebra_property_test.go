// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Random documents as text, which engine and oracle each read for themselves.
// Names of documents are unique, so "document/id" names one rule.

// algDoc is one document; its rules are flow mappings by section.
type algDoc struct {
	name, scope string
	level       scope.Level
	rules       [3][]string // egress, inference, tools
}

var algSections = []string{"egress", "inference", "tools"}

func (d algDoc) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "---\napiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: %q\n", d.name, d.scope)
	for i, rules := range d.rules {
		if len(rules) > 0 {
			fmt.Fprintf(&b, "%s:\n", algSections[i])
		}
		for _, r := range rules {
			fmt.Fprintf(&b, "  - %s\n", r)
		}
	}
	return b.String()
}

func algText(docs []algDoc) string {
	var b strings.Builder
	for _, d := range docs {
		b.WriteString(d.String())
	}
	return b.String()
}

var (
	algScopes = map[scope.Level][]string{
		scope.LevelOrg:     {"org:acme", "org:acme", "org:acme", "org:*", "org:a*", "org:other"},
		scope.LevelTeam:    {"org:acme/team:eng", "org:acme/team:eng", "team:e*", "team:crm", "org:acme/team:ops", "team:eng"},
		scope.LevelAgent:   {"org:acme/team:eng/agent:bot", "agent:b*", "agent:rep", "agent:cat"},
		scope.LevelSandbox: {"org:acme/team:eng/agent:bot/sandbox:s1", "sandbox:s*"},
	}
	algTargets = [3][]string{
		{"x.org:443", "*.x.org:443", "**.x.org:443", "a.x.org:443", "**.x.org:80", "**:443", "**:443"},
		{"*", "claude-*", "claude-1", "gpt-*", "gpt-4"},
		{"tool:*", "tool:*", "server:j*", "server:jira", "server:jira", "server:jira/tool:read_*", "server:jira/tool:read_x", "server:j*", "server:*/tool:read_*", "tool:pay", "server:bank", "server:provider/tool:*"},
	}
	algFors      = []string{"", "", "", "org:acme", "team:eng", "agent:bot", "agent:b*"}
	algRisks     = []string{"", "", "", "", "", "[read]", "[read, write]", "[destructive]", "[money, destructive]", "[exec, money]", "[unclassified]"}
	algWindows   = []string{`{windows: [{from: "08:00", to: "18:00"}]}`, `{windows: [{days: [fri, sat], from: "22:00", to: "06:00", zone: Europe/Berlin}]}`, `{windows: [{days: [mon], from: "00:00", to: "24:00"}, {from: "12:00", to: "13:00"}]}`}
	algConds     = []string{`{expression: "args.n < 10"}`, `{expression: "args.n >= 10"}`, `{expression: "args.ok"}`, `{expression: "has(args.n) && args.n > 5", windows: [{from: "09:00", to: "21:00"}]}`, `{expression: "args.list.exists(x, x == 'a')"}`}
	algDuties    = []string{"rate: {requests: 5/m}", "pii: {in: mask}", "redact: {entities: [email]}", "audit: full"}
	algWaives    = []string{"[rate]", "[pii, redact]", "[audit]", "[redact]", "[rate, pii, redact, audit]"}
	algMoments   = []string{"2026-03-02T10:00:00Z", "2026-03-06T22:30:00Z", "2026-03-07T04:59:00Z", "2026-07-04T02:30:00Z", "2026-03-03T12:30:00Z"}
	algArguments = []map[string]any{nil, {"n": 3}, {"n": 12}, {"n": "3"}, {"ok": true}, {"ok": false, "n": 7}, {"list": []any{"a", "b"}}, {"list": []any{}, "ok": "yes"}}
	algCalls     = []string{"jira/read_x", "jira/read_x", "jira/read_y", "jira/write", "bank/pay", "bank/read_x", "wiki/pay", "provider/web_search"}
	algCallRisks = [][]string{nil, {"read"}, {"read", "write"}, {"destructive"}, {"money"}, {"exec", "read"}}
)

// algRule writes a rule. kind: "" is any, "mandatory" or "duty" that kind only.
func (g gen) algRule(section int, id, kind string) string {
	f := []string{"id: " + id}
	target := pick(g, algTargets[section])
	action := pick(g, []string{"allow", "allow", "block", "block", "require-approval", "require-approval", "rate-limit", "pii-scan", "redact"})
	mandatory := g.IntN(7) == 0
	switch kind {
	case "mandatory":
		action, mandatory = pick(g, []string{"block", "require-approval", "redact"}), true
	case "duty":
		action = pick(g, []string{"rate-limit", "pii-scan", "redact"})
	}
	if action == "allow" {
		mandatory = false
	}
	field := []string{"to", "model", "match"}[section]
	f = append(f, fmt.Sprintf("%s: %q", field, target), "action: "+action)
	if action == "require-approval" && g.IntN(2) == 0 {
		f = append(f, `approval: {approvers: ["group:sre"], quorum: 1}`)
	}
	duties := slices.Clone(algDuties)
	if action == "rate-limit" {
		f, duties = append(f, duties[0]), duties[1:]
	}
	if g.IntN(4) == 0 {
		f = append(f, pick(g, duties))
	}
	if w := pick(g, algFors); w != "" {
		f = append(f, fmt.Sprintf("for: %q", w))
	}
	if section == 2 {
		if r := pick(g, algRisks); r != "" {
			f = append(f, "risk: "+r)
		}
		if g.IntN(4) == 0 {
			f = append(f, "when: "+pick(g, algConds))
		}
	} else if g.IntN(5) == 0 {
		f = append(f, "when: "+pick(g, algWindows))
	}
	switch {
	case mandatory:
		f = append(f, "mandatory: true")
	default:
		if g.IntN(3) == 0 {
			f = append(f, "delegable: true")
		}
		if g.IntN(4) == 0 && kind != "duty" {
			f = append(f, "waive: "+pick(g, algWaives))
		}
	}
	if g.IntN(10) == 0 && kind == "" {
		f = append(f, "mode: shadow")
	}
	return "{" + strings.Join(f, ", ") + "}"
}

func (g gen) algDoc(l scope.Level, name, kind string) algDoc {
	d := algDoc{name: name, level: l, scope: pick(g, algScopes[l])}
	n := 2 + g.IntN(6)
	if kind != "" {
		n = 1
	}
	for i := range n {
		section := []int{0, 1, 2, 2, 2, 2}[g.IntN(6)]
		rule := g.algRule(section, fmt.Sprintf("r%d", i), kind)
		d.rules[section] = append(d.rules[section], rule)
	}
	// A rule that is for nobody in the document's scope is an error.
	if _, problems := ParseWhole("x", []byte(d.String())); len(problems) > 0 {
		if !strings.Contains(problems[0].Msg, "nobody in common") {
			panic(fmt.Sprint(Problems(problems), "\n", d))
		}
		return g.algDoc(l, name, kind)
	}
	return d
}

func (g gen) algDocs(from, to scope.Level, prefix string) (out []algDoc) {
	for i := range 2 + g.IntN(6) {
		out = append(out, g.algDoc(from+scope.Level(g.IntN(int(to-from)+1)), fmt.Sprintf("%s%d", prefix, i), ""))
	}
	return out
}

// algAsks draws questions.
func (g gen) algAsks(n int) (out []algAsk) {
	for range n {
		q := algAsk{As: pick(g, []string{"bot", "bot", "bot", "bot", "bot", "bot", "cat", "rep", "alien"}), At: pick(g, algMoments)}
		switch g.IntN(6) {
		case 0:
			q.Egress = pick(g, []string{"x.org", "a.x.org", "b.a.x.org", "y.org"}) + pick(g, []string{":443", ":80"})
		case 1:
			q.Model, q.Builtin = pick(g, []string{"claude-1", "claude-2", "gpt-4"}), g.IntN(2) == 0
		default:
			q.Tool, q.Risk, q.Args = pick(g, algCalls), pick(g, algCallRisks), pick(g, algArguments)
		}
		out = append(out, q)
	}
	return out
}

const (
	algRounds    = 120
	algQuestions = 60
)

func TestTheEngineEqualsTheOracle(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(algRounds) {
		g := newGen(seed)
		text := algText(g.algDocs(scope.LevelOrg, scope.LevelSandbox, "d"))
		s, rules := algCompile(t, text), algRules(t, text)
		for _, q := range g.algAsks(algQuestions) {
			d := algEngine(t, s, q)
			got, want := algWords(d), algOracle(t, rules, q, false)
			if !got.equal(want) {
				t.Fatalf("seed %d %+v\n\tengine %+v\n\toracle %+v\n%s", seed, q, got, want, text)
			}
			got, want = algWords(algShadow(d)), algOracle(t, rules, q, true)
			if !got.equal(want) {
				t.Fatalf("seed %d %+v\n\tengine with shadow %+v\n\toracle %+v\n%s", seed, q, got, want, text)
			}
			seen[d.Effect.String()]++
			if d.Rule.Num == 0 {
				seen["silent"]++
			}
			if len(d.Demands()) > 1 {
				seen["several demands"]++
			}
			if len(d.Obligations()) > 0 {
				seen["obligations"]++
			}
			if d.Shadow() != nil {
				seen["shadow"]++
			}
		}
	}
	for what, least := range map[string]int{"block": 10, "require-approval": 10, "allow": 10, "obligations": 10, "shadow": 5, "several demands": 2} {
		if seen[what]*100 < least*algRounds*algQuestions {
			t.Errorf("%s in %d of %d questions: too few", what, seen[what], algRounds*algQuestions)
		}
	}
	t.Log(seen)
}

func (v algVerdict) equal(w algVerdict) bool {
	return v.effect == w.effect && v.by == w.by && slices.Equal(v.obligations, w.obligations) && slices.Equal(v.demands, w.demands)
}

func TestOrderNeverChangesADecision(t *testing.T) {
	for seed := range uint64(algRounds / 2) {
		g := newGen(seed)
		docs := g.algDocs(scope.LevelOrg, scope.LevelSandbox, "d")
		s := algCompile(t, algText(docs))
		g.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
		var parsed []Document
		for i, d := range docs { // each in a file of its own
			for k := range d.rules {
				rules := slices.Clone(d.rules[k])
				g.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
				docs[i].rules[k] = rules
			}
			p, problems := ParseWhole(fmt.Sprintf("f%d", g.IntN(1000)), []byte(docs[i].String()))
			if len(problems) > 0 {
				t.Fatal(Problems(problems))
			}
			parsed = append(parsed, p...)
		}
		other := compileAll(t, parsed)
		for _, q := range g.algAsks(algQuestions) {
			a, b := algEngine(t, s, q), algEngine(t, other, q)
			if x, y := algWords(a), algWords(b); !x.equal(y) {
				t.Fatalf("seed %d %+v\n\t%+v\n\tshuffled %+v\n%s", seed, q, x, y, algText(docs))
			}
			if a.Terms != nil && a.Terms.Fingerprint != b.Terms.Fingerprint {
				t.Fatalf("seed %d %+v: the fingerprint depends on the order", seed, q)
			}
		}
	}
}

// delegated finds a rule by its name and says whether it is delegable.
func delegated(docs []algDoc, name string) bool {
	doc, id, _ := strings.Cut(name, "/")
	for _, d := range docs {
		for _, rules := range d.rules {
			for _, r := range rules {
				if d.name == doc && strings.HasPrefix(r, "{id: "+id+",") {
					return strings.Contains(r, "delegable: true")
				}
			}
		}
	}
	return name == "builtin/models"
}

func TestLowerDocumentsNeverLoosen(t *testing.T) {
	looser, kept := 0, 0
	for seed := range uint64(algRounds * 2) {
		g := newGen(seed)
		cut := scope.LevelOrg + scope.Level(g.IntN(3))
		upper := g.algDocs(scope.LevelOrg, cut, "u")
		lower := g.algDoc(cut+1+scope.Level(g.IntN(int(scope.LevelSandbox-cut))), "a-lower", "")
		before, after := algCompile(t, algText(upper)), algCompile(t, algText(append(slices.Clone(upper), lower)))
		for _, q := range g.algAsks(algQuestions) {
			a, b := algEngine(t, before, q), algEngine(t, after, q)
			if b.Effect > a.Effect {
				if a.Rule.String() != "" && !delegated(upper, a.Rule.String()) {
					t.Fatalf("seed %d %+v: %s by %s, with a lower document %s by %s\n%s%s", seed, q, a.Effect, a.Rule, b.Effect, b.Rule, algText(upper), lower)
				}
				looser++
			}
			x, y := algWords(a), algWords(b)
			for _, o := range x.obligations {
				if _, rule, _ := strings.Cut(o, " "); !slices.Contains(y.obligations, o) && !delegated(upper, rule) {
					t.Fatalf("seed %d %+v: a lower document took %s away\n%s%s", seed, q, o, algText(upper), lower)
				}
				kept++
			}
			for _, rule := range x.demands {
				if b.Effect == RequireApproval && !slices.Contains(y.demands, rule) && !delegated(upper, rule) && !alsoDelegated(upper, x.demands) {
					t.Fatalf("seed %d %+v: a lower document took the demand of %s away\n%s%s", seed, q, rule, algText(upper), lower)
				}
			}
		}
	}
	if looser < 50 || kept < 500 {
		t.Errorf("%d looser, %d obligations: too few to mean anything", looser, kept)
	}
}

// alsoDelegated says whether all of some rules are delegable: then a word made
// of them is.
func alsoDelegated(docs []algDoc, names []string) bool {
	for _, n := range names {
		if !delegated(docs, n) {
			return false
		}
	}
	return true
}

func TestMandatoryDocumentsNeverLoosen(t *testing.T) {
	stricter := 0
	for seed := range uint64(algRounds) {
		g := newGen(seed)
		docs := g.algDocs(scope.LevelOrg, scope.LevelSandbox, "d")
		more := g.algDoc(scope.LevelOrg+scope.Level(g.IntN(4)), "floor", "mandatory")
		before, after := algCompile(t, algText(docs)), algCompile(t, algText(append(slices.Clone(docs), more)))
		for _, q := range g.algAsks(algQuestions) {
			a, b := algEngine(t, before, q), algEngine(t, after, q)
			if b.Effect > a.Effect {
				t.Fatalf("seed %d %+v: %s by %s, with a mandatory rule %s by %s\n%s%s", seed, q, a.Effect, a.Rule, b.Effect, b.Rule, algText(docs), more)
			}
			if b.Effect < a.Effect {
				stricter++
			}
			for _, o := range algWords(a).obligations {
				if !slices.Contains(algWords(b).obligations, o) {
					t.Fatalf("seed %d %+v: a mandatory rule took %s away\n%s%s", seed, q, o, algText(docs), more)
				}
			}
		}
	}
	if stricter < 50 {
		t.Errorf("%d stricter: too few to mean anything", stricter)
	}
}

func TestObligationsNeverGrant(t *testing.T) {
	obliged := 0
	for seed := range uint64(algRounds) {
		g := newGen(seed)
		docs := g.algDocs(scope.LevelOrg, scope.LevelSandbox, "d")
		var duties []algDoc
		for i := range 3 {
			duties = append(duties, g.algDoc(scope.LevelOrg+scope.Level(g.IntN(4)), fmt.Sprintf("a%d", i), "duty"))
		}
		alone, before, after := algCompile(t, algText(duties)), algCompile(t, algText(docs)), algCompile(t, algText(append(duties, docs...)))
		for _, q := range g.algAsks(algQuestions) {
			if d := algEngine(t, alone, q); d.Rule.String() != "" && d.Rule.String() != "builtin/models" || d.Effect != Block && !q.Builtin {
				t.Fatalf("seed %d %+v: obligations decide: %+v\n%s", seed, q, d, algText(duties))
			} else if len(d.Obligations()) > 0 {
				obliged++
			}
			a, b := algEngine(t, before, q), algEngine(t, after, q)
			if a.Effect != b.Effect || a.Rule.String() != b.Rule.String() {
				t.Fatalf("seed %d %+v: %s by %s, with obligations %s by %s\n%s", seed, q, a.Effect, a.Rule, b.Effect, b.Rule, algText(append(duties, docs...)))
			}
		}
	}
	if obliged < 100 {
		t.Errorf("%d obliged: too few to mean anything", obliged)
	}
}
