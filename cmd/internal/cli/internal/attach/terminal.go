// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is the caller's terminal, and the master of the program's own once
// it has come.
type terminal struct {
	in, out *os.File
	wake    int // eventfd that ends the input copy

	mu     sync.Mutex // guards what follows
	old    *term.State
	master *os.File
	done   chan struct{} // output copy has ended; nil before attach
	moved  progress
}

func newTerminal(in, out *os.File) (*terminal, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &terminal{in: in, out: out, wake: wake}, nil
}

// size is that of the caller's terminal, 24x80 when it does not say.
func (t *terminal) size() (rows, cols uint16) {
	rows, cols = 24, 80
	_ = withFD(t.out, func(fd int) error {
		if ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil && ws.Row > 0 && ws.Col > 0 {
			rows, cols = ws.Row, ws.Col
		}
		return nil
	})
	return rows, cols
}

// attach takes the master that came over the status socket, makes the caller's
// terminal raw and relays. It keeps a duplicate; f stays the caller's. A
// second master, and anything that is no pty master, is refused.
func (t *terminal) attach(f *os.File) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master != nil {
		return errors.New("the sandbox sent a second terminal")
	}
	master, err := dupMaster(f)
	if err != nil {
		return err
	}
	if err := withFD(t.in, func(fd int) (err error) { t.old, err = term.MakeRaw(fd); return err }); err != nil {
		_ = master.Close()
		return fmt.Errorf("terminal: %w", err)
	}
	t.master, t.done = master, make(chan struct{})
	t.resizeLocked()
	go func() {
		defer close(t.done)
		copyCounting(t.out, master, &t.moved)
	}()
	go copyInput(master, t.in, t.wake)
	return nil
}

// dupMaster checks that f is the master of a pty and returns a polled
// duplicate.
func dupMaster(f *os.File) (*os.File, error) {
	dup := -1
	err := withFD(f, func(fd int) error {
		if _, err := unix.IoctlGetInt(fd, unix.TIOCGPTN); err != nil {
			return errors.New("the sandbox sent something that is no terminal")
		}
		var err error
		if dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return err
		}
		return unix.SetNonblock(dup, true)
	})
	if err != nil {
		if dup >= 0 {
			_ = unix.Close(dup)
		}
		return nil, err
	}
	return os.NewFile(uintptr(dup), "pty master"), nil
}

// resize carries the size of the caller's terminal over.
func (t *terminal) resize() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.resizeLocked()
}

func (t *terminal) resizeLocked() {
	if t.master == nil {
		return
	}
	rows, cols := t.size()
	_ = withFD(t.master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// softReset undoes what a full-screen program that was killed leaves behind:
// hidden cursor, mouse reports, bracketed paste, focus reports, colours.
const softReset = "\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[0m"

// finish drains the program's last output and restores the terminal.
func (t *terminal) finish(abnormal bool) {
	t.mu.Lock()
	master, done := t.master, t.done
	t.mu.Unlock()
	if master == nil {
		return
	}
	waitIdle(done, &t.moved)
	wakeUp(t.wake)
	_ = master.Close()
	if abnormal {
		_, _ = io.WriteString(t.out, softReset)
	}
	t.restore()
}

// restore gives the terminal back as it was; it may be called at any time.
func (t *terminal) restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.old == nil {
		return
	}
	_ = withFD(t.in, func(fd int) error { return term.Restore(fd, t.old) })
	t.old = nil
}
