// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"cmp"
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

// errHostile is wrapped by what only a broken or taken-over init says. Its text
// is for people.
var errHostile = errors.New("no ringfence-init of this version says that")

// isHostile says that err is about what init said, not about its end.
func isHostile(err error) bool {
	return errors.Is(err, errHostile) || errors.Is(err, confine.ErrFrame)
}

// control is the conversation with one ringfence-init. What comes from it is
// hostile once the agent runs: only types and numbers are used, and the first
// word that no init says ends the conversation.
type control struct {
	conn *confine.Conn

	sendMu sync.Mutex // one packet at a time

	over    bool // the agent's end was reported; the reader's own
	answers int  // to execs so far; the reader's own

	mu      sync.Mutex                       // guards what follows
	waiting map[uint32]chan *confine.Message // by Seq, for exec
	nextSeq uint32
	asked   int   // execs
	broken  error // why the conversation cannot go on, if it is not for what was read

	exited chan int      // the agent's status, once
	ended  chan struct{} // closed when nothing comes from init any more
}

const (
	// sendPatience is how long init may leave its end of the socket full.
	sendPatience = 20 * time.Second
	// unasked is how many answers more than this keeper asked for may come:
	// those to a former one.
	unasked = 8192
)

// newControl numbers what it asks from a random number on: init may still
// answer what a former keeper asked.
func newControl(conn *confine.Conn) *control {
	return &control{conn: conn, nextSeq: rand.Uint32(), waiting: map[uint32]chan *confine.Message{}, exited: make(chan int, 1), ended: make(chan struct{})}
}

// send gives up when init does not read: nothing may wait behind it.
func (c *control) send(f confine.Frame, payload []byte, fds ...*os.File) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(sendPatience)); err != nil {
		return err
	}
	err := c.conn.Send(f, payload, fds...)
	if errors.Is(err, os.ErrDeadlineExceeded) { // a part of the message may be there
		c.mu.Lock()
		c.broken = fmt.Errorf("%w: it read nothing for %s", errHostile, sendPatience)
		c.mu.Unlock()
		c.conn.Close()
	}
	return err
}

// sendUntil is send for somebody who waits no longer than ctx. The message may
// be on its way after that: it has descriptors of its own.
func (c *control) sendUntil(ctx context.Context, f confine.Frame, payload []byte, fds []*os.File) error {
	own := make([]*os.File, 0, len(fds))
	release := func() {
		for _, f := range own {
			f.Close()
		}
	}
	for _, f := range fds {
		n, err := dup(f)
		if err != nil {
			release()
			return err
		}
		own = append(own, os.NewFile(uintptr(n), f.Name()))
	}
	sent := make(chan error, 1)
	go func() {
		defer release()
		sent <- c.send(f, payload, own...)
	}()
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// expect reads one message of the given type; used before the agent runs. It
// ends with ctx.
func (c *control) expect(ctx context.Context, t confine.FrameType, within time.Duration) (*confine.Message, error) {
	if err := c.conn.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) }) // a closed one answers at once anyway
	m, err := c.conn.RecvReport()
	if !stop() {
		if m != nil {
			m.Close()
		}
		return nil, fmt.Errorf("waiting for ringfence-init: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("ringfence-init did not answer: %w", err)
	}
	if err := noDescriptors(m); err != nil {
		return nil, err
	}
	switch m.Type {
	case t:
		return m, c.conn.SetDeadline(time.Time{})
	case confine.FrameFailed:
		return nil, &LaunchError{Code: failureCode(m.Status), Err: errors.New(printable(m.Reason()))}
	}
	return nil, fmt.Errorf("%w: message %d where %d was expected", errHostile, m.Type, t)
}

// noDescriptors refuses a message that brought some: no init sends any. Nobody
// waits for their closing, which the sender can draw out; the conversation is
// over, so there is one such message.
func noDescriptors(m *confine.Message) error {
	n := len(m.FDs)
	if n == 0 {
		return nil
	}
	go m.Close()
	return fmt.Errorf("%w: it sent %d descriptors", errHostile, n)
}

func failureCode(status int32) int {
	if status == 126 || status == 127 {
		return int(status)
	}
	return 125
}

// serve reads until init is gone or says what no init says, and returns why it
// ended: io.EOF when the other end was closed. Of a hostile one nothing counts.
func (c *control) serve() error {
	defer c.end()
	err := c.hear()
	if isHostile(err) {
		select {
		case <-c.exited:
		default:
		}
	}
	return err
}

func (c *control) hear() error {
	for {
		m, err := c.conn.RecvReport()
		if err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			return cmp.Or(c.broken, err)
		}
		if err := noDescriptors(m); err != nil {
			return err
		}
		if err := c.judge(m); err != nil {
			return err
		}
		if m.Seq != 0 {
			c.deliver(m)
			continue
		}
		c.exited <- int(m.Status) // judge lets one through
	}
}

// judge refuses what no init says while an agent runs.
func (c *control) judge(m *confine.Message) error {
	switch {
	case m.Type != confine.FrameStarted && m.Type != confine.FrameFailed && m.Type != confine.FrameExited:
		return fmt.Errorf("%w: a message of type %d", errHostile, m.Type)
	case m.Type == confine.FrameExited && (m.Status < 0 || m.Status > 255):
		return fmt.Errorf("%w: an exit status of %d", errHostile, m.Status)
	case m.Seq == 0 && m.Type != confine.FrameExited:
		return fmt.Errorf("%w: a message of type %d about an agent that runs", errHostile, m.Type)
	case m.Seq == 0 && c.over:
		return fmt.Errorf("%w: a second end of the agent", errHostile)
	case m.Seq == 0:
		c.over = true
		return nil
	}
	c.answers++
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers > 2*c.asked+unasked {
		return fmt.Errorf("%w: %d answers to %d questions", errHostile, c.answers, c.asked)
	}
	return nil
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
	c.asked++
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
	if err := c.sendUntil(ctx, confine.Frame{Type: confine.FrameExec, Seq: seq}, payload, fds); err != nil {
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
