// SPDX-License-Identifier: Apache-2.0

package policy

import "time"

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

// collectTimes notes what NextChange has to look at: of many rules there are few
// different windows.
func (s *Snapshot) collectTimes() {
	seen := map[Window]bool{}
	for i := range s.rules {
		r := &s.rules[i]
		if r.when == nil || r.section != SectionEgress {
			continue
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
