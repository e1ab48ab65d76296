// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/ringfence/ringfence/pkg/event"
)

const dnsPolicy = docHead + `egress:
  - {id: ok, allow: "ok.test:443"}
  - {id: wild, allow: "*.wild.test:443"}
  - {id: full, allow: "exhausted.test:443"}
`

func ask(name string, t uint16) *dns.Msg {
	m := new(dns.Msg)
	return m.SetQuestion(name, t)
}

func TestDNSAnswers(t *testing.T) {
	cases := []struct {
		name    string
		q       *dns.Msg
		explain bool
		rcode   int
		answer  string // of the first record, "" = none
	}{
		{"allowed name", ask("ok.test.", dns.TypeA), false, dns.RcodeSuccess, "198.18.1.10"},
		{"case is kept", ask("oK.TeSt.", dns.TypeA), false, dns.RcodeSuccess, "oK.TeSt."},
		{"wildcard", ask("a.wild.test.", dns.TypeA), false, dns.RcodeSuccess, "198.18.1.10"},
		{"wildcard is one label", ask("a.b.wild.test.", dns.TypeA), false, dns.RcodeNameError, ""},
		{"aaaa has no data", ask("ok.test.", dns.TypeAAAA), false, dns.RcodeSuccess, ""},
		{"https has no data", ask("ok.test.", dns.TypeHTTPS), false, dns.RcodeSuccess, ""},
		{"svcb has no data", ask("ok.test.", dns.TypeSVCB), false, dns.RcodeSuccess, ""},
		{"txt has no data", ask("ok.test.", dns.TypeTXT), false, dns.RcodeSuccess, ""},
		{"refused name", ask("evil.test.", dns.TypeA), false, dns.RcodeNameError, ""},
		{"refused name, aaaa", ask("evil.test.", dns.TypeAAAA), false, dns.RcodeNameError, ""},
		{"refused name, txt", ask("data.evil.test.", dns.TypeTXT), false, dns.RcodeNameError, ""},
		{"refused name explained", ask("evil.test.", dns.TypeA), true, dns.RcodeSuccess, "198.18.0.2"},
		{"refused name explained, aaaa", ask("evil.test.", dns.TypeAAAA), true, dns.RcodeSuccess, ""},
		{"names used up", ask("exhausted.test.", dns.TypeA), false, dns.RcodeServerFailure, ""},
		{"canary", ask("use-application-dns.net.", dns.TypeA), true, dns.RcodeNameError, ""},
		{"localhost", ask("localhost.", dns.TypeA), false, dns.RcodeSuccess, "127.0.0.1"},
		{"localhost, aaaa", ask("x.localhost.", dns.TypeAAAA), false, dns.RcodeSuccess, "::1"},
		{"any", ask("ok.test.", dns.TypeANY), false, dns.RcodeNotImplemented, ""},
		{"axfr", ask("ok.test.", dns.TypeAXFR), false, dns.RcodeNotImplemented, ""},
		{"ptr of another address", ask("8.8.8.8.in-addr.arpa.", dns.TypePTR), false, dns.RcodeNameError, ""},
		{"not a host name", ask("a b.test.", dns.TypeA), false, dns.RcodeNameError, ""},
		{"an address as a name", ask("10.0.0.1.", dns.TypeA), false, dns.RcodeNameError, ""},
		{"root", ask(".", dns.TypeNS), false, dns.RcodeNameError, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, dnsPolicy, rigOptions{explain: c.explain})
			for _, network := range []string{"udp", "tcp"} {
				reply, err := r.ask(network, "8.8.8.8:53", c.q)
				if err != nil {
					t.Fatal(err)
				}
				if reply.Rcode != c.rcode || !reply.RecursionAvailable || reply.Id != c.q.Id {
					t.Errorf("%s: %v", network, reply)
				}
				if (c.answer == "") != (len(reply.Answer) == 0) || c.answer != "" && !strings.Contains(reply.Answer[0].String(), c.answer) {
					t.Errorf("%s: %v, want %q", network, reply.Answer, c.answer)
				}
			}
		})
	}
}

func TestDNSRepliesComeFromTheAddressAsked(t *testing.T) {
	r := newRig(t, dnsPolicy, rigOptions{})
	for _, server := range []string{"8.8.8.8:53", "198.18.0.1:53", "127.0.0.53:53", "[2001:4860:4860::8888]:53"} {
		// A connected socket takes replies from that address only.
		reply, err := r.ask("udp", server, ask("ok.test.", dns.TypeA))
		if err != nil || len(reply.Answer) != 1 {
			t.Errorf("%s: %v, %v", server, reply, err)
		}
	}
	ev := r.event("dns", func(e *event.Event) bool { return e.Kind == event.KindDNS && e.DstAddr == "8.8.8.8:53" })
	if ev.Verdict != event.Allowed || ev.DstName != "ok.test" || ev.QueryType != "A" || ev.RCode != "NOERROR" || ev.Rule != "test/ok" || ev.PeerAddr != "198.18.1.10" {
		t.Errorf("event %+v", ev)
	}
}

func TestDNSPointerOfVirtualAddress(t *testing.T) {
	r := newRig(t, dnsPolicy, rigOptions{})
	if _, err := r.lookup("ok.test"); err != nil {
		t.Fatal(err)
	}
	reply, err := r.ask("udp", "8.8.8.8:53", ask("10.1.18.198.in-addr.arpa.", dns.TypePTR))
	if err != nil || len(reply.Answer) != 1 || reply.Answer[0].(*dns.PTR).Ptr != "ok.test." {
		t.Errorf("%v, %v", reply, err)
	}
}

func TestDNSRefusalsNeverReachTheKeeper(t *testing.T) {
	r := newRig(t, dnsPolicy, rigOptions{})
	for range 20 {
		if _, err := r.lookup("secret-data.evil.test"); err == nil {
			t.Fatal("resolved")
		}
	}
	r.keeper.mu.Lock()
	asked := len(r.keeper.asked)
	r.keeper.mu.Unlock()
	if asked != 0 {
		t.Errorf("the keeper was asked %d times", asked)
	}
	first := r.event("refusal", func(e *event.Event) bool { return e.DstName == "secret-data.evil.test" && e.Count <= 1 })
	if first.ReasonCode != "no-rule" || first.RCode != "NXDOMAIN" || first.Remedy == "" || first.Verdict != event.Denied {
		t.Errorf("event %+v", first)
	}
	total := func() (n uint64) {
		r.keeper.mu.Lock()
		defer r.keeper.mu.Unlock()
		for _, e := range r.keeper.events {
			if e.DstName == "secret-data.evil.test" {
				n += max(1, e.Count)
			}
		}
		return n
	}
	for deadline := time.Now().Add(3 * time.Second); total() != 20 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := total(); n != 20 {
		t.Errorf("%d refusals are accounted for, want 20", n)
	}
}

func TestDNSEDNS(t *testing.T) {
	r := newRig(t, dnsPolicy, rigOptions{})
	m := ask("ok.test.", dns.TypeA)
	m.SetEdns0(4096, true)
	reply, err := r.ask("udp", "8.8.8.8:53", m)
	if err != nil || reply.IsEdns0() == nil || reply.IsEdns0().UDPSize() != ednsSize || len(reply.Answer) != 1 {
		t.Errorf("%v, %v", reply, err)
	}
	m.IsEdns0().SetVersion(7)
	if reply, err = r.ask("udp", "8.8.8.8:53", m); err != nil || reply.Rcode != dns.RcodeBadVers {
		t.Errorf("version 7: %v, %v", reply, err)
	}
	m.Extra = append(m.Extra, m.Extra[0])
	if reply, err = r.ask("udp", "8.8.8.8:53", m); err != nil || reply.Rcode != dns.RcodeFormatError {
		t.Errorf("two OPT: %v, %v", reply, err)
	}
}

func TestDNSBadMessages(t *testing.T) {
	two := ask("ok.test.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	none := ask("ok.test.", dns.TypeA)
	none.Question = nil
	update := ask("ok.test.", dns.TypeA)
	update.Opcode = dns.OpcodeUpdate
	chaos := ask("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	reply := ask("ok.test.", dns.TypeA)
	reply.Response = true
	pack := func(m *dns.Msg) []byte { b, _ := m.Pack(); return b }
	good := pack(ask("ok.test.", dns.TypeA))
	cases := []struct {
		name  string
		raw   []byte
		rcode int // -1 = no reply
	}{
		{"two questions", pack(two), dns.RcodeFormatError},
		{"no question", pack(none), dns.RcodeFormatError},
		{"update", pack(update), dns.RcodeNotImplemented},
		{"class chaos", pack(chaos), dns.RcodeRefused},
		{"truncated", good[:len(good)-3], dns.RcodeFormatError},
		{"garbage after the header", append(bytes.Clone(good[:12]), 0xff, 0xff, 0xff), dns.RcodeFormatError},
		{"oversized", append(bytes.Clone(good), make([]byte, 5000)...), dns.RcodeFormatError},
		{"a reply", pack(reply), -1},
		{"shorter than a header", good[:7], -1},
	}
	r := newRig(t, dnsPolicy, rigOptions{})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn, err := r.ns.dial("udp", "8.8.8.8:53")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			wait := 3 * time.Second
			if c.rcode < 0 {
				wait = 100 * time.Millisecond
			}
			_ = conn.SetDeadline(time.Now().Add(wait))
			if _, err := conn.Write(c.raw); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 1500)
			n, err := conn.Read(buf)
			if c.rcode < 0 {
				if err == nil {
					t.Errorf("answered %x", buf[:n])
				}
				return
			}
			if err != nil || n < 12 || int(buf[3]&15) != c.rcode || buf[0] != c.raw[0] || buf[1] != c.raw[1] {
				t.Errorf("%x, %v", buf[:n], err)
			}
		})
	}
}

func TestDNSOverTCPManyAndSlow(t *testing.T) {
	r := newRig(t, dnsPolicy, rigOptions{})
	c, err := r.ns.dial("tcp", "1.1.1.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	dc := &dns.Conn{Conn: c}
	for range 5 {
		if err := dc.WriteMsg(ask("ok.test.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if m, err := dc.ReadMsg(); err != nil || len(m.Answer) != 1 {
			t.Fatalf("%v, %v", m, err)
		}
	}
	_, _ = c.Write([]byte{0xff, 0xff})
	_, _ = c.Write(make([]byte, 6000))
	_, _ = dc.ReadMsg() // FORMERR
	if _, err := dc.ReadMsg(); err == nil {
		t.Error("an oversized message did not end the connection")
	}
}

func TestDNSWithoutSnapshotFails(t *testing.T) {
	k := &fakeKeeper{ca: newTestCA(t, "x")}
	g, err := New(Options{Keeper: k, Inference: stubInference{}})
	if err != nil {
		t.Fatal(err)
	}
	sb := newSandbox(g, Sandbox{ID: 1})
	b, _ := ask("ok.test.", dns.TypeA).Pack()
	var m dns.Msg
	if err := m.Unpack(sb.answerDNS(context.Background(), b, asker{proto: "udp"})); err != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v, %v", m, err)
	}
}

func FuzzDNS(f *testing.F) {
	pack := func(m *dns.Msg) []byte { b, _ := m.Pack(); return b }
	e := ask("ok.test.", dns.TypeA)
	e.SetEdns0(1232, true)
	f.Add(pack(ask("ok.test.", dns.TypeA)))
	f.Add(pack(ask("10.1.18.198.in-addr.arpa.", dns.TypePTR)))
	f.Add(pack(e))
	f.Add([]byte{})
	k := &fakeKeeper{ca: newTestCA(f, "x"), byName: nil}
	g, err := New(Options{Keeper: k, Inference: stubInference{}, Limits: Limits{Events: 1 << 30}})
	if err != nil {
		f.Fatal(err)
	}
	sb := newSandbox(g, Sandbox{ID: 1})
	s := compile(f, 1, closedPolicy)
	sb.setSnapshot(s)
	f.Fuzz(func(t *testing.T, raw []byte) {
		out := sb.answerDNS(context.Background(), raw, asker{proto: "udp"})
		if out == nil {
			return
		}
		var m dns.Msg
		if err := m.Unpack(out); err != nil {
			t.Fatalf("reply cannot be read: %v", err)
		}
		if !m.Response || out[0] != raw[0] || out[1] != raw[1] {
			t.Fatalf("reply does not belong to the question: %v", &m)
		}
		for _, rr := range m.Answer {
			if a, ok := rr.(*dns.A); ok && !a.A.Equal(net.IPv4(127, 0, 0, 1)) {
				t.Fatalf("an address for a name that nothing allows: %v", &m)
			}
		}
		if len(out) > 600 {
			t.Fatalf("a reply of %d bytes", len(out))
		}
	})
}
