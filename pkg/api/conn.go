// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net"
	"sync"
)

// connKey finds the peerConn of a request in its context.
type connKey struct{}

// listener turns each accepted connection into a peerConn and bounds how many
// there are.
type listener struct {
	*net.UnixListener
	s *Server
}

// Accept returns the next connection whose peer is known. Connections whose
// credentials cannot be read, and those over the bound, are closed at once.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		caller, err := readCaller(c, l.s.o.OperatorGID)
		if err != nil {
			l.s.o.Logger.Warn("api: connection refused", "err", err)
			_ = c.Close()
			continue
		}
		p := &peerConn{UnixConn: c, caller: caller, s: l.s}
		evicted, ok := l.s.shares.take(p)
		if evicted != nil {
			_ = evicted.Close()
		}
		if !ok {
			l.s.o.Logger.Warn("api: too many connections", "uid", caller.UID)
			_ = p.Close()
			continue
		}
		return p, nil
	}
}

// peerConn is a connection with the peer that the kernel named at accept.
type peerConn struct {
	*net.UnixConn
	caller *Caller
	s      *Server

	closing sync.Once

	mu      sync.Mutex // guards what follows
	asked   bool
	refusal error
}

// Close closes the connection and what is known of its peer.
func (c *peerConn) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		err = c.UnixConn.Close()
		c.caller.close()
		c.s.shares.give(c)
	})
	return err
}

// outsideSandbox refuses a peer that lives in a sandbox, or of which that
// cannot be told. The answer is asked for once per connection.
func (c *peerConn) outsideSandbox(ctx context.Context, b Backend) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked {
		return c.refusal
	}
	in, err := true, errors.New("its cgroup cannot be read")
	if c.caller.Cgroup != "" {
		in, err = b.InSandbox(ctx, c.caller)
	}
	if ctx.Err() != nil {
		return ctx.Err() // not an answer to remember
	}
	switch {
	case err != nil:
		c.refusal = &Error{Code: CodeInSandbox, Message: "it cannot be told whether the caller lives in a sandbox", Detail: err.Error()}
	case in:
		c.refusal = &Error{Code: CodeInSandbox, Message: "a process in a sandbox may not use the operator API",
			Remedy: "run the command outside the sandbox"}
	}
	c.asked = true
	return c.refusal
}
