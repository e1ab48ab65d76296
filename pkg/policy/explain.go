// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Question is what is to be explained. Section says which fields count.
type Question struct {
	Section Section

	Host   string // egress: a name or a literal address
	Port   uint16
	Proto  Proto  // egress: 0 means TCP
	Method string // egress: with a method, one HTTP request; otherwise the connection
	Path   string

	Dialect string // inference
	Model   string
	at      *Provider // who would answer; set while it is explained

	Server string // tools: "" is the model provider, server:provider
	Tool   string
	Risk   Risk
	Args   Args
}

func (q *Question) call() Call {
	c := Call{Server: q.Server, Tool: q.Tool, Risk: q.Risk, Args: q.Args}
	if c.Server == "" {
		c.Server = scope.ServerProvider
	}
	return c
}

// Explanation is a decision with every rule that speaks of its target.
type Explanation struct {
	Decision   Decision
	Candidates []Candidate // winner first, then the other rules that matched, then those that nearly did
	Nearest    *Candidate  // the rule that came closest to allowing a denied request, nil if none
	Remedy     string      // see View.Remedy; "" when allowed or nothing would help
}

// Candidate is one rule and what became of it.
type Candidate struct {
	Rule      RuleRef
	Layer     scope.Level
	Effect    Effect
	NoEffect  bool // obligations only
	Mandatory bool
	Delegable bool
	Target    string // as in the document
	Matched   bool   // the rule is for this request
	Won       bool
	Why       string // one sentence

	index, rank int
}

// maxCandidates bounds an explanation.
const maxCandidates = 200

// Explain decides q and says of each rule that speaks of its target why it won
// or lost. It looks at every rule of the snapshot: it is for people, not for
// the data path.
func (v *View) Explain(q Question) Explanation {
	if q.Section == SectionTools && q.Risk == 0 {
		q.Risk = v.classes(q.Server, q.Tool)
	}
	var e Explanation
	var m []hit
	silent := int32(noRule)
	switch q.Section {
	case SectionEgress:
		m, silent = v.explainEgress(q, &e), v.silent(q.proto())
	case SectionInference:
		e.Decision, q.at = v.Answered(q.Dialect, q.Model)
		f := v.modelFacts(q.Dialect, q.Model)
		f.provider = q.at
		m = v.judge(v.s.models.match(nil, v, q.Model), &f)
		if builtDialect(q.Dialect) {
			silent = v.builtin(q.Dialect, q.Model)
		}
	case SectionTools:
		c := q.call()
		e.Decision = v.Tool(&c)
		m = v.callRules(nil, &c)
	default:
		return e
	}
	live, _ := v.s.live(m)
	m = m[:live]
	for i := range v.s.rules {
		if c, ok := v.candidate(i, q, m, silent, &e.Decision); ok {
			e.Candidates = append(e.Candidates, c)
		}
	}
	slices.SortFunc(e.Candidates, func(a, b Candidate) int {
		if a.rank != b.rank {
			return a.rank - b.rank
		}
		return a.index - b.index
	})
	if len(e.Candidates) > maxCandidates {
		e.Candidates = e.Candidates[:maxCandidates]
	}
	if !e.Decision.Allowed() {
		for i := range e.Candidates {
			if e.Candidates[i].Effect == Allow {
				e.Nearest = &e.Candidates[i]
				break
			}
		}
		e.Remedy = v.remedy(q)
	}
	return e
}

// explainEgress decides and gives the rules that matched.
func (v *View) explainEgress(q Question, e *Explanation) []hit {
	if a, err := netip.ParseAddr(q.Host); err == nil {
		e.Decision = v.Addr(a, q.Port, q.proto())
		a = JudgedAddr(a)
		p := netip.PrefixFrom(a, a.BitLen())
		f := v.addrFacts(a, q.Port)
		m, _ := v.addrRules(v.s.cidrs.match(nil, v, p), p, &f, q.proto(), condAll)
		return m
	}
	m, name, prov, ok := v.hostRules(nil, q.Host)
	f := v.facts(name, q.Port)
	if q.Method != "" {
		e.Decision = v.HTTP(q.Host, q.Port, q.Method, q.Path)
		return v.request(m, &f, q.Method, q.Path)
	}
	if f.opaque = q.proto() == UDP; f.opaque {
		e.Decision = v.Datagrams(q.Host, q.Port)
	} else {
		e.Decision = v.Egress(q.Host, q.Port)
	}
	if !ok || prov != nil {
		return nil
	}
	mode := [...]condMode{Block: condAll, RequireApproval: condAsk, Allow: condOpen}[e.Decision.Effect]
	m, _ = v.filter(m, &f, q.proto(), mode)
	return m
}

func (q *Question) proto() Proto {
	if q.Proto == 0 {
		return TCP
	}
	return q.Proto
}

// Ranks of candidates in an explanation.
const (
	rankWon = iota
	rankMatched
	rankCondition
	rankPort
	rankProto
	rankReach
	rankPrincipal
)

// candidate judges rule i; ok is false when it does not speak of the target.
func (v *View) candidate(i int, q Question, m []hit, silent int32, d *Decision) (Candidate, bool) {
	r := &v.s.rules[i]
	if r.section != q.Section || !r.speaksOf(q) {
		return Candidate{}, false
	}
	c := Candidate{Rule: r.ref, Layer: r.level, Effect: r.effect, NoEffect: r.silent, Mandatory: r.mandatory, Delegable: r.delegable,
		Target: r.target(), index: i}
	h, matches := hit(0), false
	if k := slices.IndexFunc(m, func(h hit) bool { return h.index() == i }); k >= 0 {
		h, matches = m[k], true
	}
	switch {
	case d.Rule.Num == r.ref.Num:
		c.Matched, c.Won, c.rank, c.Why = true, true, rankWon, "decides"
	case matches:
		c.Matched, c.rank, c.Why = true, rankMatched, v.whyLost(m, h, silent)
	case r.shadow:
		c.rank, c.Why = rankCondition, "is in shadow mode: it is left out of what is enforced"
		if d.WouldBe() != "" && d.Shadow().Rule.Num == r.ref.Num {
			c.Why += ", and would decide"
		}
	case v.bits[r.group>>6]&(1<<(r.group&63)) == 0:
		c.rank, c.Why = rankPrincipal, fmt.Sprintf("is for %s", v.s.groups[r.group])
	case r.section == SectionEgress && r.port != 0 && r.port != q.Port:
		c.rank, c.Why = rankPort, fmt.Sprintf("is for port %d", r.port)
	case r.section == SectionEgress && !r.carries(q.proto()):
		c.rank, c.Why = rankProto, fmt.Sprintf("is for %s, this is %s", strings.ToUpper(r.opens().String()), strings.ToUpper(q.proto().String()))
	case r.http != nil:
		c.rank, c.Why = rankCondition, "its HTTP condition does not match"
	case r.risk != 0 && !v.risky(r, q):
		c.rank, c.Why = rankCondition, fmt.Sprintf("is for risk %s, this is %s", r.risk, q.Risk.classified())
	case r.when != nil:
		c.rank, c.Why = rankCondition, "its condition does not hold"
	default:
		c.rank, c.Why = rankReach, "does not reach this destination: special-purpose ranges and provider hosts are left out"
	}
	return c, true
}

func (r *crule) speaksOf(q Question) bool {
	switch q.Section {
	case SectionInference:
		return r.name.Matches(q.Model)
	case SectionTools:
		return r.server.Matches(q.call().Server) && r.name.Matches(q.Tool)
	}
	if a, err := netip.ParseAddr(q.Host); err == nil {
		return r.prefix.IsValid() && r.prefix.Contains(JudgedAddr(a))
	}
	name, ok := lookupHost(q.Host)
	return ok && r.host.Matches(name)
}

func (r *crule) target() string {
	switch r.section {
	case SectionInference:
		return r.name.String()
	case SectionTools:
		return toolSelector(r.server, r.name)
	}
	t := Target{Host: r.host, Prefix: r.prefix, Port: r.port, Proto: r.proto}.String()
	if r.http != nil {
		t += " " + r.http.String()
	}
	return t
}

func toolSelector(server, tool scope.Pattern) string {
	sel := scope.All()
	sel.Server, sel.Tool = server, tool
	return sel.String()
}

// risky says whether the risk of a call lets the rule count.
func (v *View) risky(r *crule, q Question) bool {
	some, all := r.risk.covers(q.Risk)
	return some && (all || r.effect != Allow)
}

// whyLost says why a rule that matched did not decide.
func (v *View) whyLost(m []hit, h hit, silent int32) string {
	r := v.s.rule(h)
	switch {
	case h&hitMute != 0:
		return "opens nothing here: its condition cannot be decided, or it names only some of the risks; its obligations hold"
	case r.silent:
		return "has obligations only"
	case r.mandatory && r.effect == RequireApproval:
		return "is mandatory: what others allow needs its approval"
	case r.mandatory:
		return "is mandatory too"
	}
	if j := v.s.givesWay(m, r); j >= 0 {
		return fmt.Sprintf("gives way to %s, which is narrower", v.s.rules[j].ref)
	}
	word := v.s.word(m, r.level)
	if word.effect != r.effect {
		return fmt.Sprintf("%s of the same layer is stricter", v.s.rules[word.winner].ref)
	}
	o := v.s.decide(m, silent)
	switch {
	case o.winner >= 0 && v.s.rules[o.winner].mandatory:
		return fmt.Sprintf("the mandatory rule %s stands over every layer", v.s.rules[o.winner].ref)
	case o.winner >= 0 && o.layer == r.level:
		return fmt.Sprintf("%s of the same layer says the same", v.s.rules[o.winner].ref)
	case o.winner >= 0 && o.layer < r.level:
		return fmt.Sprintf("the word of the %s layer stands", o.layer)
	case o.winner >= 0:
		return fmt.Sprintf("the word of the %s layer counts: it is stricter, or what stands above leaves it to it", o.layer)
	}
	return "the builtin layer decides"
}
