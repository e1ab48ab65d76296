// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

func (r *crule) finding(kind, why, do string) Finding {
	return Finding{Kind: kind, Rule: r.ref, Doc: r.ref.Doc, File: r.ref.File, Line: r.ref.Line, Why: why, Do: do}
}

// useless is the finding about a rule that the walk found no use for, unless
// there is one about it.
func (l *linter) useless(i int, have []Finding) (f Finding, ok bool) {
	r, st := &l.snap.rules[i], &l.of[i]
	if r.shadow || st.needed || slices.ContainsFunc(have, func(h Finding) bool { return h.Rule == r.ref }) {
		return f, false
	}
	switch {
	case !st.matched:
		f = r.finding(LintUnreachable, l.unreachable(r), "delete it, or change what it is for")
	case r.silent && !st.passes:
		f = r.finding(LintShadowed, "what it obliges to is never done: everything that it matches is refused"+named(" by ", st.stands), "delete it, or change what it is for")
	case r.silent:
		f = r.finding(LintRepeated, "what it obliges to is done without it, or lifted by others", "delete it")
	case st.bare:
		f = r.finding(LintDefault, "what it refuses is refused without it too: no rule allows it", "keep it as a guard against rules to come, or delete it")
		f.Note = true
	case slices.Equal(st.repeats, []RuleRef{Builtin().Ref}):
		f = r.finding(LintDefault, "what it allows is allowed without it, by the default builtin/models alone", "keep it if these are to stay allowed when others deny the rest")
		f.Note = true
	case len(st.repeats) > 0:
		f = r.finding(LintRepeated, "every question is decided the same without it:"+named(" ", st.repeats)+" says as much", "delete it, or keep it and delete the other")
	case !st.lost:
		f = r.finding(LintRepeated, "every question is decided the same without it:"+named(" ", st.stands)+" says as much", "delete it, or keep it and delete the other")
	default:
		f = r.finding(LintShadowed, "it never decides:"+named(" ", st.stands)+" always stands", "delete it, make it narrower, or make the other one delegable where that stands above")
	}
	return f, true
}

// named lists rules behind a word; "" for none.
func named(word string, rules []RuleRef) string {
	var names []string
	for _, r := range rules {
		if r.Doc != "" {
			names = append(names, r.String())
		}
	}
	if len(names) == 0 {
		return ""
	}
	return word + strings.Join(names, " or ")
}

// unreachable says why no question is for a rule.
func (l *linter) unreachable(r *crule) string {
	if r.section == SectionEgress && !r.prefix.IsValid() {
		for _, h := range l.snap.ProviderHosts() {
			if h.Host.Contains(r.host) {
				return fmt.Sprintf("%s is a host of a model provider (%s), which no egress rule reaches", r.host, h.Provider)
			}
		}
	}
	if r.prefix.IsValid() && r.effect == Allow {
		return fmt.Sprintf("no address of %s is one that a rule can allow", r.prefix)
	}
	return "no question is ever what it is for"
}

// contradictions are rules of one layer for the same with different effects:
// the stricter always stands.
func (l *linter) contradictions() (out []Finding) {
	type key struct {
		section Section
		level   scope.Level
		group   uint32
		target  string
		risk    Risk
		when    *condition
	}
	same := map[key][]*crule{}
	for i := range l.snap.rules {
		r := &l.snap.rules[i]
		if r.silent || r.shadow || r.mandatory {
			continue
		}
		target := r.target()
		if r.section == SectionEgress {
			target = Target{Host: r.host, Prefix: r.prefix, Port: r.port}.String()
		}
		if r.http != nil {
			target += fmt.Sprint(*r.http)
		}
		k := key{r.section, r.level, r.group, target, r.risk, r.when}
		same[k] = append(same[k], r)
	}
	for _, rules := range same {
		for _, loose := range rules {
			i := slices.IndexFunc(rules, func(o *crule) bool {
				return o.effect < loose.effect && (o.carries(TCP) || !loose.carries(TCP)) && (o.carries(UDP) || !loose.carries(UDP))
			})
			if i < 0 {
				continue
			}
			o := rules[i]
			out = append(out, loose.finding(LintContradiction, fmt.Sprintf("%s (%s) says %s about the same in the same layer, and the stricter stands", o.ref, place(o.ref.File, o.ref.Line), o.effect), "delete one of them"))
		}
	}
	return out
}

// defaults are the providers whose models a default allows.
func (l *linter) defaults(docs []Document) (out []Finding) {
	for i := range docs {
		d := &docs[i]
		if d.Provider == nil || l.builtin[d.Name] == "" {
			continue
		}
		out = append(out, Finding{Kind: LintDefault, Note: true, Doc: d.Name, File: d.File, Line: d.Line, Col: 1,
			Why: "no rule allows its models, only builtin/models does: " + l.builtin[d.Name],
			Do:  "write an inference rule for those who are to use them, and one that denies the rest"})
	}
	return out
}

// strangers are documents and rules that are for nobody who is known.
func strangers(docs []Document, known []scope.Principal) (out []Finding) {
	nobody := func(s scope.Selector) bool {
		return len(known) > 0 && !slices.ContainsFunc(known, func(p scope.Principal) bool { return s.Matches(p, "", "") })
	}
	const do = "correct the spelling, or delete it"
	for i := range docs {
		d := &docs[i]
		if d.Policy == nil {
			continue
		}
		if nobody(d.Scope) {
			out = append(out, Finding{Kind: LintNobody, Doc: d.Name, File: d.File, Line: d.Line, Col: 1, Why: "its scope " + d.Scope.String() + " holds nobody who is known", Do: do})
			continue
		}
		eachRule(docs[i:i+1], func(d *Document, r *Rule) {
			if r.For == nil {
				return
			}
			if both, ok := d.Scope.Intersect(*r.For); ok && nobody(both) {
				f := Finding{Kind: LintNobody, Rule: RuleRef{Doc: d.Name, ID: r.ID, File: d.File, Line: r.Line, Scope: d.Scope.String()}, Doc: d.Name, File: d.File,
					Why: "it is for " + both.String() + ", and nobody who is known is that", Do: do}
				f.Line, f.Col = r.place("for")
				out = append(out, f)
			}
		})
	}
	return out
}

// placed adds the columns of rules.
func placed(docs []Document, findings []Finding) {
	at := map[string][2]int{}
	eachRule(docs, func(d *Document, r *Rule) {
		at[RuleRef{Doc: d.Name, ID: r.ID, File: d.File, Scope: d.Scope.String()}.place()] = [2]int{r.Line, r.Col}
	})
	for i := range findings {
		f := &findings[i]
		if p, ok := at[f.Rule.place()]; ok && f.Col == 0 {
			f.Line, f.Col = p[0], p[1]
		}
	}
}
