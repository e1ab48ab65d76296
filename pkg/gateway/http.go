// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
)

// httpConn is a terminated connection on its way to the HTTP server. It counts
// bytes, and done tells when the server has let go of it.
type httpConn struct {
	net.Conn
	f    *flow
	raw  syscall.RawConn // of Conn
	name string          // "" on port 80 of the refusal address
	once sync.Once
	done chan struct{}
	late gathering

	begun atomic.Pointer[begun] // what straight has begun of the first request to come
}

func newHTTPConn(f *flow, name string) *httpConn {
	c := &httpConn{Conn: f.conn, f: f, name: name, done: make(chan struct{}), late: gathering{from: &f.sb.g.buffers}}
	c.raw, _ = f.conn.SyscallConn() // it fails for a nil connection only
	return c
}

// Read implements net.Conn.
func (c *httpConn) Read(p []byte) (int, error) {
	if len(c.f.conn.Head()) > 0 {
		n, err := c.Conn.Read(p)
		c.f.out.Add(uint64(n))
		return n, err
	}
	n, err := readSmall(c.f.conn.TCPConn, c.raw, p)
	c.f.out.Add(uint64(n))
	return n, err
}

// Write implements net.Conn.
func (c *httpConn) Write(p []byte) (int, error) {
	if c.late.keep(p) {
		return len(p), nil
	}
	return c.write(p)
}

func (c *httpConn) write(p []byte) (int, error) {
	n, err := writeSmall(c.f.conn.TCPConn, c.raw, p)
	c.f.in.Add(uint64(n))
	return n, err
}

// Close implements net.Conn.
func (c *httpConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.done) })
	return err
}

// CloseWrite lets the HTTP server end a connection without losing the answer.
func (c *httpConn) CloseWrite() error { return c.f.conn.CloseWrite() }

type connKey struct{}

// newHTTPServer serves all terminated connections of all sandboxes.
func (g *Gateway) newHTTPServer() *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(g.serveRequest),
		ReadHeaderTimeout: g.opt.Limits.Header,
		IdleTimeout:       g.opt.Limits.HTTPIdle,
		MaxHeaderBytes:    g.opt.Limits.HeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 250, SendPingTimeout: time.Minute, PingTimeout: 30 * time.Second},
		ErrorLog:          log.New(logWriter{g.log}, "", 0),
		BaseContext:       func(net.Listener) context.Context { return g.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(interface{ NetConn() net.Conn }); ok {
				c = t.NetConn()
			}
			return context.WithValue(ctx, connKey{}, c)
		},
	}
}

// logWriter sends what the HTTP server complains about to the debug log: all
// of it can be provoked by a sandbox.
type logWriter struct{ log *slog.Logger }

// Write implements io.Writer.
func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug("http", "msg", strings.TrimSpace(string(p)))
	return len(p), nil
}

// serveRequest decides on one request of a terminated connection and answers
// or forwards it.
func (g *Gateway) serveRequest(w http.ResponseWriter, r *http.Request) {
	hc, ok := r.Context().Value(connKey{}).(*httpConn)
	if !ok {
		http.Error(w, "no connection", http.StatusInternalServerError)
		return
	}
	f := hc.f
	f.requests.Add(1)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(f.ctx, cancel)() // a killed flow takes its upstream request along
	x := &exchange{g: g, f: f, hc: hc, w: w, r: r.WithContext(ctx), start: time.Now(), e: f.sb.epoch.Load(),
		method: r.Method, path: r.URL.EscapedPath(), secure: r.TLS != nil, begun: hc.begun.Swap(nil)}
	defer x.begun.drop()
	if x.ticket = x.begun.claim(); x.ticket == nil {
		x.ticket = g.rec.reserve(f.sb.cfg.ID)
	}
	if x.ticket == nil {
		x.answer(refusalOf(codeEventBuffer, "the gateway cannot record more requests at the moment", http.StatusServiceUnavailable))
		return
	}
	defer x.ticket.release()
	x.serve()
}

// exchange is one request and its answer.
type exchange struct {
	g      *Gateway
	f      *flow
	hc     *httpConn
	e      *epoch
	w      http.ResponseWriter
	r      *http.Request
	ticket *ticket
	start  time.Time
	name   string // the host the request is for
	id     string // decision id, in the answer and in the event

	method, path string // the path as it was escaped
	secure       bool   // over TLS
	url          string // "": to be made of these
	begun        *begun // nil: nothing
}

func (x *exchange) serve() {
	if ref := x.checkShape(); ref != nil {
		x.deny(ref)
		return
	}
	f := x.f
	f.mu.Lock()
	m, d := f.mode, f.decision
	f.mu.Unlock()
	switch m {
	case modeRefusal:
		x.deny(x.whyRefused(d))
	case modeInference:
		x.inference()
	case modeRelay, modeWeb, modeInspect:
		x.proxy()
	default:
		x.deny(refusalOf(codeNoSnapshot, "nothing is allowed here", http.StatusForbidden))
	}
}

// checkShape refuses requests whose host is not the connection's name, and
// those that an upstream could read differently.
func (x *exchange) checkShape() *refusal {
	r := x.r
	x.name = x.hc.name
	host, ok := requestHost(r, x.f.dst.Port())
	if x.name == "" {
		x.name = host
	}
	switch {
	case r.Method == http.MethodConnect:
		return refusalOf(codeConnect, "CONNECT would make a tunnel past the gateway", http.StatusMethodNotAllowed)
	case r.Host == "":
		return refusalOf(codeNoHost, "a request must name its host", http.StatusBadRequest)
	case !ok || host != x.name:
		return refusalOf(codeHostMismatch, "the request names another host than the connection was made to ("+x.name+")", http.StatusMisdirectedRequest)
	case r.URL.Opaque != "", r.Header.Get("Host") != "" && !strings.EqualFold(r.Header.Get("Host"), r.Host):
		return refusalOf(codeBadRequest, "the request target is ambiguous", http.StatusBadRequest)
	}
	for _, h := range overrideHeaders {
		if _, there := r.Header[h]; there {
			return refusalOf(codeMethodOverride, "the header "+h+" would change the method that was judged", http.StatusForbidden)
		}
	}
	return nil
}

// overrideHeaders make some servers act on another method or path than the
// request line's.
var overrideHeaders = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url"}

// requestHost is the canonical host of a request; ok is false when it is not a
// host name or names another port than the connection's.
func requestHost(r *http.Request, port uint16) (host string, ok bool) {
	host = r.Host
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		if p := host[i+1:]; p != portOf(port) && p != "" {
			return "", false
		}
		host = host[:i]
	}
	return policy.CanonicalHost(host)
}

// inference hands the request to the model gateway.
func (x *exchange) inference() {
	rt := route{}
	if x.e != nil {
		rt = x.e.byName(x.name, x.f.dst.Port())
	}
	if rt.mode != modeInference {
		x.deny(refusalByPolicy(rt.decision))
		return
	}
	e := x.e
	x.g.opt.Inference.ServeHTTP(x.w, x.r, inference.Call{
		View: e.view, Snapshot: e.view, Secrets: x.g.secret, Transport: e.provider,
		Approve: x.approveModel, Host: x.name, Dialect: rt.dialect, Sandbox: x.f.sb.id, Scope: x.f.sb.scope,
		Record: func(ev event.Event) {
			if ev.Revision == 0 {
				ev.Revision = e.snap.Revision()
			}
			ev.Source, ev.Sandbox, ev.Scope, ev.PID = "gateway", x.f.sb.id, x.f.sb.scope, x.f.client
			x.ticket.post(ev)
		},
	})
}

// event starts the event of the request.
func (x *exchange) event() event.Event {
	ev := x.f.event(event.KindHTTP)
	ev.Time, ev.End = x.start.UTC(), time.Now().UTC()
	ev.Duration = time.Since(x.start)
	ev.Activity, ev.Method = "request", x.method
	ev.DstName = x.name
	ev.URL = x.url
	if x.url == "" {
		ev.URL = siteOf(x.secure, x.name, x.f.dst.Port()) + x.path
	}
	ev.RequestID = x.id
	return ev
}

// deny answers with the reason and records it.
func (x *exchange) deny(ref *refusal) {
	x.id = newDecisionID()
	if ref.remedy = x.f.approvalRemedy(); ref.remedy == "" {
		ref.remedy = x.f.sb.remedy(x.name, x.f.dst, policy.TCP)
	}
	x.answer(ref)
	ev := x.event()
	applyDecision(&ev, ref.decision)
	ev.Verdict, ev.ReasonCode, ev.Reason = event.Denied, ref.code, ref.reason
	ev.Status = uint32(ref.status)
	if ref.byPolicy {
		ev.Remedy = ref.remedy
	}
	x.ticket.postFolded(ev)
}
