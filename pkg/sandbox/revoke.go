// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// Settle is how long after a switch a connect that had passed the hook before
// it may still be on its way into the kernel's lists of sockets.
const Settle = 200 * time.Millisecond

// lookers is how many sandboxes are looked at side by side. One look is some
// hundred microseconds of kernel time, which goes through a table of the whole
// machine, and more where an agent holds many sockets: that is not to be the
// others' delay.
const lookers = 8

// EndDenied ends what sandboxes still have open and their policy denies now,
// in those where the last changes closed something. It holds no lock of a
// sandbox while it works, so that launches and DNS do not wait for it. more says that it
// is to be called once more when Settle is over.
func (m *Manager) EndDenied() (more bool, err error) {
	var mu sync.Mutex // guards more and errs
	var errs []error
	var g errgroup.Group
	g.SetLimit(lookers)
	for _, s := range inTurns(m.List()) {
		g.Go(func() error {
			again, err := s.endDenied()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("sandbox %s: %w", s.Record.ID, err))
			}
			more = more || again
			return nil
		})
	}
	_ = g.Wait() // errs has them
	if err = errors.Join(errs...); errors.Is(err, kernel.ErrNoDestroy) {
		more = false // the same for all
	}
	return more, err
}

func (s *Sandbox) endDenied() (more bool, err error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed.IsZero() {
		return false, nil
	}
	ns, err := s.network()
	if err != nil || ns == nil {
		return false, err
	}
	defer ns.Close()
	last := time.Since(closed) >= Settle
	n, left, err := s.fence.EndDenied(int(ns.Fd()))
	if n > 0 {
		s.m.o.Logger.Info("flows that policy denies now were ended", "sandbox", s.Record.ID, "revision", s.View().Snapshot().Revision(), "flows", n)
	}
	if errors.Is(err, kernel.ErrSocketHeld) {
		s.tellHeld(err)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heldTold = false
	if last && !left && s.closed.Equal(closed) { // what was closed meanwhile is looked for anew
		s.closed = time.Time{}
	}
	return !s.closed.IsZero(), nil
}

// tellHeld says once that flows cannot be ended because of a process that keeps
// a socket locked. Nobody waits for it: what policy denies to them is dropped.
func (s *Sandbox) tellHeld(err error) {
	s.mu.Lock()
	told := s.heldTold
	s.heldTold = true
	s.mu.Unlock()
	if told {
		return
	}
	s.recordWeak("held-socket", "flows that policy denies now cannot be ended: a process keeps one of its sockets locked", err.Error(), "end the process that sends memory which it never gives (userfaultfd, FUSE)")
	s.m.o.Logger.Error("flows that policy denies now cannot be ended, and are tried again", "sandbox", s.Record.ID, "error", err)
}

// network opens the sandbox's network namespace; nil when it is gone. Another
// process that got init's pid has another namespace.
func (s *Sandbox) network() (*os.File, error) {
	if s.Record.Foreign != nil {
		if s.netns == nil {
			return nil, nil
		}
		fd, err := dup(s.netns)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), "netns"), nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.Record.Init.PID))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(ns.Fd()), &st)
	if err == nil && st.Ino == s.Record.Namespaces["net"] {
		return ns, nil
	}
	ns.Close()
	return nil, err
}

// closes says whether a table lets something less through than the one before:
// a port of a name is missing, or the address rules are not the same. It looks
// at what was written, not at what it means, and may say yes for nothing.
func closes(old, next map[netip.Addr][]kernel.NameEntry, oldAddrs, nextAddrs uint64) bool {
	if oldAddrs != nextAddrs {
		return true
	}
	for addr, entries := range old {
		have := map[kernel.NameEntry]bool{}
		for _, e := range next[addr] {
			e.Rule = 0
			have[e] = true
		}
		for _, e := range entries {
			e.Rule = 0
			if !have[e] {
				return true
			}
		}
	}
	return false
}

// digest tells one list of address rules from another, whichever rules they
// come from.
func (m *Manager) digest(entries []kernel.CIDREntry) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	for _, e := range entries {
		e.Rule = 0
		maphash.WriteComparable(&h, e)
	}
	return h.Sum64()
}
