// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/gateway/clienthello"
	"github.com/ringfence/ringfence/pkg/gateway/upstream"
)

// relay passes bytes to t. name is "" for a literal address.
//
// TLS rules of a relay to a name:
//
//   - Port 443 must be TLS with a server name, and that name must be the one
//     the address was given out for.
//   - On other ports a client that begins with a ClientHello must not name
//     another host; it may name none (LDAP, Redis and the like often do not).
//     A handshake after a plain-text beginning (STARTTLS) is not seen.
//   - ECH cannot be told from GREASE by anyone but the server. On port 443 such
//     a hello, with a matching outer name, is terminated with the sandbox's own
//     CA: GREASE costs nothing then, and a client that meant it finds its ECH
//     rejected and gives up. On other ports it is refused.
//
// What a pass-through cannot see is inside the encryption: a Host header that
// names another site of the same front end (domain fronting), or a second
// ClientHello after a HelloRetryRequest. A rule with http: terminates and sees.
func (f *flow) relay(e *epoch, t upstream.Target, name string) {
	if name != "" && t.Port == 443 {
		hello, ok := f.hello()
		if !ok || !f.checkPassed(hello, name) {
			return
		}
		if hello.ECH == clienthello.ECHOuter {
			f.terminate(name)
			return
		}
	}
	up, err := f.sb.g.dialer.Dial(f.ctx, t)
	if err != nil {
		f.dialFailed(err)
		return
	}
	defer up.Close()
	if !f.setUpstream(up) {
		reset(up)
		f.ended(f.wasKilled())
		return
	}
	f.pipe(e, up, name)
}

// checkPassed judges the hello of a connection that is passed through on port
// 443.
func (f *flow) checkPassed(h *clienthello.Hello, name string) bool {
	if h.ServerName == "" {
		f.refuseTLS(codeNoSNI, "TLS without a server name cannot be checked against "+name, alertUnrecognizedName)
		return false
	}
	return f.checkTerminated(h, name)
}

// pipe copies in both directions until both have ended or one has failed.
func (f *flow) pipe(e *epoch, up *net.TCPConn, name string) {
	type result struct {
		n   int64
		err error
	}
	client := f.conn.TCPConn
	open := time.AfterFunc(f.sb.g.opt.Limits.TellOpen, f.stillOpen)
	defer open.Stop()
	outward := make(chan result, 1)
	var left atomic.Bool // the client has ended its side
	go func() {
		r := result{err: f.sniff(e, name)}
		if r.err == nil {
			r.n, r.err = f.conn.WriteHead(up)
		}
		if r.err == nil {
			var n int64
			n, r.err = f.sb.move(up, client)
			r.n += n
		}
		left.Store(true)
		if r.err == nil {
			r.err = up.CloseWrite()
		}
		outward <- r // before the reset below ends the other direction
		if r.err != nil {
			reset(up)
			var bad *badHello
			if !errors.As(r.err, &bad) { // that one is answered with an alert
				reset(client)
			}
		}
	}()
	in, err := f.sb.move(client, up)
	mute := in == 0 && !left.Load() // the destination ended it without a word
	if err == nil {
		err = client.CloseWrite()
	}
	var out result
	if err != nil {
		reset(up)
		select {
		case out = <-outward: // it is why; a bad hello is answered below
		default:
			reset(client)
			out = <-outward
		}
	} else {
		out = <-outward
	}
	f.relayed(uint64(in), uint64(out.n), out.err, mute)
	client.Close()
}

// stillOpen tells of a relay that lasts, before it ends.
func (f *flow) stillOpen() {
	f.mu.Lock()
	if f.upstream != nil {
		upstream.KeepAlive(f.upstream)
	}
	f.mu.Unlock()
	t := f.sb.g.rec.reserve(f.sb.cfg.ID)
	if t == nil {
		return // the one at its end has its place
	}
	t.post(f.event(event.KindNetwork))
}

// badHello is a ClientHello that ends a relay after it began.
type badHello struct {
	code, reason string
	alert        byte
}

func (b *badHello) Error() string { return b.reason }

// sniff looks at how the client begins on a port other than 443 (where the
// hello was judged before anything was dialled). It waits as long as the client
// does: in many protocols the server speaks first.
func (f *flow) sniff(e *epoch, name string) error {
	if name != "" && f.dst.Port() == 443 {
		return nil
	}
	first, err := f.conn.PeekByte(time.Time{})
	if err != nil || first != recordHandshake {
		return nil // nothing, or not TLS: the copy that follows finds out
	}
	h, err := f.conn.Peek(time.Now().Add(f.sb.g.opt.Limits.Hello))
	switch {
	case errors.Is(err, clienthello.ErrNotTLS):
		return nil
	case err != nil:
		return &badHello{codeMalformedTLS, "a ClientHello that cannot be read: " + short(err), alertDecodeError}
	case name != "" && h.ServerName != "" && h.ServerName != name:
		return &badHello{codeSNIMismatch, mismatch(h.ServerName, name), alertUnrecognizedName}
	case name == "" && e.isProvider(h.ServerName):
		return &badHello{codeSNIMismatch, h.ServerName + " is a model provider; it is reached by its name only", alertAccessDenied}
	case name != "" && h.ECH != clienthello.ECHNone:
		return &badHello{codeECH, "the ClientHello may hide another server name (ECH); an http: rule on this port lets the gateway terminate it", alertAccessDenied}
	}
	return nil
}

func (e *epoch) isProvider(host string) bool {
	_, yes := e.view.ProviderHost(host)
	return yes
}

// relayed records a relay that has ended. mute says that the destination ended
// it without having said anything.
func (f *flow) relayed(in, out uint64, err error, mute bool) {
	var bad *badHello
	if errors.As(err, &bad) {
		f.refuseTLS(bad.code, bad.reason, bad.alert)
		return
	}
	f.in.Store(in)
	f.out.Store(out)
	if code, why := f.wasKilled(); code != "" {
		f.ended(code, why)
		return
	}
	ev := f.event(event.KindNetwork)
	ev.Activity, ev.BytesIn, ev.BytesOut = "close", in, out
	if mute && ev.Verdict == event.Allowed {
		ev.Failed, ev.ReasonCode, ev.Reason = true, codeUpstream, "policy allowed it, but the destination closed the connection without an answer"
	}
	f.ticket.post(ev)
}

// dialFailed resets the client, which has been told nothing yet, and records
// whether policy or the network was the reason.
func (f *flow) dialFailed(err error) {
	why := upstream.Why(err, "the destination")
	if code, reason := f.wasKilled(); code != "" {
		// Who asks is not heard before the destination is there, so a sandbox
		// that gave up waiting shows by its end alone.
		if code != codeStopped || time.Since(f.start) < f.sb.g.opt.Limits.Patience {
			f.ended(code, reason)
			return
		}
		why = "the destination had not answered when the sandbox ended"
	}
	var refused *upstream.RefusedError
	if errors.As(err, &refused) {
		f.refuse(refused.Code(), refused.Error())
		return
	}
	ev := f.event(event.KindNetwork)
	ev.Activity, ev.Failed = "fail", true
	ev.ReasonCode, ev.Reason = codeUpstream, "policy allowed it, but "+why
	var unresolved *upstream.ResolveError
	if errors.As(err, &unresolved) {
		ev.ReasonCode = codeResolve
	}
	ev.Detail = short(err)
	f.ticket.postFolded(ev)
	reset(f.conn.TCPConn)
}

func portString(a netip.AddrPort) string { return strconv.Itoa(int(a.Port())) }

// short is an error in at most 200 bytes.
func short(err error) string {
	s := err.Error()
	return s[:min(len(s), 200)]
}
