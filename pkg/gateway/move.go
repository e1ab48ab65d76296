// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize times maxPipes stays below what the kernel lets one
	// unprivileged user have in pipes (fs.pipe-user-pages-soft, 64 MiB): from
	// there on a new pipe holds two pages, and splicing by two pages takes
	// three times the CPU time of splicing by hundreds. So a relay has a pipe
	// only while bytes are in it.
	pipeSize = 1 << 20
	maxPipes = 48
	// sandboxPipes is the most of them for one sandbox: a reader that stands
	// still keeps a pipe full.
	sandboxPipes = 16
)

// pipe is a pipe of pipeSize bytes with nothing in it.
type pipe struct{ r, w int }

// pipes are those of all relays. The zero value has none.
type pipes struct {
	mu     sync.Mutex
	made   int
	free   []*pipe
	closed bool
}

// take returns nil when there are as many as may be, or when the kernel gives
// no more.
func (p *pipes) take() *pipe {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		x := p.free[n-1]
		p.free = p.free[:n-1]
		return x
	}
	if p.made >= maxPipes || p.closed {
		return nil
	}
	x := newPipe()
	if x != nil {
		p.made++
	}
	return x
}

// newPipe returns nil when it cannot have its size.
func newPipe() *pipe {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	x := &pipe{fds[0], fds[1]}
	if _, err := unix.FcntlInt(uintptr(x.r), unix.F_SETPIPE_SZ, pipeSize); err != nil {
		x.close()
		return nil
	}
	return x
}

func (x *pipe) close() {
	unix.Close(x.r)
	unix.Close(x.w)
}

// giveBack takes a pipe, which is closed if something is in it.
func (p *pipes) giveBack(x *pipe, empty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if empty && !p.closed {
		p.free = append(p.free, x)
		return
	}
	x.close()
	p.made--
}

// close closes the pipes, those in use when they come back.
func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, x := range p.free {
		x.close()
		p.made--
	}
	p.free = nil
}

// mover moves one direction of a relay: through a pipe, by splice(2), or
// through a buffer where there is no pipe. It holds either only from the
// arrival of bytes until they are written.
type mover struct {
	sb   *sandbox
	pipe *pipe
	buf  []byte
	held int // bytes in the pipe or in the buffer
}

// move copies from src to dst until src ends, and returns how much of it was
// written. It ends with an error when either is closed.
func (sb *sandbox) move(dst, src *net.TCPConn) (int64, error) {
	in, err := src.SyscallConn()
	if err != nil {
		return 0, err
	}
	out, err := dst.SyscallConn()
	if err != nil {
		return 0, err
	}
	m := mover{sb: sb}
	defer m.release()
	var moved int64
	for {
		if err := m.fill(in); err != nil || m.held == 0 {
			return moved, err
		}
		n, err := m.drain(out)
		moved += n
		if err != nil {
			return moved, err
		}
	}
}

func (m *mover) acquire() {
	if m.pipe != nil || m.buf != nil {
		return
	}
	if m.sb.pipes.Add(1) <= sandboxPipes {
		m.pipe = m.sb.g.pipes.take()
	}
	if m.pipe == nil {
		m.sb.pipes.Add(-1)
		m.buf = m.sb.g.buffers.Get()
	}
}

func (m *mover) release() {
	if m.pipe != nil {
		m.sb.g.pipes.giveBack(m.pipe, m.held == 0)
		m.sb.pipes.Add(-1)
	}
	if m.buf != nil {
		m.sb.g.buffers.Put(m.buf)
	}
	m.pipe, m.buf, m.held = nil, nil, 0
}

// fill waits for bytes and takes them; none means the end.
func (m *mover) fill(in syscall.RawConn) error {
	var failed error
	err := in.Read(func(fd uintptr) bool {
		m.acquire()
		var n int
		n, failed = again(func() (int, error) {
			if m.pipe == nil {
				return unix.Read(int(fd), m.buf)
			}
			n, err := unix.Splice(int(fd), nil, m.pipe.w, nil, pipeSize, unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
		if failed == unix.EAGAIN { // the pipe is empty, so it is the socket
			m.release()
			return false
		}
		m.held = max(n, 0)
		return true
	})
	return errors.Join(err, failed)
}

// drain writes all that is held.
func (m *mover) drain(out syscall.RawConn) (int64, error) {
	var failed error
	all := m.held
	err := out.Write(func(fd uintptr) bool {
		for m.held > 0 {
			var n int
			n, failed = again(func() (int, error) {
				if m.pipe == nil {
					return unix.Write(int(fd), m.buf[all-m.held:all])
				}
				n, err := unix.Splice(m.pipe.r, nil, int(fd), nil, m.held, unix.SPLICE_F_NONBLOCK)
				return int(n), err
			})
			if failed == unix.EAGAIN {
				return false
			}
			if failed == nil && n <= 0 {
				failed = io.ErrShortWrite
			}
			if failed != nil {
				return true
			}
			m.held -= n
		}
		return true
	})
	return int64(all - m.held), errors.Join(err, failed)
}

// again repeats a system call that a signal interrupted.
func again(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}
