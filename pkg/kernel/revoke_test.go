// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// kept are sockets that a helper leaves open between its attempts, by N.
var kept = map[int]int{}

// keep connects and leaves the socket open.
func (a attempt) keep(typ int) result {
	sa, family := sockaddr(a.Addr)
	fd, err := open(family, typ, 0)
	if err != nil {
		return fail("socket", err)
	}
	if err := unix.Connect(fd, sa); err != nil {
		unix.Close(fd)
		return fail("connect", err)
	}
	kept[a.N] = fd
	return result{}
}

// keepListener leaves a listener open, or a socket that is only bound.
func (a attempt) keepListener() result {
	sa, family := sockaddr(a.Addr)
	fd, err := open(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		return fail("bind", err)
	}
	kept[a.N] = fd
	if a.Op == "open-bound" {
		return result{}
	}
	if err := unix.Listen(fd, 4); err != nil {
		return fail("listen", err)
	}
	go func() {
		for {
			n, _, err := unix.Accept(fd)
			if err == unix.EAGAIN || err == unix.EINTR { // its timeout
				continue
			}
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 64)
				for {
					k, err := unix.Read(n, buf)
					if err != nil || k == 0 {
						return
					}
					unix.Write(n, buf[:k])
				}
			}()
		}
	}()
	return result{}
}

// echo sends on a kept socket and reads it back. Where Addr is set it connects
// the socket first.
func (a attempt) echo() result {
	fd := kept[a.N]
	if a.Addr != "" {
		sa, _ := sockaddr(a.Addr)
		if err := unix.Connect(fd, sa); err != nil {
			return fail("connect", err)
		}
	}
	want := fmt.Sprintf("flow %d", a.N)
	if _, err := unix.Write(fd, []byte(want)); err != nil {
		return fail("write", err)
	}
	r := receive(fd)
	if r.Errno == 0 && r.Reply != want {
		return fail("other bytes: "+r.Reply, unix.EBADMSG)
	}
	return r
}

// echoUDP answers datagrams at one address of the namespace.
func (ns *namespace) echoUDP(t *testing.T, addr string) {
	t.Helper()
	var c *net.UDPConn
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { // an address that is routed here and not ours
		return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
	}}
	if err := ns.do(func() error {
		p, err := lc.ListenPacket(context.Background(), "udp", addr)
		if err == nil {
			c = p.(*net.UDPConn)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
}

// TestEndDenied swaps the policy of one sandbox under open flows.
func TestEndDenied(t *testing.T) {
	r := newRig(t, FlagLoopback|FlagDNS)
	fd4, _ := r.ns.listen(t, "tcp4", "198.18.0.1:0", "echo")
	fd6, _ := r.ns.listen(t, "tcp6", "[::1]:0", "echo")
	udp4, udp6 := r.ns.echoSteered(t, "udp4", "0.0.0.0:9"), r.ns.echoSteered(t, "udp6", "[::]:9")
	if err := r.box.Steer(-1, SteerListeners{TCP4: fd4, TCP6: fd6, UDP4: udp4, UDP6: udp6}); err != nil {
		t.Fatal(err)
	}
	r.ns.echoUDP(t, "8.8.8.8:53")
	other := newOther(t, r)
	const next = testPolicy + 1
	fill(t, r.fence, testPolicy, "203.0.113.0/24", "2001:db8::/32", "198.18.1.1", "198.18.1.2")
	fill(t, r.fence, next, "203.0.113.6/32", "2001:db8::6/128", "198.18.1.2")

	flows := []struct {
		op, addr string
		allowed  bool
	}{
		{"tcp", "198.18.1.1:443", false},
		{"tcp", "198.18.1.2:443", true},
		{"tcp", "203.0.113.5:443", false},
		{"tcp", "203.0.113.6:443", true},
		{"tcp", "[2001:db8::5]:443", false},
		{"tcp", "[2001:db8::6]:443", true},
		{"tcp", "[::ffff:203.0.113.5]:443", false},
		{"tcp", "[::ffff:203.0.113.6]:443", true},
		{"tcp", "[64:ff9b::203.0.113.5]:443", false},
		{"tcp", "[64:ff9b::203.0.113.6]:443", true},
		{"udp", "203.0.113.5:9", false},
		{"udp", "203.0.113.6:9", true},
		{"udp", "[2001:db8::5]:9", false},
		{"udp", "[2001:db8::6]:9", true},
		{"udp", "[::ffff:203.0.113.5]:9", false},
		{"udp", "[::ffff:203.0.113.6]:9", true},
		{"udp", "8.8.8.8:53", true},       // DNS
		{"tcp", "127.0.0.1:8080", true},   // the sandbox's own server
		{"tcp", "198.18.0.1:53080", true}, // steered before the swap: its own address is nobody's
	}
	const listener, bound = 100, 101
	do := func(what string, c *child, a attempt, want unix.Errno) {
		t.Helper()
		if got := c.try(a); got.Errno != want {
			t.Errorf("%s: %s %s: %v at %q, want %v", what, a.Op, a.Addr, got.Errno, got.Step, want)
		}
	}
	do("before", r.in, attempt{Op: "open-listener", Addr: "127.0.0.1:8080", N: listener}, 0)
	do("before", r.in, attempt{Op: "open-listener", Addr: "198.18.0.1:53080", N: listener + 10}, 0)
	do("before", r.in, attempt{Op: "open-bound", Addr: "127.0.0.1:8181", N: bound}, 0)
	for i, f := range flows {
		do("before", r.in, attempt{Op: "open-" + f.op, Addr: f.addr, N: i}, 0)
		do("before", r.in, attempt{Op: "echo", N: i}, 0)
	}
	do("before", other, attempt{Op: "open-tcp", Addr: "203.0.113.5:443"}, 0)
	ns := int(r.ns.file.Fd())
	if n, more, err := r.box.EndDenied(ns); n != 0 || more || err != nil {
		t.Fatalf("nothing is denied yet: ended %d, %v", n, err)
	}
	r.recs.reset()
	if err := r.box.SetState(State{Sandbox: testSandbox, Policy: next, Generation: 4, Flags: FlagLoopback | FlagDNS}); err != nil {
		t.Fatal(err)
	}
	n, more, err := r.box.endDenied(ns, 3)
	if n != 3 || !more || err != nil {
		t.Errorf("at most three: %d, more %v, %v", n, more, err)
	}
	rest, more, err := r.box.EndDenied(ns)
	if more || err != nil {
		t.Errorf("the rest: more %v, %v", more, err)
	}
	n += rest
	denied := 0
	for i, f := range flows {
		if f.allowed {
			do("after", r.in, attempt{Op: "echo", N: i}, 0)
			continue
		}
		denied++
		do("after", r.in, attempt{Op: "await", N: i}, unix.ECONNABORTED)
	}
	if n != denied {
		t.Errorf("ended %d flows, want %d", n, denied)
	}
	do("after", r.in, attempt{Op: "open-tcp", Addr: "127.0.0.1:8080", N: 50}, 0) // the listener listens
	do("after", r.in, attempt{Op: "echo", N: 50}, 0)
	do("after", r.in, attempt{Op: "echo", Addr: "203.0.113.6:443", N: bound}, 0)
	do("after", other, attempt{Op: "echo"}, 0) // another sandbox, in the same namespace, under the old policy
	find(t, r.recs, "the reset of an ended flow", func(v *Verdict) bool { return v.Hook == HookEgress && v.Ended })
	for _, rec := range r.recs.all() {
		if v, ok := rec.(*Verdict); ok && !v.Allowed && !v.Ended {
			t.Errorf("a denial that nobody asked for: %+v", v)
		}
	}
}

// newOther is another sandbox in the namespace of the first, under its policy.
func newOther(t *testing.T, r *rig) *child {
	t.Helper()
	cg := newCgroup(t)
	box, err := r.fence.AttachSandbox(cg, State{Sandbox: testSandbox + 1, Policy: testPolicy, Generation: 3, Flags: FlagLoopback})
	if err != nil {
		t.Fatal(err)
	}
	c := r.ns.spawn(t, cg)
	t.Cleanup(func() {
		c.end()
		if err := detachSoon(box); err != nil {
			t.Errorf("Detach: %v", err)
		}
	})
	return c
}

// fill allows prefixes and virtual addresses in a table.
func fill(t *testing.T, f *Fence, table uint32, allow ...string) {
	t.Helper()
	var names []NameEntry
	var cidrs []CIDREntry
	for _, a := range allow {
		for _, proto := range []uint8{ProtoTCP, ProtoUDP} {
			if addr, err := netip.ParseAddr(a); err == nil {
				names = append(names, NameEntry{Addr: addr, Port: 443, Proto: proto})
				continue
			}
			cidrs = append(cidrs, CIDREntry{Prefix: netip.MustParsePrefix(a), Proto: proto, Allow: true})
		}
	}
	if err := f.PutNames(table, names); err != nil {
		t.Fatal(err)
	}
	if err := f.PutCIDRs(table, cidrs); err != nil {
		t.Fatal(err)
	}
}

// TestJudgeIsTheKernels asks the connect hook and the twin of its decision the
// same questions.
func TestJudgeIsTheKernels(t *testing.T) {
	for _, flags := range []Flags{0, FlagLoopback, FlagDNS, FlagLoopback | FlagDNS, FlagGateway} {
		t.Run(fmt.Sprint(flags), func(t *testing.T) {
			r := newRig(t, flags)
			fill(t, r.fence, testPolicy, "198.18.1.1", "198.51.100.0/24", "2001:db8:1::/48")
			p := netip.MustParsePrefix
			if err := r.fence.PutNames(testPolicy, []NameEntry{{Addr: netip.MustParseAddr("198.18.1.2"), Proto: ProtoTCP}}); err != nil {
				t.Fatal(err)
			}
			if err := r.fence.PutCIDRs(testPolicy, []CIDREntry{
				{Prefix: p("10.0.0.0/8"), Port: 5432, Proto: ProtoTCP, Allow: true},
				{Prefix: p("10.9.0.0/16"), Port: 5432, Proto: ProtoTCP},
				{Prefix: p("10.0.0.0/8"), Proto: ProtoTCP, Allow: true},
				{Prefix: p("198.18.9.0/24"), Proto: ProtoTCP, Allow: true},
				{Prefix: p("127.5.0.0/16"), Proto: ProtoTCP, Allow: true},
			}); err != nil {
				t.Fatal(err)
			}
			judged := map[bool]int{}
			for _, dst := range []string{
				"127.0.0.1:9", "127.5.5.5:9", "[::1]:9", "198.18.0.1:9", "[::ffff:127.0.0.1]:9", "[64:ff9b::127.0.0.1]:9", "[2002:7f00:1::]:9", "[64:ff9b::127.5.5.5]:9",
				"[64:ff9b::0.0.0.0]:9", "8.8.8.8:53", "[2001:db8::1]:53", "8.8.8.8:443", "198.18.1.1:443", "198.18.1.1:80", "198.18.1.2:443", "198.18.1.2:80",
				"198.18.1.3:443", "198.18.9.1:443", "[64:ff9b::198.18.1.1]:443", "[::ffff:198.18.1.1]:443", "[2002:c612:101::7]:443", "198.51.100.7:1", "[64:ff9b::198.51.100.7]:1",
				"[2002:c633:6407::]:1", "[::ffff:198.51.100.7]:1", "10.9.1.1:5432", "10.9.1.1:80", "10.8.1.1:5432", "10.8.1.1:80", "[2001:db8:1::5]:443", "[2001:db8:2::5]:443",
			} {
				for op, proto := range map[string]uint8{"tcp": ProtoTCP, "udp": ProtoUDP} {
					got := r.in.try(attempt{Op: op, Addr: dst})
					refused := got.Step == "connect" && got.Errno == errnoFor(unix.EACCES)
					denied, err := r.box.denies(proto, netip.MustParseAddrPort(dst))
					if err != nil || denied != refused {
						t.Errorf("%s %s: denied %v (%v), the hook: %v at %q", op, dst, denied, err, got.Errno, got.Step)
					}
					judged[refused]++
				}
			}
			if judged[true] == 0 || judged[false] == 0 {
				t.Errorf("one answer to everything: %v", judged)
			}
		})
	}
}

// TestJudgeDuringSwap swaps the policy and drops the old table between the look
// at the state and the look at the table. Both policies allow the destination.
func TestJudgeDuringSwap(t *testing.T) {
	r := newRig(t, 0)
	fill(t, r.fence, testPolicy, "203.0.113.0/24")
	fill(t, r.fence, testPolicy+1, "203.0.113.0/24")
	looks := 0
	denied, err := denies(r.fence.judge, func() State {
		st := r.box.State()
		if looks++; looks == 1 {
			if err := r.box.SetState(State{Sandbox: testSandbox, Policy: testPolicy + 1}); err != nil {
				t.Error(err)
			}
			if err := r.fence.DropPolicy(testPolicy); err != nil {
				t.Error(err)
			}
		}
		return st
	}, newDest(ProtoTCP, netip.MustParseAddrPort("203.0.113.5:443")))
	if denied || err != nil || looks != 3 {
		t.Errorf("denied %v, %v after %d looks at the state", denied, err, looks)
	}
}
