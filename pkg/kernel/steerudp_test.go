// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// datagramListener is a UDP socket of the namespace that datagrams are steered
// to; it tells where each was sent to.
type datagramListener struct {
	c  *net.UDPConn
	fd int
}

func (ns *namespace) datagrams(t *testing.T, network, addr string) *datagramListener {
	t.Helper()
	l := &datagramListener{}
	err := ns.do(func() error {
		a, err := net.ResolveUDPAddr(network, addr)
		if err != nil {
			return err
		}
		l.c, err = net.ListenUDP(network, a)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.c.Close() })
	raw, err := l.c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var serr error
	if err := raw.Control(func(fd uintptr) {
		l.fd = int(fd)
		level, option := unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR
		if network == "udp6" {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR
		}
		serr = unix.SetsockoptInt(l.fd, level, option, 1)
	}); err != nil || serr != nil {
		t.Fatal(err, serr)
	}
	return l
}

// next is where the next datagram was sent to, or nothing.
func (l *datagramListener) next(t *testing.T, patience time.Duration) (netip.AddrPort, bool) {
	t.Helper()
	oob := make([]byte, 128)
	_ = l.c.SetReadDeadline(time.Now().Add(patience))
	_, n, _, _, err := l.c.ReadMsgUDPAddrPort(make([]byte, 100), oob)
	if err != nil {
		return netip.AddrPort{}, false
	}
	dst, ok := origDst(oob[:n])
	if !ok {
		t.Fatal("a datagram without its destination")
	}
	return dst, true
}

// echoSteered answers datagrams that are steered to it, from the address that
// was asked; the port must be that of addr.
func (ns *namespace) echoSteered(t *testing.T, network, addr string) (fd int) {
	t.Helper()
	l := ns.datagrams(t, network, addr)
	if network == "udp6" {
		if err := unix.SetsockoptInt(l.fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		buf, oob := make([]byte, 64), make([]byte, 128)
		for {
			n, oobn, _, from, err := l.c.ReadMsgUDPAddrPort(buf, oob)
			if err != nil {
				return
			}
			dst, ok := origDst(oob[:oobn])
			if !ok {
				continue
			}
			reply := unix.PktInfo6(&unix.Inet6Pktinfo{Addr: dst.Addr().As16()})
			if dst.Addr().Is4() {
				reply = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: dst.Addr().As4()})
			}
			l.c.WriteMsgUDPAddrPort(buf[:n], reply, from)
		}
	}()
	return l.fd
}

// origDst reads where a datagram was sent to.
func origDst(oob []byte) (netip.AddrPort, bool) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return netip.AddrPort{}, false
	}
	sa, err := unix.ParseOrigDstAddr(&msgs[0])
	if err != nil {
		return netip.AddrPort{}, false
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), true
	}
	return netip.AddrPort{}, false
}

// Every datagram that the hooks let out comes to the gateway's sockets with its
// true destination, whatever port that has.
func TestDatagramsAreSteered(t *testing.T) {
	r := newRig(t, FlagLoopback|FlagDNS)
	l4, l6 := r.ns.datagrams(t, "udp4", "127.0.0.1:0"), r.ns.datagrams(t, "udp6", "[::1]:0")
	if err := r.box.Steer(-1, SteerListeners{UDP4: l4.fd, UDP6: l6.fd}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.fence.PutNames(testPolicy, []NameEntry{{Addr: netip.MustParseAddr("198.18.0.9"), Port: 123, Proto: ProtoUDP, Rule: 1}}),
		r.fence.PutCIDRs(testPolicy, []CIDREntry{
			{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Port: 123, Proto: ProtoUDP, Allow: true, Rule: 2},
			{Prefix: netip.MustParsePrefix("2001:db8::/32"), Port: 123, Proto: ProtoUDP, Allow: true, Rule: 3}})); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		op, dst string
		at      *datagramListener // nil: not steered
		as      string            // "" = dst
		errno   unix.Errno
	}{
		{"udp-sendto", "198.18.0.9:123", l4, "", 0},
		{"udp-sendto", "[::ffff:198.18.0.9]:123", l4, "198.18.0.9:123", 0},
		{"udp-sendto", "203.0.113.5:123", l4, "", 0},
		{"udp-sendto", "[2001:db8::5]:123", l6, "", 0},
		{"udp-sendto", "[64:ff9b::203.0.113.5]:123", l6, "[64:ff9b::cb00:7105]:123", 0},
		{"udp-sendto", "198.18.0.9:124", nil, "", unix.EACCES},
		{"udp-sendto", "203.0.114.5:123", nil, "", unix.EACCES},
		{"udp", "[2001:db9::5]:123", nil, "", unix.EACCES},
		{"udp-sendto", "8.8.8.8:53", nil, "", 0},    // DNS
		{"udp-sendto", "127.0.0.1:123", nil, "", 0}, // the sandbox's own
		{"udp-sendto", "198.18.0.1:123", nil, "", 0},
		{"udp-sendto", "[::1]:123", nil, "", 0},
	} {
		t.Run(c.op+" "+c.dst, func(t *testing.T) {
			want := c.errno
			if want == unix.EACCES {
				want = errnoFor(want)
			}
			if got := r.in.try(attempt{Op: c.op, Addr: c.dst}); got.Errno != want {
				t.Fatalf("%v at %q, want %v", got.Errno, got.Step, want)
			}
			if c.as == "" {
				c.as = c.dst
			}
			for _, l := range []*datagramListener{l4, l6} {
				patience := 5 * time.Second
				if l != c.at {
					patience = time.Millisecond // what was sent over lo is there when send returns
				}
				dst, ok := l.next(t, patience)
				if ok != (l == c.at) || ok && dst.String() != c.as {
					t.Errorf("at %s: %v %s", l.c.LocalAddr(), ok, dst)
				}
			}
		})
	}
}

// Without the gateway's socket a datagram is refused like one to a closed port,
// and another gateway's socket takes its place.
func TestDatagramsWithoutAListener(t *testing.T) {
	r := newRig(t, FlagLoopback)
	refused := func() {
		t.Helper()
		var c net.Conn
		err := r.ns.do(func() (err error) { c, err = net.Dial("udp4", "203.0.113.5:123"); return err }) // from outside the cgroup: it is not judged
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%v, want ECONNREFUSED", err)
		}
	}
	steered := func(l *datagramListener) {
		t.Helper()
		if err := r.box.Steer(-1, SteerListeners{UDP4: l.fd}); err != nil {
			t.Fatal(err)
		}
		if got := r.out.try(attempt{Op: "udp-sendto", Addr: "203.0.113.5:123"}); got.Errno != 0 {
			t.Fatalf("%+v", got)
		}
		if dst, ok := l.next(t, 5*time.Second); !ok || dst.String() != "203.0.113.5:123" {
			t.Errorf("%v %s", ok, dst)
		}
	}
	refused()
	first := r.ns.datagrams(t, "udp4", "127.0.0.1:0")
	steered(first)
	first.c.Close()
	refused()
	steered(r.ns.datagrams(t, "udp4", "127.0.0.1:0"))
}

// Steering that a keeper without a relay for datagrams left behind changes over
// to the present one in its place: the same link, and what ran goes on.
func TestSteeringIsRenewed(t *testing.T) {
	r := newRig(t, 0)
	before := r.fence.steer.Maps["listeners"].MaxEntries
	r.fence.steer.Maps["listeners"].MaxEntries = 2
	cgroup, ns := newCgroup(t), newNamespace(t)
	box, err := r.fence.AttachSandbox(cgroup, State{Sandbox: testSandbox + 1, Policy: testPolicy + 1})
	if err != nil {
		t.Fatal(err)
	}
	tcp, _ := ns.listen(t, "tcp4", "198.18.0.1:0", "gateway")
	if err := box.Steer(int(ns.file.Fd()), SteerListeners{TCP4: tcp}); err != nil {
		t.Fatal(err)
	}
	r.fence.steer.Maps["listeners"].MaxEntries = before
	dst := netip.MustParseAddrPort("198.18.7.7:443")
	for _, p := range []uint8{ProtoTCP, ProtoUDP} {
		if err := r.fence.PutNames(testPolicy+1, []NameEntry{{Addr: dst.Addr(), Port: dst.Port(), Proto: p}}); err != nil {
			t.Fatal(err)
		}
	}
	in := ns.spawn(t, cgroup)
	reach := func(when string) {
		t.Helper()
		if got := in.try(attempt{Op: "tcp", Addr: dst.String()}); got.Errno != 0 {
			t.Errorf("%s: %+v", when, got)
		}
	}
	reach("before")
	old, err := steerInfo(box)
	if err != nil {
		t.Fatal(err)
	}
	udp := ns.datagrams(t, "udp4", "127.0.0.1:0")
	if err := box.Steer(-1, SteerListeners{TCP4: tcp, UDP4: udp.fd}); err != nil {
		t.Fatal(err)
	}
	reach("after")
	if got := in.try(attempt{Op: "udp-sendto", Addr: dst.String()}); got.Errno != 0 {
		t.Errorf("%+v", got)
	}
	if to, ok := udp.next(t, 2*time.Second); !ok || to != dst {
		t.Errorf("a datagram to %v, %v", to, ok)
	}
	now, err := steerInfo(box)
	if err != nil || now.ID != old.ID || now.Program == old.Program {
		t.Errorf("link %+v, before %+v, %v", now, old, err)
	}
	// The next keeper finds the new ones.
	box.Close()
	if box, err = r.fence.TakeOverSandbox(cgroup, testSandbox+1); err != nil {
		t.Fatal(err)
	}
	if n := box.steer.slots; n != before || box.steer.prog != now.Program {
		t.Errorf("%d slots, program %d", n, box.steer.prog)
	}
	reach("adopted")
	in.end()
	if err := detachSoon(box); err != nil {
		t.Error(err)
	}
}

// steerInfo is what the kernel says about the link of a sandbox's steering.
func steerInfo(s *Sandbox) (*link.Info, error) {
	l, err := s.fence.shelf.link(s.kept(pinSteer))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.Info()
}
