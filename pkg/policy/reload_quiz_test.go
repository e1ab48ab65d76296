// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Quiz is what the tests of reloading (package policy_test, which may import
// what imports this package) share with the oracles: sets of documents, one list
// of questions, and what the oracles answer for each set. All of it is worked
// out beforehand, so that comparing costs little.
type Quiz struct {
	Sets []map[string]string // text of each document by its name

	named []algAsk // names, models, tools: decided by the second oracle
	addrs []ask    // literal addresses: by the first
	want  [][]answers
}

// answers are what the oracle says without and with the rules in shadow mode.
type answers struct{ live, shadow algVerdict }

var quizHosts = []string{"x.org", "a.x.org", "b.a.x.org", "y.org"}

// NewQuiz draws sets of documents. enforced: only of what may come into force in
// this version, and of what does not depend on the time.
func NewQuiz(t testing.TB, seed uint64, sets int, enforced bool) *Quiz {
	t.Helper()
	g := newGen(seed)
	z := &Quiz{}
	for _, as := range []string{"bot", "cat", "rep"} {
		for _, host := range quizHosts {
			z.named = append(z.named, algAsk{As: as, Egress: host + ":443"}, algAsk{As: as, Egress: host + ":80"})
		}
		for _, m := range []string{"claude-1", "claude-2", "gpt-4"} {
			z.named = append(z.named, algAsk{As: as, Model: m, Builtin: true})
		}
		z.named = append(z.named, algAsk{As: as, Tool: "provider/web_search"})
		for range 16 {
			if !enforced {
				z.named = append(z.named, algAsk{As: as, Tool: pick(g, algCalls), Risk: pick(g, algCallRisks), Args: pick(g, algArguments)})
			}
		}
	}
	for i := range z.named {
		z.named[i].At = pick(g, algMoments)
	}
	for range 24 {
		q := ask{section: SectionEgress, addr: JudgedAddr(g.addr()), port: pick(g, append(somePorts, 22)), proto: pick(g, []Proto{TCP, UDP})}
		z.addrs = append(z.addrs, q)
	}
	for range sets {
		docs := map[string]string{}
		for _, d := range append(g.algDocs(scope.LevelOrg, scope.LevelSandbox, "d"), g.addressDoc("n0"), g.addressDoc("n1")) {
			if enforced {
				d = inForce(d)
			}
			if slices.ContainsFunc(d.rules[:], func(r []string) bool { return len(r) > 0 }) {
				docs[d.name] = d.String()
			}
		}
		z.add(t, docs)
	}
	return z
}

// add works out what the oracles say of one set.
func (z *Quiz) add(t testing.TB, docs map[string]string) {
	t.Helper()
	var text strings.Builder
	for _, d := range docs {
		text.WriteString(d)
	}
	rules := algRules(t, text.String())
	want := make([]answers, 0, len(z.named)+len(z.addrs))
	for _, q := range z.named {
		want = append(want, answers{algOracle(t, rules, q, false), algOracle(t, rules, q, true)})
	}
	parsed, problems := ParseWhole("quiz", []byte(text.String()))
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", Problems(problems), text.String())
	}
	for _, q := range z.addrs {
		v := oracle(parsed, algPrincipals["bot"], q)
		if virtualRange.Contains(q.addr) {
			v = verdict{}
		}
		a := algVerdict{effect: Block.String(), by: v.rule}
		if v.allow {
			a.effect = Allow.String()
		}
		want = append(want, answers{a, a})
	}
	z.Sets, z.want = append(z.Sets, docs), append(z.want, want)
}

// addressDoc is a document of address rules, which the first oracle knows.
func (g gen) addressDoc(name string) algDoc {
	level := scope.LevelOrg + scope.Level(g.IntN(4))
	d := algDoc{name: name, level: level, scope: pick(g, algScopes[level])}
	for i := range 4 {
		verb, end := "allow", fmt.Sprintf(":%d", pick(g, somePorts))
		more := pick(g, []string{"", "", ", delegable: true"})
		if g.IntN(2) == 0 {
			verb, end, more = "deny", pick(g, []string{"", end}), pick(g, []string{"", ", mandatory: true", ", delegable: true"})
		} else if g.IntN(4) == 0 {
			end += "/udp"
		}
		prefix := netip.MustParsePrefix(pick(g, somePrefixes)).String()
		if strings.Contains(prefix, ":") && end != "" {
			prefix = "[" + prefix + "]"
		}
		d.rules[0] = append(d.rules[0], fmt.Sprintf("{id: r%d, %s: %q%s}", i, verb, prefix+end, more))
	}
	return d
}

// inForce leaves out what may not come into force, or depends on the time.
func inForce(d algDoc) algDoc {
	for i, rules := range d.rules {
		d.rules[i] = slices.DeleteFunc(slices.Clone(rules), func(rule string) bool {
			alone := algDoc{name: d.name, scope: d.scope}
			alone.rules[i] = []string{rule}
			_, problems := Parse("quiz", []byte(alone.String()))
			return len(problems) > 0 || strings.Contains(rule, "when:") || strings.Contains(rule, "mode: shadow")
		})
	}
	return d
}

// Len is how many questions there are.
func (z *Quiz) Len() int { return len(z.named) + len(z.addrs) }

// Ask puts a question to a snapshot.
func (z *Quiz) Ask(t testing.TB, s *Snapshot, n int) Decision {
	if n >= len(z.named) {
		q := z.addrs[n-len(z.named)]
		return s.View(algPrincipals["bot"]).Addr(q.addr, q.port, q.proto)
	}
	if q := z.named[n]; q.Model != "" {
		return s.View(algPrincipals[q.As]).At(algTime(t, q)).Inference(DialectAnthropic, q.Model)
	}
	return algEngine(t, s, z.named[n])
}

// Wrong says how a decision differs from what the oracle says of a set, "" when
// it does not.
func (z *Quiz) Wrong(set, n int, d Decision) string {
	want := z.want[set][n]
	for _, c := range []struct {
		got, want algVerdict
		how       string
	}{{algWords(d), want.live, ""}, {algWords(algShadow(d)), want.shadow, " with shadow rules"}} {
		if !c.got.equal(c.want) {
			return fmt.Sprintf("%s%s: %+v, the oracle says %+v", z.question(n), c.how, c.got, c.want)
		}
	}
	return ""
}

func (z *Quiz) question(n int) string {
	if n < len(z.named) {
		return fmt.Sprintf("%+v", z.named[n])
	}
	return fmt.Sprintf("%+v", z.addrs[n-len(z.named)])
}

// Entry is what the kernel's tables must say to a destination of the sandbox.
type Entry struct {
	Host  string     // the name, or
	Addr  netip.Addr // the literal address
	Port  uint16
	Proto Proto
	Opens bool   // a name: there is an entry; an address: its verdict is to let it pass
	Rule  string // which the entry names, "" if there may be none
}

// Entries are those of the principal QuizSandbox on a set.
func (z *Quiz) Entries(set int) (out []Entry) {
	for n, q := range z.named {
		host, port, _ := strings.Cut(q.Egress, ":")
		if w := z.want[set][n].live; q.As == "bot" && q.Egress != "" {
			e := Entry{Host: host, Port: 443, Proto: TCP, Opens: w.effect != Block.String()}
			if port == "80" {
				e.Port = 80
			}
			if e.Opens {
				e.Rule = w.by
			}
			out = append(out, e)
		}
	}
	for i, q := range z.addrs {
		w := z.want[set][len(z.named)+i].live
		e := Entry{Addr: q.addr, Port: q.port, Proto: q.proto, Opens: w.effect == Allow.String(), Rule: w.by}
		if q.proto == UDP && !e.Opens {
			e.Rule = "" // without an entry for UDP everything is refused, whatever refuses it
		}
		out = append(out, e)
	}
	return out
}

// QuizSandbox is the principal of Entries, and QuizHosts its names.
var (
	QuizSandbox = algPrincipals["bot"]
	QuizHosts   = quizHosts
)
