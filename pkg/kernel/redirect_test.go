// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
	"github.com/ringfence/ringfence/test/env"
)

// pod is a process in a network namespace that has an interface and routes of
// its own, and a world on the other end of it.
type pod struct {
	*testing.T
	fence      *Fence
	ns, world  *namespace
	cgroup     string
	box        *Sandbox
	listeners  *Sandbox
	listening  Listening
	in, beside *child // in the adopted cgroup, and another process of the namespace
	gateway    *child
	recs       *collector
}

const (
	listenersNumber = 9
	listenersTable  = 90
)

// newPod makes both namespaces and the processes, and adopts nothing yet.
func newPod(t *testing.T) *pod {
	t.Helper()
	p := &pod{T: t, fence: newFence(t), ns: newPlainNamespace(t), world: newPlainNamespace(t), cgroup: newCgroup(t)}
	join(t, p.ns, p.world)
	p.in, p.beside = p.ns.spawn(t, p.cgroup), p.ns.spawn(t, "")
	for _, addr := range []string{"10.99.0.1:7000", "[fd00:99::1]:7000"} {
		network := "tcp4"
		if strings.HasPrefix(addr, "[") {
			network = "tcp6"
		}
		p.world.listen(t, network, addr, "hold")
	}
	// Its neighbour discovery takes a moment.
	for range 10 {
		if p.beside.try(attempt{Op: "tcp", Addr: "[fd00:99::1]:7000"}).Errno == 0 {
			break
		}
	}
	p.recs = collect(t, p.fence)
	return p
}

// adopt fences the cgroup with the world's listeners in their own.
func (p *pod) adopt(flags Flags) {
	p.Helper()
	home := newCgroup(p.T)
	var err error
	if p.listeners, err = p.fence.AttachListeners(home, listenersNumber, listenersTable); err != nil {
		p.Fatal(err)
	}
	p.gateway = p.ns.spawn(p.T, home)
	p.Cleanup(func() {
		p.gateway.end()
		if err := detachSoon(p.listeners); err != nil {
			p.Errorf("Detach: %v", err)
		}
	})
	r := p.gateway.try(attempt{Op: "gateway"})
	l := &p.listening
	var fds [6]int
	if _, err := fmt.Sscan(r.Reply, &l.Netns, &l.TCP4, &l.TCP6, &l.DNSTCP4, &l.DNSTCP6, &l.DNSUDP4, &l.DNSUDP6,
		&fds[0], &fds[1], &fds[2], &fds[3], &fds[4], &fds[5]); err != nil {
		p.Fatalf("gateway: %+v: %v", r, err)
	}
	l.Sockets = p.socketsOf(p.gateway.cmd.Process.Pid, fds[:])
	p.openRelays()
	st := State{Sandbox: testSandbox, Policy: testPolicy, Generation: 3, Flags: flags}
	if p.box, err = p.fence.AttachRunning(p.cgroup, st, *l, func() error { return nil }); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		if err := p.box.Release(); err != nil {
			p.Errorf("Release: %v", err)
		}
	})
	if err := p.box.Attested(); err != nil {
		p.Fatal(err)
	}
	if err := p.listeners.Attested(); err != nil {
		p.Fatal(err)
	}
}

func newPlainNamespace(t testing.TB) *namespace {
	t.Helper()
	return namespaceWith(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
}

// join connects two namespaces: 10.99.0.2 and fd00:99::2 in the first, which
// has a default route to .1 in the second.
func join(t testing.TB, a, b *namespace) {
	t.Helper()
	err := a.do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(b.file.Fd()))}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		if err := address("10.99.0.2/24", "fd00:99::2/64"); err != nil {
			return err
		}
		_, all, _ := net.ParseCIDR("0.0.0.0/0")
		return netlink.RouteAdd(&netlink.Route{Dst: all, Gw: net.ParseIP("10.99.0.1")})
	})
	if err == nil {
		err = b.do(func() error { return address("10.99.0.1/24", "fd00:99::1/64") })
	}
	if err != nil {
		t.Fatalf("join namespaces: %v", err)
	}
}

func address(addrs ...string) error {
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

func (p *pod) names(addrs ...string) {
	p.Helper()
	for _, a := range addrs {
		ap := netip.MustParseAddrPort(a)
		if err := p.fence.PutNames(testPolicy, []NameEntry{{Addr: ap.Addr(), Port: ap.Port(), Proto: ProtoTCP, Rule: 1}}); err != nil {
			p.Fatal(err)
		}
	}
}

// before is the control of everything that is denied afterwards.
var worldWays = []attempt{
	{Op: "tcp", Addr: "10.99.0.1:7000"},
	{Op: "tcp", Addr: "[fd00:99::1]:7000"},
	{Op: "tcp", Addr: "[::ffff:10.99.0.1]:7000"},
	{Op: "tcp-fastopen", Addr: "10.99.0.1:7000"},
	{Op: "udp", Addr: "10.99.0.1:4000"},
	{Op: "udp-sendto", Addr: "10.99.0.1:4000"},
	{Op: "udp-sendto", Addr: "[fd00:99::1]:4000"},
	{Op: "udp6-sendto4", Addr: "10.99.0.1:4000"},
	{Op: "raw", Addr: "10.99.0.1:0"},
}

func TestAdoptedDenied(t *testing.T) {
	p := newPod(t)
	for _, a := range worldWays {
		if r := p.in.try(a); r.Errno != 0 {
			t.Errorf("before: %s %s: %v at %s", a.Op, a.Addr, r.Errno, r.Step)
		}
	}
	p.adopt(FlagDNS)
	for _, a := range worldWays {
		want := errnoFor(unix.EACCES)
		if a.Op == "raw" {
			want = unix.EPERM
		}
		if r := p.in.try(a); r.Errno != want {
			t.Errorf("after: %s %s: %v at %s, want %v", a.Op, a.Addr, r.Errno, r.Step, want)
		}
		if r := p.beside.try(a); r.Errno != 0 {
			t.Errorf("a process that was not adopted: %s %s: %v at %s", a.Op, a.Addr, r.Errno, r.Step)
		}
	}
	find(t, p.recs, "the denial", func(v *Verdict) bool {
		return v.Sandbox == testSandbox && v.Hook == HookConnect4 && v.Dst.String() == "10.99.0.1:7000" && !v.Allowed && v.Reason == ReasonNoRule
	})
}

func TestAdoptedThroughTheGateway(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS)
	p.names("198.18.1.7:443")
	fill(t, p.fence, testPolicy, "10.99.0.0/24", "fd00:99::/64")
	for _, c := range []struct {
		addr, meant string
		fast        bool
	}{
		{addr: "198.18.1.7:443"},
		{addr: "198.18.1.7:443", fast: true},
		{addr: "[::ffff:198.18.1.7]:443", meant: "198.18.1.7:443"},
		{addr: "10.99.0.1:7000"},
		{addr: "[::ffff:10.99.0.1]:7000", meant: "10.99.0.1:7000"},
		{addr: "[fd00:99::1]:7000"},
		{addr: "[fd00:99::1]:7000", fast: true},
		{addr: "9.9.9.9:53"},
		{addr: "[2001:db8::1]:53"},
	} {
		op := "peer"
		if c.fast {
			op = "peer-fastopen"
		}
		if c.meant == "" {
			c.meant = c.addr
		}
		want := fmt.Sprintf("%s gateway %s for %d", c.addr, c.meant, testSandbox)
		if r := p.in.try(attempt{Op: op, Addr: c.addr}); r.Reply != want {
			t.Errorf("%s %s: %q (%v at %s), want %q", op, c.addr, r.Reply, r.Errno, r.Step, want)
		}
	}
	for _, a := range []string{"198.18.1.7:80", "198.18.1.8:443", "198.18.0.1:443", "127.0.0.1:9"} {
		if r := p.in.try(attempt{Op: "tcp", Addr: a}); r.Errno != errnoFor(unix.EACCES) {
			t.Errorf("%s: %v at %s", a, r.Errno, r.Step)
		}
	}
}

func TestAdoptedDirect(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS | FlagDirect)
	fill(t, p.fence, testPolicy, "10.99.0.0/24", "fd00:99::/64")
	for _, a := range []string{"10.99.0.1:7000", "[fd00:99::1]:7000", "[::ffff:10.99.0.1]:7000"} {
		r := p.in.try(attempt{Op: "peer", Addr: a})
		if !strings.HasPrefix(r.Reply, a+" hold ") {
			t.Errorf("%s: %q (%v at %s)", a, r.Reply, r.Errno, r.Step)
		}
	}
	if r := p.in.try(attempt{Op: "tcp", Addr: "10.98.0.1:7000"}); r.Errno != errnoFor(unix.EACCES) {
		t.Errorf("outside of the prefix: %v at %s", r.Errno, r.Step)
	}
}

func TestAdoptedDNS(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS)
	for _, a := range []string{"9.9.9.9:53", "127.0.0.53:53", "[2001:db8::1]:53", "10.99.0.1:53"} {
		if r, want := p.in.try(attempt{Op: "question", Addr: a}), a+" resolver q"; r.Reply != want {
			t.Errorf("sendto %s: %q (%v at %s), want %q", a, r.Reply, r.Errno, r.Step, want)
		}
		if r, want := p.in.try(attempt{Op: "question-connected", Addr: a}), a+" "+a+" resolver q"; r.Reply != want {
			t.Errorf("connect %s: %q (%v at %s), want %q", a, r.Reply, r.Errno, r.Step, want)
		}
	}
	if r := p.in.try(attempt{Op: "question", Addr: "[::ffff:9.9.9.9]:53"}); r.Reply != "[::ffff:9.9.9.9]:53 resolver q" {
		t.Errorf("mapped, not connected: %q (%v at %s)", r.Reply, r.Errno, r.Step)
	}
	if r := p.in.try(attempt{Op: "question-connected", Addr: "[::ffff:9.9.9.9]:53"}); !strings.HasSuffix(r.Reply, "resolver q") {
		t.Errorf("mapped: %q (%v at %s)", r.Reply, r.Errno, r.Step)
	}
}

// Whoever else lives in the namespace reaches the listeners, and is not served.
func TestListenersServeNobodyElse(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS | FlagLoopback)
	l := p.listening
	for _, who := range []struct {
		name string
		c    *child
	}{{"a process beside", p.beside}, {"the adopted one, around the hooks", p.in}} {
		for _, port := range []uint16{l.TCP4, l.DNSTCP4} {
			r := who.c.try(attempt{Op: "tcp", Addr: fmt.Sprintf("127.0.0.1:%d", port)})
			if r.Reply != "" || r.Errno != unix.ECONNRESET && r.Errno != 0 {
				t.Errorf("%s: TCP to the listener: %q %v at %s", who.name, r.Reply, r.Errno, r.Step)
			}
		}
		if r := who.c.try(attempt{Op: "question", Addr: fmt.Sprintf("127.0.0.1:%d", l.DNSUDP4)}); r.Errno != unix.EAGAIN {
			t.Errorf("%s: a question to the listener: %q %v at %s", who.name, r.Reply, r.Errno, r.Step)
		}
		if r := who.c.try(attempt{Op: "question", Addr: fmt.Sprintf("[::1]:%d", l.DNSUDP6)}); r.Errno != unix.EAGAIN {
			t.Errorf("%s: a question to the listener: %q %v at %s", who.name, r.Reply, r.Errno, r.Step)
		}
	}
	if r := p.in.try(attempt{Op: "question", Addr: "9.9.9.9:53"}); r.Errno != 0 {
		t.Errorf("control: %v at %s", r.Errno, r.Step)
	}
	// The gateway's own descriptors reach nothing of the namespace.
	if r := p.gateway.try(attempt{Op: "tcp", Addr: "10.99.0.1:7000"}); r.Errno != errnoFor(unix.EACCES) {
		t.Errorf("a socket of the listeners' cgroup: %v at %s", r.Errno, r.Step)
	}
	for _, a := range []attempt{
		{Op: "udp-sendto", Addr: "10.99.0.1:4000"}, {Op: "udp-sendto", Addr: "127.0.0.53:53"}, {Op: "tcp", Addr: fmt.Sprintf("127.0.0.1:%d", l.TCP4)},
		{Op: "tcp", Addr: fmt.Sprintf("[::1]:%d", l.TCP6)}, {Op: "udp-sendto", Addr: "[fd00:99::1]:4000"}, {Op: "tcp", Addr: "198.18.0.1:80"},
	} {
		if r := p.gateway.try(a); r.Errno != errnoFor(unix.EACCES) {
			t.Errorf("a socket of the listeners' cgroup: %s %s: %v at %s", a.Op, a.Addr, r.Errno, r.Step)
		}
	}
}

// What is older than the fence: sockets of the cgroup meet it, those made
// elsewhere do not and say so.
func TestAdoptedOlderSockets(t *testing.T) {
	p := newPod(t)
	for i, a := range []attempt{{Op: "open-tcp", Addr: "10.99.0.1:7000"}, {Op: "open-udp", Addr: "10.99.0.1:4000", N: 1}} {
		if r := p.in.try(a); r.Errno != 0 {
			t.Fatalf("%d: %v at %s", i, r.Errno, r.Step)
		}
	}
	p.adopt(FlagDNS | FlagDirect)
	fill(t, p.fence, testPolicy, "10.99.0.0/24") // allowed by address: only the look ends them
	for i := range 2 {
		if r := p.in.try(attempt{Op: "fenced", N: i}); r.Reply != fmt.Sprint(testSandbox) {
			t.Errorf("socket %d of the cgroup meets the programs of %s", i, r.Reply)
		}
	}
	if r := p.beside.try(attempt{Op: "open-tcp", Addr: "10.99.0.1:7000"}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	if r := p.beside.try(attempt{Op: "fenced"}); r.Reply != "0" {
		t.Errorf("a socket made elsewhere meets the programs of %s", r.Reply)
	}
	n, err := p.box.EndOlder(int(p.ns.file.Fd()), p.listening)
	if errors.Is(err, ErrNoDestroy) {
		env.Lack(t, true, "CONFIG_INET_DIAG_DESTROY: "+err.Error())
	}
	if err != nil || n != 2 {
		t.Errorf("%d ended (%v), want 2", n, err)
	}
	p.in.try(attempt{Op: "await"}) // what had come before
	if r := p.in.try(attempt{Op: "await"}); r.Errno != unix.ECONNABORTED {
		t.Errorf("the older connection: %q %v", r.Reply, r.Errno)
	}
}

// An older flow that nobody ends sends nothing.
func TestAdoptedOlderFlowIsDropped(t *testing.T) {
	p := newPod(t)
	if r := p.in.try(attempt{Op: "open-udp", Addr: "10.99.0.1:53"}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	if r := p.in.try(attempt{Op: "echo"}); r.Errno == unix.EPERM {
		t.Fatalf("before: %v at %s", r.Errno, r.Step)
	}
	p.adopt(FlagDNS)
	if r := p.in.try(attempt{Op: "echo"}); r.Errno != unix.EPERM {
		t.Errorf("after: %v at %s, want EPERM", r.Errno, r.Step)
	}
	find(t, p.recs, "the dropped packet", func(v *Verdict) bool { return v.Hook == HookEgress && v.Reason == ReasonPastHooks })
}

func TestAdoptedRefusedByItsCheck(t *testing.T) {
	p := newPod(t)
	no := errors.New("no")
	st := State{Sandbox: testSandbox, Policy: testPolicy, Flags: FlagDNS}
	if _, err := p.fence.AttachRunning(p.cgroup, st, Listening{}, func() error { return no }); !errors.Is(err, no) {
		t.Fatalf("AttachRunning: %v", err)
	}
	if r := p.in.try(attempt{Op: "tcp", Addr: "10.99.0.1:7000"}); r.Errno != 0 {
		t.Errorf("after a refused attempt: %v at %s", r.Errno, r.Step)
	}
}

func TestAdoptedAcrossKeepers(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS)
	p.names("198.18.1.7:443")
	if err := p.box.Close(); err != nil {
		t.Fatal(err)
	}
	again := openFence(t, p.fence.pin)
	defer again.Close()
	box, err := again.TakeOverRunning(p.cgroup, testSandbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := box.Attested(); err != nil {
		t.Error(err)
	}
	if r := p.in.try(attempt{Op: "peer", Addr: "198.18.1.7:443"}); !strings.Contains(r.Reply, "gateway 198.18.1.7:443") {
		t.Errorf("%q %v at %s", r.Reply, r.Errno, r.Step)
	}
	if r := p.in.try(attempt{Op: "tcp", Addr: "10.99.0.1:7000"}); r.Errno != errnoFor(unix.EACCES) {
		t.Errorf("%v at %s", r.Errno, r.Step)
	}
	if err := box.Close(); err != nil {
		t.Error(err)
	}
	if p.box, err = p.fence.TakeOverRunning(p.cgroup, testSandbox); err != nil {
		t.Fatal(err)
	}
}

// What serves is cut off, or goes on serving and no more.
func TestAdoptedServer(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags Flags
		want  string
	}{{"closed", FlagDNS, ""}, {"open", FlagDNS | FlagInbound, "served"}} {
		t.Run(c.name, func(t *testing.T) {
			p := newPod(t)
			outside := p.world.spawn(t, "")
			p.in.start(attempt{Op: "serve", Addr: "10.99.0.2:8000"})
			if r := eventually(func() result { return outside.try(attempt{Op: "tcp", Addr: "10.99.0.2:8000"}) }); r.Reply != "served" {
				t.Fatalf("before: %q %v", r.Reply, r.Errno)
			}
			p.in.wait()
			p.adopt(c.flags)
			p.in.start(attempt{Op: "serve", Addr: "10.99.0.2:8001"})
			r := eventually(func() result { return outside.try(attempt{Op: "tcp", Addr: "10.99.0.2:8001"}) })
			if r.Reply != c.want {
				t.Errorf("from outside: %q %v at %s, want %q", r.Reply, r.Errno, r.Step, c.want)
			}
			if c.want == "" {
				if r.Step != "connect" {
					t.Errorf("from outside: got as far as %s, want no answer to the SYN", r.Step)
				}
				p.in.cmd.Process.Kill() // it waits for somebody to serve
				return
			}
			p.in.wait()
			if r := p.in.try(attempt{Op: "tcp", Addr: "10.99.0.1:7000"}); r.Errno != errnoFor(unix.EACCES) {
				t.Errorf("outwards: %v at %s", r.Errno, r.Step)
			}
		})
	}
}

// Listing the cgroups below an adopted one ends.
func TestCgroupsBelowAreBounded(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS)
	if own, err := p.box.cgroups(); err != nil || !own[p.box.cg.id] {
		t.Errorf("control: %v, %v", own, err)
	}
	if own, err := p.box.cgroupsUntil(time.Now()); err == nil {
		t.Errorf("no time: %v", own)
	}
}

// A policy switch ends what goes directly and leaves those that others began.
func TestAdoptedServerAcrossPolicies(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS | FlagInbound | FlagDirect)
	fill(t, p.fence, testPolicy, "10.99.0.0/24")
	outside := p.world.spawn(t, "")
	if r := p.in.try(attempt{Op: "open-listener", Addr: "10.99.0.2:8000"}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	if r := outside.try(attempt{Op: "open-tcp", Addr: "10.99.0.2:8000"}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	if r := p.in.try(attempt{Op: "open-tcp", Addr: "10.99.0.1:7000", N: 1}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	if err := p.box.SetState(State{Sandbox: testSandbox, Policy: testPolicy + 1, Flags: FlagDNS | FlagInbound | FlagDirect}); err != nil {
		t.Fatal(err)
	}
	if n, _, err := p.box.EndDenied(int(p.ns.file.Fd())); n != 1 || err != nil && !errors.Is(err, ErrNoDestroy) {
		t.Errorf("%d ended, %v; want the one that goes out", n, err)
	}
	if r := outside.try(attempt{Op: "echo"}); r.Errno != 0 {
		t.Errorf("the connection from outside: %v at %s", r.Errno, r.Step)
	}
}

// Each packet of a redirected flow is judged on the policy of its moment.
func TestAdoptedRevokedAtEgress(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS)
	p.names("198.18.1.7:443")
	if r := p.in.try(attempt{Op: "open-tcp", Addr: "198.18.1.7:443"}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	if err := p.box.SetState(State{Sandbox: testSandbox, Policy: testPolicy + 1, Flags: FlagDNS}); err != nil {
		t.Fatal(err)
	}
	p.in.try(attempt{Op: "echo"})
	v := find(t, p.recs, "the dropped packet", func(v *Verdict) bool { return v.Hook == HookEgress && !v.Allowed })
	if v.Dst.String() != "198.18.1.7:443" || v.Reason != ReasonNoRule {
		t.Errorf("%s %s", v.Dst, v.Reason)
	}
}

// A namespace that was not there at the adoption has no listener: nothing of it
// gets out, nor to the listeners of the other.
func TestAdoptedInAnotherNamespace(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS)
	p.names("198.18.1.7:443")
	elsewhere := p.world.spawn(t, p.cgroup)
	for _, a := range []string{"198.18.1.7:443", "9.9.9.9:53"} {
		if r := elsewhere.try(attempt{Op: "tcp", Addr: a}); r.Errno != errnoFor(unix.EACCES) {
			t.Errorf("%s: %v at %s", a, r.Errno, r.Step)
		}
	}
	find(t, p.recs, "the reason", func(v *Verdict) bool { return v.Reason == ReasonNoListener })
	elsewhere.end()
}

// Cgroups below the adopted one are fenced with it.
func TestAdoptedBelow(t *testing.T) {
	p := newPod(t)
	below := p.cgroup + "/below"
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, below) })
	in := p.ns.spawn(t, below)
	if r := in.try(attempt{Op: "open-tcp", Addr: "10.99.0.1:7000"}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	p.adopt(FlagDNS)
	if n, err := p.box.EndOlder(int(p.ns.file.Fd()), p.listening); n != 1 || err != nil && !errors.Is(err, ErrNoDestroy) {
		t.Errorf("%d ended, %v", n, err)
	}
	if r := in.try(attempt{Op: "tcp", Addr: "10.99.0.1:7000"}); r.Errno != errnoFor(unix.EACCES) {
		t.Errorf("%v at %s", r.Errno, r.Step)
	}
	if r := in.try(attempt{Op: "fenced"}); r.Reply != fmt.Sprint(testSandbox) {
		t.Errorf("its socket meets the programs of %s", r.Reply)
	}
	in.end()
}

// A socket that is connected anew means what it asked for last.
func TestAdoptedSocketIsUsedAgain(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS | FlagDirect)
	p.names("198.18.1.7:443")
	fill(t, p.fence, testPolicy, "10.99.0.0/24")
	if r := p.in.try(attempt{Op: "again", Addr: "198.18.1.7:443 10.99.0.1:7000"}); !strings.HasPrefix(r.Reply, "10.99.0.1:7000 hold") {
		t.Errorf("%q %v at %s", r.Reply, r.Errno, r.Step)
	}
	p.noFlying()
	if r := p.in.try(attempt{Op: "again", Addr: "10.99.0.1:7000 198.18.1.7:443"}); !strings.HasPrefix(r.Reply, "198.18.1.7:443 gateway 198.18.1.7:443") {
		t.Errorf("%q %v at %s", r.Reply, r.Errno, r.Step)
	}
}

// noFlying fails if a connection is still said to be on its way.
func (p *pod) noFlying() {
	p.Helper()
	n, err := keysWhere(p.fence.redirect.flying, func(*bpf.RedirectRfFlyingKey, *bpf.RedirectRfAsked) bool { return true })
	if err != nil || len(n) != 0 {
		p.Errorf("entries that stay: %+v, %v", n, err)
	}
}

// What Go says of a flow is what the programs say.
func TestAdoptedJudgedTwice(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS | FlagDirect)
	fill(t, p.fence, testPolicy, "10.99.0.0/24", "fd00:99::/64")
	for _, a := range []string{"10.99.0.1:7000", "[fd00:99::1]:7000", "10.98.0.1:7000", "198.18.0.1:7000", "[64:ff9b::c612:107]:443"} {
		r := p.in.try(attempt{Op: "tcp", Addr: a})
		denied, err := p.box.denies(ProtoTCP, netip.MustParseAddrPort(a))
		if err != nil || denied != (r.Errno == errnoFor(unix.EACCES)) {
			t.Errorf("%s: the programs say %v, Go says denied=%t %v", a, r.Errno, denied, err)
		}
	}
}

// The gateway reads struct rf_asked without this package.
func TestAskedLayout(t *testing.T) {
	var a bpf.RedirectRfAsked
	if s, w, o, p := unsafe.Sizeof(a), unsafe.Offsetof(a.Asker), unsafe.Offsetof(a.Sandbox), unsafe.Offsetof(a.Port); s != 32 || w != 16 || o != 24 || p != 28 {
		t.Errorf("size %d, asker at %d, sandbox at %d, port at %d: pkg/gateway/asked.go has 32, 16, 24, 28", s, w, o, p)
	}
	if bpf.RedirectRfSockoptRF_SOL != 0x5246 || bpf.RedirectRfSockoptRF_SO_ASKED != 1 || bpf.RedirectRfSockoptRF_SO_RELAYED != 1<<30 {
		t.Error("an option has another number than in pkg/gateway/asked.go")
	}
}
