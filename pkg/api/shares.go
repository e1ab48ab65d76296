// SPDX-License-Identifier: Apache-2.0

package api

import (
	"sync"
	"time"
)

// Connections of callers other than root are bounded: each user has a share,
// and all of them together have one, since a member may own many users
// (/etc/subuid). What is over it takes the place of a connection that waits for
// its next request, the one that waits longest; without one it is refused. So
// that requests have room, a user's connections that last (a launch that
// somebody waits for, what is followed) fill only part of the share. Root is
// not bounded: nobody keeps it out.

// Bounds that Options do not change.
const (
	maxConns    = 1024 // of all users but root
	requestsOwn = 8    // that part of a share is for requests: one in so many
)

// shares counts open connections. Its zero value admits nobody but root.
type shares struct {
	perUID, all int // immutable

	mu sync.Mutex // guards what follows
	of map[uint32]map[*peerConn]*place
	n  int
}

// place is one open connection.
type place struct {
	idle  time.Time // since when it waits for a request; zero: it does not
	lasts bool
}

func newShares(perUID int) *shares {
	return &shares{perUID: perUID, all: max(maxConns, perUID), of: map[uint32]map[*peerConn]*place{}}
}

// take counts a connection in, and returns the one that gave up its place, nil
// if none had to: the caller closes it.
func (s *shares) take(c *peerConn) (evicted *peerConn, ok bool) {
	uid := c.caller.UID
	if uid == 0 {
		return nil, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.of[uid]) >= s.perUID:
		evicted = longestIdle(s.of[uid])
	case s.n >= s.all:
		evicted = s.longestIdleLocked()
	default:
		s.putLocked(c)
		return nil, true
	}
	if evicted == nil {
		return nil, false
	}
	s.dropLocked(evicted)
	s.putLocked(c)
	return evicted, true
}

func (s *shares) putLocked(c *peerConn) {
	uid := c.caller.UID
	if s.of[uid] == nil {
		s.of[uid] = map[*peerConn]*place{}
	}
	s.of[uid][c] = &place{idle: time.Now()}
	s.n++
}

func (s *shares) dropLocked(c *peerConn) {
	uid := c.caller.UID
	if s.of[uid][c] == nil {
		return
	}
	delete(s.of[uid], c)
	if len(s.of[uid]) == 0 {
		delete(s.of, uid)
	}
	s.n--
}

// longestIdle is nil where every connection is in use.
func longestIdle(of map[*peerConn]*place) (found *peerConn) {
	var since time.Time
	for c, p := range of {
		if !p.idle.IsZero() && (found == nil || p.idle.Before(since)) {
			found, since = c, p.idle
		}
	}
	return found
}

// longestIdleLocked looks at the user with the most connections that has one
// that waits.
func (s *shares) longestIdleLocked() (found *peerConn) {
	most := 0
	for _, of := range s.of {
		if len(of) <= most {
			continue
		}
		if c := longestIdle(of); c != nil {
			found, most = c, len(of)
		}
	}
	return found
}

// give counts a connection out; again, or one that gave up its place, is
// nothing.
func (s *shares) give(c *peerConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(c)
}

// waits notes that a connection waits for a request, or that it does not.
func (s *shares) waits(c *peerConn, idle bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.of[c.caller.UID][c]
	if p == nil {
		return
	}
	p.idle = time.Time{}
	if idle {
		p.idle, p.lasts = time.Now(), false
	}
}

// last notes that a connection is used for what lasts, until it waits for a
// request again. It is refused when that part of the share is full.
func (s *shares) last(c *peerConn) error {
	if c.caller.UID == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, most := 0, s.perUID-s.perUID/requestsOwn
	for _, p := range s.of[c.caller.UID] {
		if p.lasts {
			n++
		}
	}
	p := s.of[c.caller.UID][c]
	if p == nil || n >= most {
		return Errorf(CodeUnavailable, "uid %d has %d connections open that last, which is all that one user may have", c.caller.UID, n).
			WithRemedy("end a `ringfence run` or a --follow that is not needed, or start sandboxes with --detach")
	}
	p.lasts = true
	return nil
}
