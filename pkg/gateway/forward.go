// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/gateway/upstream"
	"github.com/ringfence/ringfence/pkg/policy"
)

// dialer makes the dial function of a transport: the name is resolved and its
// addresses are judged for every new connection.
func (e *epoch) dialer(admit func(host string, port uint16) []netip.Prefix) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		host, p, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		port, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		t := e.target(host, uint16(port), policy.TCP, admit(host, uint16(port)))
		if a, err := netip.ParseAddr(host); err == nil { // a provider's base URL may hold an address
			t.Host, t.Addr = "", a
		}
		c, err := e.sb.g.dialer.Dial(ctx, t)
		if err != nil {
			return nil, err
		}
		upstream.KeepAlive(c)
		return newReadAhead(c, &e.sb.g.buffers)
	}
}

// newTransport is one pool of upstream connections. TLS is verified against
// the host's roots; no proxy, no compression of our own, no redirects.
func (g *Gateway) newTransport(dial func(context.Context, string, string) (net.Conn, error), h2 bool) *http.Transport {
	t := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: g.opt.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		DisableCompression:     true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		ExpectContinueTimeout:  5 * time.Second,
		MaxResponseHeaderBytes: 1 << 20,
		ForceAttemptHTTP2:      h2,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(h2)
	return t
}

// decision is of now, or of before the request was sent.
func (x *exchange) decision(port uint16, path string) policy.Decision {
	if x.begun != nil && x.begun.sent != nil {
		return x.begun.sent.decision
	}
	return x.f.claimed(x.name, x.e.view.HTTP(x.name, port, x.r.Method, path))
}

// proxy decides on the request and forwards it.
func (x *exchange) proxy() {
	port, path := x.f.dst.Port(), x.path
	if x.e == nil {
		x.deny(refusalOf(codeNoSnapshot, "no policy is in force yet", http.StatusForbidden))
		return
	}
	d := x.decision(port, path)
	if !d.Allowed() {
		x.deny(refusalByPolicy(d))
		return
	}
	upgrade, ref := x.upgrade()
	if ref != nil {
		x.deny(ref)
		return
	}
	transport := x.e.web1
	if x.r.ProtoMajor > 1 {
		transport = x.e.web2
	}
	if upgrade {
		if d = x.e.upgradeDecision(x.name, port, path); !d.Allowed() {
			ref := refusalByPolicy(d)
			ref.reason = "a WebSocket carries data both ways; policy allows only certain methods here and " + methodWebSocket + " is not one of them"
			ref.code = codeUpgrade
			x.deny(ref)
			return
		}
		x.f.mu.Lock()
		x.f.tunnel = &tunnel{x.r.Method, path}
		x.f.mu.Unlock()
		// A policy that changed before this line took the flow for an ordinary
		// one; so judge it once more, as setUpstream does.
		if e := x.f.sb.epoch.Load(); e != nil {
			if now, ok := x.f.stillAllowed(e); !ok {
				x.deny(refusalByPolicy(now))
				return
			}
		}
	}
	x.forward(transport, d)
}

// upgrade tells whether the request opens a WebSocket. Every other Upgrade
// (h2c above all) would carry requests that nobody judges: the offer is taken
// out, as a server may ignore it (RFC 9110, section 7.8).
func (x *exchange) upgrade() (bool, *refusal) {
	h := x.r.Header
	if len(h["Upgrade"]) == 0 {
		return false, nil
	}
	offers := false
	for _, v := range h["Connection"] {
		for tok := range strings.SplitSeq(v, ",") {
			offers = offers || strings.EqualFold(strings.TrimSpace(tok), "upgrade")
		}
	}
	if offers && len(h["Upgrade"]) == 1 && strings.EqualFold(h.Get("Upgrade"), "websocket") {
		if x.r.Method != http.MethodGet || x.r.ProtoMajor != 1 || x.r.ContentLength != 0 {
			return false, refusalOf(codeUpgrade, "a WebSocket is opened by a GET without a body", http.StatusBadRequest)
		}
		return true, nil
	}
	h.Del("Upgrade")
	h.Del("Http2-Settings")
	return false, nil
}

// forwarding collects what the event of a forwarded request tells.
type forwarding struct {
	status      int
	in, out     atomic.Uint64
	code        string // "" or why the upstream gave no answer
	reason      string
	detail      string
	failed      bool // the upstream's failure, nobody's wish
	verdict     event.Verdict
	conn        atomic.Pointer[net.Conn] // to the upstream
	interrupted bool
}

// forward sends the request on and the answer back as they arrive: event
// streams and bodies of unknown length are flushed write by write.
func (x *exchange) forward(t http.RoundTripper, d policy.Decision) {
	fw := &forwarding{verdict: event.Allowed}
	// Deferred: the reverse proxy panics to abort an answer that broke off.
	defer x.forwarded(fw, d)
	scheme := "http"
	if x.secure {
		scheme = "https"
	}
	if x.begun != nil {
		t = x.begun
	}
	p := &httputil.ReverseProxy{
		Transport: t,
		Rewrite: func(pr *httputil.ProxyRequest) {
			u := pr.Out.URL
			u.Scheme, u.User = scheme, nil
			u.Host = net.JoinHostPort(x.name, portOf(x.f.dst.Port()))
			pr.Out.Host = x.r.Host
		},
		BufferPool:    &x.g.buffers,
		FlushInterval: flushInterval(x.r),
		ErrorLog:      x.g.http.ErrorLog,
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del("Alt-Svc") // it would point to QUIC, which is closed
			if resp.StatusCode == http.StatusSwitchingProtocols {
				fw.status = resp.StatusCode
				x.opened(d)
				return nil
			}
			resp.Body = bodyOf(resp.Body, *fw.conn.Load())
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { x.upstreamFailed(fw, err) },
	}
	r := x.r.WithContext(httptrace.WithClientTrace(x.r.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { fw.conn.Store(&i.Conn) }}))
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &countedBody{r.Body, &fw.out}
	}
	x.r = r
	fw.interrupted = true
	p.ServeHTTP(&countedWriter{ResponseWriter: x.w, fw: fw, hc: x.hc, gather: r.TLS != nil && r.ProtoMajor == 1}, r)
	fw.interrupted = false
}

// flushInterval asks for a flush after every write where a client waits for
// single messages: gRPC does not say so in the content type we get to see
// before the first write.
func flushInterval(r *http.Request) time.Duration {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return -1
	}
	return 0 // the reverse proxy flushes event streams and unknown lengths by itself
}

// upstreamFailed answers when the upstream did not.
func (x *exchange) upstreamFailed(fw *forwarding, err error) {
	var refused *upstream.RefusedError
	var unresolved *upstream.ResolveError
	var verify *tls.CertificateVerificationError
	status := http.StatusBadGateway
	fw.code, fw.reason, fw.detail, fw.failed = codeUpstream, "policy allows it, but "+upstream.Why(err, x.name), short(err), true
	switch {
	case errors.As(err, &refused):
		fw.code, fw.reason, fw.verdict, fw.failed, status = refused.Code(), refused.Error(), event.Denied, false, http.StatusForbidden
	case x.r.Context().Err() != nil:
		fw.reason, status = "the client gave up or the connection was closed", 499
		fw.failed = fw.conn.Load() == nil && time.Since(x.start) >= x.g.opt.Limits.Patience
		if fw.failed {
			fw.reason = "policy allows it, but there was no connection to " + x.name + " when the client gave up"
		}
	case errors.As(err, &unresolved):
		fw.code = codeResolve
	case errors.As(err, &verify):
		fw.code, fw.reason = codeUpstreamTLS, "policy allows it, but the certificate of "+x.name+" did not verify: "+short(verify.Err)
	case upstream.FailedTLS(err):
		fw.code = codeUpstreamHello
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusGatewayTimeout
	}
	fw.status = status
	x.g.log.Debug("upstream failed", "sandbox", x.f.sb.id, "host", x.name, "err", err)
	x.id = newDecisionID()
	x.answer(&refusal{code: fw.code, reason: fw.reason, status: status, upstream: fw.verdict == event.Allowed})
}

// forwarded records the request.
func (x *exchange) forwarded(fw *forwarding, d policy.Decision) {
	ev := x.event()
	applyDecision(&ev, d)
	ev.Verdict, ev.Failed, ev.Detail = fw.verdict, fw.failed, fw.detail
	ev.Status = uint32(fw.status)
	ev.BytesIn, ev.BytesOut = fw.in.Load(), fw.out.Load()
	if c := fw.conn.Load(); c != nil {
		ev.PeerAddr = (*c).RemoteAddr().String()
	}
	if fw.code != "" {
		ev.ReasonCode, ev.Reason = fw.code, fw.reason
	}
	x.ended(&ev, fw.interrupted && fw.code == "", x.r.Context().Err() != nil)
	x.f.mu.Lock()
	if x.f.tunnel != nil {
		ev.BytesIn, ev.BytesOut = x.f.in.Load(), x.f.out.Load()
		x.f.tunnel = nil
	}
	x.f.mu.Unlock()
	x.ticket.post(ev)
}

// ended says in the event of a forwarded request what ended it too early.
func (x *exchange) ended(ev *event.Event, interrupted, left bool) {
	if code, why := x.f.wasKilled(); code == codeRevoked || code != "" && ev.Verdict == event.Allowed {
		cut(ev, code, why)
	} else if interrupted {
		ev.ReasonCode, ev.Reason = codeUpstream, "the answer broke off"
		ev.Failed = !left // else the client left
	}
}

// opened tells of a WebSocket before it ends.
func (x *exchange) opened(d policy.Decision) {
	t := x.g.rec.reserve(x.f.sb.cfg.ID)
	if t == nil {
		return // the one at its end has its place
	}
	ev := x.event()
	applyDecision(&ev, d)
	ev.Status = http.StatusSwitchingProtocols
	t.post(ev)
}

// countedWriter counts an answer. The reverse proxy reaches Flush and Hijack
// through Unwrap.
type countedWriter struct {
	http.ResponseWriter
	fw     *forwarding
	hc     *httpConn
	gather bool // records of one write go to the kernel together
}

// Unwrap serves http.ResponseController.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *countedWriter) WriteHeader(code int) {
	if code >= 200 || code == http.StatusSwitchingProtocols {
		w.fw.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *countedWriter) Write(p []byte) (int, error) {
	if w.fw.status == 0 {
		w.fw.status = http.StatusOK
	}
	if !w.gather || len(p) <= tlsRecord {
		n, err := w.ResponseWriter.Write(p)
		w.fw.in.Add(uint64(n))
		return n, err
	}
	w.hc.late.begin()
	n, err := w.ResponseWriter.Write(p)
	w.fw.in.Add(uint64(n))
	if e := w.hc.late.end(w.hc.write); err == nil {
		err = e
	}
	return n, err
}

// countedBody counts a request's body.
type countedBody struct {
	io.ReadCloser
	n *atomic.Uint64
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(uint64(n))
	return n, err
}

func portOf(p uint16) string { return strconv.Itoa(int(p)) }

// siteOf is the beginning of a URL, up to its path.
func siteOf(secure bool, name string, port uint16) string {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	return scheme + "://" + name + portSuffix(scheme, port)
}

// portSuffix is ":port", or "" where scheme implies it.
func portSuffix(scheme string, p uint16) string {
	if scheme == "http" && p == 80 || scheme == "https" && p == 443 {
		return ""
	}
	return ":" + portOf(p)
}
