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

	Tool string // tools on server:provider
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
	var e Explanation
	var m []uint32
	builtin := false
	switch q.Section {
	case SectionEgress:
		m = v.explainEgress(q, &e)
	case SectionInference:
		e.Decision = v.Inference(q.Dialect, q.Model)
		m = v.s.models.match(nil, v, q.Model)
		builtin = builtDialect(q.Dialect) && v.builtin(q.Dialect, q.Model)
	case SectionTools:
		e.Decision = v.ProviderTool(q.Tool)
		m = v.s.tools.match(nil, v, q.Tool)
	default:
		return e
	}
	for i := range v.s.rules {
		if c, ok := v.candidate(i, q, m, builtin, &e.Decision); ok {
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
	if !e.Decision.Allowed {
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
func (v *View) explainEgress(q Question, e *Explanation) []uint32 {
	if a, err := netip.ParseAddr(q.Host); err == nil {
		e.Decision = v.Addr(a, q.Port, q.proto())
		a = JudgedAddr(a)
		p := netip.PrefixFrom(a, a.BitLen())
		return v.addrRules(v.s.cidrs.match(nil, v, p), p, q.Port, q.proto())
	}
	m, _, prov, ok := v.hostRules(nil, q.Host)
	if q.Method != "" {
		e.Decision = v.HTTP(q.Host, q.Port, q.Method, q.Path)
		return v.request(m, q.Port, q.Method, q.Path)
	}
	mode := condAll
	if q.proto() == UDP {
		e.Decision, mode = v.Datagrams(q.Host, q.Port), condOpaque
	} else if e.Decision = v.Egress(q.Host, q.Port); e.Decision.Allowed {
		mode = condOpen
	}
	if !ok || prov != nil {
		return nil
	}
	m, _ = v.filter(m, q.Port, q.proto(), mode)
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
func (v *View) candidate(i int, q Question, m []uint32, builtin bool, d *Decision) (Candidate, bool) {
	r := &v.s.rules[i]
	if r.section != q.Section || !r.speaksOf(q) {
		return Candidate{}, false
	}
	c := Candidate{Rule: r.ref, Layer: r.level, Effect: r.effect, Mandatory: r.mandatory, Delegable: r.delegable,
		Target: r.target(), index: i}
	switch {
	case d.Rule.Num == r.ref.Num:
		c.Matched, c.Won, c.rank, c.Why = true, true, rankWon, "decides"
	case slices.Contains(m, uint32(i)):
		c.Matched, c.rank, c.Why = true, rankMatched, v.whyLost(m, r, builtin)
	case v.bits[r.group>>6]&(1<<(r.group&63)) == 0:
		c.rank, c.Why = rankPrincipal, fmt.Sprintf("is for %s", v.s.groups[r.group])
	case r.section == SectionEgress && r.port != 0 && r.port != q.Port:
		c.rank, c.Why = rankPort, fmt.Sprintf("is for port %d", r.port)
	case r.section == SectionEgress && !r.speaks(q.proto()):
		c.rank, c.Why = rankProto, fmt.Sprintf("is for %s, this is %s", strings.ToUpper(r.opens().String()), strings.ToUpper(q.proto().String()))
	case r.http != nil:
		c.rank, c.Why = rankCondition, "its HTTP condition does not match"
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
		return r.name.Matches(q.Tool)
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
		return toolSelector(r.name)
	}
	return Target{Host: r.host, Prefix: r.prefix, Port: r.port, Proto: r.proto}.String()
}

func toolSelector(p scope.Pattern) string {
	sel := scope.All()
	sel.Server, sel.Tool = scope.Exact(scope.ServerProvider), p
	return sel.String()
}

// whyLost says why a rule that matched did not decide.
func (v *View) whyLost(m []uint32, r *crule, builtin bool) string {
	if r.mandatory {
		return "is mandatory too"
	}
	if j := v.s.givesWay(m, r); j >= 0 {
		return fmt.Sprintf("gives way to %s, which is narrower", v.s.rules[j].ref)
	}
	word := v.s.word(m, r.level)
	if word.effect != r.effect {
		return fmt.Sprintf("%s of the same layer is stricter", v.s.rules[word.winner].ref)
	}
	o := v.s.decide(m, builtin)
	switch {
	case o.winner >= 0 && v.s.rules[o.winner].mandatory:
		return fmt.Sprintf("the mandatory rule %s stands over every layer", v.s.rules[o.winner].ref)
	case o.winner >= 0 && o.layer == r.level:
		return fmt.Sprintf("%s of the same layer says the same", v.s.rules[o.winner].ref)
	case o.winner >= 0 && o.layer < r.level:
		return fmt.Sprintf("the word of the %s layer stands", o.layer)
	case o.winner >= 0:
		return fmt.Sprintf("the %s layer has the stricter or delegated word", o.layer)
	}
	return "the builtin layer decides"
}
