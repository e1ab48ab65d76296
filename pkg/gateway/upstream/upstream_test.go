// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestClassify(t *testing.T) {
	cases := map[string]Class{
		"8.8.8.8": Public, "2606:4700::1111": Public, "1.1.1.1": Public,
		"127.0.0.1": Loopback, "127.255.0.9": Loopback, "::1": Loopback, "::ffff:127.0.0.1": Loopback,
		"10.0.0.1": Private, "172.16.0.1": Private, "172.31.255.255": Private, "192.168.1.1": Private, "172.32.0.1": Public,
		"fc00::1": Private, "fd12::1": Private, "fec0::1": Private, "::ffff:10.0.0.1": Private,
		"169.254.0.1": LinkLocal, "fe80::1": LinkLocal, "fe80::1%eth0": LinkLocal,
		"169.254.169.254": Metadata, "fd00:ec2::254": Metadata, "100.100.100.200": Metadata, "168.63.129.16": Metadata, "fd20:ce::254": Metadata,
		"100.64.0.1": SharedNAT, "224.0.0.1": Multicast, "ff02::1": Multicast, "239.1.1.1": Multicast,
		"0.0.0.0": Reserved, "0.1.2.3": Reserved, "::": Reserved, "240.0.0.1": Reserved, "255.255.255.255": Reserved,
		"192.0.2.1": Reserved, "198.51.100.1": Reserved, "203.0.113.1": Reserved, "2001:db8::1": Reserved, "100::1": Reserved,
		"198.18.0.1": Virtual, "198.19.255.255": Virtual, "198.20.0.1": Public,
		"64:ff9b::7f00:1": Loopback, "64:ff9b::a9fe:a9fe": Metadata, "64:ff9b::8.8.8.8": Public, "64:ff9b:1::8.8.8.8": Translated,
		"2002:7f00:1::": Loopback, "2002:c0a8:101::1": Private, "2002:808:808::1": Public, "2001:0:1::1": Translated,
		"::10.0.0.1": Private, "::ffff:0:10.0.0.1": Private, "2606:4700::5efe:10.0.0.1": Private, "2606:4700::200:5efe:10.0.0.1": Private,
		"4000::1": Reserved, "5f00::1": Reserved, "3fff::1": Reserved, "::ffff:198.18.0.1": Virtual,
	}
	for s, want := range cases {
		if got := Classify(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: %q, want %q", s, got, want)
		}
	}
	if Classify(netip.Addr{}) != Invalid {
		t.Error("the zero address is a class of its own")
	}
}

func TestAdmits(t *testing.T) {
	cases := []struct {
		prefix, addr string
		want         bool
	}{
		{"10.20.0.0/16", "10.20.1.1", true},
		{"10.20.0.0/16", "10.21.1.1", false},
		{"10.20.0.0/16", "::ffff:10.20.1.1", true},
		{"10.20.0.0/16", "64:ff9b::a14:101", true},
		{"127.0.0.0/8", "127.0.0.1", true},
		{"169.254.0.0/16", "169.254.3.4", true},
		{"169.254.0.0/16", "169.254.169.254", false},
		{"169.254.169.254/32", "169.254.169.254", true},
		{"fd00::/8", "fd00:ec2::254", false},
		{"0.0.0.0/0", "198.18.0.9", false},
		{"0.0.0.0/0", "224.0.0.1", false},
		{"0.0.0.0/0", "0.0.0.0", false},
	}
	for _, c := range cases {
		if got := Admits([]netip.Prefix{netip.MustParsePrefix(c.prefix)}, netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s admits %s: %v", c.prefix, c.addr, got)
		}
	}
}

type table map[string][]netip.Addr

func (t table) Lookup(_ context.Context, host string) ([]netip.Addr, error) {
	if a := t[host]; a != nil {
		return a, nil
	}
	return nil, errors.New("no such host")
}

func TestDialJudgesEveryAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	a := netip.MustParseAddr
	loop := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	d := NewDialer(DialerConfig{OwnAddrs: []netip.Addr{a("9.9.9.9")}, Timeout: 3 * time.Second, Resolver: table{
		"loop.test": {a("127.0.0.1")}, "mixed.test": {a("10.0.0.1"), a("127.0.0.1")}, "own.test": {a("9.9.9.9")},
		"dead-first.test": {a("127.0.0.2"), a("127.0.0.1")},
	}})
	denyLoop := func(x netip.Addr) (string, bool) { return "no loopback", x.IsLoopback() }
	cases := []struct {
		name   string
		target Target
		code   string // "" = connects
	}{
		{"loopback", Target{Host: "loop.test"}, "loopback-address"},
		{"loopback admitted", Target{Host: "loop.test", Admit: loop}, ""},
		{"loopback admitted but denied by address", Target{Host: "loop.test", Admit: loop, Denied: denyLoop}, "cidr-denied"},
		{"one of two admitted", Target{Host: "mixed.test", Admit: loop}, ""},
		{"the node's own address", Target{Host: "own.test"}, "host-address"},
		{"first address does not answer", Target{Host: "dead-first.test", Admit: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, ""},
		{"literal", Target{Addr: a("127.0.0.1")}, "loopback-address"},
		{"literal opened by an address rule", Target{Addr: a("127.0.0.1"), Judged: true}, ""},
		{"own literal opened by an address rule", Target{Addr: a("9.9.9.9"), Judged: true}, "host-address"},
		{"virtual literal", Target{Addr: a("198.18.0.9"), Judged: true}, "virtual-address"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.target.Port = port
			conn, err := d.Dial(context.Background(), c.target)
			if conn != nil {
				conn.Close()
			}
			var refused *RefusedError
			switch {
			case c.code == "" && err != nil:
				t.Errorf("dial: %v", err)
			case c.code != "" && (!errors.As(err, &refused) || refused.Code() != c.code):
				t.Errorf("dial: %v, want %s", err, c.code)
			}
		})
	}
}

func TestResolverAsksTheConfiguredServer(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 16)
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		asked <- m.Question[0].Name
		r := new(dns.Msg).SetReply(m)
		r.RecursionAvailable = true
		if m.Question[0].Qtype == dns.TypeA {
			r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(1, 2, 3, 4)})
		}
		_ = w.WriteMsg(r)
	})}
	go func() { _ = srv.ActivateAndServe() }()
	defer func() { _ = srv.Shutdown() }()
	r, err := NewResolver(ResolverConfig{Servers: []string{pc.LocalAddr().String()}, Hosts: map[string][]netip.Addr{"Fixed.test.": {netip.MustParseAddr("5.6.7.8")}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for range 2 { // the second from the cache
		got, err := r.Lookup(ctx, "name.test")
		if err != nil || len(got) != 1 || got[0].Unmap() != netip.MustParseAddr("1.2.3.4") {
			t.Errorf("%v, %v", got, err)
		}
	}
	if got, err := r.Lookup(ctx, "fixed.test"); err != nil || got[0] != netip.MustParseAddr("5.6.7.8") {
		t.Errorf("%v, %v", got, err)
	}
	if n := len(asked); n != 2 { // A and AAAA
		t.Errorf("%s questions", strconv.Itoa(n))
	}
	if _, err := NewResolver(ResolverConfig{Servers: []string{"ns.example"}}); err == nil {
		t.Error("a name was taken for a name server's address")
	}
}
