// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/test/env"
)

// clientOps are what processes do to be told apart.
var clientOps = map[string]func(attempt) result{
	"tcp-from-port": attempt.connectFrom,
	"udp-connected": attempt.sendConnected,
	"udp-by-child":  attempt.sendByChild,
}

// connectFrom connects from a port of its own, and frees it at once when it is
// done.
func (a attempt) connectFrom() result {
	sa, family := sockaddr(a.Addr)
	fd, err := open(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: a.N}); err != nil {
		return fail("bind", err)
	}
	if err := unix.Connect(fd, sa); err != nil {
		return fail("connect", err)
	}
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	return receive(fd)
}

// sendConnected sends on a connected datagram socket.
func (a attempt) sendConnected() result {
	return onDatagrams(a.Addr, func(fd int, sa unix.Sockaddr) result {
		if err := unix.Connect(fd, sa); err != nil {
			return fail("connect", err)
		}
		if _, err := unix.Write(fd, []byte("hello")); err != nil {
			return fail("write", err)
		}
		return result{}
	})
}

// sendByChild connects a datagram socket and has another process send with it.
func (a attempt) sendByChild() result {
	sa, family := sockaddr(a.Addr)
	fd, err := open(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	if err := unix.Connect(fd, sa); err != nil {
		return fail("connect", err)
	}
	c := exec.Command("/bin/sh", "-c", "echo hello >&3")
	c.ExtraFiles = []*os.File{f}
	if err := c.Run(); err != nil {
		return fail("child", err)
	}
	return result{}
}

// markedListener accepts in the namespace, as the gateway does, and tells the
// marks of what it accepts.
func (ns *namespace) markedListener(t *testing.T, network, addr string) (<-chan uint32, int) {
	t.Helper()
	var l net.Listener
	var fd int
	err := ns.do(func() (err error) {
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_fwmark_accept", []byte("1"), 0); err != nil {
			return err
		}
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		if l, err = lc.Listen(context.Background(), network, addr); err != nil {
			return err
		}
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			return err
		}
		return raw.Control(func(p uintptr) { fd = int(p) })
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	marks := make(chan uint32, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			raw, _ := c.(*net.TCPConn).SyscallConn()
			raw.Control(func(fd uintptr) {
				m, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK)
				marks <- uint32(m)
			})
			c.Write([]byte("hello"))
			c.Close()
		}
	}()
	return marks, fd
}

// markedDatagrams tells the marks of the datagrams that a socket gets.
func (ns *namespace) markedDatagrams(t *testing.T, network, addr string) (<-chan uint32, int) {
	t.Helper()
	l := ns.datagrams(t, network, addr)
	if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1); errors.Is(err, unix.ENOPROTOOPT) {
		env.Lack(t, env.Linux(5, 19), "SO_RCVMARK (Linux 5.19)")
	} else if err != nil {
		t.Fatal(err)
	}
	marks := make(chan uint32, 100)
	go func() {
		buf, oob := make([]byte, 64), make([]byte, 256)
		for {
			_, n, _, _, err := l.c.ReadMsgUDPAddrPort(buf, oob)
			if err != nil {
				return
			}
			msgs, _ := unix.ParseSocketControlMessage(oob[:n])
			for _, m := range msgs {
				if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_MARK {
					marks <- binary.NativeEndian.Uint32(m.Data)
				}
			}
		}
	}()
	return marks, l.fd
}

func nextMark(t *testing.T, marks <-chan uint32) uint32 {
	t.Helper()
	select {
	case m := <-marks:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("nothing arrived")
		return 0
	}
}

// clientRig is a sandbox whose names and addresses arrive at marked sockets.
type clientRig struct {
	*rig
	tcp4, tcp6, udp4, udp6, dns <-chan uint32
}

func newClientRig(t *testing.T) clientRig {
	r := newRig(t, FlagLoopback|FlagDNS)
	v := netip.MustParseAddr("198.18.0.9")
	err := errors.Join(
		r.fence.PutNames(testPolicy, []NameEntry{{Addr: v, Port: 443, Proto: ProtoTCP, Rule: 1}, {Addr: v, Port: 123, Proto: ProtoUDP, Rule: 1}}),
		r.fence.PutCIDRs(testPolicy, []CIDREntry{
			{Prefix: netip.MustParsePrefix("2001:db8::/32"), Port: 443, Proto: ProtoTCP, Allow: true, Rule: 2},
			{Prefix: netip.MustParsePrefix("2001:db8::/32"), Port: 123, Proto: ProtoUDP, Allow: true, Rule: 2}}))
	if err != nil {
		t.Fatal(err)
	}
	c := clientRig{rig: r}
	var l SteerListeners
	c.tcp4, l.TCP4 = r.ns.markedListener(t, "tcp4", "127.0.0.1:0")
	c.tcp6, l.TCP6 = r.ns.markedListener(t, "tcp6", "[::1]:0")
	c.udp4, l.UDP4 = r.ns.markedDatagrams(t, "udp4", "127.0.0.1:0")
	c.udp6, l.UDP6 = r.ns.markedDatagrams(t, "udp6", "[::1]:0")
	c.dns, _ = r.ns.markedDatagrams(t, "udp4", "0.0.0.0:53")
	if err := r.box.Steer(-1, l); err != nil {
		t.Fatal(err)
	}
	return c
}

// tagOf is the tag of a process as the records of its flows have it.
func (r clientRig) tagOf(t *testing.T, pid int) uint32 {
	t.Helper()
	v := find(t, r.recs, "a flow", func(v *Verdict) bool { return v.Allowed && v.PID == uint32(pid) })
	return v.Process(v.PID).Tag()
}

// What arrives at the gateway is marked with the process that sent it, as the
// record of the flow names it.
func TestFlowsAreMarkedWithTheirProcess(t *testing.T) {
	r := newClientRig(t)
	for _, c := range []struct {
		op, dst string
		at      <-chan uint32
	}{
		{"tcp", "198.18.0.9:443", r.tcp4},
		{"tcp", "[::ffff:198.18.0.9]:443", r.tcp4},
		{"tcp", "[2001:db8::5]:443", r.tcp6},
		{"tcp-fastopen", "198.18.0.9:443", r.tcp4},
		{"udp-connected", "198.18.0.9:123", r.udp4},
		{"udp-sendto", "198.18.0.9:123", r.udp4},
		{"udp-sendto", "[::ffff:198.18.0.9]:123", r.udp4},
		{"udp-sendto", "[2001:db8::5]:123", r.udp6},
		{"udp-sendto-connected", "198.18.0.9:123", r.udp4},
		{"udp-sendto", "8.8.8.8:53", r.dns},
		{"udp-connected", "127.0.0.53:53", r.dns},
	} {
		t.Run(c.op+" "+c.dst, func(t *testing.T) {
			got := r.in.try(attempt{Op: c.op, Addr: c.dst})
			if got.Errno != 0 {
				t.Fatalf("%v at %q", got.Errno, got.Step)
			}
			if mark, want := nextMark(t, c.at), r.tagOf(t, got.PID); mark != want || mark == 0 {
				t.Errorf("marked %#x, the process is %#x", mark, want)
			}
		})
	}
}

// A datagram that another process sends than the one that the socket was given
// to names nobody.
func TestSharedSocketsNameNobody(t *testing.T) {
	r := newClientRig(t)
	if got := r.in.try(attempt{Op: "udp-by-child", Addr: "198.18.0.9:123"}); got.Errno != 0 {
		t.Fatalf("%v at %q", got.Errno, got.Step)
	}
	if mark := nextMark(t, r.udp4); mark != 0 {
		t.Errorf("marked %#x", mark)
	}
	got := r.in.try(attempt{Op: "udp-sendto", Addr: "198.18.0.9:123"}) // the control
	if mark, want := nextMark(t, r.udp4), r.tagOf(t, got.PID); mark != want {
		t.Errorf("marked %#x, the process is %#x", mark, want)
	}
}

// Two processes that use the same port one after the other are told apart.
func TestReusedPortsNameTheRightProcess(t *testing.T) {
	r := newClientRig(t)
	other := r.ns.spawn(t, r.cgroup)
	seen := map[uint32]bool{}
	for i := range 20 {
		in := []*child{r.in, other}[i%2]
		got := in.try(attempt{Op: "tcp-from-port", Addr: "198.18.0.9:443", N: 40000})
		if got.Errno != 0 {
			t.Fatalf("%v at %q", got.Errno, got.Step)
		}
		mark, want := nextMark(t, r.tcp4), r.tagOf(t, got.PID)
		if mark != want {
			t.Errorf("marked %#x, the process is %#x", mark, want)
		}
		seen[mark] = true
	}
	if len(seen) != 2 {
		t.Errorf("%d processes were told apart, want 2", len(seen))
	}
}

// The gateway's own connections leave with no mark: the host may route by them.
func TestTheGatewaysSocketsHaveNoMark(t *testing.T) {
	f := newFence(t)
	cgroup, ns := newCgroup(t), newNamespace(t)
	if _, err := f.AttachSandbox(cgroup, State{Sandbox: testSandbox, Policy: testPolicy, Flags: FlagGateway}); err != nil {
		t.Fatal(err)
	}
	if err := f.PutCIDRs(testPolicy, []CIDREntry{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Port: 443, Proto: ProtoTCP, Allow: true, Rule: 1},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Port: 123, Proto: ProtoUDP, Allow: true, Rule: 1}}); err != nil {
		t.Fatal(err)
	}
	tcp, _ := ns.markedListener(t, "tcp4", "0.0.0.0:443")
	udp, _ := ns.markedDatagrams(t, "udp4", "0.0.0.0:123")
	in := ns.spawn(t, cgroup)
	for _, c := range []struct {
		op, dst string
		at      <-chan uint32
	}{{"tcp", "203.0.113.5:443", tcp}, {"udp-sendto", "203.0.113.5:123", udp}} {
		if got := in.try(attempt{Op: c.op, Addr: c.dst}); got.Errno != 0 {
			t.Fatalf("%s: %v at %q", c.op, got.Errno, got.Step)
		}
		if mark := nextMark(t, c.at); mark != 0 {
			t.Errorf("%s: marked %#x", c.op, mark)
		}
	}
}

// CatchUp returns when what was in the ring has been handed over.
func TestCatchUp(t *testing.T) {
	r := newClientRig(t)
	for range 50 {
		r.recs.reset()
		got := r.in.try(attempt{Op: "tcp", Addr: "198.18.0.9:443"})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if !r.fence.CatchUp(ctx, RingFlows) {
			t.Fatal("not caught up")
		}
		cancel()
		found := false
		for _, rec := range r.recs.all() {
			v, ok := rec.(*Verdict)
			found = found || ok && v.PID == uint32(got.PID)
		}
		if !found {
			t.Fatal("the flow's record was not handed over")
		}
	}
}

// Nor does it wait for what comes meanwhile: a sandbox that fills the ring faster
// than it is read does not keep the others' callers waiting.
func TestCatchUpDuringAFlood(t *testing.T) {
	needRoot(t)
	f, err := Open(Options{PinDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), DenialRing: 1 << 17})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Remove()
	cgroup := newCgroup(t)
	if _, err := f.AttachSandbox(cgroup, State{Sandbox: testSandbox, Policy: testPolicy}); err != nil {
		t.Fatal(err)
	}
	in := newNamespace(t).spawn(t, cgroup)
	ctx, cancel := context.WithCancel(context.Background())
	var handed atomic.Uint64
	done := make(chan error, 1)
	go func() {
		done <- f.Records(ctx, func(r Record) {
			if v, ok := r.(*Verdict); ok && !v.Allowed {
				time.Sleep(200 * time.Microsecond) // slower than the flood
				handed.Add(1)
			}
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	in.start(attempt{Op: "flood-connect", Addr: "8.8.8.8:443", N: 1 << 30})
	defer in.cmd.Process.Kill()
	for range 3 {
		for handed.Load() == 0 || lossesOf(t, f, testSandbox)[RingDenials].Kept-handed.Load() < 100 {
			time.Sleep(time.Millisecond)
		}
		kept := lossesOf(t, f, testSandbox)[RingDenials].Kept
		within, stop := context.WithTimeout(ctx, 10*time.Second)
		if !f.CatchUp(within, RingDenials) {
			t.Fatal("not caught up")
		}
		stop()
		if n := handed.Load(); n < kept {
			t.Fatalf("%d of %d records were handed over", n, kept)
		}
	}
	if c := lossesOf(t, f, testSandbox)[RingDenials]; c.Kept == handed.Load() {
		t.Error("the flood was over: nothing was shown")
	}
}
