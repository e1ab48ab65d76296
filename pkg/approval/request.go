// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"slices"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Request is one item of the inbox: a call that waits for people, or what
// became of it. Calls alike are one request with a count.
type Request struct {
	ID         string `json:"id"`
	Sandbox    string `json:"sandbox"`
	Scope      string `json:"scope"`
	Launcher   uint32 `json:"launcher"`
	Asker      Asker  `json:"asker,omitzero"`
	Kind       Kind   `json:"kind"`
	Target     string `json:"target"`
	Definition string `json:"definition,omitempty"`
	Arguments  string `json:"arguments,omitempty"` // hash
	Shown      string `json:"shown,omitempty"`

	Args   []Argument `json:"args,omitempty"` // one by one
	Listed bool       `json:"listed,omitempty"`

	Binding     string   `json:"binding"`
	Fingerprint string   `json:"fingerprint"`
	Demands     []Demand `json:"demands"`

	State   State     `json:"state"`
	Why     string    `json:"why,omitempty"` // it is not open any more
	Count   uint64    `json:"count"`         // how often it was asked for
	Votes   []Vote    `json:"votes,omitempty"`
	Grant   *Grant    `json:"grant,omitempty"` // once approved
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`          // when a pending request is denied
	Decided time.Time `json:"decided,omitzero"` // when it left pending
	Ended   time.Time `json:"ended,omitzero"`   // when it left approved
}

// Vote is one person's word.
type Vote struct {
	UID     uint32    `json:"uid"`
	Name    string    `json:"name,omitempty"`
	Approve bool      `json:"approve"`
	Terms   Terms     `json:"terms,omitzero"` // of an approval
	Comment string    `json:"comment,omitempty"`
	At      time.Time `json:"at"`
	For     []int     `json:"for"` // the demands that it counts for, as it was then
}

func newRequest(c *Call, id string, now time.Time) Request {
	return Request{
		ID: id, Sandbox: c.Sandbox, Scope: c.Scope, Launcher: c.Launcher, Asker: c.Asker.clipped(), Kind: c.Kind, Target: c.Target, Definition: c.Definition,
		Arguments: c.Arguments, Shown: c.Shown, Args: slices.Clone(c.Args), Listed: c.Listed, Binding: c.Binding(), Fingerprint: c.Fingerprint, Demands: slices.Clone(c.Demands),
		State: Pending, Count: 1, Created: now, Expires: now.Add(c.expiry()),
	}
}

// next returns the request in another state.
func (r Request) next(s State, why string, now time.Time) Request {
	if r.State == Pending {
		r.Decided = now
	} else {
		r.Ended = now
	}
	r.State, r.Why = s, why
	return r
}

// At returns the request as it is at a time: what nobody decided by then has
// expired, and so has a grant whose time is over.
func (r Request) At(now time.Time) Request {
	switch {
	case r.State == Pending && !now.Before(r.Expires):
		return r.next(Expired, "nobody decided in time", now)
	case r.State == Approved && (r.Grant == nil || !r.Grant.alive(now)):
		return r.next(Expired, "the time of the approval is over", now)
	}
	return r
}

// Changed is when the request came to its state, or got its last vote.
func (r *Request) Changed() time.Time {
	switch {
	case !r.Ended.IsZero():
		return r.Ended
	case !r.Decided.IsZero():
		return r.Decided
	case len(r.Votes) > 0:
		return r.Votes[len(r.Votes)-1].At
	}
	return r.Created
}

// Deadline is when time changes the request next; false: never.
func (r *Request) Deadline() (time.Time, bool) {
	switch {
	case r.State == Pending:
		return r.Expires, true
	case r.State == Approved && r.Grant != nil && r.Grant.Lasts != LastsSandbox:
		return r.Grant.Until, true
	}
	return time.Time{}, false
}

// Vote returns the request with one more vote, or why there is none. One denial
// decides; an approval when every demand has its quorum of distinct people. What
// is given then is the least that an approver gave. With an error the request
// may have changed all the same: its time may be over.
func (r Request) Vote(p Person, approve bool, t Terms, comment string, now time.Time) (Request, error) {
	if r = r.At(now); r.State != Pending {
		return r, ErrDecided
	}
	counts := r.votesFor(&p)
	if len(counts) == 0 {
		return r, ErrNotApprover
	}
	v := Vote{UID: p.UID, Name: p.Name, Approve: approve, Comment: clip(comment, MaxComment), At: now, For: counts}
	if !approve {
		r.Votes = append(slices.Clip(r.Votes), v)
		return r.next(Denied, "denied by "+scope.Operator(v.UID, v.Name), now), nil
	}
	if r.HasApproved(p.UID) {
		return r, ErrTwice
	}
	if err := r.validTerms(&t); err != nil {
		return r, err
	}
	v.Terms = t
	r.Votes = append(slices.Clip(r.Votes), v)
	if len(r.Lacks()) > 0 {
		return r, nil
	}
	given := r.Votes[0].Terms
	for _, o := range r.Votes[1:] {
		given = narrower(given, o.Terms)
	}
	r.Grant = r.give(given, now)
	return r.next(Approved, "", now), nil
}

// Lack is a demand that is not met yet.
type Lack struct {
	Demand Demand
	People int // how many more
}

// Lacks lists what a pending request still needs. Each vote is another person's:
// Vote sees to that.
func (r *Request) Lacks() (out []Lack) {
	for i, d := range r.Demands {
		n := 0
		for _, v := range r.Votes {
			if v.Approve && slices.Contains(v.For, i) {
				n++
			}
		}
		if n < d.Quorum {
			out = append(out, Lack{d, d.Quorum - n})
		}
	}
	return out
}

// End returns the request after the end of its sandbox.
func (r Request) End(now time.Time) Request {
	switch r = r.At(now); r.State {
	case Pending:
		return r.next(Cancelled, "the sandbox has ended", now)
	case Approved:
		return r.next(Expired, "the sandbox has ended", now)
	}
	return r
}
