// SPDX-License-Identifier: Apache-2.0

// Package approval is the state machine of decisions that people make: what a
// sandbox asks for where policy demands approval, who may vote on it, what a
// vote gives, and when that ends.
//
//	pending  -> approved | denied | expired | cancelled | superseded
//	approved -> consumed | expired | superseded
//
// A [Request] is a value; its methods return the next one and change nothing.
// [AskAll] is what a sandbox does, [Request.Vote] what a person does,
// [Request.At] what time does. The clock is a parameter everywhere. A [Book]
// keeps requests in a store, and tells who watches.
//
// What is approved is what will run, and on which rules: a request has a
// [Call.Binding] (a hash over scope, target, definition and arguments) and the
// fingerprint of the deciding rules. Whoever uses an approval decides again and
// brings the fingerprint of that decision.
package approval

import (
	"errors"
	"fmt"
	"time"
)

// State of a request. The zero value is a denial.
type State uint8

// The states. Only Pending and Approved change any more.
const (
	Denied     State = iota
	Pending          // nobody, or not enough people, have voted
	Approved         // there is a grant
	Expired          // nobody decided in time, or the grant's time is over
	Cancelled        // the sandbox ended before anybody decided
	Superseded       // the rules that asked are not the ones of now
	Consumed         // a grant for one time was used
)

var stateNames = [...]string{"denied", "pending", "approved", "expired", "cancelled", "superseded", "consumed"}

// String is the stable name of the state; an unknown one reads as denied.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return stateNames[Denied]
}

// ParseState is the inverse of [State.String].
func ParseState(name string) (State, error) {
	for i, n := range stateNames {
		if n == name {
			return State(i), nil
		}
	}
	return Denied, fmt.Errorf("approval: no state %q", name)
}

// MarshalText writes the name of the state.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name of a state; another word is an error.
func (s *State) UnmarshalText(b []byte) (err error) {
	*s, err = ParseState(string(b))
	return err
}

// Open says whether the state can still change.
func (s State) Open() bool { return s == Pending || s == Approved }

// Kind is what a request is about. The zero value is none.
type Kind string

// The kinds.
const (
	Egress Kind = "egress"
	Tool   Kind = "tool"
	Model  Kind = "model"
)

// Errors of votes. The text is for the person who votes.
var (
	// ErrDecided: the request is not pending (any more).
	ErrDecided = errors.New("this request is decided already")
	// ErrNotApprover: no rule that asks lets this person decide.
	ErrNotApprover = errors.New("you are not an approver of this request")
	// ErrTwice: this person has approved it before.
	ErrTwice = errors.New("you have approved this request already; it needs other people too")
	// ErrTerms: a grant of that kind is not possible here.
	ErrTerms = errors.New("this approval cannot be given so")
	// ErrCall: what is asked for is not complete, or not within bounds.
	ErrCall = errors.New("approval: the call is not one that can be asked for")
)

// Bounds, and what holds where a rule says nothing. A rule says less, never more than the maximum.
const (
	DefaultValidity = time.Hour            // how long what is approved may wait to be used
	MaxExpiry       = 30 * 24 * time.Hour  // whatever a rule says
	MaxValidity     = 366 * 24 * time.Hour // likewise
	MaxFor          = 24 * time.Hour       // the longest grant for a time where no rule says less
	MaxQuorum       = 100
	MaxDemands      = 64
	MaxApprovers    = 64
	MaxTarget       = 1024
	MaxShown        = 4096
	MaxComment      = 1024

	// DenialStands is how long a denial answers the same question asked again
	// without asking people again.
	DenialStands = 5 * time.Minute
)
