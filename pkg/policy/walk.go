// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ringfence/ringfence/pkg/scope"
)

// unknown is a condition whose value is chosen.
type unknown struct {
	text  string
	value truth
}

// assume makes the conditions of snapshots unknowns; equal ones of a section
// are one.
func assume(snaps []*Snapshot) map[condKey]*unknown {
	out := map[condKey]*unknown{}
	for _, s := range snaps {
		for i := range s.rules {
			r := &s.rules[i]
			if r.when == nil {
				continue
			}
			key := condKey{r.section, r.when.text()}
			if out[key] == nil {
				out[key] = &unknown{text: r.when.String(), value: condTrue}
			}
			r.when.assumed = &out[key].value
		}
	}
	return out
}

// walk goes through one question of each set that the rules of two snapshots
// tell apart, each under every value of the conditions. What is done with a
// question may find a counterexample; then the walk ends.
type walk struct {
	sides    [2]*Snapshot
	question func(views [2]*View, q Question, t *target) *Counterexample
	address  func(views [2]*View, q Question, a netip.Addr, t *target) *Counterexample // a name has it
	whole    bool                                                                      // also what no rule of the first side opens
	most     int

	unknowns map[condKey]*unknown
	compared int
	what     TooLargeError // how far the part at work has come
	found    *Counterexample

	addrs   []netip.Addr           // one for each set that prefixes of any rule tell apart
	literal map[netip.Addr]*target // address rules, of each
}

// everything walks through all questions.
func (w *walk) everything() error {
	w.unknowns = assume(w.sides[:])
	for _, part := range []func() error{w.names, w.addresses, w.models, w.tools} {
		if err := part(); err != nil || w.found != nil {
			return err
		}
	}
	return nil
}

// over is the error when too many questions were compared.
func (w *walk) over() error {
	if w.compared <= w.most {
		return nil
	}
	return w.tooLarge(w.most, "questions")
}

func (w *walk) tooLarge(n int, what string) error {
	e := w.what
	e.Limit = fmt.Sprintf("%d %s", n, what)
	return &e
}

// target is questions that the same rules speak of.
type target struct {
	rules [2][]*crule // in section and by target, of each side
	extra []scope.Selector
}

// matters says whether a rule of the first side could let anything pass.
func (w *walk) matters(t *target) bool {
	return w.whole || slices.ContainsFunc(t.rules[0], (*crule).grants)
}

// narrowed keeps the rules that are for a principal and that keep lets through.
func (w *walk) narrowed(t *target, who scope.Principal, keep func(*crule) bool) *target {
	out := &target{}
	for side, rules := range t.rules {
		for _, r := range rules {
			if keep(r) && w.sides[side].groups[r.group].Matches(who, "", "") {
				out.rules[side] = append(out.rules[side], r)
			}
		}
	}
	return out
}

// principals are those that the rules of the target tell apart.
func (w *walk) principals(t *target) ([]scope.Principal, error) {
	groups := slices.Clone(t.extra)
	seen := map[scope.Selector]bool{}
	for side, rules := range t.rules {
		for _, r := range rules {
			if g := w.sides[side].groups[r.group]; !seen[g] {
				seen[g] = true
				groups = append(groups, g)
			}
		}
	}
	out, ok := principalCells(groups, maxPrincipals)
	if !ok {
		return nil, w.tooLarge(maxPrincipals, "sets of principals for one of them")
	}
	return out, nil
}

// conditions are the unknowns of the target's rules.
func (w *walk) conditions(t *target) (out []*unknown) {
	for _, rules := range t.rules {
		for _, r := range rules {
			if r.when == nil {
				continue
			}
			if u := w.unknowns[condKey{r.section, r.when.text()}]; !slices.Contains(out, u) {
				out = append(out, u)
			}
		}
	}
	return out
}

// each gives the unknowns all values, until do finds a counterexample.
func (w *walk) each(us []*unknown, do func() *Counterexample) *Counterexample {
	if w.compared > w.most {
		return nil
	}
	if len(us) == 0 {
		w.compared++
		return do()
	}
	for _, v := range []truth{condTrue, condFalse, condError} {
		us[0].value = v
		if c := w.each(us[1:], do); c != nil {
			return c
		}
	}
	us[0].value = condTrue
	return nil
}

// pose compares one question under all values of the conditions. The
// assumptions of a counterexample are those it does not stay one without.
func (w *walk) pose(who scope.Principal, us []*unknown, compare func() *Counterexample) (found bool, err error) {
	c := w.each(us, compare)
	if c == nil {
		return false, w.over()
	}
	var needed []*unknown
	for _, u := range us {
		was := u.value
		for _, u.value = range []truth{condTrue, condFalse, condError} {
			if compare() == nil {
				needed = append(needed, u)
				break
			}
		}
		u.value = was
	}
	for _, u := range needed {
		c.Assuming = append(c.Assuming, Assumption{u.text, [...]string{condTrue: "true", condFalse: "false", condError: "error"}[u.value]})
	}
	c.As, w.found = who, c
	return true, nil
}

func (w *walk) views(who scope.Principal) [2]*View {
	return [2]*View{w.sides[0].View(who), w.sides[1].View(who)}
}
