// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"sync"
)

// standing follows what one caller may do while a request lasts.
type standing struct {
	s *Server
	c *Caller // its Rights are those of the beginning

	mu      sync.Mutex // guards what follows
	rights  Rights
	changed <-chan struct{}
}

// errRevoked is the cause with which what lasts ends when the caller loses the
// right to it.
var errRevoked = denied("your roles no longer let you do this", "an Access document that gave the right was changed or removed; ask who administers it")

// rightsOf is what a caller may do now.
func (s *Server) rightsOf(c *Caller) (Rights, <-chan struct{}) {
	if c.Role == RoleRoot {
		return RightsOf(c, Access{}), nil
	}
	a := s.o.Backend.Access()
	return RightsOf(c, a), a.Changed
}

// now is what the caller may do now.
func (st *standing) now() Rights {
	st.mu.Lock()
	defer st.mu.Unlock()
	select {
	case <-st.changed:
		st.rights, st.changed = st.s.rightsOf(st.c)
	default:
	}
	return st.rights
}

// lasting gives a request that lasts its context: it ends with errRevoked as the
// cause as soon as still says no. stop has to be called.
func (s *Server) lasting(ctx context.Context, c *Caller, still func(Rights) bool) (_ context.Context, st *standing, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	st = &standing{s: s, c: c}
	st.rights, st.changed = s.rightsOf(c)
	var wg sync.WaitGroup
	if st.changed != nil || !still(st.rights) {
		wg.Go(func() { st.watch(ctx, cancel, still) })
	}
	return ctx, st, func() { cancel(context.Canceled); wg.Wait() }
}

func (st *standing) watch(ctx context.Context, cancel context.CancelCauseFunc, still func(Rights) bool) {
	for {
		if !still(st.now()) {
			cancel(errRevoked)
			return
		}
		st.mu.Lock()
		changed := st.changed
		st.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// wasRevoked says whether a context of lasting ended because the right did.
func wasRevoked(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errRevoked) }
