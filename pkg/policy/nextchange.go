// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"time"
)

// NextChange is the first moment after t at which a decision on egress may be
// another although the policy is the same: the next edge of any window, and for
// expressions on now, whose edges nobody knows, the next full minute. The zero
// value: never. It may name a moment at which nothing changes.
func (s *Snapshot) NextChange(t time.Time) (next time.Time) {
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if s.minutely {
		sooner(t.Truncate(time.Minute).Add(time.Minute))
	}
	for i := range s.windows {
		sooner(s.windows[i].edge(t))
	}
	return next
}

// Timed says whether any rule that is for the principal is one that NextChange
// looks at: for others nothing changes then.
func (v *View) Timed() bool {
	return slices.ContainsFunc(v.s.timed, func(g uint32) bool { return v.bits[g>>6]&(1<<(g&63)) != 0 })
}

// collectTimes notes what NextChange has to look at: of many rules there are few
// different windows.
func (s *Snapshot) collectTimes() {
	seen, groups := map[Window]bool{}, map[uint32]bool{}
	for i := range s.rules {
		r := &s.rules[i]
		if r.when == nil || r.section != SectionEgress {
			continue
		}
		if !r.when.Clock && len(r.when.Windows) == 0 {
			continue
		}
		if !groups[r.group] {
			groups[r.group] = true
			s.timed = append(s.timed, r.group)
		}
		s.minutely = s.minutely || r.when.Clock
		for _, w := range r.when.Windows {
			if key := (Window{From: w.From, To: w.To, Zone: w.Zone}); !seen[key] {
				seen[key] = true
				s.windows = append(s.windows, w)
			}
		}
	}
}
