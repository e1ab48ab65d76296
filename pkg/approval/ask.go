// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"cmp"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// Limits keep one sandbox from wearing people out. Both must be positive: with
// the zero value everything is refused.
type Limits struct {
	Pending   int // requests of one sandbox that wait at the same time
	PerMinute int // new requests of one sandbox within a minute
}

// DefaultLimits are those of a node that says nothing else.
var DefaultLimits = Limits{Pending: 20, PerMinute: 30}

// Outcome of asking. The zero value is a refusal.
type Outcome uint8

// The outcomes.
const (
	Refused  Outcome = iota // see Answer.Reason
	Waiting                 // for people
	Released                // a grant was there: go on, once
)

// Answer is what asking came to. ID is the request that answers, "" when a
// limit refused it.
type Answer struct {
	Outcome Outcome
	ID      string
	Reason  string // of a refusal, for the sandbox: it does not tell who
	Code    string // of a refusal: "approval-denied", "approval-limit"
}

// Ask decides what a sandbox's call meets: a denial that still stands, a grant,
// a request alike that waits, a limit, or none of these and it becomes a
// request. mine are all requests of that sandbox that are open, or ended
// within [DenialStands] and a minute. The caller has decided the call a moment
// ago. Every request in changed must be durable before the answer takes effect.
//
// What has another fingerprint than the decision of now is superseded, if it is
// for this very call. A grant for more calls than that stays: another call may
// well meet other rules.
func Ask(mine []Request, c *Call, id string, l Limits, now time.Time) (a Answer, changed []Request, err error) {
	if err := c.Valid(); err != nil {
		return Answer{Reason: err.Error(), Code: "approval-invalid"}, nil, err
	}
	s := asking{c: c, binding: c.Binding(), now: now}
	for _, r := range mine {
		if r.Sandbox == c.Sandbox {
			s.look(r)
		}
	}
	switch {
	case s.denied != nil:
		s.a = Answer{Refused, s.denied.ID, "people have denied it (" + s.denied.ID + ")", "approval-denied"}
	case s.release():
	case s.alike != nil && s.alike.ID == c.Waits:
		s.a = Answer{Outcome: Waiting, ID: s.alike.ID}
	case s.alike != nil:
		s.alike.Count++
		s.put(*s.alike)
		s.a = Answer{Outcome: Waiting, ID: s.alike.ID}
	case s.pending >= l.Pending:
		s.a = Answer{Reason: fmt.Sprintf("%d requests of this sandbox wait for approval already", s.pending), Code: "approval-limit"}
	case s.recent >= l.PerMinute:
		s.a = Answer{Reason: fmt.Sprintf("this sandbox has asked for approval %d times within a minute", s.recent), Code: "approval-limit"}
	default:
		s.put(newRequest(c, id, now))
		s.a = Answer{Outcome: Waiting, ID: id}
	}
	return s.a, s.changed, nil
}

// asking is one Ask under way.
type asking struct {
	c       *Call
	binding string
	now     time.Time

	grants          []Request // that cover the call
	alike, denied   *Request
	pending, recent int

	a       Answer
	changed []Request
}

func (s *asking) put(r Request) { s.changed = append(s.changed, r) }

// look sorts one request of the sandbox in.
func (s *asking) look(was Request) {
	r := was.At(s.now)
	same := r.Binding == s.binding
	if r.State.Open() && same && r.Fingerprint != s.c.Fingerprint {
		r = r.next(Superseded, "the rules that decide have changed", s.now)
	}
	if r.State != was.State {
		s.put(r)
	}
	if s.now.Sub(r.Created) < time.Minute {
		s.recent++
	}
	switch {
	case r.State == Pending:
		s.pending++
		if same {
			s.alike = &r
		}
	case r.State == Approved && r.Fingerprint == s.c.Fingerprint && r.covers(s.c):
		s.grants = append(s.grants, r)
	case r.State == Denied && same && r.Fingerprint == s.c.Fingerprint && s.now.Sub(r.Decided) < DenialStands:
		s.denied = &r
	}
}

// release uses a grant: one that lasts if there is one, else the oldest that is
// for one time.
func (s *asking) release() bool {
	if len(s.grants) == 0 {
		return false
	}
	g := slices.MinFunc(s.grants, func(a, b Request) int {
		return cmp.Or(cmp.Compare(b.Grant.Lasts, a.Grant.Lasts), a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	if g.Grant.Lasts == LastsOnce {
		s.put(g.next(Consumed, "", s.now))
	}
	s.a = Answer{Outcome: Released, ID: g.ID}
	return true
}

// clip shortens text to a bound, at a rune.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
