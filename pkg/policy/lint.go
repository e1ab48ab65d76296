// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Kinds of findings: stable, for programs.
const (
	LintUnreachable   = "unreachable"   // no question is ever what the rule is for
	LintContradiction = "contradiction" // another rule says the opposite of the same
	LintShadowed      = "shadowed"      // other rules always stand
	LintRepeated      = "repeated"      // other rules say the same already
	LintDefault       = "default"       // what no rule says is the same, or a default alone allows it
	LintNobody        = "nobody"        // no known principal is one that it is for
	LintNeverHit      = "never-hit"     // nothing was decided by it on the node; Lint does not know of that
)

// Finding is one thing about documents that their author may not have meant.
type Finding struct {
	Kind string
	Note bool    // may well be meant: nothing is wrong with it
	Rule RuleRef // zero when it is about a whole document
	Doc  string
	File string
	Line int
	Col  int
	Why  string // one sentence
	Do   string // what to do about it
}

// Lint finds rules that do nothing, with the questions that the rules of the
// documents tell apart: a rule does nothing when all of these are decided the
// same without it, whatever conditions say. known are principals that documents
// should be for; none leaves that out. most bounds the questions, as in Prove.
func Lint(docs []Document, known []scope.Principal, most int) ([]Finding, error) {
	snap, problems := Compile(1, docs)
	if len(problems) > 0 {
		return nil, Problems(problems)
	}
	none, _ := Compile(0, nil)
	l := &linter{walk: walk{sides: [2]*Snapshot{snap, none}, most: most, whole: true}, snap: snap,
		of: make([]lintState, len(snap.rules)), builtin: map[string]string{}}
	l.walk.question, l.walk.address = l.asked, l.dialled
	if err := l.everything(); err != nil {
		return nil, err
	}
	out := l.contradictions()
	for i := range l.of {
		if f, ok := l.useless(i, out); ok {
			out = append(out, f)
		}
	}
	out = append(append(out, l.defaults(docs)...), strangers(docs, known)...)
	out = append(out, snap.leadNowhere()...)
	placed(docs, out)
	slices.SortStableFunc(out, func(a, b Finding) int {
		return strings.Compare(fmt.Sprintf("%s\x00%9d\x00%9d\x00%s", a.File, a.Line, a.Col, a.Kind), fmt.Sprintf("%s\x00%9d\x00%9d\x00%s", b.File, b.Line, b.Col, b.Kind))
	})
	return out, nil
}

// lintState is what the walk has found out about a rule.
type lintState struct {
	matched bool            // a question is for it
	needed  bool            // a question is decided otherwise without it
	passes  bool            // something that it matches is let through
	bare    bool            // it decides, and without it nothing is allowed either
	repeats []RuleRef       // what decides the same without it where it decides
	stands  []RuleRef       // what decides where it does not
	lost    bool            // and says something else
	rates   map[uint32]bool // rules with a rate that limits all that its rate limits; nil before the first
}

// maxNamed is how many rules a finding names.
const maxNamed = 3

func addRef(list *[]RuleRef, r RuleRef) {
	if len(*list) < maxNamed && !slices.Contains(*list, r) {
		*list = append(*list, r)
	}
}

type linter struct {
	walk
	snap    *Snapshot
	of      []lintState
	builtin map[string]string // by provider document: a question that only the builtin layer allows
}

func (l *linter) state(r *crule) *lintState { return &l.of[r.ref.Num-1] }

// open are the rules of which it is not known that they are needed.
func (l *linter) open(rules []*crule) (out []*crule) {
	for _, r := range rules {
		if !r.shadow && !l.state(r).needed {
			out = append(out, r)
		}
	}
	return out
}

// asked decides a question without each of its rules.
func (l *linter) asked(views [2]*View, q Question, t *target) *Counterexample {
	v := views[0]
	d := v.Ask(&q)
	if d.ReasonCode == CodeBuiltin {
		for _, to := range v.ReachOf("", q.Dialect, q.Model) {
			if l.builtin[to.Provider.Name] == "" {
				l.builtin[to.Provider.Name] = fmt.Sprintf("%s for %s", &q, v.p)
			}
		}
	}
	open := l.open(t.rules[0])
	if len(open) == 0 {
		return nil
	}
	matching := v.matching(q)
	for _, r := range open {
		if slices.ContainsFunc(matching, func(h hit) bool { return v.s.rule(h) == r }) {
			l.without(v, &q, &d, r)
		}
	}
	return nil
}

// without decides a question without one rule that matches it.
func (l *linter) without(v *View, q *Question, d *Decision, r *crule) {
	st := l.state(r)
	st.matched, st.passes = true, st.passes || d.Effect != Block
	r.shadow = true // is left out of what is decided
	less := v.Ask(q)
	r.shadow = false
	if looser(d, &less) != "" || looser(&less, d) != "" || l.limitsAlone(st, d, r) {
		st.needed = true
		return
	}
	switch {
	case d.Rule.Num != r.ref.Num:
		st.lost = st.lost || d.Effect != r.effect
		addRef(&st.stands, d.Rule)
	case less.Rule.Doc == "":
		st.bare = true
	default:
		addRef(&st.repeats, less.Rule)
	}
}

// limitsAlone says whether no other rate limits all that the rate of the rule
// does: two that share its questions let twice as much pass.
func (l *linter) limitsAlone(st *lintState, d *Decision, r *crule) bool {
	at := slices.IndexFunc(d.Obligations(), func(o Obligation) bool { return o.Kind == KindRate && o.Rule.Num == r.ref.Num })
	if d.Effect == Block || at < 0 {
		return false
	}
	here := map[uint32]bool{}
	for _, o := range d.Obligations() {
		if o.Rule.Num != r.ref.Num && o.fulfils(&d.Obligations()[at]) && (st.rates == nil || st.rates[o.Rule.Num]) {
			here[o.Rule.Num] = true
		}
	}
	st.rates = here
	return len(here) == 0
}

// dialled asks without each of the rules that say to which addresses a name may
// resolve.
func (l *linter) dialled(views [2]*View, q Question, a netip.Addr, t *target) *Counterexample {
	v := views[0]
	if d := v.Ask(&q); d.Effect == Block {
		return nil
	}
	rules := slices.Clone(t.rules[0])
	for i := range l.snap.rules {
		if r := &l.snap.rules[i]; len(r.resolvesTo) > 0 && r.host.Matches(q.Host) && r.covers(q.Port, q.proto()) && l.snap.groups[r.group].Matches(v.p, "", "") {
			rules = append(rules, r)
		}
	}
	for _, r := range l.open(rules) {
		st := l.state(r)
		st.matched = true
		now := v.Dials(&q, a)
		r.shadow = true
		less := v.Dials(&q, a)
		r.shadow = false
		st.needed = now != less
	}
	return nil
}

// matching are the rules that are for a question.
func (v *View) matching(q Question) []hit {
	switch q.Section {
	case SectionEgress:
		return v.explainEgress(q, &Explanation{})
	case SectionInference:
		f := v.modelFacts(q.Dialect, q.Model)
		return v.judge(v.s.models.match(nil, v, q.Model), &f)
	}
	c := q.call()
	return v.callRules(nil, &c)
}
