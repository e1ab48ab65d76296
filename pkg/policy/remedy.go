// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Remedy is what an operator can do about a refused destination: one command
// line that would allow it in the principal's own layer, or a sentence that
// says which rule stands above. It is "" when the destination is allowed, or
// when nothing would help. With port 0 port 443 is meant. Not for agents: it
// names rules.
func (v *View) Remedy(host string, port uint16, proto Proto) string {
	return v.remedy(Question{Section: SectionEgress, Host: host, Port: port, Proto: proto})
}

// RemedyModel is Remedy for a model.
func (v *View) RemedyModel(dialect, model string) string {
	return v.remedy(Question{Section: SectionInference, Dialect: dialect, Model: model})
}

// RemedyTool is Remedy for a tool that the provider runs.
func (v *View) RemedyTool(tool string) string {
	return v.remedy(Question{Section: SectionTools, Tool: tool})
}

func (v *View) remedy(q Question) string {
	if q.Section == SectionEgress && q.Port == 0 {
		q.Port = 443
	}
	switch q.Section {
	case SectionEgress:
		return v.remedyEgress(q)
	case SectionInference:
		d, at := v.Answered(q.Dialect, q.Model)
		if !builtDialect(q.Dialect) || d.Allowed() {
			return ""
		}
		f := v.modelFacts(q.Dialect, q.Model)
		f.provider = at
		m := v.judge(v.s.models.match(nil, v, q.Model), &f)
		hyp := crule{section: SectionInference, name: scope.Exact(q.Model)}
		s, _ := v.try(m, hyp, v.builtin(q.Dialect, q.Model), fmt.Sprintf("add to a Policy document: inference: [{id: ID, allow: %q}]", q.Model))
		return s
	case SectionTools:
		c := q.call()
		if d := v.Tool(&c); d.Allowed() {
			return ""
		}
		m := v.callRules(nil, &c)
		hyp := crule{section: SectionTools, server: scope.Exact(c.Server), name: scope.Exact(q.Tool)}
		s, _ := v.try(m, hyp, noRule, fmt.Sprintf("add to a Policy document: tools: [{id: ID, allow: %q}]", toolSelector(hyp.server, hyp.name)))
		return s
	}
	return ""
}

func (v *View) remedyEgress(q Question) string {
	hyp := crule{section: SectionEgress, port: q.Port}
	if q.proto() == UDP {
		if hyp.proto = UDP; q.Port == 53 {
			return "" // answered here, and no rule speaks of it
		}
	}
	if a, err := netip.ParseAddr(q.Host); err == nil {
		return v.remedyAddr(a, q, hyp)
	}
	m, name, prov, ok := v.hostRules(nil, q.Host)
	switch {
	case !ok:
		return ""
	case prov != nil && !prov.Supported():
		return fmt.Sprintf("%s is a host of %s, whose dialect this version does not speak: configure a Provider and use its dialect", name, prov.Provider)
	case prov != nil:
		if d := v.opens()[prov.Dialect]; d.Effect != Block {
			return ""
		}
		return fmt.Sprintf(`%s is a model provider: allow its models with an inference rule, such as inference: [{id: ID, allow: "*"}]`, name)
	}
	hyp.host = HostPattern{HostExact, name}
	f := v.facts(name, q.Port)
	then := "ringfence allow " + Target{Host: hyp.host, Port: q.Port, Proto: hyp.proto}.String()
	if q.proto() == UDP {
		if d := v.Datagrams(q.Host, q.Port); d.Allowed() {
			return ""
		}
		f.opaque = true
		m, _ = v.filter(m, &f, UDP, condAll)
		s, _ := v.try(m, hyp, noRule, then)
		return s
	}
	if q.Method != "" {
		if d := v.HTTP(q.Host, q.Port, q.Method, q.Path); d.Allowed() {
			return ""
		}
		m = v.request(m, &f, q.Method, q.Path)
	} else {
		if d := v.Egress(q.Host, q.Port); d.Allowed() {
			return ""
		}
		open, _ := v.filter(slices.Clone(m), &f, TCP, condOpen)
		if s, ok := v.try(open, hyp, noRule, then); ok {
			return s
		}
		m, _ = v.filter(m, &f, TCP, condAll)
	}
	s, _ := v.try(m, hyp, noRule, then)
	return s
}

func (v *View) remedyAddr(a netip.Addr, q Question, hyp crule) string {
	a = JudgedAddr(a)
	hyp.prefix = netip.PrefixFrom(a, a.BitLen())
	d := v.Addr(a, q.Port, q.proto())
	switch {
	case a.Zone() != "" || d.Allowed():
		return ""
	case virtualRange.Contains(a):
		return "connect by name: the address is reserved for names"
	case a.IsLoopback():
		return "give the host's service a name in a rule with resolvesTo: [127.0.0.1/32]"
	}
	f := v.addrFacts(a, q.Port)
	m, _ := v.addrRules(v.s.cidrs.match(nil, v, hyp.prefix), hyp.prefix, &f, q.proto(), condAll)
	s, _ := v.try(m, hyp, noRule, "ringfence allow "+Target{Prefix: hyp.prefix, Port: q.Port, Proto: hyp.proto}.String())
	return s
}

// try decides with one more rule that allows exactly this for exactly this
// principal. When that helps, ok is true and the answer is then; otherwise the
// rule that stands above is named.
func (v *View) try(m []hit, hyp crule, silent int32, then string) (answer string, ok bool) {
	t := &Snapshot{groups: append(append([]scope.Selector(nil), v.s.groups...), v.p.Selector())}
	hyp.effect, hyp.level, hyp.group = Allow, v.p.Selector().Level(), uint32(len(v.s.groups))
	all := make([]hit, 0, len(m)+1)
	live, _ := v.s.live(m)
	for _, h := range m[:live] {
		all = append(all, hit(len(t.rules))|h&^hitIndex)
		t.rules = append(t.rules, *v.s.rule(h))
	}
	hyp.spec = t.specificity(&hyp)
	all = append(all, hit(len(t.rules)))
	t.rules = append(t.rules, hyp)
	o := t.decide(all, silent)
	if o.effect == Allow {
		return then, true
	}
	r := &t.rules[o.winner]
	where := fmt.Sprintf("%s (%s, scope %s)", r.ref, place(r.ref.File, r.ref.Line), r.ref.Scope)
	switch {
	case o.effect == RequireApproval && r.mandatory:
		return "the mandatory rule " + where + " demands an approval; no other rule can lift that", false
	case o.effect == RequireApproval:
		return "the rule " + where + " has people decide it when it is tried: ringfence approvals list", false
	case r.mandatory:
		return "the mandatory rule " + where + " refuses it; no other rule can allow it", false
	case r.level < hyp.level:
		return "the rule " + where + " stands above and is not delegable", false
	}
	return "the rule " + where + " refuses exactly this; change it", false
}
