// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// accept serves connections of l until l is closed or not to be read from. Without descriptors it
// waits and tries again; what has arrived stays in the backlog.
func (sb *sandbox) accept(l net.Listener, serve func(*net.TCPConn)) {
	wait := acceptBackoffMin
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			wait = acceptBackoffMin
			t, ok := c.(*net.TCPConn)
			if !ok {
				c.Close()
				continue
			}
			sb.wg.Add(1)
			go func() { defer sb.wg.Done(); serve(t) }()
		case noMore(err), sb.ctx.Err() != nil:
			return
		case errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.EINTR):
		default:
			sb.acceptFailed(err)
			select {
			case <-sb.ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = min(2*wait, acceptBackoffMax)
		}
	}
}

func (sb *sandbox) acceptFailed(err error) {
	t := sb.g.rec.reserve(sb.cfg.ID)
	if t == nil {
		return
	}
	ev := sb.event(event.KindDaemon, "gateway")
	ev.Verdict, ev.Activity, ev.Severity = event.Observed, "accept", event.SeverityHigh
	ev.ReasonCode, ev.Object = codeDescriptors, "gateway"
	ev.Reason = "accepting connections failed and is tried again: " + err.Error()
	t.postFolded(ev)
}

// handoff is the listener that terminated connections reach the HTTP server
// through.
type handoff struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newHandoff() *handoff {
	return &handoff{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give passes c to the server; false when the server is gone.
func (h *handoff) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.closed:
		return false
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The HTTP server closes it once.
func (h *handoff) Close() error {
	close(h.closed)
	return nil
}

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return &net.TCPAddr{} }

// serveLast serves a connection of which a request has begun when the HTTP
// server has been shut down: that request, and no more.
func (g *Gateway) serveLast(hc *httpConn, c net.Conn) {
	l := &handoff{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conns <- c
	s := g.newHTTPServer()
	s.SetKeepAlivesEnabled(false)
	go s.Serve(l) //nolint:errcheck // it ends with Close
	<-hc.done
	s.Close()
}
