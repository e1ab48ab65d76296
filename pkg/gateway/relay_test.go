// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

const relayPolicy = docHead + `egress:
  - {id: pass, allow: "pass.test:443", resolvesTo: [127.77.0.0/16]}
  - {id: pass-other, allow: "other.test:443", resolvesTo: [127.77.0.0/16]}
  - {id: db, allow: "db.test:5432", resolvesTo: [127.77.0.0/16]}
  - {id: ssh, allow: "db.test:22", resolvesTo: [127.77.0.0/16]}
  - {id: closed, allow: "private.test:443"}
  - {id: nobody, allow: "nobody.test:443"}
  - {id: down, allow: "down.test:5432", resolvesTo: [127.77.0.0/16]}
  - {id: literal, allow: "203.0.113.7/32:8080"}
`

func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Proto", r.Proto)
	_, _ = io.WriteString(w, "hello from "+r.Host)
}

func TestTLSPassesThroughWhenTheServerNameMatches(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	r.web("pass.test", 443, hello)
	for _, h2 := range []bool{false, true} {
		// Only the world is trusted: the upstream's own certificate arrives.
		client := r.client(r.world.pool(), h2)
		resp, err := client.Get("https://pass.test/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "hello from pass.test" {
			t.Errorf("h2=%v: %q", h2, body)
		}
		client.CloseIdleConnections()
	}
	ev := r.event("allowed relay", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.Verdict == event.Allowed && e.DstName == "pass.test"
	})
	if ev.BytesIn == 0 || ev.BytesOut == 0 || ev.Rule != "test/pass" || ev.PeerAddr == "" || ev.Sandbox != "sbx-1" || ev.Duration <= 0 {
		t.Errorf("event %+v", ev)
	}
}

// splitConn sends every byte of the first write in its own segment.
type splitConn struct {
	net.Conn
	done bool
}

func (s *splitConn) Write(p []byte) (int, error) {
	if s.done {
		return s.Conn.Write(p)
	}
	s.done = true
	_ = s.Conn.(*net.TCPConn).SetNoDelay(true)
	// Spread the handshake message over records of 40 bytes, too.
	msg, out := p[5:], []byte(nil)
	for len(msg) > 0 {
		n := min(40, len(msg))
		out = append(out, 22, 3, 1, 0, byte(n))
		out = append(out, msg[:n]...)
		msg = msg[n:]
	}
	for len(out) > 0 {
		n := min(11, len(out))
		if _, err := s.Conn.Write(out[:n]); err != nil {
			return 0, err
		}
		out = out[n:]
	}
	return len(p), nil
}

func TestTLSServerNames(t *testing.T) {
	cases := []struct {
		name, dial, sni string
		port            uint16
		split           bool
		code            string // "" = passes
	}{
		{"matching name in many records and segments", "pass.test", "pass.test", 443, true, ""},
		{"another allowed name", "pass.test", "other.test", 443, false, codeSNIMismatch},
		{"another name in many segments", "pass.test", "evil.test", 443, true, codeSNIMismatch},
		{"no name", "pass.test", "", 443, false, codeNoSNI},
		{"matching name on another port", "db.test", "db.test", 5432, false, ""},
		{"no name on another port", "db.test", "", 5432, false, ""},
		{"another name on another port", "db.test", "pass.test", 5432, true, codeSNIMismatch},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, relayPolicy, rigOptions{})
			r.web(c.dial, c.port, hello)
			conn := r.mustDial(c.dial, c.port)
			if c.split {
				conn = &splitConn{Conn: conn}
			}
			tc := tls.Client(conn, &tls.Config{ServerName: c.sni, InsecureSkipVerify: true})
			err := tc.HandshakeContext(context.Background())
			if c.code == "" {
				if err != nil {
					t.Fatalf("handshake: %v", err)
				}
				return
			}
			var op *net.OpError
			if err == nil || !errors.As(err, &op) || op.Op != "remote error" {
				t.Errorf("handshake: %v, want a TLS alert", err)
			}
			if ev := r.denied(c.code); ev.DstName != c.dial || ev.DstPort != c.port {
				t.Errorf("event %+v", ev)
			}
		})
	}
}

func TestPort443IsTLS(t *testing.T) {
	for _, first := range []string{"GET / HTTP/1.1\r\nHost: pass.test\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "\x80\x2e\x01\x00\x02"} {
		r := newRig(t, relayPolicy, rigOptions{})
		dialled := make(chan struct{}, 1)
		l := r.listen("pass.test", 443)
		go func() {
			if c, err := l.Accept(); err == nil {
				c.Close()
				dialled <- struct{}{}
			}
		}()
		c := r.mustDial("pass.test", 443)
		_, _ = c.Write([]byte(first))
		b, err := io.ReadAll(c)
		if len(b) == 0 && err == nil {
			t.Errorf("%q: an orderly end", first)
		}
		select {
		case <-dialled:
			t.Errorf("%q: the upstream was dialled", first)
		case <-time.After(50 * time.Millisecond):
		}
		r.event("refusal", func(e *event.Event) bool {
			return e.Verdict == event.Denied && (e.ReasonCode == codeNotTLS || e.ReasonCode == codeMalformedTLS)
		})
	}
}

func TestECHOnPort443IsTerminatedSoThatNothingHides(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	r.web("pass.test", 443, hello)
	c := r.mustDial("pass.test", 443)
	roots := r.keeper.ca.pool()
	tc := tls.Client(c, &tls.Config{ServerName: "secret.test", RootCAs: roots, MinVersion: tls.VersionTLS13, EncryptedClientHelloConfigList: echConfig(t, "pass.test"),
		EncryptedClientHelloRejectionVerify: func(tls.ConnectionState) error { return nil }})
	err := tc.HandshakeContext(context.Background())
	var rejected *tls.ECHRejectionError
	if !errors.As(err, &rejected) {
		t.Fatalf("a client that means its ECH got %v, want a rejection", err)
	}
}

func TestECHOnAnotherPortIsRefused(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	r.web("db.test", 5432, hello)
	c := r.mustDial("db.test", 5432)
	tc := tls.Client(c, &tls.Config{ServerName: "secret.test", MinVersion: tls.VersionTLS13, EncryptedClientHelloConfigList: echConfig(t, "db.test")})
	if err := tc.HandshakeContext(context.Background()); err == nil {
		t.Fatal("passed")
	}
	r.denied(codeECH)
}

func TestRelayServerSpeaksFirstAndHalfCloses(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	r.echo("db.test", 22, "SSH-2.0-test\r\n")
	c := r.mustDial("db.test", 22)
	head := make([]byte, 14)
	if _, err := io.ReadFull(c, head); err != nil || string(head) != "SSH-2.0-test\r\n" {
		t.Fatalf("%q, %v", head, err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = c.Write(big)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, big) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(big), err)
	}
	ev := r.event("relay", func(e *event.Event) bool { return e.Kind == event.KindNetwork && e.Verdict == event.Allowed })
	if ev.BytesOut != uint64(len(big)) || ev.BytesIn != uint64(len(big)+14) {
		t.Errorf("%d out, %d in", ev.BytesOut, ev.BytesIn)
	}
}

func TestFailuresReset(t *testing.T) {
	cases := []struct {
		name, host string
		port       uint16
		code       string
		verdict    event.Verdict
	}{
		{"upstream refuses", "down.test", 5432, codeUpstream, event.Allowed},
		{"port that policy does not allow", "db.test", 8080, "no-rule", event.Denied},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, relayPolicy, rigOptions{})
			r.host(c.host)
			a, err := r.lookup(c.host)
			if err != nil {
				t.Fatal(err)
			}
			r.wantReset(netip.AddrPortFrom(a, c.port).String())
			r.event(c.code, func(e *event.Event) bool {
				return e.ReasonCode == c.code && e.Verdict == c.verdict && e.DstName == c.host
			})
		})
	}
}

func TestResolutionFailuresAfterTheHello(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	r.hosts.set("private.test", addrs("10.1.2.3", "fe80::1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "198.18.0.9")...)
	for name, code := range map[string]string{"private.test": "private-address", "nobody.test": codeResolve} {
		_, err := r.client(r.world.pool(), false).Get("https://" + name + "/")
		if err == nil || !isReset(err) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v, want a reset", name, err)
		}
		r.event(code, func(e *event.Event) bool { return e.ReasonCode == code && e.DstName == name })
	}
}

func TestLiteralAddresses(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	for addr, code := range map[string]string{
		"203.0.113.8:8080":       "no-rule",
		"203.0.113.7:443":        "no-rule",
		"[2001:db8::1]:8080":     "no-rule",
		"198.18.77.77:443":       codeUnknownAddr,
		"198.18.0.2:22":          codeRefusalPort,
		"169.254.169.254:80":     "no-rule",
		"[64:ff9b::102:304]:443": "no-rule",
	} {
		r.wantReset(addr)
		r.event(addr, func(e *event.Event) bool {
			return e.DstAddr == addr && e.Verdict == event.Denied && e.ReasonCode == code
		})
	}
}

func TestLiteralAddressByAddressRule(t *testing.T) {
	var own netip.Addr
	ifs, _ := net.InterfaceAddrs()
	for _, i := range ifs {
		if p, err := netip.ParsePrefix(i.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			own = p.Addr()
		}
	}
	if !own.IsValid() {
		t.Skip("no interface with an IPv4 address besides lo")
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(own, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	doc := fmt.Sprintf("%segress:\n  - {id: lit, allow: \"%s/32:%d\"}\n", docHead, own, at.Port())
	serve := func(c net.Conn) { _, _ = io.WriteString(c, "hello"); _, _ = io.Copy(io.Discard, c); c.Close() }
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	r := newRig(t, doc, rigOptions{})
	if got, err := r.literal(at, ""); got != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	r.event("literal", func(e *event.Event) bool {
		return e.Verdict == event.Allowed && e.DstName == "" && e.Rule == "test/lit"
	})
	if _, err := r.literal(at, "api.openai.com"); err == nil {
		t.Error("a provider was reached by address")
	}
	r.denied(codeSNIMismatch)
	guarded := newRig(t, doc, rigOptions{own: []netip.Addr{own}})
	if got, err := guarded.literal(at, ""); err == nil {
		t.Errorf("the node's own address was reached: %q", got)
	}
	guarded.denied("host-address")
}

// literal connects to an address as a sandbox does, by TLS when sni is set, and
// reads to the end. A listener for this one address stands for the steering.
func (r *rig) literal(at netip.AddrPort, sni string) (string, error) {
	r.tb.Helper()
	r.g.mu.Lock()
	sb := r.g.sandboxes[1]
	r.g.mu.Unlock()
	var l net.Listener
	var err error
	r.ns.do(func() { l, err = net.Listen("tcp4", at.String()) })
	if err != nil {
		r.tb.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			sb.serveConn(c.(*net.TCPConn))
		}
	}()
	c, err := r.ns.dial("tcp", at.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	if sni != "" {
		return "", tls.Client(c, &tls.Config{ServerName: sni, InsecureSkipVerify: true}).HandshakeContext(context.Background())
	}
	_ = c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	return string(b), err
}
