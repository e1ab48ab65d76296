// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bell is where the reader of a ring waits, as others wait for a socket. In the
// ring's own epoll a thread would wait in the kernel and keep one of the few
// places to run Go code until the runtime takes it away, for which it has to look
// every 20 µs as long as anything runs.
type bell struct {
	f    *os.File
	conn syscall.RawConn
	rung atomic.Bool
}

// newBell makes one for the descriptor of a ring buffer, which can be polled
// (since 5.8) and stays the caller's.
func newBell(fd int) (*bell, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("wait for a ring: %w", err)
	}
	if err := unix.SetNonblock(own, true); err != nil { // else the runtime would not poll it
		unix.Close(own)
		return nil, fmt.Errorf("wait for a ring: %w", err)
	}
	f := os.NewFile(uintptr(own), "ring")
	conn, err := f.SyscallConn()
	if err == nil {
		err = f.SetReadDeadline(time.Time{}) // fails where it cannot be polled
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("wait for a ring: %w", err)
	}
	return &bell{f: f, conn: conn}, nil
}

// wait returns when the kernel wakes who reads the ring, when it is rung or
// closed, after d, or at once if there is something to read.
func (b *bell) wait(d time.Duration, something func() bool) {
	_ = b.f.SetReadDeadline(time.Now().Add(d)) // of a closed one all of this fails at once
	if b.rung.Swap(false) {
		return
	}
	woken := false
	_ = b.conn.Read(func(uintptr) bool {
		enough := woken || something()
		woken = true
		return enough
	})
}

// ring ends the wait under way, or the next one.
func (b *bell) ring() {
	b.rung.Store(true)
	_ = b.f.SetReadDeadline(time.Unix(1, 0)) // of a closed one it fails: nobody waits any more
}

func (b *bell) close() error { return b.f.Close() }
