// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// readAhead is an upstream connection of which much is read at once while it
// has much to say: crypto/tls asks for one record after the other. While
// nothing has come it holds no buffer.
type readAhead struct {
	net.Conn
	raw  syscall.RawConn
	from *lender

	// One Read at a time, as net/http does it.
	buf  []byte // lent; nil when nothing is left of it
	rest []byte
	much bool // the last read took all or much of what it had room for

	// Of who has the connection for himself; see hold and glance.
	holding, glancing bool
	held              []byte

	mu     sync.Mutex // guards what follows
	busy   bool
	closed bool
}

func newReadAhead(c *net.TCPConn, from *lender) (*readAhead, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &readAhead{Conn: c, raw: raw, from: from}, nil
}

// Read implements net.Conn.
func (c *readAhead) Read(p []byte) (int, error) {
	c.mu.Lock()
	c.busy = true
	c.mu.Unlock()
	n, err := c.read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	if c.closed || len(c.rest) == 0 {
		c.drop()
	}
	return n, err
}

func (c *readAhead) drop() {
	if c.buf != nil {
		c.from.giveBack(c.buf)
	}
	c.buf, c.rest = nil, nil
}

func (c *readAhead) read(p []byte) (int, error) {
	if c.glancing && len(c.rest) == 0 {
		return c.take(p)
	}
	if len(c.held) > 0 {
		if n, err := c.ask(p); n > 0 || err != nil {
			return n, err
		}
	}
	if len(c.rest) == 0 {
		if !c.much || len(p) >= chunk/2 {
			n, err := c.Conn.Read(p)
			c.much = n == len(p)
			return n, err
		}
		if n, err := c.fill(p); n > 0 || err != nil {
			return n, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// fill waits, and reads what has come into a buffer, or where there is none
// into p.
func (c *readAhead) fill(p []byte) (n int, err error) {
	var failed error
	err = c.raw.Read(func(fd uintptr) bool {
		if c.buf == nil {
			c.buf = c.from.borrow()
		}
		to := c.buf
		if to == nil {
			to = p
		}
		n, failed = again(func() (int, error) { return unix.Read(int(fd), to) })
		if failed == unix.EAGAIN {
			c.drop()
			return false
		}
		return true
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, c.failed(failed)
	case n == 0:
		return 0, io.EOF
	case c.buf == nil:
		c.much = n == len(p)
		return n, nil
	}
	c.rest, c.much = c.buf[:n], n > chunk/2
	return 0, nil
}

// hold keeps what is written from now on, until unhold: the next Read writes it
// and waits for the answer in one step.
func (c *readAhead) hold() { c.holding = true }

func (c *readAhead) unhold() { c.holding = false }

// Write implements net.Conn.
func (c *readAhead) Write(p []byte) (int, error) {
	if c.holding {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// flush writes what was held.
func (c *readAhead) flush() error {
	p := c.held
	c.held = c.held[:0]
	_, err := c.Conn.Write(p)
	return err
}

// ask writes what was held and waits for the answer. It does not look first
// whether that is there: the runtime forgets what was ready before raw.Read
// began, and what becomes ready after it, as the answer does, ends the wait.
// 0 and no error: the caller has to read.
func (c *readAhead) ask(p []byte) (n int, err error) {
	if len(c.rest) > 0 {
		return 0, c.flush()
	}
	sent, all := false, true
	var failed error
	err = c.raw.Read(func(fd uintptr) bool {
		if !sent {
			sent = true
			var m int
			m, failed = socketWrite(fd, c.held)
			if failed == unix.EAGAIN {
				failed = nil
			}
			c.held = append(c.held[:0], c.held[m:]...)
			all = len(c.held) == 0
			return !all || failed != nil
		}
		n, failed = socketRead(fd, p)
		return failed != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, c.failed(failed)
	case !all: // the kernel has no room for it, which takes a wait of another kind
		return 0, c.flush()
	case n == 0:
		return 0, io.EOF
	}
	c.much = n == len(p)
	return n, nil
}

func (c *readAhead) failed(err error) error {
	return &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("read", err)}
}

// glance lets Read return errNothing where it would wait.
func (c *readAhead) glance(on bool) { c.glancing = on }

// take reads what has come.
func (c *readAhead) take(p []byte) (n int, err error) {
	var failed error
	err = c.raw.Read(func(fd uintptr) bool {
		n, failed = socketRead(fd, p)
		return true
	})
	switch {
	case err != nil:
		return 0, err
	case failed == unix.EAGAIN:
		return 0, errNothing{}
	case failed != nil:
		return 0, c.failed(failed)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// errNothing is temporary, so that crypto/tls goes on after it.
type errNothing struct{}

// Error implements error.
func (errNothing) Error() string { return "nothing has come" }

// Timeout implements net.Error.
func (errNothing) Timeout() bool { return true }

// Temporary implements net.Error.
func (errNothing) Temporary() bool { return true }

// ahead is how much the next Read has without waiting. Only who reads may ask.
func (c *readAhead) ahead() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.rest)
}

// Close implements net.Conn.
func (c *readAhead) Close() error {
	c.mu.Lock()
	c.closed = true
	if !c.busy {
		c.drop()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}
