// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// The decision algebra, on the set of rules that match a request:
//
//   - Within a layer (the level of the document's scope) a rule that strictly
//     contains another matching rule gives way to it; of what remains the
//     strictest effect is the layer's word. The word is delegable only when
//     every remaining rule with that effect is.
//   - Across layers from org to sandbox a silent layer changes nothing; the
//     first word stands; a later one replaces it if it is delegable, else the
//     stricter of the two stands. All silent: block.
//   - Mandatory rules take no part in that; each that matches is a floor.
//   - The winner's name is the smallest (scope, document, id), which is the
//     order of Snapshot.rules.

// Winners that are no rule.
const (
	noRule      = -1
	builtinRule = -2
)

// outcome is what the algebra says. The zero value blocks by rule 0, so
// outcomes are only made by decide.
type outcome struct {
	effect    Effect
	winner    int // index of the rule, noRule or builtinRule
	delegable bool
	layer     scope.Level
}

// decide applies the algebra. builtin adds the builtin layer's delegable allow.
func (s *Snapshot) decide(m []uint32, builtin bool) outcome {
	out := outcome{effect: Block, winner: noRule}
	spoken := false
	if builtin {
		out = outcome{effect: Allow, winner: builtinRule, delegable: true}
		spoken = true
	}
	var layers uint8
	floor := noRule
	for _, i := range m {
		r := &s.rules[i]
		if !r.mandatory {
			layers |= 1 << r.level
		} else if floor < 0 || int(i) < floor {
			floor = int(i)
		}
	}
	for l := scope.LevelOrg; l <= scope.LevelSandbox; l++ {
		if layers&(1<<l) == 0 {
			continue
		}
		word := s.word(m, l)
		if !spoken || out.delegable || word.effect < out.effect {
			out, spoken = word, true
		}
	}
	if floor >= 0 && (out.effect == Allow || out.winner < 0 || floor < out.winner) {
		out = outcome{effect: Block, winner: floor, layer: s.rules[floor].level}
	}
	return out
}

// word is what one layer says; at least one rule of the layer is in m.
func (s *Snapshot) word(m []uint32, l scope.Level) outcome {
	out := outcome{effect: Allow, winner: noRule, delegable: true, layer: l}
	for _, i := range m {
		r := &s.rules[i]
		if r.level != l || r.mandatory || s.givesWay(m, r) >= 0 {
			continue
		}
		switch {
		case out.winner < 0 || r.effect < out.effect:
			out.effect, out.winner, out.delegable = r.effect, int(i), r.delegable
		case r.effect == out.effect:
			out.winner = min(out.winner, int(i))
			out.delegable = out.delegable && r.delegable
		}
	}
	return out
}

// givesWay is the index of a matching rule of the same layer that r strictly
// contains, -1 if there is none.
func (s *Snapshot) givesWay(m []uint32, r *crule) int {
	for _, j := range m {
		q := &s.rules[j]
		if q.spec > r.spec && q.level == r.level && !q.mandatory && s.contains(r, q) {
			return int(j)
		}
	}
	return -1
}

// contains reports whether a contains b, field by field and by syntax. Both
// are of one section.
func (s *Snapshot) contains(a, b *crule) bool {
	if a.group != b.group && !s.groups[a.group].Contains(s.groups[b.group]) {
		return false
	}
	switch {
	case a.section != b.section:
		return false
	case a.section != SectionEgress:
		return a.name.Contains(b.name)
	case a.port != 0 && a.port != b.port:
		return false
	case a.http != nil && (b.http == nil || !a.http.equal(b.http)):
		return false
	case a.prefix.IsValid():
		return b.prefix.IsValid() && a.prefix.Bits() <= b.prefix.Bits() && a.prefix.Contains(b.prefix.Addr())
	}
	return a.host.Contains(b.host)
}

// specificity is a measure for which strict containment implies a strictly
// smaller value, so that most pairs need no comparison.
func (s *Snapshot) specificity(r *crule) int32 {
	g := &s.groups[r.group]
	n := patternSpec(g.Org) + patternSpec(g.Team) + patternSpec(g.Agent) + patternSpec(g.Sandbox)
	if r.section != SectionEgress {
		return n + patternSpec(r.name)
	}
	if r.port != 0 {
		n++
	}
	if r.http != nil {
		n++
	}
	if r.prefix.IsValid() {
		return n + int32(r.prefix.Bits())
	}
	labels := int32(0)
	if r.host.Name != "" {
		labels = int32(strings.Count(r.host.Name, ".")) + 1
	}
	switch r.host.Kind {
	case HostDeep:
		return n + 4*labels
	case HostStar:
		return n + 4*labels + 2
	}
	return n + 4*labels + 3
}

func patternSpec(p scope.Pattern) int32 {
	n := int32(2 * len(p.Text))
	if !p.Wild {
		n++
	}
	return n
}

// Fixed words of decisions. They go to agents and hold no rule text.
const (
	reasonNoRule      = "no rule of the policy allows it"
	reasonBlocked     = "the policy refuses it"
	reasonAllowed     = "the policy allows it"
	reasonBuiltin     = "configured models are allowed"
	reasonBadName     = "this is not a host name that policy can decide on"
	reasonProvider    = "model providers are reached through inference rules, never as plain network destinations"
	reasonUnsupported = "this model provider's dialect is not supported by this version"
	reasonVirtual     = "this address is reserved for names; connect by name"
	reasonDialect     = "this dialect is not supported by this version"
)

func (r *crule) reasonText() string {
	switch {
	case r.reason != "":
		return r.reason
	case r.effect == Allow:
		return reasonAllowed
	}
	return reasonBlocked
}

// decision turns an outcome into a Decision.
func (s *Snapshot) decision(o outcome) Decision {
	d := Decision{Allowed: o.effect == Allow, Revision: s.rev}
	switch {
	case o.winner >= 0:
		r := &s.rules[o.winner]
		d.Rule, d.Reason, d.ReasonCode = r.ref, r.reasonText(), CodeRule
		if r.mandatory {
			d.ReasonCode = CodeMandatory
		}
	case o.winner == builtinRule:
		d.Rule = Builtin().Ref
		d.Reason, d.ReasonCode = reasonBuiltin, CodeBuiltin
	default:
		d.Allowed = false
		d.Reason, d.ReasonCode = reasonNoRule, CodeNoRule
	}
	return d
}

func (s *Snapshot) refuse(code, reason string) Decision {
	return Decision{ReasonCode: code, Reason: reason, Revision: s.rev}
}
