// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/gateway"
	"github.com/ringfence/ringfence/pkg/wire"
)

// link is the connection to the keeper. It outlives a keeper: while none is
// connected, questions wait until their context ends, and a new keeper finds
// the gateway on the reconnect socket. It is a gateway.Keeper.
type link struct {
	mu   sync.Mutex
	peer *wire.Peer
	up   chan struct{} // closed while peer is set, replaced when it is lost
}

var _ gateway.Keeper = (*link)(nil)

func newLink() *link { return &link{up: make(chan struct{})} }

func (l *link) run(ctx context.Context, first *wire.Conn, again *net.UnixListener, h wire.Handler, log *slog.Logger) {
	stop := context.AfterFunc(ctx, func() { again.Close() })
	defer stop()
	for conn := first; ; {
		peer := wire.NewPeer(conn, h, wire.Inflight)
		l.set(peer)
		err := peer.Serve(ctx)
		l.set(nil)
		if ctx.Err() != nil {
			return
		}
		log.Warn("the keeper is gone; serving on until the event buffer is full", "error", err)
		if conn = accept(again, log); conn == nil {
			return
		}
	}
}

// acceptor is a *net.UnixListener.
type acceptor interface {
	AcceptUnix() (*net.UnixConn, error)
}

// acceptPause is how long accept waits after an error that may pass, such as
// a process without free descriptors.
const acceptPause = 50 * time.Millisecond

// accept waits for the next keeper, nil when the listener is closed. Only root
// may be one.
func accept(again acceptor, log *slog.Logger) *wire.Conn {
	for said := false; ; {
		c, err := again.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if !said {
				log.Error("no keeper can connect now; trying on", "error", err)
			}
			said = true
			time.Sleep(acceptPause)
			continue
		}
		if uid, err := peerUID(c); err != nil || uid != 0 {
			log.Warn("somebody who is not the keeper connected", "uid", uid, "error", err)
			c.Close()
			continue
		}
		return wire.FromUnix(c)
	}
}

func peerUID(c *net.UnixConn) (uint32, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := rc.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if cerr != nil {
		return 0, cerr
	}
	return cred.Uid, nil
}

func (l *link) set(p *wire.Peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peer = p
	if p != nil {
		close(l.up)
	} else {
		l.up = make(chan struct{})
	}
}

// askAgain is the pause before a question goes to the next keeper.
const askAgain = 5 * time.Millisecond

// call waits for a keeper and asks it. A question that a keeper took with it
// is asked again; events are not, for their sender does that itself.
func (l *link) call(ctx context.Context, t wire.Type, payload []byte) ([]byte, error) {
	for {
		l.mu.Lock()
		p, up := l.peer, l.up
		l.mu.Unlock()
		if p == nil {
			select {
			case <-up:
				continue
			case <-ctx.Done():
				return nil, fmt.Errorf("the keeper is away: %w", ctx.Err())
			}
		}
		b, fds, err := p.Call(ctx, t, payload)
		wire.CloseAll(fds)
		if errors.Is(err, wire.ErrClosed) && t != wire.TypeAppend && ctx.Err() == nil {
			time.Sleep(askAgain) // until the end of the connection is noticed
			continue
		}
		return b, err
	}
}

// questionTime bounds one question to a keeper that may be restarting.
const questionTime = 10 * time.Second

func (l *link) Resolve(ctx context.Context, sandbox uint32, name string) (gateway.Resolution, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTime)
	defer cancel()
	q, err := wire.ResolveRequest{Sandbox: sandbox, Name: name}.Encode()
	if err != nil {
		return gateway.Resolution{}, err
	}
	b, err := l.call(ctx, wire.TypeResolve, q)
	if err != nil {
		return gateway.Resolution{}, err
	}
	var r wire.ResolveReply
	if err := r.Decode(b); err != nil {
		return gateway.Resolution{}, err
	}
	return gateway.Resolution{Allowed: r.Allowed, Exhausted: r.Exhausted, Addr: r.Addr, Reason: r.Reason,
		ReasonCode: r.ReasonCode, Rule: r.Rule, RuleAt: r.RuleAt, Revision: r.Revision}, nil
}

func (l *link) Approval(ctx context.Context, q gateway.ApprovalQuestion) (gateway.ApprovalAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTime)
	defer cancel()
	t := wire.TypeApproval
	b, err := wire.ApprovalRequest{Sandbox: q.Sandbox, Name: q.Name, Port: q.Port, Waits: first(q.Waits)}.Encode()
	if q.Dialect != "" {
		t = wire.TypeModelApproval
		b, err = modelApproval(&q).Encode()
	}
	if err != nil {
		return gateway.ApprovalAnswer{}, err
	}
	if b, err = l.call(ctx, t, b); err != nil {
		return gateway.ApprovalAnswer{}, err
	}
	var r wire.ApprovalReply
	if err := r.Decode(b); err != nil {
		return gateway.ApprovalAnswer{}, err
	}
	return gateway.ApprovalAnswer{Waits: r.Outcome == wire.ApprovalWaits, Released: r.Outcome == wire.ApprovalReleased, IDs: r.IDs, Reason: r.Reason, ReasonCode: r.ReasonCode, Fingerprints: r.Fingerprints}, nil
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func modelApproval(q *gateway.ApprovalQuestion) wire.ModelApprovalRequest {
	m := wire.ModelApprovalRequest{Sandbox: q.Sandbox, Dialect: q.Dialect, Model: q.Model, Arguments: q.Arguments, Shown: q.Shown, Waits: q.Waits}
	for _, t := range q.Tools {
		w := wire.ApprovalTool{Name: t.Name, Definition: t.Definition, Shown: t.Shown}
		for _, s := range t.Settings {
			w.Settings = append(w.Settings, wire.ApprovalSetting(s))
		}
		m.Tools = append(m.Tools, w)
	}
	return m
}

func (l *link) Leaf(ctx context.Context, sandbox uint32, name string, pub *ecdsa.PublicKey) (leaf, ca []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, questionTime)
	defer cancel()
	point, err := pub.Bytes()
	if err != nil {
		return nil, nil, err
	}
	q, err := wire.LeafRequest{Sandbox: sandbox, Name: name, Point: point}.Encode()
	if err != nil {
		return nil, nil, err
	}
	b, err := l.call(ctx, wire.TypeLeaf, q)
	if err != nil {
		return nil, nil, err
	}
	var r wire.LeafReply
	if err := r.Decode(b); err != nil {
		return nil, nil, err
	}
	return r.Leaf, r.CA, nil
}

// Append sends events in messages that fit; it returns nil when all of them
// are durable. After an error some may be, and will then appear twice: a
// record may come double, never not at all.
func (l *link) Append(ctx context.Context, evs []event.Event) error {
	for len(evs) > 0 {
		n, body := 0, []byte(nil)
		for n < len(evs) && n < maxBatch {
			next := evs[n].AppendWire(body)
			if len(next) > wire.MaxPayload-2 && n > 0 {
				break
			}
			body = next
			n++
		}
		var e wire.Encoder
		e.U16(uint16(n))
		e.B = append(e.B, body...)
		if _, err := l.call(ctx, wire.TypeAppend, e.B); err != nil {
			return err
		}
		evs = evs[n:]
	}
	return nil
}

const maxBatch = 256

func (l *link) Counters(ctx context.Context) ([]gateway.Counter, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	b, err := l.call(ctx, wire.TypeCounters, nil)
	if err != nil {
		return nil, err
	}
	cs, err := wire.DecodeCounters(b)
	if err != nil {
		return nil, err
	}
	out := make([]gateway.Counter, len(cs))
	for i, c := range cs {
		out[i] = gateway.Counter{Name: c.Name, Labels: c.Labels, Value: c.Value}
	}
	return out, nil
}
