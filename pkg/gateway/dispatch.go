// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/gateway/clienthello"
	"github.com/ringfence/ringfence/pkg/gateway/upstream"
	"github.com/ringfence/ringfence/pkg/policy"
)

// serveConn treats one accepted connection from its address to its end. It
// owns c.
func (sb *sandbox) serveConn(c *net.TCPConn) {
	from, ok := sb.origin(c)
	if !ok {
		sb.stranger(c)
		return
	}
	ticket := sb.g.rec.reserve(sb.cfg.ID)
	if ticket == nil {
		reset(c) // no room to record it: refused, and counted by the recorder
		return
	}
	defer ticket.release()
	f := newFlow(sb, c, from, ticket)
	defer f.cancel()
	if code, ok := sb.track(f); !ok {
		f.deny(code, "the sandbox or the node has as many connections as it may")
		reset(c)
		return
	}
	defer sb.untrack(f)
	defer f.grant.release(sb.g)
	f.dispatch()
}

// dispatch finds the treatment of the destination and applies it.
func (f *flow) dispatch() {
	e := f.sb.epoch.Load()
	if e == nil {
		f.refuse(codeNoSnapshot, "no policy is in force yet")
		return
	}
	dst := f.dst
	if dst.Port() == 53 {
		f.dnsOverTCP()
		return
	}
	if dst.Addr() == RefusalAddr {
		f.refusalAddress()
		return
	}
	if name, ok := f.sb.names.name(dst.Addr()); ok {
		f.byName(e, name)
		return
	}
	if upstream.VirtualPrefix.Contains(dst.Addr()) {
		code := codeUnknownAddr
		if dst.Addr() == SelfAddr {
			code = codeLocalPort
		}
		f.refuse(code, "this address stands for no name of the sandbox")
		return
	}
	r := f.claim("", e.byAddr(dst.Addr(), dst.Port()))
	f.set("", r)
	if r.mode == modeDeny {
		f.denyByPolicy()
		reset(f.conn.TCPConn)
		return
	}
	f.relay(e, upstream.Target{Addr: dst.Addr(), Port: dst.Port(), Judged: r.decision.ReasonCode != policy.CodeLearned}, "")
}

// byName treats a connection to a name's virtual address.
func (f *flow) byName(e *epoch, name string) {
	r := f.claim(name, e.byName(name, f.dst.Port()))
	if r.decision.Effect == policy.RequireApproval && r.mode != modeInference { // there each request is asked about
		if e, r = f.asked(e, name, r); e == nil {
			return
		}
	}
	f.set(name, r)
	switch r.mode {
	case modeRelay:
		f.relay(e, e.named(name, f.dst.Port(), policy.TCP), name)
	case modeWeb:
		f.servePlain()
	case modeInspect, modeInference:
		f.serveInspected(name)
	default:
		port := f.dst.Port()
		if f.sb.cfg.Explain && (port == 80 || port == 443) {
			f.set(name, route{mode: modeRefusal, decision: r.decision})
			f.explain(name)
			return
		}
		f.denyByPolicy()
		reset(f.conn.TCPConn)
	}
}

// refuse records why and resets.
func (f *flow) refuse(code, reason string) {
	f.deny(code, reason)
	reset(f.conn.TCPConn)
}

// refusalAddress serves the address that refused names resolve to.
func (f *flow) refusalAddress() {
	if p := f.dst.Port(); p != 80 && p != 443 {
		f.refuse(codeRefusalPort, "the name behind this connection is refused; only ports 80 and 443 say which and why")
		return
	}
	f.set("", route{mode: modeRefusal})
	f.explain("")
}

// explain answers every request of the connection with the reason. name is ""
// when only the client knows it.
func (f *flow) explain(name string) {
	if f.dst.Port() == 80 {
		f.servePlain()
		return
	}
	hello, ok := f.hello()
	if !ok {
		return
	}
	if hello.ServerName == "" && name == "" {
		f.refuseTLS(codeNoSNI, "the refused name is not known without a server name", alertUnrecognizedName)
		return
	}
	if name == "" {
		name = hello.ServerName
	} else if hello.ServerName != "" && hello.ServerName != name {
		f.refuseTLS(codeSNIMismatch, mismatch(hello.ServerName, name), alertUnrecognizedName)
		return
	}
	f.terminate(name)
}

// serveInspected terminates TLS, or serves plain HTTP where the client speaks
// it and the port is not 443.
func (f *flow) serveInspected(name string) {
	first, err := f.conn.PeekByte(time.Now().Add(f.sb.g.opt.Limits.Hello))
	if err != nil {
		f.refuse(codeNoRequest, "the client sent nothing: "+short(err))
		return
	}
	if first != recordHandshake {
		if f.dst.Port() == 443 {
			f.refuse(codeNotTLS, "port 443 without TLS")
			return
		}
		f.servePlain()
		return
	}
	hello, ok := f.hello()
	if !ok {
		return
	}
	if !f.checkTerminated(hello, name) {
		return
	}
	f.terminate(name)
}

// checkTerminated requires that a server name, where there is one, is the name
// that was resolved. GREASE ECH does no harm here: we ignore the extension, and
// a client that meant it gives up by itself.
func (f *flow) checkTerminated(h *clienthello.Hello, name string) bool {
	switch {
	case h.ServerName != "" && h.ServerName != name:
		f.refuseTLS(codeSNIMismatch, mismatch(h.ServerName, name), alertUnrecognizedName)
		return false
	case h.ECH == clienthello.ECHInner || h.ECH == clienthello.ECHESNI:
		f.refuseTLS(codeECH, "the ClientHello hides its server name", alertAccessDenied)
		return false
	}
	return true
}

// hello reads the ClientHello, or refuses the connection.
func (f *flow) hello() (*clienthello.Hello, bool) {
	h, err := f.conn.Peek(time.Now().Add(f.sb.g.opt.Limits.Hello))
	switch {
	case err == nil:
		return h, true
	case errors.Is(err, clienthello.ErrNotTLS):
		f.refuse(codeNotTLS, "port "+portString(f.dst)+" without TLS")
	case errors.Is(err, clienthello.ErrMalformed), errors.Is(err, clienthello.ErrTooLarge):
		f.refuseTLS(codeMalformedTLS, err.Error(), alertDecodeError)
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.refuse(codeMalformedTLS, "the ClientHello was not complete in time")
	case errors.Is(err, io.EOF) && len(f.conn.Head()) == 0:
		f.refuse(codeNoRequest, "the client closed before it said anything")
	default:
		f.refuse(codeMalformedTLS, "the ClientHello broke off: "+short(err))
	}
	return nil, false
}

// TLS alert descriptions (RFC 8446, section 6) that tell a client why.
const (
	alertAccessDenied     = 49
	alertDecodeError      = 50
	alertUnrecognizedName = 112

	recordHandshake = 22
)

// refuseTLS records why and says it as far as TLS can.
func (f *flow) refuseTLS(code, reason string, alert byte) {
	f.deny(code, reason)
	f.sendAlert(alert)
}

// sendAlert sends a fatal alert and closes in an orderly way, so that the
// client reads the alert and not a reset.
func (f *flow) sendAlert(alert byte) {
	c := f.conn.TCPConn
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte{21, 3, 3, 0, 2, 2, alert}); err == nil && c.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, 64<<10)
	}
	c.Close()
}

// terminate completes the handshake with a leaf for name and hands the
// connection to the HTTP server.
func (f *flow) terminate(name string) {
	if _, err := f.sb.leaves.get(f.sb, name); err != nil {
		f.sb.g.log.Warn("no certificate for a terminated connection", "sandbox", f.sb.id, "err", err)
		f.refuseTLS(codeLeaf, "no certificate could be made for this name", alertAccessDenied)
		return
	}
	hc := newHTTPConn(f, name)
	tc := tls.Server(hc, f.sb.tls)
	_ = f.conn.SetDeadline(time.Now().Add(f.sb.g.opt.Limits.Hello))
	err := tc.HandshakeContext(f.ctx)
	_ = f.conn.SetDeadline(time.Time{})
	if err != nil {
		f.deny(codeHandshake, handshakeReason(name, err))
		f.conn.Close()
		return
	}
	f.serveHTTP(hc, tc)
}

// handshakeReason names the usual cause: a program that does not trust the
// sandbox's CA, or pins certificates.
func handshakeReason(name string, err error) string {
	var alert tls.AlertError
	if errors.As(err, &alert) || isRemoteAlert(err) {
		return "the program refused the sandbox's certificate for " + name + " (it pins certificates or has its own list of roots): " + short(err)
	}
	return "the TLS handshake for " + name + " was not completed: " + short(err)
}

func isRemoteAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// servePlain hands a connection without TLS to the HTTP server.
func (f *flow) servePlain() {
	hc := newHTTPConn(f, f.name)
	f.serveHTTP(hc, hc)
}

// serveHTTP serves requests in place for as long as they are plain, and then
// waits until the HTTP server is done with the connection.
func (f *flow) serveHTTP(hc *httpConn, c net.Conn) {
	g := f.sb.g
	if g.ending.Load() {
		reset(f.conn.TCPConn)
		return
	}
	if rest := f.serveStraight(hc, c); rest != nil {
		if g.handoff.give(rest) {
			<-hc.done
		} else {
			g.serveLast(hc, rest)
		}
		hc.begun.Swap(nil).drop()
	}
	if code, why := f.wasKilled(); code != "" {
		f.ended(code, why)
		return
	}
	if f.requests.Load() == 0 {
		f.deny(codeNoRequest, "the connection ended before a well-formed request was complete")
	}
}

// ended records a flow that we cut. Only a revocation is a denial; the end of
// the sandbox, of the gateway or of patience is not.
func (f *flow) ended(code, why string) {
	ev := f.event(event.KindNetwork)
	ev.Activity = "reset"
	cut(&ev, code, why)
	ev.BytesIn, ev.BytesOut = f.in.Load(), f.out.Load()
	f.ticket.post(ev)
}

// cut says in an event that we cut what it is about. What had failed before
// that has failed.
func cut(ev *event.Event, code, why string) {
	switch {
	case code == codeRevoked:
		ev.Verdict, ev.Failed = event.Denied, false
	case ev.Failed:
		return
	case ev.Verdict == event.Denied:
		ev.Verdict = event.Observed // it ended before it was decided
	}
	ev.ReasonCode, ev.Reason = code, why
	if ev.Reason == "" {
		ev.Reason = "the connection was closed: " + code
	}
}

func mismatch(sni, name string) string {
	return "the TLS server name is " + sni + ", but the address was given out for " + name
}
