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

// Answers is what asking for several calls came to. Nothing is released before all
// are. IDs has one for each call, in their order: of a release the grant that was
// used, of waiting the request that waits ("" where only the others wait), of a
// refusal the denial ("" elsewhere).
type Answers struct {
	Outcome Outcome
	IDs     []string
	Reason  string
	Code    string
}

// MaxCalls is how many calls are asked for together.
const MaxCalls = 16

// AskAll decides what the calls of one request of a sandbox meet: a denial that
// still stands, grants, requests alike that wait, a limit, or none of these and they
// become requests. It is all or nothing: with a denial of one all are refused,
// grants for one time are used when there is one for every call, and where that is
// not so nothing is used up and what has no grant waits. mine are all requests of
// that sandbox that are open, or ended within [DenialStands] and a minute. The caller
// has decided the calls a moment ago. Every request in changed must be durable,
// together, before the answer takes effect.
//
// What has another fingerprint than the decision of now is superseded, if it is
// for one of these very calls. A grant for more calls than that stays: another call
// may well meet other rules.
func AskAll(mine []Request, calls []*Call, newID func() string, l Limits, now time.Time) (a Answers, changed []Request, err error) {
	s := asking{now: now, a: Answers{IDs: make([]string, len(calls))}}
	if err := s.take(calls); err != nil {
		s.a.Reason, s.a.Code = err.Error(), "approval-invalid"
		return s.a, nil, err
	}
	for _, r := range mine {
		if r.Sandbox == calls[0].Sandbox {
			s.look(r)
		}
	}
	if !s.refused() && !s.release() {
		s.wait(newID, l)
	}
	return s.a, s.changed, nil
}

// asking is one AskAll under way.
type asking struct {
	now             time.Time
	calls           []asked
	pending, recent int

	a       Answers
	changed []Request
}

// asked is one of the calls, and what there is for it.
type asked struct {
	c       *Call
	binding string

	grants        []Request // that cover the call
	alike, denied *Request
}

// take checks the calls: they are of one sandbox, and no two are the same, or what
// is for one time would be used for both.
func (s *asking) take(calls []*Call) error {
	if len(calls) == 0 || len(calls) > MaxCalls {
		return fmt.Errorf("%w: %d calls at once", ErrCall, len(calls))
	}
	for _, c := range calls {
		if err := c.Valid(); err != nil {
			return err
		}
		k := asked{c: c, binding: c.Binding()}
		if c.Sandbox != calls[0].Sandbox || slices.ContainsFunc(s.calls, func(o asked) bool { return o.binding == k.binding }) {
			return fmt.Errorf("%w: calls of several sandboxes, or the same twice", ErrCall)
		}
		s.calls = append(s.calls, k)
	}
	return nil
}

func (s *asking) put(r Request) { s.changed = append(s.changed, r) }

// look sorts one request of the sandbox in.
func (s *asking) look(was Request) {
	r := was.At(s.now)
	for i := range s.calls {
		if k := &s.calls[i]; r.State.Open() && r.Binding == k.binding && r.Fingerprint != k.c.Fingerprint {
			r = r.next(Superseded, "the rules that decide have changed", s.now)
		}
	}
	if r.State != was.State {
		s.put(r)
	}
	if s.now.Sub(r.Created) < time.Minute {
		s.recent++
	}
	if r.State == Pending {
		s.pending++
	}
	for i := range s.calls {
		s.calls[i].look(&r, s.now)
	}
}

// look sorts a request in as what it is for the call.
func (k *asked) look(r *Request, now time.Time) {
	same := r.Binding == k.binding
	switch {
	case r.Fingerprint != k.c.Fingerprint:
	case r.State == Pending && same:
		k.alike = r
	case r.State == Approved && r.covers(k.c):
		k.grants = append(k.grants, *r)
	case r.State == Denied && same && now.Sub(r.Decided) < DenialStands:
		k.denied = r
	}
}

// refused says whether people have denied one of the calls.
func (s *asking) refused() bool {
	for i := range s.calls {
		if d := s.calls[i].denied; d != nil {
			s.a.IDs[i], s.a.Reason, s.a.Code = d.ID, "people have denied it ("+d.ID+")", "approval-denied"
			return true
		}
	}
	return false
}

// release uses a grant for each call, if there is one for each: one that lasts if
// there is one, else the oldest that is for one time.
func (s *asking) release() bool {
	if slices.ContainsFunc(s.calls, func(k asked) bool { return len(k.grants) == 0 }) {
		return false
	}
	s.a.Outcome = Released
	for i := range s.calls {
		g := slices.MinFunc(s.calls[i].grants, func(a, b Request) int {
			return cmp.Or(cmp.Compare(b.Grant.Lasts, a.Grant.Lasts), a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
		})
		if g.Grant.Lasts == LastsOnce { // for this very call, and for no other of them
			s.put(g.next(Consumed, "", s.now))
		}
		s.a.IDs[i] = g.ID
	}
	return true
}

// wait makes requests of the calls that have no grant, or counts those that wait
// already; all, or none where there is no room for one.
func (s *asking) wait(newID func() string, l Limits) {
	fresh := 0
	for i := range s.calls {
		if k := &s.calls[i]; len(k.grants) == 0 && k.alike == nil {
			fresh++
		}
	}
	switch {
	case fresh > 0 && s.pending+fresh > l.Pending:
		s.a.Reason, s.a.Code = fmt.Sprintf("%d requests of this sandbox wait for approval already", s.pending), "approval-limit"
		return
	case fresh > 0 && s.recent+fresh > l.PerMinute:
		s.a.Reason, s.a.Code = fmt.Sprintf("this sandbox has asked for approval %d times within a minute", s.recent), "approval-limit"
		return
	}
	s.a.Outcome = Waiting
	for i := range s.calls {
		k := &s.calls[i]
		switch {
		case len(k.grants) > 0:
			continue
		case k.alike == nil:
			r := newRequest(k.c, newID(), s.now)
			k.alike = &r
			s.put(r)
		case k.alike.ID != k.c.Waits:
			k.alike.Count++
			s.put(*k.alike)
		}
		s.a.IDs[i] = k.alike.ID
	}
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
