// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrNoDestroy says that this kernel cannot end the sockets of others
// (CONFIG_INET_DIAG_DESTROY). What is denied is refused and dropped all the
// same; a flow that nobody else ends stalls instead of ending.
var ErrNoDestroy = errors.New("this kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY)")

// canDestroy makes the kernel's word for it ErrNoDestroy.
func canDestroy(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return ErrNoDestroy
	}
	return err
}

// EndDenied ends every connected TCP and UDP socket of the sandbox's cgroup
// that its policy of this moment denies, in the network namespace netnsFD, and
// returns how many. Call it after [Sandbox.SetState]: the clients see
// ECONNABORTED at once instead of silence. Sockets of other cgroups are not
// looked at: those of the gateway among them, which live in the same namespace
// and whose peer is the sandbox. A connect that was let through just before
// the switch may show only after this call; its packets are dropped, and a
// second call ends it. more says that there were more than are ended by one
// call. The error is [ErrNoDestroy] where the kernel has no way to do it, and
// [ErrSocketHeld] where a process has its socket locked: then further calls
// return it at once until the kernel comes back.
func (s *Sandbox) EndDenied(netnsFD int) (n int, more bool, err error) {
	return s.endDenied(netnsFD, mostEnded)
}

// mostEnded bounds how many sockets one call of EndDenied ends: an agent can
// open as many as it likes (UDP ones cost the gateway nothing), and whoever
// changes a policy waits for the call.
const mostEnded = 8192

func (s *Sandbox) endDenied(netnsFD, most int) (n int, more bool, err error) {
	var failed error
	found := 0
	own, err := s.cgroups()
	if err != nil {
		return 0, false, fmt.Errorf("end flows of sandbox %d: %w", s.id, err)
	}
	var serves map[uint16]bool // ports whose connections others began
	if s.State().Flags&FlagInbound != 0 {
		if serves, err = listeners(netnsFD, &s.held, own); err != nil {
			return 0, false, fmt.Errorf("end flows of sandbox %d: %w", s.id, err)
		}
	}
	n, err = destroyFlows(netnsFD, &s.held, func(f Flow) bool {
		if !own[f.Cgroup] || f.Proto == ProtoTCP && serves[f.Src.Port()] {
			return false
		}
		denied, err := s.denies(f.Proto, f.Dst)
		if err != nil {
			failed = err
		}
		if !denied {
			return false
		}
		if found++; found > most {
			return false
		}
		s.fence.ended.add(f.Cookie)
		return true
	})
	s.fence.ended.n.Add(uint64(n))
	if err := errors.Join(failed, err); err != nil {
		return n, false, fmt.Errorf("end flows of sandbox %d: %w", s.id, err)
	}
	return n, found > most, nil
}

// EndedFlows counts the sockets that EndDenied ended.
func (f *Fence) EndedFlows() uint64 { return f.ended.n.Load() }

// endedKept bounds how many ended sockets are remembered.
const endedKept = 8192

// endedFlows remembers the last sockets that EndDenied ended: the reset that
// the kernel sends for one meets the egress hook and is dropped, which is no
// deed of the sandbox. The zero value is ready.
type endedFlows struct {
	n atomic.Uint64

	mu    sync.Mutex
	set   map[uint64]bool
	order []uint64 // a ring once it is full
	next  int
}

func (e *endedFlows) add(cookie uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.set == nil {
		e.set = map[uint64]bool{}
	}
	if e.set[cookie] {
		return
	}
	e.set[cookie] = true
	if len(e.order) < endedKept {
		e.order = append(e.order, cookie)
		return
	}
	delete(e.set, e.order[e.next])
	e.order[e.next] = cookie
	e.next = (e.next + 1) % endedKept
}

func (e *endedFlows) has(cookie uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.set[cookie]
}
