// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// associationKey names an association: a socket of the sandbox and where it
// sends to. In a namespace that is not ours the number tells sockets apart that
// have the same address one after the other.
type associationKey struct {
	client, dst netip.AddrPort
	number      uint32
}

// associations are those of one sandbox.
type associations struct {
	mu     sync.Mutex
	m      map[associationKey]*association
	closed bool

	held atomic.Int64 // bytes that wait for destinations to be resolved
}

// hold takes room for a datagram that waits; false when there is none.
func (t *associations) hold(n int) bool {
	if t.held.Add(int64(n)) > maxHeld {
		t.held.Add(-int64(n))
		return false
	}
	return true
}

func (t *associations) get(k associationKey) *association {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[k]
}

func (t *associations) all() []*association {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*association, 0, len(t.m))
	for _, a := range t.m {
		out = append(out, a)
	}
	return out
}

// add takes an association; code says why not.
func (t *associations) add(a *association) (code string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := a.sb.g
	switch {
	case t.closed:
		return codeStopped, false
	case len(t.m) >= g.opt.Limits.SandboxDatagrams, !g.owners.take(a.sb.owner, g.opt.Limits.Conns):
		return codeConnections, false
	}
	if t.m == nil {
		t.m = map[associationKey]*association{}
	}
	t.m[a.key] = a
	g.metrics.associations.Inc()
	return "", true
}

// remove forgets an association; again is nothing.
func (t *associations) remove(a *association) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m[a.key] == a {
		delete(t.m, a.key)
		a.sb.g.owners.give(a.sb.owner)
		a.sb.g.metrics.associations.Dec()
	}
}

// close ends all of them and takes no more.
func (t *associations) close(code string) {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	for _, a := range t.all() {
		a.kill(code, "")
	}
}

// associate begins an association, of the process that sent the first datagram;
// nil when there is no room for it.
func (sb *sandbox) associate(s clientSide, key associationKey, sender uint32) *association {
	t := sb.g.rec.reserve(sb.cfg.ID)
	if t == nil {
		sb.g.metrics.lost(lostRefused, 1) // counted by the recorder, too
		s.unreachable(refusedHere, key)
		return nil
	}
	a := &association{sb: sb, s: s, key: key, sender: sender, start: time.Now(), ticket: t}
	a.last = a.start
	a.ctx, a.cancel = context.WithCancel(sb.ctx)
	if code, ok := sb.associations.add(a); !ok {
		a.cancel()
		a.deny(code, "the sandbox or the node has as many datagram flows as it may")
		sb.g.metrics.lost(lostRefused, 1)
		s.unreachable(refusedHere, key)
		return nil
	}
	sb.wg.Add(1)
	go func() {
		defer sb.wg.Done()
		defer sb.associations.remove(a)
		defer a.cancel()
		defer a.grant.release(sb.g)
		defer t.release()
		a.run()
	}()
	return a
}
