// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

const failuresPolicy = docHead + `egress:
  - {id: db, allow: "db.test:5432", resolvesTo: [127.77.0.0/16]}
  - {id: down, allow: "down.test:5432", resolvesTo: [127.77.0.0/16]}
  - {id: nobody, allow: "nobody.test:5432"}
  - {id: mute, allow: "db.mute:5432"}
  - {id: private, allow: "private.test:5432"}
  - {id: web, allow: "web.test:443", http: {paths: ["/**"]}, resolvesTo: [127.77.0.0/16]}
  - {id: web-mute, allow: "web.mute:443", http: {paths: ["/**"]}}
`

// failed waits for the event of a host and checks that it tells a failure, with
// its reason, or that it tells none.
func (r *rig) failed(host, reason string) event.Event {
	r.tb.Helper()
	ev := r.event("the end of "+host, func(e *event.Event) bool {
		return e.DstName == host && e.Kind != event.KindDNS && (e.Kind != event.KindNetwork || e.Activity != "open" || e.Verdict == event.Denied)
	})
	if ev.IsFailure() != (reason != "") || ev.Failed && ev.IsDenial() || !strings.HasSuffix(ev.Reason, reason) {
		r.tb.Errorf("%s: failed %v, denied %v, %q (%s); want %q", host, ev.Failed, ev.IsDenial(), ev.Reason, ev.Detail, reason)
	}
	return ev
}

// TestRelaysThatFail: what policy allowed and the destination did not give is
// neither a denial nor a success.
func TestRelaysThatFail(t *testing.T) {
	r := newRig(t, failuresPolicy, rigOptions{limits: Limits{Dial: 200 * time.Millisecond}})
	try := func(host string) {
		a, err := r.lookup(host)
		if err != nil {
			t.Fatal(err)
		}
		r.wantReset(netip.AddrPortFrom(a, 5432).String())
	}
	r.host("down.test")
	try("down.test")
	if ev := r.failed("down.test", "policy allowed it, but the destination refused the connection"); ev.Activity != "fail" || ev.ReasonCode != codeUpstream || ev.Verdict != event.Allowed || !strings.Contains(ev.Detail, "connection refused") {
		t.Errorf("%+v", ev)
	}
	try("nobody.test")
	if ev := r.failed("nobody.test", "the host's name servers do not know the destination (/etc/hosts is not asked)"); ev.ReasonCode != codeResolve {
		t.Errorf("%+v", ev)
	}
	try("db.mute")
	r.failed("db.mute", "the host's resolver did not answer in time for the destination")
	r.hosts.set("private.test", addrs("10.9.8.7")...)
	try("private.test")
	if ev := r.failed("private.test", ""); !ev.IsDenial() { // the fence's word, not a failure
		t.Errorf("%+v", ev)
	}
}

// TestWhoEndsARelay: a destination that ends a connection without a word has
// failed, a client that does has not asked.
func TestWhoEndsARelay(t *testing.T) {
	for name, c := range map[string]struct {
		upstream func(c net.Conn)
		client   func(c net.Conn)
		reason   string
	}{
		"the destination closes": {func(c net.Conn) { c.Close() }, func(c net.Conn) { _, _ = io.ReadAll(c) }, "the destination closed the connection without an answer"},
		"the destination resets": {func(c net.Conn) { reset(c.(*net.TCPConn)) }, func(c net.Conn) { _, _ = io.ReadAll(c) }, "the destination closed the connection without an answer"},
		"after a question": {func(c net.Conn) { _, _ = c.Read(make([]byte, 9)); c.Close() },
			func(c net.Conn) { _, _ = io.WriteString(c, "question"); _, _ = io.ReadAll(c) }, "the destination closed the connection without an answer"},
		"after an answer":   {func(c net.Conn) { _, _ = io.WriteString(c, "answer"); c.Close() }, func(c net.Conn) { _, _ = io.ReadAll(c) }, ""},
		"the client closes": {func(c net.Conn) { _, _ = io.ReadAll(c); c.Close() }, func(net.Conn) {}, ""},
		"the client resets": {func(c net.Conn) { _, _ = io.ReadAll(c); c.Close() }, func(c net.Conn) { reset(c.(*net.TCPConn)) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, failuresPolicy, rigOptions{})
			l := r.listen("db.test", 5432)
			accepted, connected := make(chan net.Conn, 1), make(chan struct{})
			go func() {
				if u, err := l.Accept(); err == nil {
					accepted <- u
					<-connected
					c.upstream(u)
				}
			}()
			conn := r.mustDial("db.test", 5432)
			u := <-accepted
			close(connected)
			defer u.Close()
			c.client(conn)
			conn.Close()
			r.failed("db.test", c.reason)
		})
	}
}

// TestSandboxThatEndsWhileADestinationIsDialled: a client's patience shows by
// the sandbox's end only.
func TestSandboxThatEndsWhileADestinationIsDialled(t *testing.T) {
	for reason, patience := range map[string]time.Duration{"the destination had not answered when the sandbox ended": time.Nanosecond, "": time.Hour} {
		r := newRig(t, failuresPolicy, rigOptions{limits: Limits{Patience: patience}})
		c := r.mustDial("db.mute", 5432)
		for r.g.conns.Load() == 0 { // it is being dialled, or about to
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		r.g.RemoveSandbox(1)
		c.Close()
		ev := r.event("the end", func(e *event.Event) bool { return e.DstName == "db.mute" && e.Kind == event.KindNetwork })
		if ev.IsDenial() || ev.IsFailure() != (reason != "") || !strings.HasSuffix(ev.Reason, reason) {
			t.Errorf("patience %s: %+v", patience, ev)
		}
	}
}

func TestRequestsThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		upstream func(c net.Conn)
		code     string
		reason   string
	}{
		"what answers speaks no TLS": {func(c net.Conn) { _, _ = io.WriteString(c, "220 smtp ready\r\n"); c.Close() }, codeUpstreamHello, "the TLS handshake with web.test failed"},
		"a TLS alert":                {func(c net.Conn) { _, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, 40}); c.Close() }, codeUpstreamHello, "the TLS handshake with web.test failed"},
		"it closes":                  {func(c net.Conn) { c.Close() }, codeUpstream, "web.test closed the connection without an answer"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, failuresPolicy, rigOptions{})
			l := r.listen("web.test", 443)
			go func() {
				for {
					u, err := l.Accept()
					if err != nil {
						return
					}
					go func() { _, _ = u.Read(make([]byte, 512)); c.upstream(u) }()
				}
			}()
			resp, body := get(t, r.inside(false), "GET", "https://web.test/", nil)
			if resp.StatusCode != 502 || !strings.Contains(body, c.code) || !strings.Contains(body, c.reason) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if ev := r.failed("web.test", c.reason); ev.ReasonCode != c.code || ev.Detail == "" {
				t.Errorf("%+v", ev)
			}
		})
	}
	t.Run("its own error is an answer", func(t *testing.T) {
		r := newRig(t, failuresPolicy, rigOptions{})
		r.web("web.test", 443, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		get(t, r.inside(false), "GET", "https://web.test/", nil)
		r.failed("web.test", "")
	})
	t.Run("an answer that breaks off", func(t *testing.T) {
		r := newRig(t, failuresPolicy, rigOptions{})
		r.web("web.test", 443, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "half")
		})
		resp, err := r.inside(false).Get("https://web.test/")
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			t.Error("it looks complete")
		}
		r.failed("web.test", "the answer broke off")
	})
}

// TestClientsThatGiveUp: only one that waited, and for a connection, tells
// something about the destination.
func TestClientsThatGiveUp(t *testing.T) {
	for name, c := range map[string]struct {
		host     string
		patience time.Duration
		reason   string
	}{
		"no connection":             {"web.mute", time.Nanosecond, "there was no connection to web.mute when the client gave up"},
		"no connection, impatient":  {"web.mute", time.Hour, ""},
		"connected, a slow answer":  {"web.test", time.Nanosecond, ""},
		"connected, half an answer": {"web.test/half", time.Nanosecond, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, failuresPolicy, rigOptions{limits: Limits{Patience: c.patience}})
			asked := make(chan struct{}, 1)
			r.web("web.test", 443, func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path == "/half" {
					_, _ = io.WriteString(w, "half")
					_ = http.NewResponseController(w).Flush()
				}
				asked <- struct{}{}
				<-req.Context().Done()
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				if c.host == "web.mute" {
					time.Sleep(100 * time.Millisecond)
				} else {
					<-asked
				}
				cancel()
			}()
			req, err := http.NewRequestWithContext(ctx, "GET", "https://"+c.host, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := r.inside(false).Do(req)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if err == nil {
				t.Error("it was answered")
			}
			host, _, _ := strings.Cut(c.host, "/")
			r.failed(host, c.reason)
		})
	}
}

// TestRequestsThatTheEndOfTheSandboxCuts are no denials.
func TestRequestsThatTheEndOfTheSandboxCuts(t *testing.T) {
	r := newRig(t, failuresPolicy, rigOptions{})
	asked := make(chan struct{}, 1)
	r.web("web.test", 443, func(_ http.ResponseWriter, req *http.Request) {
		asked <- struct{}{}
		<-req.Context().Done()
	})
	go func() {
		if resp, err := r.inside(false).Get("https://web.test/"); err == nil {
			resp.Body.Close()
		}
	}()
	<-asked
	r.g.RemoveSandbox(1)
	ev := r.event("the cut request", func(e *event.Event) bool { return e.Kind == event.KindHTTP })
	if ev.IsDenial() || ev.IsFailure() || ev.ReasonCode != codeStopped {
		t.Errorf("%+v", ev)
	}
}
