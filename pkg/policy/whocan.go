// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Who is one set of principals and what a question gets from all of them:
// everybody in Scope who is in the Scope of no row below it, that is, of no
// smaller set.
type Who struct {
	Scope    scope.Selector
	Decision Decision
}

// maxWho bounds the sets that WhoCan tells apart.
const maxWho = 4096

// WhoCan answers a question for everybody, at a time. What a decision depends on is the
// set of rules that are for somebody, so the scopes of the rules that speak of
// the target, and what two of them have in common, part all principals into
// finitely many sets. The rows are exact, wider sets first; the first is
// everybody.
func (s *Snapshot) WhoCan(q Question, at time.Time) ([]Who, error) {
	sets := []scope.Selector{scope.All()}
	seen := map[scope.Selector]bool{sets[0]: true}
	var groups []scope.Selector
	for i := range s.rules {
		r := &s.rules[i]
		if g := s.groups[r.group]; r.section == q.Section && r.speaksOf(q) && !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	for i := range s.providers {
		if p := s.providers[i].Scope; q.Section != SectionTools && !slices.Contains(groups, p) {
			groups = append(groups, p) // whose models are configured, the builtin layer allows
		}
	}
	for _, g := range groups {
		for _, have := range sets[:len(sets):len(sets)] {
			both, ok := have.Intersect(g)
			if !ok || seen[both] {
				continue
			}
			if seen[both] = true; len(seen) > maxWho {
				return nil, fmt.Errorf("the rules for this target tell more than %d sets of principals apart", maxWho)
			}
			sets = append(sets, both)
		}
	}
	slices.SortFunc(sets, func(a, b scope.Selector) int { // what contains another stands before it
		return cmp.Or(cmp.Compare(reach(a), reach(b)), strings.Compare(a.String(), b.String()))
	})
	var out []Who
	for _, set := range sets {
		p, ok := witness(set, sets)
		if !ok {
			continue // smaller sets cover all of it
		}
		if w := (Who{set, s.View(p).At(at).Explain(q).Decision}); !w.saidAbove(out) {
			out = append(out, w)
		}
	}
	return out, nil
}

// reach is smaller for whatever contains a set.
func reach(s scope.Selector) int32 {
	return patternSpec(s.Org) + patternSpec(s.Team) + patternSpec(s.Agent) + patternSpec(s.Sandbox)
}

// saidAbove reports whether each of the rows that most narrowly contain w says
// the same, so that w need not be told.
func (w *Who) saidAbove(rows []Who) bool {
	var closest []*Who
	for i := range rows {
		if !rows[i].Scope.Contains(w.Scope) {
			continue
		}
		closest = slices.DeleteFunc(closest, func(c *Who) bool { return c.Scope.Contains(rows[i].Scope) })
		closest = append(closest, &rows[i])
	}
	return len(closest) > 0 && !slices.ContainsFunc(closest, func(c *Who) bool {
		return c.Decision.Verdict() != w.Decision.Verdict() || c.Decision.Rule != w.Decision.Rule || c.Decision.ReasonCode != w.Decision.ReasonCode
	})
}

// witness is a principal that is in the set and in no set that it contains. ok
// is false if there seems to be none.
func witness(set scope.Selector, sets []scope.Selector) (scope.Principal, bool) {
	for try := range 1000 {
		fresh := func(p scope.Pattern) string {
			if !p.Wild {
				return p.Text
			}
			return p.Text + "~" + strconv.Itoa(try) // no selector that a person writes has it
		}
		p := scope.Principal{Org: fresh(set.Org), Team: fresh(set.Team), Agent: fresh(set.Agent), Sandbox: fresh(set.Sandbox)}
		if !slices.ContainsFunc(sets, func(o scope.Selector) bool {
			return o != set && set.Contains(o) && o.Matches(p, "", "")
		}) {
			return p, true
		}
	}
	return scope.Principal{}, false
}
