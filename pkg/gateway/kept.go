// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// kept is a connection to an upstream that one request after the other uses.
type kept struct {
	net.Conn // what requests go over: wire, or TLS on it
	wire     *readAhead
	peer     string // its address, in events
	used     bool   // it has carried a request
	idle     time.Time
}

// Close implements net.Conn. It says no goodbye (close_notify), for which a
// server that reads nothing could make us wait: what was asked is answered in
// full, or is broken off.
func (k *kept) Close() error { return k.wire.Close() }

// quiet tells whether a connection that has been idle can take a request: what
// has come since, the end of it included, is no answer to anything, and whoever
// used the connection would take it for one.
func (k *kept) quiet() bool {
	var b [1]byte
	k.wire.glance(true)
	n, err := k.Read(b[:])
	k.wire.glance(false)
	var nothing errNothing
	return n == 0 && errors.As(err, &nothing)
}

// destination is what a connection leads to: those that differ in it are never
// taken for one another.
type destination struct {
	name   string
	port   uint16
	secure bool
}

const (
	maxKept     = 256 // of one epoch, as newTransport has it
	maxKeptEach = 64
	keptIdle    = 90 * time.Second
)

// keptConns are the idle connections of one epoch, and so of one sandbox.
type keptConns struct {
	mu     sync.Mutex
	idle   map[destination][]*kept // the longest idle first
	n      int
	closed bool
	timer  *time.Timer // runs while there are some
}

// get takes the one that was idle for the shortest time, nil if there is none.
func (p *keptConns) get(to destination) *kept {
	for {
		k := p.pop(to)
		if k == nil || k.quiet() {
			return k
		}
		k.Close()
	}
}

func (p *keptConns) pop(to destination) *kept {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[to]
	if len(list) == 0 {
		return nil
	}
	k := list[len(list)-1]
	list[len(list)-1] = nil
	p.idle[to] = list[:len(list)-1]
	p.n--
	return k
}

// put takes k back, or closes it where there is no room.
func (p *keptConns) put(to destination, k *kept, now time.Time) {
	k.used, k.idle = true, now
	p.mu.Lock()
	full := p.closed || p.n >= maxKept || len(p.idle[to]) >= maxKeptEach
	if !full {
		if p.idle == nil {
			p.idle = map[destination][]*kept{}
		}
		p.idle[to] = append(p.idle[to], k)
		p.n++
		if p.timer == nil {
			p.timer = time.AfterFunc(keptIdle/2, p.prune)
		}
	}
	p.mu.Unlock()
	if full {
		k.Close()
	}
}

// prune closes what has been idle for too long.
func (p *keptConns) prune() { p.drop(time.Now().Add(-keptIdle)) }

// close closes all, and from now on those that come back.
func (p *keptConns) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.drop(time.Now().Add(time.Hour))
}

// drop closes those that have been idle since a time.
func (p *keptConns) drop(since time.Time) {
	var old []*kept
	p.mu.Lock()
	for to, list := range p.idle {
		i := 0
		for i < len(list) && list[i].idle.Before(since) {
			i++
		}
		old = append(old, list[:i]...)
		if list = append([]*kept(nil), list[i:]...); len(list) > 0 {
			p.idle[to] = list
		} else {
			delete(p.idle, to)
		}
		p.n -= i
	}
	switch {
	case p.timer == nil:
	case p.n > 0:
		p.timer.Reset(keptIdle / 2)
	default:
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	for _, k := range old {
		k.Close()
	}
}

// dialling is a connection to an upstream that is being made.
type dialling struct {
	done   chan struct{}
	cancel context.CancelFunc
	kept   *kept
	err    error
}

// dial begins to connect. Who gives up calls cancel, and drop.
func (e *epoch) dial(ctx context.Context, to destination) *dialling {
	ctx, cancel := context.WithCancel(ctx)
	d := &dialling{done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(d.done)
		d.kept, d.err = e.connect(ctx, to)
	}()
	return d
}

// drop closes what nobody waits for any more.
func (d *dialling) drop() {
	d.cancel()
	go func() {
		if <-d.done; d.kept != nil {
			d.kept.Close()
		}
	}()
}

// connect makes a connection as the transport of HTTP/1.1 does.
func (e *epoch) connect(ctx context.Context, to destination) (*kept, error) {
	c, err := e.web(ctx, "tcp", net.JoinHostPort(to.name, portOf(to.port)))
	if err != nil {
		return nil, err
	}
	wire, ok := c.(*readAhead)
	if !ok {
		c.Close()
		return nil, errors.New("gateway: not a connection of the dialer's")
	}
	k := &kept{Conn: c, wire: wire, peer: c.RemoteAddr().String()}
	if !to.secure {
		return k, nil
	}
	cfg := e.web1.TLSClientConfig.Clone()
	cfg.ServerName, cfg.NextProtos = to.name, []string{"http/1.1"}
	t := tls.Client(c, cfg)
	ctx, cancel := context.WithTimeout(ctx, e.web1.TLSHandshakeTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("TLS handshake timeout") // as the transport has it; see upstream.FailedTLS
		}
		return nil, err
	}
	k.Conn = t
	return k, nil
}
