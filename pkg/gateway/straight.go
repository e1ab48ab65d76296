// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/gateway/http1"
	"github.com/ringfence/ringfence/pkg/policy"
)

// straight serves the requests of a terminated connection that speaks HTTP/1.1
// in place: one goroutine, one read and one write for each hop. It serves what
// is of the plainest form (package http1), what fits into its buffer whole, and
// what policy allows. The first request that is anything else, or does not come
// about as it should, goes to the HTTP server, and the connection with it: all
// refusals, all errors and all odd messages are handled in one place, there.
type straight struct {
	f      *flow
	hc     *httpConn
	c      net.Conn // hc, or TLS on it
	to     destination
	site   string    // what URLs begin with
	served bool      // a request, so that the client may be waited for longer
	until  time.Time // deadline of reading from c

	buf []byte // of what the client sends
	in  []byte // the part of buf that is not served yet

	req  http1.Request
	resp http1.Response
	x    exchange
	rule struct { // of the last request
		policy.RuleRef
		text, at string
	}

	// mu guards what follows.
	mu    sync.Mutex
	idle  bool  // waits for a request, nothing of which has come
	fresh bool  // it is the first one
	up    *kept // answers a request
	dead  bool  // the flow was killed
	// See watcher.
	waited, interrupted bool
}

const (
	straightIn  = 8 << 10  // a request, as a whole
	straightOut = 16 << 10 // the head of an answer and the beginning of its body
	// grace is how long a request may be incomplete, or connecting may take,
	// before it is work for the HTTP server.
	grace = 100 * time.Millisecond
)

// serveStraight returns what the HTTP server has to go on with; nil: the
// connection has ended.
func (f *flow) serveStraight(hc *httpConn, c net.Conn) net.Conn {
	s := &straight{f: f, hc: hc, c: c, to: destination{hc.name, f.dst.Port(), c != net.Conn(hc)}}
	f.mu.Lock()
	m := f.mode
	f.mu.Unlock()
	if m != modeWeb && m != modeInspect || s.to.name == "" || f.sb.g.onlyServer {
		return c
	}
	if t, ok := c.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol == "h2" {
		return c
	}
	s.site = siteOf(s.to.secure, s.to.name, s.to.port)
	defer context.AfterFunc(f.ctx, s.kill)()
	f.straight.Store(s)
	defer f.straight.Store(nil)
	f.sb.g.watcher.add(s)
	defer f.sb.g.watcher.remove(s)
	s.buf = f.sb.g.straightIn.get()
	defer func() { f.sb.g.straightIn.put(s.buf) }()
	for {
		switch s.next() {
		case goOn:
		case toServer:
			_ = c.SetReadDeadline(time.Time{})
			return s.rest()
		default:
			c.Close()
			return nil
		}
	}
}

// rest is the connection with what was read and not served in front.
func (s *straight) rest() net.Conn {
	head := resumed(append([]byte(nil), s.in...))
	if t, ok := s.c.(*tls.Conn); ok {
		return &resumedTLS{t, head}
	}
	return &resumedPlain{s.hc, head}
}

// resumed is what of a connection was read already.
type resumed []byte

// read gives that, and then what comes.
func (head *resumed) read(from io.Reader, p []byte) (int, error) {
	if len(*head) == 0 {
		return from.Read(p)
	}
	n := copy(p, *head)
	*head = (*head)[n:]
	return n, nil
}

type resumedPlain struct {
	*httpConn
	head resumed
}

// Read implements net.Conn.
func (c *resumedPlain) Read(p []byte) (int, error) { return c.head.read(c.httpConn, p) }

// NetConn is what carries it, as of a *tls.Conn.
func (c *resumedPlain) NetConn() net.Conn { return c.httpConn }

type resumedTLS struct {
	*tls.Conn
	head resumed
}

// Read implements net.Conn.
func (c *resumedTLS) Read(p []byte) (int, error) { return c.head.read(c.Conn, p) }

// kill ends what the upstream is asked for; the flow ends the client's side.
func (s *straight) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	if s.up != nil {
		s.up.wire.Close()
	}
}

// asking says what upstream is asked, nil for none; false if the flow is dead.
func (s *straight) asking(k *kept) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupted && s.up != nil {
		_ = s.up.SetReadDeadline(time.Time{})
	}
	s.up, s.waited, s.interrupted = k, false, false
	return !s.dead
}

// freshTime is how long the first request of a connection is waited for when
// the gateway ends, as http.Server.Shutdown does.
const freshTime = 5 * time.Second

// endIdle ends the wait for a request.
func (s *straight) endIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle && (!s.fresh || time.Since(s.f.start) > freshTime) {
		_ = s.c.SetReadDeadline(past)
	}
}

// rests says whether a request is waited for; false if it is not worth it.
func (s *straight) rests(idle bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle, s.fresh = idle, !s.served
	return !s.f.sb.g.ending.Load() || !idle || s.fresh
}

// step is what comes next on a connection.
type step uint8

const (
	over     step = iota // the connection ends
	goOn                 // with the next request
	toServer             // with the HTTP server
)

// next serves one request.
func (s *straight) next() step {
	n, st := s.request()
	if st != goOn {
		return st
	}
	x := &s.x
	*x = exchange{g: s.f.sb.g, f: s.f, hc: s.hc, e: s.f.sb.epoch.Load(), start: time.Now(),
		name: s.to.name, method: s.req.Method, url: s.site + string(s.req.Path), secure: s.to.secure}
	x.path = x.url[len(s.site):]
	if x.e == nil || !s.hostIs(s.req.Host) {
		return toServer
	}
	d := x.e.view.HTTP(x.name, s.to.port, x.method, x.path)
	if !d.Allowed() || d.Rule.Once() {
		return toServer
	}
	if x.ticket = x.g.rec.reserve(s.f.sb.cfg.ID); x.ticket == nil {
		return toServer
	}
	defer func() {
		if x.ticket != nil { // begun has it
			x.ticket.release()
		}
	}()
	a := attempt{s: s, d: d, head: n, total: n + int(s.req.Length)}
	return a.serve()
}

// request waits until a whole request has come; n is the length of its head.
func (s *straight) request() (n int, st step) {
	limits := &s.f.sb.g.opt.Limits
	wait := limits.Header
	if s.served {
		wait = limits.HTTPIdle
	}
	for {
		if len(s.in) > 0 {
			n, err := s.req.Parse(s.in)
			switch {
			case err == nil && int64(n)+s.req.Length <= int64(len(s.in)):
				return n, goOn
			case err != nil && !errors.Is(err, http1.ErrIncomplete), len(s.in) == len(s.buf), int64(n)+s.req.Length > int64(len(s.buf)):
				return 0, toServer
			}
			wait = min(grace, limits.Header)
		}
		s.within(wait)
		if !s.rests(len(s.in) == 0) {
			return 0, over
		}
		err := s.read()
		s.rests(false)
		switch {
		case err == nil:
		case len(s.in) > 0:
			return 0, toServer
		default:
			return 0, over
		}
	}
}

// within bounds the next read. Moving a deadline costs more than the read, so
// that it may come up to a quarter early.
func (s *straight) within(wait time.Duration) {
	now := time.Now()
	if left := s.until.Sub(now); left <= wait && left > wait-wait/4 {
		return
	}
	s.until = now.Add(wait)
	_ = s.c.SetReadDeadline(s.until)
}

// read reads once. What is not served yet moves to the beginning of the buffer.
func (s *straight) read() error {
	have := copy(s.buf, s.in)
	n, err := s.c.Read(s.buf[have:])
	s.in = s.buf[:have+n]
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// hostIs tells whether a Host is the connection's, spelled as we would.
func (s *straight) hostIs(host []byte) bool {
	n := len(s.to.name)
	return string(host) == s.to.name || len(host) > n && string(host[:n]) == s.to.name && host[n] == ':' && string(host[n+1:]) == portOf(s.to.port)
}

// clientLeft tells whether the client has closed its side.
func (s *straight) clientLeft() bool {
	raw, err := s.f.conn.SyscallConn()
	if err != nil {
		return true
	}
	left := true
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		left = err != nil || info.State != unix.BPF_TCP_ESTABLISHED
	})
	return left
}

// write sends to the client. What are several TLS records is one write still.
func (s *straight) write(p []byte) error {
	if !s.to.secure || len(p) <= tlsFirstRecord {
		_, err := s.c.Write(p)
		return err
	}
	s.hc.late.begin()
	_, err := s.c.Write(p)
	if e := s.hc.late.end(s.hc.write); err == nil {
		err = e
	}
	return err
}

// tlsFirstRecord is less than crypto/tls puts into the records of a new connection.
const tlsFirstRecord = 1 << 10

// told records a request that was answered, or whose answer broke off.
func (s *straight) told(d policy.Decision, peer string, in uint64, interrupted, left bool) {
	s.f.requests.Add(1)
	s.served = true
	s.x.ticket.post(s.event(d, peer, in, interrupted, left))
}

func (s *straight) event(d policy.Decision, peer string, in uint64, interrupted, left bool) event.Event {
	ev := s.x.event()
	s.apply(&ev, d)
	ev.Status, ev.PeerAddr = uint32(s.resp.Status), peer
	ev.BytesIn, ev.BytesOut = in, uint64(s.req.Length)
	s.x.ended(&ev, interrupted, left)
	return ev
}

// apply is applyDecision. The rule is the same for most requests.
func (s *straight) apply(ev *event.Event, d policy.Decision) {
	if d.Rule == s.rule.RuleRef {
		d.Rule = policy.RuleRef{}
		applyDecision(ev, d)
		ev.Rule, ev.RuleAt = s.rule.text, s.rule.at
		return
	}
	applyDecision(ev, d)
	s.rule.RuleRef, s.rule.text, s.rule.at = d.Rule, ev.Rule, ev.RuleAt
}

// isTimeout tells whether a read has only taken too long.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// replayable tells whether a request may be sent again when a connection that
// was kept ends without an answer (RFC 9110, section 9.2.2).
func (s *straight) replayable() bool {
	m := s.req.Method
	return s.req.Length == 0 && (m == http.MethodGet || m == http.MethodHead || m == http.MethodOptions)
}

// inPool lends what requests are read into.
type inPool struct{ pool sync.Pool }

func (p *inPool) get() []byte {
	if b, ok := p.pool.Get().(*[straightIn]byte); ok {
		return b[:]
	}
	return make([]byte, straightIn)
}

func (p *inPool) put(b []byte) { p.pool.Put((*[straightIn]byte)(b)) }
