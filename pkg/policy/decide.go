// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math/bits"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// The decision algebra, on the set of rules that match a request:
//
//   - Within a layer (the level of the document's scope) a rule that strictly
//     contains another matching rule gives way to it; of what remains the
//     strictest effect is the layer's word. The word is delegable only when
//     every remaining rule with that effect is. Rules without an effect, whose
//     obligations are all they are for, take no part.
//   - Across layers from org to sandbox a silent layer changes nothing; the
//     first word stands; a later one replaces it if it is delegable, else the
//     stricter of the two stands. A word that is not delegable binds all below
//     it, also where a delegable one in between was stricter. All silent: block.
//   - Mandatory rules take no part in that; each that matches is a floor.
//   - The winner's name is the smallest (scope, document, id), which is the
//     order of Snapshot.rules.
//   - A condition that is an error, and a risk of which a rule names only some
//     classes, make a match unsure: what restricts (block, require-approval,
//     obligations) counts, what loosens (allow, delegable, waive) does not. So an
//     unsure allow is mute: it is there for its obligations alone.

// Winners that are no rule. The last two are what may stand where no rule speaks:
// a delegable allow above all layers, see [Builtin] and [Learn].
const (
	noRule      = -1
	builtinRule = -2
	learnRule   = -3
)

// hit is the index of a matching rule, with marks of how it matches.
type hit uint32

const (
	hitUnsure  hit = 1 << 31 // what loosens of the rule does not count
	hitNarrows hit = 1 << 30 // the rule only makes stricter what others open
	hitMute    hit = 1 << 29 // only obligations of the rule count; always with hitUnsure
	hitMarks       = hitMute // any is there from this value on
	hitIndex       = hitMarks - 1
)

func (h hit) index() int { return int(h & hitIndex) }

func (s *Snapshot) rule(h hit) *crule { return &s.rules[h.index()] }

// speaks says whether the effect of a matching rule counts.
func (r *crule) speaks(h hit) bool { return !r.silent && h&hitMute == 0 }

// unsure marks a match of which what loosens does not count; false when
// nothing of the rule is left.
func (r *crule) unsure(h hit) (_ hit, counts bool) {
	if r.effect == Allow {
		h |= hitMute
	}
	return h | hitUnsure, r.effect != Allow || r.oblige != 0
}

// outcome is what the algebra says. The zero value blocks by rule 0, so
// outcomes are only made by decide.
type outcome struct {
	winner    int32 // index of the rule, noRule or builtinRule
	effect    Effect
	layer     scope.Level
	asking    uint8 // layers whose words stand and ask for an approval
	delegable bool
}

// verdict decides on the matching rules; the order of m changes. silent is what
// stands where they say nothing.
func (v *View) verdict(m []hit, silent int32) (d Decision) {
	if len(m) < 2 && silent == noRule {
		switch {
		case len(m) == 0:
			v.s.tell(&d, outcome{winner: noRule})
			return d
		case m[0] < hitMarks && v.s.rule(m[0]).simple():
			r := v.s.rule(m[0])
			v.s.tell(&d, outcome{winner: int32(m[0]), effect: r.effect})
			return d
		}
	}
	live, more := v.s.live(m)
	o := v.s.decide(m[:live], silent)
	v.s.tell(&d, o)
	if more || o.effect == RequireApproval {
		d.Terms = v.settle(m, live, o, silent)
	}
	return d
}

// simple says whether the rule, where it alone matches, decides and that is all.
func (r *crule) simple() bool {
	return r.effect != RequireApproval && !r.mandatory && !r.silent && !r.shadow && r.oblige == 0
}

// live puts the rules in shadow mode last and tells how many there are before
// them, and whether any rule has more than an effect.
func (s *Snapshot) live(m []hit) (n int, more bool) {
	for i, h := range m {
		r := s.rule(h)
		more = more || r.shadow || r.oblige != 0
		if !r.shadow {
			m[i], m[n] = m[n], h
			n++
		}
	}
	return n, more
}

// sortHits orders by index: few entries, often in order.
func sortHits(m []hit) {
	for i := 1; i < len(m); i++ {
		for j := i; j > 0 && m[j].index() < m[j-1].index(); j-- {
			m[j], m[j-1] = m[j-1], m[j]
		}
	}
}

// decide applies the algebra to matching rules. Where some only narrow, the
// stricter counts of what is said with and without them.
func (s *Snapshot) decide(m []hit, silent int32) outcome {
	o := s.combine(m, silent)
	if o.effect == Block {
		return o
	}
	for i, h := range m {
		if h&hitNarrows == 0 {
			continue
		}
		var buf [32]hit
		rest := append(buf[:0], m[:i]...)
		for _, g := range m[i:] {
			if g&hitNarrows == 0 {
				rest = append(rest, g)
			}
		}
		if w := s.combine(rest, silent); w.effect < o.effect {
			return w
		}
		break
	}
	return o
}

func (s *Snapshot) combine(m []hit, silent int32) outcome {
	var layers, floors uint8
	for _, h := range m {
		switch r := s.rule(h); {
		case !r.speaks(h):
		case r.mandatory:
			floors |= 1 << r.effect
		default:
			layers |= 1 << r.level
		}
	}
	o := outcome{winner: noRule}
	switch {
	case silent != noRule || layers&(layers-1) != 0:
		o = s.layered(m, layers, silent)
	case layers != 0: // the common case: one layer speaks
		o = s.word(m, scope.Level(bits.TrailingZeros8(layers)))
		if o.effect == RequireApproval {
			o.asking = layers
		}
	}
	if floors == 0 {
		return o
	}
	return s.floor(m, o)
}

// layered lets the layers speak from above.
func (s *Snapshot) layered(m []hit, layers uint8, silent int32) outcome {
	var words [scope.NumLevels]outcome // those that nothing below replaced, from above
	n := 0
	standing := outcome{winner: noRule}
	if silent != noRule {
		standing = outcome{effect: Allow, winner: silent, delegable: true}
		words[0], n = standing, 1
	}
	for l := scope.LevelOrg; l <= scope.LevelSandbox; l++ {
		if layers&(1<<l) == 0 {
			continue
		}
		word := s.word(m, l)
		k := 0
		for _, w := range words[:n] {
			if !w.delegable {
				words[k] = w
				k++
			}
		}
		if standing.winner == noRule || standing.delegable {
			standing = word
			for _, w := range words[:k] {
				if w.effect < standing.effect {
					standing = w
				}
			}
		} else if word.effect < standing.effect {
			standing = word
		}
		words[k], n = word, k+1
	}
	for _, w := range words[:n] {
		if w.winner >= 0 && w.effect == RequireApproval {
			standing.asking |= 1 << w.layer
		}
	}
	return standing
}

// floor makes an outcome as strict as every mandatory rule. Of all rules that
// say the same, mandatory or the standing word, the smallest name wins.
func (s *Snapshot) floor(m []hit, o outcome) outcome {
	for _, h := range m {
		i, r := int32(h.index()), s.rule(h)
		if !r.mandatory || r.silent {
			continue
		}
		if r.effect < o.effect || r.effect == o.effect && (o.winner == noRule || i < o.winner) {
			o.effect, o.winner, o.delegable, o.layer = r.effect, i, false, r.level
		}
	}
	return o
}

// word is what one layer says; at least one rule of the layer is in m.
func (s *Snapshot) word(m []hit, l scope.Level) outcome {
	out := outcome{effect: Allow, winner: noRule, delegable: true, layer: l}
	for _, h := range m {
		r := s.rule(h)
		if r.level != l || r.mandatory || !r.speaks(h) || s.givesWay(m, r) >= 0 {
			continue
		}
		delegable := r.delegable && h&hitUnsure == 0
		switch {
		case out.winner < 0 || r.effect < out.effect:
			out.effect, out.winner, out.delegable = r.effect, int32(h.index()), delegable
		case r.effect == out.effect:
			out.winner = min(out.winner, int32(h.index()))
			out.delegable = out.delegable && delegable
		}
	}
	return out
}

// givesWay is the index of a matching rule of the same layer that r strictly
// contains, -1 if there is none.
func (s *Snapshot) givesWay(m []hit, r *crule) int {
	for _, h := range m {
		q := s.rule(h)
		if q.spec > r.spec && q.level == r.level && !q.mandatory && q.speaks(h) && s.contains(r, q) {
			return h.index()
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
	case a.when != nil && a.when != b.when: // conditions are interned
		return false
	case a.risk != 0 && (b.risk == 0 || b.risk&^a.risk != 0):
		return false
	case a.section != SectionEgress:
		return a.server.Contains(b.server) && a.name.Contains(b.name)
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
	if r.when != nil {
		n++
	}
	if r.risk != 0 {
		n += int32(len(riskNames)) + 1 - int32(r.risk.count())
	}
	if r.section != SectionEgress {
		return n + patternSpec(r.server) + patternSpec(r.name)
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
	reasonLearned     = "no rule of the policy speaks of it; this sandbox learns (run --learn), so it is let through and recorded"
	reasonBadName     = "this is not a host name that policy can decide on"
	reasonProvider    = "model providers are reached through inference rules, never as plain network destinations"
	reasonUnsupported = "this model provider's dialect is not supported by this version"
	reasonVirtual     = "this address is reserved for names; connect by name"
	reasonDialect     = "this dialect is not supported by this version"
	reasonApproval    = "needs an approval"
)

// setWords makes the words that a decision by the rule has.
func (r *crule) setWords() {
	switch {
	case r.effect == RequireApproval && r.reason != "":
		r.words = "needs an approval; " + r.reason
	case r.effect == RequireApproval:
		r.words = reasonApproval
	case r.reason != "":
		r.words = r.reason
	case r.effect == Allow:
		r.words = reasonAllowed
	default:
		r.words = reasonBlocked
	}
}

// decision is what an outcome says, without terms.
func (s *Snapshot) decision(o outcome) (d Decision) {
	s.tell(&d, o)
	return d
}

// tell writes what an outcome says into an empty decision: it is large, and not
// copied on the way.
func (s *Snapshot) tell(d *Decision, o outcome) {
	d.Revision = s.rev
	switch {
	case o.winner >= 0:
		r := &s.rules[o.winner]
		d.Effect, d.Rule, d.Reason, d.ReasonCode = o.effect, r.ref, r.words, CodeRule
		switch {
		case o.effect == RequireApproval:
			d.ReasonCode = CodeApproval
		case r.mandatory:
			d.ReasonCode = CodeMandatory
		}
	case o.winner == builtinRule:
		d.Effect, d.Rule, d.Reason, d.ReasonCode = o.effect, Builtin().Ref, reasonBuiltin, CodeBuiltin
	case o.winner == learnRule:
		d.Effect, d.Rule, d.Reason, d.ReasonCode = o.effect, Learn().Ref, reasonLearned, CodeLearned
	default:
		d.Reason, d.ReasonCode = reasonNoRule, CodeNoRule
	}
}

func (s *Snapshot) refuse(code, reason string) Decision {
	return Decision{ReasonCode: code, Reason: reason, Revision: s.rev}
}
