// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// Handler answers one request. It owns fds. The reply's descriptors are sent
// and then closed. A returned error travels as a Failure.
type Handler func(ctx context.Context, t Type, payload []byte, fds []*os.File) (reply []byte, replyFDs []*os.File, err error)

// Failure is a refusal that the other side gave as its answer.
type Failure struct{ Msg string }

func (f *Failure) Error() string { return f.Msg }

// ErrClosed is returned by calls on a peer whose connection ended.
var ErrClosed = errors.New("wire: connection closed")

// Inflight is how many requests one side has under way at once. Both sides
// keep to it, so that a reader never stops at a request that has no slot while
// an answer waits behind it.
const Inflight = 64

// withDescriptors lists the requests whose answers carry descriptors. Those
// of any other answer are closed.
var withDescriptors = map[Type]bool{TypeListeners: true, TypeBudgetJournal: true}

// Peer runs requests in both directions over one Conn.
type Peer struct {
	conn    *Conn
	handler Handler
	slots   chan struct{} // bounds requests under way from the other side
	asking  chan struct{} // bounds our own, also those that nobody waits for any more

	mu      sync.Mutex
	nextID  uint64
	waiting map[uint64]chan Message // nil channel: the caller has given up
	closed  bool
	end     chan struct{} // closed with closed
}

// NewPeer answers at most inflight requests of the other side at once; more
// wait in the socket, which is the back-pressure.
func NewPeer(c *Conn, h Handler, inflight int) *Peer {
	return &Peer{conn: c, handler: h, slots: make(chan struct{}, inflight), asking: make(chan struct{}, Inflight),
		waiting: map[uint64]chan Message{}, end: make(chan struct{})}
}

// Serve reads until the connection ends or ctx is done, then fails every
// waiting call, ends the context of every request under way, for nobody awaits
// its answer, and waits for them. It returns nil when the other side closed.
func (p *Peer) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.conn.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	requests, cancel := context.WithCancel(ctx)
	defer cancel()
	defer p.fail()
	buf := make([]byte, BufferLen)
	for {
		m, err := p.conn.Recv(buf)
		if err != nil {
			p.conn.Close()
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return err
		}
		if m.Reply {
			p.deliver(m)
			continue
		}
		p.slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-p.slots }()
			p.answer(requests, m)
		})
	}
}

func (p *Peer) answer(ctx context.Context, m Message) {
	payload, fds, err := p.handler(ctx, m.Type, m.Payload, m.FDs)
	defer CloseAll(fds)
	r := Message{Type: m.Type, Reply: true, ID: m.ID, Payload: payload, FDs: fds}
	if err != nil {
		var e Encoder
		e.Str(Clip(err.Error(), MaxText), MaxText)
		r.Failed, r.Payload, r.FDs = true, e.B, nil
	}
	// A send error means that the connection is gone: Serve's read sees it.
	_ = p.conn.Send(r)
}

func (p *Peer) deliver(m Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch, asked := p.waiting[m.ID]
	delete(p.waiting, m.ID)
	if asked {
		<-p.asking
	}
	if ch == nil || m.Failed || !withDescriptors[m.Type] {
		CloseAll(m.FDs)
		m.FDs = nil
	}
	if ch != nil {
		ch <- m // it has room for the one answer
	}
}

func (p *Peer) fail() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	close(p.end)
	for id, ch := range p.waiting {
		delete(p.waiting, id)
		if ch != nil {
			close(ch)
		}
	}
}

// Call sends a request and waits for its answer. The caller keeps fds and
// owns the returned ones. Errors: *Failure (the other side refused),
// ErrClosed, ctx.Err(), *ProtocolError.
func (p *Peer) Call(ctx context.Context, t Type, payload []byte, fds ...*os.File) ([]byte, []*os.File, error) {
	select {
	case p.asking <- struct{}{}:
	case <-p.end:
		return nil, nil, ErrClosed
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	ch := make(chan Message, 1)
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, nil, ErrClosed
	}
	p.nextID++
	id := p.nextID
	p.waiting[id] = ch
	p.mu.Unlock()
	if err := p.conn.Send(Message{Type: t, ID: id, Payload: payload, FDs: fds}); err != nil {
		return nil, nil, p.unsent(id, err)
	}
	select {
	case m, ok := <-ch:
		return answerOf(m, ok)
	case <-ctx.Done():
		p.forget(id, ch)
		return nil, nil, ctx.Err()
	}
}

func answerOf(m Message, ok bool) ([]byte, []*os.File, error) {
	switch {
	case !ok:
		return nil, nil, ErrClosed
	case !m.Failed:
		return m.Payload, m.FDs, nil
	}
	d := NewDecoder(m.Payload)
	msg := d.Str(MaxText)
	if err := d.End(); err != nil {
		return nil, nil, err
	}
	return nil, nil, &Failure{msg}
}

// unsent takes back a question that did not leave. Only a connection that
// ended, not a message that is too large, means that the peer is gone.
func (p *Peer) unsent(id uint64, err error) error {
	p.mu.Lock()
	_, still := p.waiting[id]
	delete(p.waiting, id)
	p.mu.Unlock()
	if still {
		<-p.asking
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

// forget gives up waiting. The question stays under way until it is answered:
// the other side still works on it.
func (p *Peer) forget(id uint64, ch chan Message) {
	p.mu.Lock()
	_, still := p.waiting[id]
	if still {
		p.waiting[id] = nil
	}
	p.mu.Unlock()
	if still {
		return
	}
	select {
	case m := <-ch: // the answer came in between
		CloseAll(m.FDs)
	default:
	}
}
