// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"sync"
	"time"
)

// Share bounds how many events of each sandbox are told one by one: AtOnce of
// them, and PerSecond of them come back; denials have one of their own. What is
// beyond is to be counted and told together, so that nobody's flood fills the
// disk or pushes the records of others out of the log. Both limits must be
// positive. A Share is safe for concurrent use.
type Share struct {
	AtOnce, PerSecond float64

	mu sync.Mutex // guards what follows
	of map[shareKey]*allowance
}

// NewShare is the share of a node's log: in the default 4 GiB, half a day of one
// sandbox that always has more to tell.
func NewShare() *Share { return &Share{AtOnce: 5000, PerSecond: 50} }

type shareKey struct {
	sandbox string
	denial  bool
}

type allowance struct {
	left float64
	at   time.Time
}

// Take takes one event from the share of its sandbox. false: it is used up.
func (s *Share) Take(e *Event, now time.Time) bool {
	k := shareKey{e.Sandbox, e.IsDenial()}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.of[k]
	if a == nil {
		if s.of == nil {
			s.of = map[shareKey]*allowance{}
		}
		a = &allowance{s.AtOnce, now}
		s.of[k] = a
	}
	s.refill(a, now)
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

func (s *Share) refill(a *allowance, now time.Time) {
	if d := now.Sub(a.at); d > 0 {
		a.left = min(s.AtOnce, a.left+d.Seconds()*s.PerSecond)
		a.at = now
	}
}

// Prune forgets the shares that are whole again.
func (s *Share) Prune(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, a := range s.of {
		if s.refill(a, now); a.left >= s.AtOnce {
			delete(s.of, k)
		}
	}
}

// Beyond says in e, the last of the Count events that a used up share kept from
// being told one by one, that it stands for them.
func (s *Share) Beyond(e *Event) {
	e.Detail = fmt.Sprintf("the last of %d of this kind and reason: the sandbox has used up its share of the log (%.0f at once, %.0f a second). %s",
		max(e.Count, 1), s.AtOnce, s.PerSecond, e.Detail)
}
