// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// hand is a thread of the keeper that does what may wait in the kernel for as
// long as the process wants that is looked at. A copied socket is waited for
// when its last descriptor is closed and it lingers (SO_LINGER, socket(7)), and
// whoever reads its addresses waits for who holds its lock meanwhile. The first
// wait ends when a signal is pending; a thread in the second cannot be woken,
// so it is left behind, and whoever asked goes on.
type hand struct {
	work chan func()
	done chan struct{}
	tid  int
}

// How long a hand may take for one thing.
const (
	handNudge = 100 * time.Millisecond // then it gets a signal, as often as it takes
	handLimit = 2 * time.Second        // then it is left behind
	maxHands  = 16                     // of the node
)

// errHangs says that the hand did not come back.
var errHangs = errors.New("the kernel does not come back from it")

// newHand starts a thread, if one of the given places is free: those that are
// left behind are not to become many. It is ended with close.
func newHand(places chan struct{}) (*hand, error) {
	select {
	case places <- struct{}{}:
	default:
		return nil, fmt.Errorf("%d threads of the keeper wait in the kernel at what adopted processes hold: end these processes", cap(places))
	}
	h := &hand{work: make(chan func()), done: make(chan struct{}, 1)}
	started := make(chan int)
	go func() {
		defer func() { <-places }()
		// Not left locked: the thread would end, and with it children that it
		// forked with Pdeathsig.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		started <- unix.Gettid()
		for fn := range h.work {
			fn()
			h.done <- struct{}{}
		}
		close(h.done)
	}()
	h.tid = <-started
	return h, nil
}

// run has the hand do something and waits for it, but not for good. After
// errHangs what fn writes must not be read, and the hand does nothing more.
func (h *hand) run(fn func()) error {
	h.work <- fn
	nudge := time.NewTicker(handNudge)
	defer nudge.Stop()
	limit := time.NewTimer(handLimit)
	defer limit.Stop()
	for {
		select {
		case <-h.done:
			return nil
		case <-nudge.C:
			// Go's own signal for waking threads: its handler does nothing else.
			if err := unix.Tgkill(os.Getpid(), h.tid, unix.SIGURG); err != nil {
				return errors.Join(errHangs, err)
			}
		case <-limit.C:
			return errHangs
		}
	}
}

// close ends the thread as soon as it has nothing under way.
func (h *hand) close() { close(h.work) }

// hangs says whether a hand that was closed has not come back yet.
func (h *hand) hangs() bool {
	for {
		select {
		case _, more := <-h.done:
			if !more {
				return false
			}
		default:
			return true
		}
	}
}
