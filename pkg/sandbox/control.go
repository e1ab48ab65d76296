// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/confine"
)

// LaunchError says why nothing ran. Code is for `ringfence run`: 125 when the
// sandbox was not established, 126 when the command cannot be executed, 127
// when it was not found.
type LaunchError struct {
	Code    int
	Step    string
	Err     error
	Missing string
	Remedy  string
}

// Error names the step, unless the cause speaks for itself.
func (e *LaunchError) Error() string {
	if e.Step == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v", e.Step, e.Err)
}
func (e *LaunchError) Unwrap() error { return e.Err }

// control is the conversation with one ringfence-init. What comes from it is
// hostile once the agent runs: only types and numbers are used.
type control struct {
	conn *confine.Conn

	sendMu sync.Mutex // one packet at a time

	mu      sync.Mutex
	waiting map[uint32]chan *confine.Message // by Seq, for exec
	nextSeq uint32
	exited  chan int      // the agent's status, once
	ended   chan struct{} // closed when nothing comes from init any more
}

// newControl numbers what it asks from a random number on: init may still
// answer what a former keeper asked.
func newControl(conn *confine.Conn) *control {
	return &control{conn: conn, nextSeq: rand.Uint32(), waiting: map[uint32]chan *confine.Message{}, exited: make(chan int, 1), ended: make(chan struct{})}
}

func (c *control) send(f confine.Frame, payload []byte, fds ...*os.File) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	return c.conn.Send(f, payload, fds...)
}

// expect reads one message of the given type; used before the agent runs. It
// ends with ctx.
func (c *control) expect(ctx context.Context, t confine.FrameType, within time.Duration) (*confine.Message, error) {
	if err := c.conn.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) }) // a closed one answers at once anyway
	m, err := c.conn.Recv()
	if !stop() {
		if m != nil {
			m.Close()
		}
		return nil, fmt.Errorf("waiting for ringfence-init: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("ringfence-init did not answer: %w", err)
	}
	m.Close() // no descriptor is ever expected from init
	if m.Type == confine.FrameFailed {
		return nil, &LaunchError{Code: failureCode(m.Status), Err: errors.New(printable(m.Reason()))}
	}
	if m.Type != t {
		return nil, fmt.Errorf("ringfence-init answered with message %d where %d was expected", m.Type, t)
	}
	return m, c.conn.SetDeadline(time.Time{})
}

func failureCode(status int32) int {
	if status == 126 || status == 127 {
		return int(status)
	}
	return 125
}

// serve reads until init is gone.
func (c *control) serve() {
	for {
		m, err := c.conn.Recv()
		if err != nil {
			c.end()
			return
		}
		m.Close()
		if m.Seq != 0 {
			c.deliver(m)
			continue
		}
		if m.Type == confine.FrameExited {
			select {
			case c.exited <- int(m.Status):
			default:
			}
		}
	}
}

func (c *control) deliver(m *confine.Message) {
	c.mu.Lock()
	ch := c.waiting[m.Seq]
	c.mu.Unlock()
	if ch != nil {
		select {
		case ch <- m:
		default: // more answers than questions
		}
	}
}

func (c *control) end() {
	defer close(c.ended)
	c.mu.Lock()
	defer c.mu.Unlock()
	for seq, ch := range c.waiting {
		close(ch)
		delete(c.waiting, seq)
	}
	c.waiting = nil
	c.conn.Close()
}

// ExecProcess is one more program in a sandbox.
type ExecProcess struct {
	c       *control
	seq     uint32
	answers <-chan *confine.Message
}

// Wait blocks until it ended and returns its exit code.
func (p *ExecProcess) Wait(ctx context.Context) (int, error) {
	defer p.c.unawait(p.seq)
	for {
		select {
		case m, ok := <-p.answers:
			if !ok {
				return 128 + int(syscall.SIGKILL), nil // the sandbox ended with it
			}
			if m.Type == confine.FrameExited {
				return int(m.Status), nil
			}
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// freshLocked returns a number that no running exec has; 0 means none.
func (c *control) freshLocked() uint32 {
	for {
		c.nextSeq++
		if c.nextSeq != 0 && c.waiting[c.nextSeq] == nil {
			return c.nextSeq
		}
	}
}

// unawait forgets an exec; what init still says about it is dropped.
func (c *control) unawait(seq uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, seq)
}

func (c *control) exec(ctx context.Context, spec *confine.Spec, fds []*os.File) (p *ExecProcess, err error) {
	c.mu.Lock()
	if c.waiting == nil {
		c.mu.Unlock()
		return nil, errors.New("the sandbox has ended")
	}
	seq := c.freshLocked()
	ch := make(chan *confine.Message, 4)
	c.waiting[seq] = ch
	c.mu.Unlock()
	defer func() {
		if err != nil {
			c.unawait(seq)
		}
	}()
	payload, err := spec.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	if err := c.send(confine.Frame{Type: confine.FrameExec, Seq: seq}, payload, fds...); err != nil {
		return nil, err
	}
	select {
	case m, ok := <-ch:
		switch {
		case !ok:
			return nil, errors.New("the sandbox ended")
		case m.Type == confine.FrameFailed:
			return nil, &LaunchError{Code: failureCode(m.Status), Step: "exec", Err: errors.New(printable(m.Reason()))}
		case m.Type != confine.FrameStarted:
			return nil, fmt.Errorf("ringfence-init answered with message %d", m.Type)
		}
		return &ExecProcess{c: c, seq: seq, answers: ch}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// printable replaces control characters in a text that init chose.
func printable(s string) string {
	return fmt.Sprintf("%.400s", escape(s))
}
