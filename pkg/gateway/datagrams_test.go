// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
)

// datagramPort is where the rig's sandbox has its relay; in the product
// sk_lookup steers every port there.
const datagramPort = 7007

// addDatagrams gives a sandbox of the rig the sockets of the relay.
func (r *rig) addDatagrams(s *Sandbox) {
	r.tb.Helper()
	var err error
	raw := func(family int) *net.IPConn {
		fd, serr := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
		if serr != nil {
			err = errors.Join(err, serr)
			return nil
		}
		f := os.NewFile(uintptr(fd), "reply")
		defer f.Close()
		c, serr := net.FilePacketConn(f)
		err = errors.Join(err, serr)
		ip, _ := c.(*net.IPConn)
		return ip
	}
	r.ns.do(func() {
		var e4, e6 error
		s.UDP4, e4 = net.ListenUDP("udp4", &net.UDPAddr{Port: datagramPort})
		s.UDP6, e6 = net.ListenUDP("udp6", &net.UDPAddr{Port: datagramPort})
		s.Reply4, s.Reply6 = raw(unix.AF_INET), raw(unix.AF_INET6)
		err = errors.Join(err, e4, e6)
	})
	if err != nil {
		r.tb.Fatal(err)
	}
}

// answers runs an upstream UDP server for name that sends back what it gets,
// with its own address in front.
func (r *rig) answers(name string, port uint16) (peers chan netip.AddrPort) {
	r.tb.Helper()
	a := r.host(name)
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { c.Close() })
	peers = make(chan netip.AddrPort, 1000)
	go func() {
		buf := make([]byte, 65535)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			select {
			case peers <- from:
			default:
			}
			_, _ = c.WriteToUDPAddrPort(append([]byte(name+" "), buf[:min(n, 65507-len(name)-1)]...), from)
		}
	}()
	return peers
}

// udp is a socket inside the sandbox; remote "" leaves it unconnected.
func (r *rig) udp(network, local, remote string) *net.UDPConn {
	r.tb.Helper()
	var c *net.UDPConn
	var err error
	r.ns.do(func() {
		var l, to *net.UDPAddr
		if local != "" {
			l = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local))
		}
		if remote == "" {
			c, err = net.ListenUDP(network, l)
			return
		}
		to = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(remote))
		c, err = net.DialUDP(network, l, to)
	})
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { c.Close() })
	return c
}

// mapped is an IPv6 socket inside, for IPv4-mapped addresses.
func (r *rig) mapped() (fd int) {
	r.tb.Helper()
	var err error
	r.ns.do(func() {
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
		}
	})
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { unix.Close(fd) })
	return fd
}

// virtual is the address of a name, and its port.
func (r *rig) virtual(name string) netip.AddrPort {
	r.tb.Helper()
	a, err := r.lookup(name)
	if err != nil {
		r.tb.Fatal(err)
	}
	return netip.AddrPortFrom(a, datagramPort)
}

// askOnce sends on a connected socket and reads one answer.
func askOnce(c *net.UDPConn, say string) (string, error) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(say)); err != nil {
		return "", err
	}
	buf := make([]byte, 65535)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

const datagramPolicy = docHead + `egress:
  - {id: a, allow: "a.test:7007/udp", resolvesTo: [127.77.0.0/16]}
  - {id: b, allow: "b.test:7007/udp", resolvesTo: [127.77.0.0/16]}
  - {id: tcp, allow: "tcp.test:7007", resolvesTo: [127.77.0.0/16]}
  - {id: private, allow: "private.test:7007/udp"}
  - {id: gone, allow: "gone.test:7007/udp", resolvesTo: [127.77.0.0/16]}
  - {id: nobody, allow: "nobody.test:7007/udp", resolvesTo: [127.77.0.0/16]}
  - {id: slow, allow: "slow.mute:7007/udp"}
  - {id: net, allow: "10.1.0.0/16:7007/udp"}
  - {id: net6, allow: "[fd77::/16]:7007/udp"}
`

func newDatagramRig(t testing.TB, l Limits) *rig {
	return newRig(t, datagramPolicy, rigOptions{limits: l})
}

// Answers come from the address and port that was asked: a connected socket
// gets nothing else, and an unconnected one shows it.
func TestDatagramsByName(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	r.answers("a.test", datagramPort)
	r.answers("b.test", datagramPort)
	a, b := r.virtual("a.test"), r.virtual("b.test")
	c := r.udp("udp4", "", a.String())
	for i := range 3 {
		if got, err := askOnce(c, fmt.Sprint("hello ", i)); got != fmt.Sprint("a.test hello ", i) {
			t.Fatalf("connected: %q, %v", got, err)
		}
	}
	// One unconnected socket, two destinations, interleaved.
	u := r.udp("udp4", "198.18.0.1:40001", "")
	_ = u.SetDeadline(time.Now().Add(10 * time.Second))
	got := map[string]netip.AddrPort{}
	for _, dst := range []netip.AddrPort{a, b, a, b} {
		if _, err := u.WriteToUDPAddrPort([]byte("x"), dst); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 100)
	for range 4 {
		n, from, err := u.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		got[string(buf[:n])] = from
	}
	if got["a.test x"] != a || got["b.test x"] != b {
		t.Errorf("answers came from %v, want %s and %s", got, a, b)
	}
	// A client whose own port is the destination's, as NTP and IKE have it.
	same := r.udp("udp4", "198.18.0.1:7008", a.String())
	if got, err := askOnce(same, "y"); got != "a.test y" {
		t.Errorf("from a port of its own: %q, %v", got, err)
	}
	// IPv4 through an IPv6 socket.
	mapped := r.mapped()
	if err := unix.Sendto(mapped, []byte("z"), 0, &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: datagramPort}); err != nil {
		t.Fatal(err)
	}
	n, from, err := unix.Recvfrom(mapped, buf, 0)
	if err != nil || string(buf[:n]) != "a.test z" || addrPort(from).Addr().Unmap() != a.Addr() || addrPort(from).Port() != datagramPort {
		t.Errorf("v4-mapped: %q from %v, %v", buf[:max(n, 0)], from, err)
	}
	local := c.LocalAddr().String()
	r.g.RemoveSandbox(1)
	ev := r.event("the flow of the connected socket", func(e *event.Event) bool { return e.SrcAddr == local && e.Activity == "reset" })
	if ev.Kind != event.KindNetwork || ev.Verdict != event.Allowed || ev.Proto != "udp" || ev.DstName != "a.test" || ev.DstPort != datagramPort || ev.DstAddr != a.String() ||
		ev.Rule != "test/a" || ev.DatagramsIn != 3 || ev.DatagramsOut != 3 || ev.BytesOut != 21 || ev.BytesIn != 42 || ev.PeerAddr == "" {
		t.Errorf("%+v", ev)
	}
}

// Literal addresses are decided on address rules alone. That what they open is
// reached is shown by test/e2e: from here the datagrams would leave the machine.
func TestDatagramsToLiteralAddresses(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	for _, c := range []struct {
		network, dst string
		denied       string // reason code
	}{
		{"udp4", "10.2.2.3:7007", "no-rule"}, {"udp6", "[fd78::9]:7007", "no-rule"},
		{"udp4", "198.18.200.1:7007", codeUnknownAddr},
	} {
		s := r.udp(c.network, "", c.dst)
		_, err := askOnce(s, "x")
		want := unix.EHOSTUNREACH
		if c.network == "udp6" {
			want = unix.EACCES
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", c.dst, err, want)
		}
		ev := r.event("denied "+c.dst, func(e *event.Event) bool { return e.DstAddr == c.dst && e.Verdict == event.Denied })
		if ev.ReasonCode != c.denied || ev.Proto != "udp" {
			t.Errorf("%s: %+v", c.dst, ev)
		}
		if c.denied == "no-rule" && ev.Remedy != "ringfence allow "+c.dst+"/udp" {
			t.Errorf("%s: remedy %q", c.dst, ev.Remedy)
		}
	}
}

func TestDatagramsThatAreRefused(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	r.answers("tcp.test", datagramPort)
	r.answers("private.test", datagramPort)
	r.host("nobody.test")
	for _, c := range []struct {
		name, code string
		err        error
	}{
		{"tcp.test", "no-rule", unix.EHOSTUNREACH}, // its rule is for TCP
		{"private.test", "loopback-address", unix.EHOSTUNREACH},
		{"gone.test", codeResolve, unix.EHOSTUNREACH},
	} {
		s := r.udp("udp4", "", r.virtual(c.name).String())
		if _, err := askOnce(s, "x"); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if _, err := askOnce(s, "x"); !errors.Is(err, c.err) { // and again, without another decision
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		ev := r.event("refused "+c.name, func(e *event.Event) bool { return e.DstName == c.name && e.ReasonCode == c.code })
		if c.code == "no-rule" && ev.Remedy != "ringfence allow tcp.test:7007/udp" {
			t.Errorf("remedy %q", ev.Remedy)
		}
	}
	// Nobody is at the port: the program is told, as by the network itself.
	s := r.udp("udp4", "", r.virtual("nobody.test").String())
	if _, err := askOnce(s, "x"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a closed port: %v", err)
	}
}

func TestBigDatagrams(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	r.answers("a.test", datagramPort)
	c := r.udp("udp4", "", r.virtual("a.test").String())
	for _, size := range []int{0, 1, 1472, 1473, 9000, 65507 - len("a.test ")} {
		say := bytes.Repeat([]byte{'0', '1', '2', '3', '4', '5', '6'}, size/7+1)[:size]
		got, err := askOnce(c, string(say))
		if err != nil || got != "a.test "+string(say) {
			t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
		}
	}
}

// Several datagrams in one call (UDP_SEGMENT, Linux 4.18) are several outside.
func TestSegmentedDatagrams(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	r.answers("a.test", datagramPort)
	c := r.udp("udp4", "", r.virtual("a.test").String())
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 4) }); err != nil || serr != nil {
		t.Fatal(err, serr)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("aaaabbbbcc")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for _, want := range []string{"a.test aaaa", "a.test bbbb", "a.test cc"} {
		if n, err := c.Read(buf); string(buf[:n]) != want {
			t.Errorf("%q, %v; want %q", buf[:n], err, want)
		}
	}
}

// A source address that no socket of a sandbox usually has is not answered:
// the answer would come back to the relay.
func TestStrayDatagrams(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	peers := r.answers("a.test", datagramPort)
	a, b := r.virtual("a.test"), r.virtual("b.test")
	s := r.udp("udp4", b.String()[:strings.LastIndexByte(b.String(), ':')]+":5555", a.String())
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	own := r.udp("udp4", "", "127.0.0.1:7007") // the relay's own socket
	if _, err := own.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	control := r.udp("udp4", "", a.String())
	if got, err := askOnce(control, "y"); got != "a.test y" {
		t.Fatalf("%q, %v", got, err)
	}
	if n := len(peers); n != 1 {
		t.Errorf("%d datagrams came out, want the control's alone", n)
	}
	if n := r.lost(lostStray); n != 2 {
		t.Errorf("%v stray datagrams are counted", n)
	}
}

// lost reads a counter.
func (r *rig) lost(reason string) (n float64) {
	r.tb.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.tb.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "ringfence_gateway_datagrams_lost_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == reason {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestRevokedDatagrams(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	r.answers("a.test", datagramPort)
	r.answers("b.test", datagramPort)
	a, b := r.virtual("a.test"), r.virtual("b.test")
	ca, cb := r.udp("udp4", "", a.String()), r.udp("udp4", "", b.String())
	for c, want := range map[*net.UDPConn]string{ca: "a.test 1", cb: "b.test 1"} {
		if got, err := askOnce(c, "1"); got != want {
			t.Fatalf("%q, %v", got, err)
		}
	}
	r.setPolicy(2, docHead+"egress:\n  - {id: b, allow: \"b.test:7007/udp\", resolvesTo: [127.77.0.0/16]}\n")
	if _, err := askOnce(ca, "2"); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("after the revocation: %v", err)
	}
	if got, err := askOnce(cb, "2"); got != "b.test 2" {
		t.Errorf("what is still allowed: %q, %v", got, err)
	}
	ev := r.event("the end of the revoked flow", func(e *event.Event) bool { return e.ReasonCode == codeRevoked })
	if ev.Verdict != event.Denied || ev.DstName != "a.test" || ev.Proto != "udp" || ev.DatagramsIn != 1 || ev.DatagramsOut != 1 {
		t.Errorf("%+v", ev)
	}
	r.keeper.mu.Lock()
	defer r.keeper.mu.Unlock()
	for _, e := range r.keeper.events {
		if e.DstName == "b.test" && e.Kind == event.KindNetwork && e.Activity != "open" {
			t.Errorf("the other flow has ended: %+v", e)
		}
	}
}

func (r *rig) flows() (n int) {
	for _, sb := range *r.g.served.Load() {
		n += len(sb.associations.all())
	}
	return n
}

func (r *rig) until(what string, f func() bool) {
	r.tb.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.tb.Fatalf("did not happen: %s", what)
		}
	}
}
