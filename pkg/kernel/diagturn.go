// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrSocketHeld says that the kernel waits for a socket that its process keeps
// locked: one that sends memory which it never gives (userfaultfd(2), FUSE).
// Ending a flow takes the lock of its socket, and nothing wakes who waits for
// it. What the policy denies is refused and dropped all the same.
var ErrSocketHeld = errors.New("a process keeps one of its sockets locked, so that its flows cannot be ended: what is denied to them is dropped; end the process")

// diagPatience is how long the kernel may take for one thing.
const diagPatience = 2 * time.Second

// diagTurn is one turn of asking the kernel about sockets and ending some. What
// may wait in the kernel for a process is done by a goroutine, and so by a
// thread, that is left behind then, with the socket: before Linux 6.9 it has
// a lock of the machine, too (sock_diag_mutex), and listing sockets waits.
type diagTurn struct {
	diag *diag
	held *atomic.Bool // while one is left behind

	mu   sync.Mutex // guards left
	left bool
}

// newDiagTurn refuses as long as a turn before it, of the same held, is under
// way in the kernel: those are not to become many.
func newDiagTurn(netnsFD int, held *atomic.Bool) (*diagTurn, error) {
	if held.Load() {
		return nil, ErrSocketHeld
	}
	d, err := openDiag(netnsFD)
	if err != nil {
		return nil, err
	}
	return &diagTurn{diag: d, held: held}, nil
}

// close gives the socket up, unless somebody uses it still.
func (d *diagTurn) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.left {
		d.diag.Close()
	}
}

// within does one thing and waits for it, but not for good. After ErrSocketHeld
// the turn is over.
func within[T any](d *diagTurn, do func(q *diag) (T, error)) (T, error) {
	type outcome struct {
		v   T
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		v, err := do(d.diag)
		done <- outcome{v, err}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.left {
			d.diag.Close()
			d.held.Store(false)
		}
	}()
	limit := time.NewTimer(diagPatience)
	defer limit.Stop()
	select {
	case o := <-done:
		return o.v, o.err
	case <-limit.C:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case o := <-done:
		return o.v, o.err
	default:
	}
	d.left = true
	d.held.Store(true)
	var none T
	return none, ErrSocketHeld
}
