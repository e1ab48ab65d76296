// SPDX-License-Identifier: Apache-2.0

// Package attach connects the caller's terminal or standard descriptors to a
// program in a sandbox, forwards signals, and waits for the exit status. What
// comes from the sandbox's side (the status socket, the terminal's bytes) is
// treated as hostile.
package attach

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// Stdio is how standard input, output and error reach a program. Either all
// three are terminals, then the program gets a terminal of its own sandbox and
// bytes are relayed; or each is passed as it is where that is safe and relayed
// through a pipe where it is not.
type Stdio struct {
	// Files are to be passed, all nil with a terminal.
	Files [3]*os.File

	own    [3]*os.File
	passed []*os.File // pipe ends that are the program's: closed by Passed
	relays []*relay
	term   *terminal // nil without
}

// Open decides by what in, out and errOut are. They stay the caller's. Without
// terminal the program gets none even if all three are one.
func Open(in, out, errOut *os.File, terminal bool) (*Stdio, error) {
	s := &Stdio{own: [3]*os.File{in, out, errOut}}
	if terminal && isTerminal(in) && isTerminal(out) && isTerminal(errOut) {
		t, err := newTerminal(in, out)
		if err != nil {
			return nil, err
		}
		s.term = t
		return s, nil
	}
	for i, f := range s.own {
		if err := s.plan(i, f); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// TTY reports whether the program gets a terminal, and its size.
func (s *Stdio) TTY() (rows, cols uint16, ok bool) {
	if s.term == nil {
		return 0, 0, false
	}
	rows, cols = s.term.size()
	return rows, cols, true
}

// plan chooses what is passed for descriptor i.
func (s *Stdio) plan(i int, f *os.File) error {
	err := withFD(f, api.CheckStdio)
	if err == nil {
		s.Files[i] = f
		return nil
	}
	if errors.Is(err, unix.EBADF) || errors.Is(err, os.ErrClosed) {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		s.Files[i], s.passed = null, append(s.passed, null)
		return nil
	}
	mine, theirs, err := relayPipe(i == 0)
	if err != nil {
		return err
	}
	s.Files[i], s.passed = theirs, append(s.passed, theirs)
	r := &relay{pipe: mine, own: f, input: i == 0, done: make(chan struct{})}
	if r.input {
		if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			_ = mine.Close()
			return fmt.Errorf("eventfd: %w", err)
		}
	}
	s.relays = append(s.relays, r)
	return nil
}

// relayPipe makes a pipe of which the program's end is an ordinary blocking
// one and ours is polled.
func relayPipe(input bool) (mine, theirs *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	m, t := p[0], p[1]
	if input {
		m, t = t, m
	}
	if err := unix.SetNonblock(m, true); err != nil {
		_, _ = unix.Close(m), unix.Close(t)
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(m), "relay"), os.NewFile(uintptr(t), "stdio"), nil
}

// Passed closes the ends that belong to the program, after they were passed,
// and starts relaying.
func (s *Stdio) Passed() {
	for _, f := range s.passed {
		_ = f.Close()
	}
	s.passed = nil
	for _, r := range s.relays {
		go r.run()
	}
}

// drainIdle is how long output may pause after the program's end before it is
// taken to be complete; drainMax bounds the whole.
const (
	drainIdle = 500 * time.Millisecond
	drainMax  = 10 * time.Second
)

// Finish takes what the program still wrote, stops relaying and restores the
// terminal. abnormal says that the program could not tidy up its screen.
func (s *Stdio) Finish(abnormal bool) {
	for _, r := range s.relays {
		r.finish()
	}
	if s.term != nil {
		s.term.finish(abnormal)
	}
}

// Close releases everything without waiting, for a launch that failed.
func (s *Stdio) Close() {
	for _, f := range s.passed {
		_ = f.Close()
	}
	s.passed = nil
	for _, r := range s.relays {
		r.stop()
	}
	if s.term != nil {
		s.term.restore()
	}
}

// relay copies between one descriptor of the caller and a pipe.
type relay struct {
	pipe  *os.File
	own   *os.File
	input bool
	wake  int // eventfd that ends an input relay
	done  chan struct{}
	moved progress
}

// progress is how far an output copy is.
type progress struct {
	bytes   atomic.Int64
	writing atomic.Bool // the caller's side does not take it yet
}

func (r *relay) run() {
	defer close(r.done)
	if r.input {
		copyInput(r.pipe, r.own, r.wake)
		_ = r.pipe.Close() // end of file for the program
		return
	}
	var dst io.Writer = r.own
	if isTerminal(r.own) {
		f := show.NewFilter(r.own)
		defer f.Close() //nolint:errcheck // the terminal went away
		dst = f
	}
	copyCounting(dst, r.pipe, &r.moved)
}

// finish waits for the end of output; input is simply over.
func (r *relay) finish() {
	if !r.input {
		waitIdle(r.done, &r.moved)
	}
	r.stop()
}

func (r *relay) stop() {
	if r.input {
		wakeUp(r.wake)
	}
	_ = r.pipe.Close()
}

// copyCounting copies until either side ends.
func copyCounting(dst io.Writer, src io.Reader, p *progress) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p.writing.Store(true)
			_, werr := dst.Write(buf[:n])
			p.bytes.Add(int64(n))
			p.writing.Store(false)
			if werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// waitIdle waits until done, or nothing came for drainIdle, or drainMax. While
// the caller's side holds up what came (a stopped terminal, a pager), it waits.
func waitIdle(done <-chan struct{}, p *progress) {
	end := time.Now().Add(drainMax)
	for last := p.bytes.Load(); ; {
		select {
		case <-done:
			return
		case <-time.After(drainIdle):
		}
		now := p.bytes.Load()
		if !p.writing.Load() && (now == last || time.Now().After(end)) {
			return
		}
		last = now
	}
}

// copyInput copies src to dst until src ends, dst fails or wake is written. It
// never holds a read on src when there is nothing to read: what the caller
// types after the end is the shell's.
func copyInput(dst io.Writer, src *os.File, wake int) {
	buf := make([]byte, 32<<10)
	for {
		var n int
		err := withFD(src, func(fd int) error {
			if err := waitReadable(fd, wake); err != nil {
				return err
			}
			var err error
			n, err = unix.Read(fd, buf)
			return err
		})
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

// waitReadable returns nil when fd can be read without blocking and io.EOF
// when wake was written.
func waitReadable(fd, wake int) error {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil {
			if err == unix.EINTR {
				continue
			}
			return err
		}
		if p[1].Revents != 0 {
			return io.EOF
		}
		if p[0].Revents != 0 {
			return nil
		}
	}
}

func wakeUp(eventfd int) {
	_, _ = unix.Write(eventfd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// withFD lends a descriptor without making its file description blocking.
func withFD(f *os.File, use func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var useErr error
	if err := rc.Control(func(fd uintptr) { useErr = use(int(fd)) }); err != nil {
		return err
	}
	return useErr
}

func isTerminal(f *os.File) bool {
	yes := false
	_ = withFD(f, func(fd int) error { yes = term.IsTerminal(fd); return nil })
	return yes
}
