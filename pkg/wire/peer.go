// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// Peer runs requests in both directions over one Conn.
type Peer struct {
	conn    *Conn
	handler Handler
	slots   chan struct{} // bounds requests under way from the other side

	mu      sync.Mutex
	nextID  uint64
	waiting map[uint64]chan Message
	closed  bool
}

// NewPeer answers at most inflight requests of the other side at once; more
// wait in the socket, which is the back-pressure.
func NewPeer(c *Conn, h Handler, inflight int) *Peer {
	return &Peer{conn: c, handler: h, slots: make(chan struct{}, inflight), waiting: map[uint64]chan Message{}}
}

// Serve reads until the connection ends or ctx is done, then fails every
// waiting call. It returns nil when the other side closed.
func (p *Peer) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.conn.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
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
			p.answer(ctx, m)
		})
	}
}

func (p *Peer) answer(ctx context.Context, m Message) {
	payload, fds, err := p.handler(ctx, m.Type, m.Payload, m.FDs)
	defer CloseAll(fds)
	r := Message{Type: m.Type, Reply: true, ID: m.ID, Payload: payload, FDs: fds}
	if err != nil {
		var e Encoder
		e.Str(err.Error(), 1024)
		r.Failed, r.Payload, r.FDs = true, e.B, nil
	}
	// A send error means that the connection is gone: Serve's read sees it.
	_ = p.conn.Send(r)
}

func (p *Peer) deliver(m Message) {
	p.mu.Lock()
	ch := p.waiting[m.ID]
	delete(p.waiting, m.ID)
	p.mu.Unlock()
	if ch == nil {
		CloseAll(m.FDs)
		return
	}
	ch <- m
}

func (p *Peer) fail() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for id, ch := range p.waiting {
		delete(p.waiting, id)
		close(ch)
	}
}

// Call sends a request and waits for its answer. The caller keeps fds and
// owns the returned ones. Errors: *Failure (the other side refused),
// ErrClosed, ctx.Err(), *ProtocolError.
func (p *Peer) Call(ctx context.Context, t Type, payload []byte, fds ...*os.File) ([]byte, []*os.File, error) {
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
		p.forget(id)
		return nil, nil, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	select {
	case m, ok := <-ch:
		if !ok {
			return nil, nil, ErrClosed
		}
		if m.Failed {
			CloseAll(m.FDs)
			d := NewDecoder(m.Payload)
			msg := d.Str(1024)
			if err := d.End(); err != nil {
				return nil, nil, err
			}
			return nil, nil, &Failure{msg}
		}
		return m.Payload, m.FDs, nil
	case <-ctx.Done():
		p.forget(id)
		return nil, nil, ctx.Err()
	}
}

func (p *Peer) forget(id uint64) {
	p.mu.Lock()
	ch := p.waiting[id]
	delete(p.waiting, id)
	p.mu.Unlock()
	if ch == nil { // an answer may have come in between: close what it carried
		return
	}
	select {
	case m := <-ch:
		CloseAll(m.FDs)
	default:
	}
}
