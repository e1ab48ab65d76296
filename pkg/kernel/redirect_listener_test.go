// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever takes the ports of listeners that are gone is sent nobody.
func TestAdoptedNobodyIsSentToAStranger(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS)
	p.names("198.18.1.7:443")
	ways := []attempt{
		{Op: "tcp", Addr: "198.18.1.7:443"}, {Op: "tcp", Addr: "[::ffff:198.18.1.7]:443"}, {Op: "tcp", Addr: "9.9.9.9:53"}, {Op: "tcp", Addr: "[2001:db8::1]:53"},
		{Op: "question", Addr: "9.9.9.9:53"}, {Op: "question-connected", Addr: "9.9.9.9:53"}, {Op: "question", Addr: "[2001:db8::1]:53"},
		{Op: "question-connected", Addr: "[::ffff:9.9.9.9]:53"},
	}
	for _, a := range ways {
		if r := p.in.try(a); r.Errno != 0 {
			t.Errorf("control: %s %s: %v at %s", a.Op, a.Addr, r.Errno, r.Step)
		}
	}
	if r := p.in.try(attempt{Op: "open-udp", Addr: "9.9.9.9:53"}); r.Errno != 0 { // sent there before, and asks again later
		t.Fatal(r.Errno)
	}
	if r := p.in.try(attempt{Op: "echo"}); r.Errno == unix.EPERM {
		t.Fatalf("control: %v at %s", r.Errno, r.Step)
	}
	for _, f := range p.listening.Sockets {
		f.Close()
	}
	if r := p.gateway.try(attempt{Op: "gateway-end"}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	l := p.listening
	for host, ports := range map[string][]uint16{"127.0.0.1": {l.TCP4, l.DNSTCP4, l.DNSUDP4}, "[::1]": {l.TCP6, l.DNSTCP6, l.DNSUDP6}} {
		for _, port := range ports {
			addr := fmt.Sprintf("%s:%d", host, port)
			if r := p.beside.try(attempt{Op: "usurp", Addr: addr}); r.Errno != 0 {
				t.Fatalf("usurp %s: %v", addr, r.Errno)
			}
			if r := p.beside.try(attempt{Op: "tcp", Addr: addr}); r.Reply != "stranger" {
				t.Errorf("control: %s is not served: %q %v", addr, r.Reply, r.Errno)
			}
		}
	}
	for _, a := range ways {
		if r := p.in.try(a); r.Errno != errnoFor(unix.EACCES) {
			t.Errorf("%s %s: %q %v at %s", a.Op, a.Addr, r.Reply, r.Errno, r.Step)
		}
	}
	if r := p.in.try(attempt{Op: "echo"}); r.Errno != unix.EPERM {
		t.Errorf("a socket that was sent there before: %q %v at %s", r.Reply, r.Errno, r.Step)
	}
	find(t, p.recs, "the denial", func(v *Verdict) bool { return v.Hook == HookConnect4 && v.Reason == ReasonNoListener && !v.Allowed })
}

// What a keeper cannot take over gets out in no way, also not by one that needs
// no listener, until a keeper writes its state again.
func TestAdoptedShut(t *testing.T) {
	p := newPod(t)
	open := State{Sandbox: testSandbox, Policy: testPolicy, Generation: 3, Flags: FlagDNS | FlagDirect | FlagLoopback}
	p.adopt(open.Flags)
	fill(t, p.fence, testPolicy, "10.99.0.0/24")
	p.beside.start(attempt{Op: "serve", Addr: "127.0.0.1:8000"})
	out, local := attempt{Op: "tcp", Addr: "10.99.0.1:7000"}, attempt{Op: "tcp", Addr: "127.0.0.1:8000"}
	if r := eventually(func() result { return p.in.try(local) }); r.Errno != 0 {
		t.Fatalf("loopback, before: %v at %s", r.Errno, r.Step)
	}
	if r := p.in.try(attempt{Op: "open-tcp", Addr: "10.99.0.1:7000"}); r.Errno != 0 {
		t.Fatalf("before: %v at %s", r.Errno, r.Step)
	}
	again := openFence(t, p.fence.pin)
	defer again.Close()
	if err := again.Shut(testSandbox+1, p.box.CgroupID()); err != nil {
		t.Fatal(err)
	}
	if r := p.in.try(out); r.Errno != 0 {
		t.Errorf("another sandbox was shut: %v at %s", r.Errno, r.Step)
	}
	for range 2 { // a second keeper that cannot either
		if err := again.Shut(testSandbox, p.box.CgroupID()); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range []attempt{out, local} {
		if r := p.in.try(a); r.Errno != errnoFor(unix.EACCES) {
			t.Errorf("%s: %v at %s", a.Addr, r.Errno, r.Step)
		}
	}
	p.in.try(attempt{Op: "echo"})
	find(t, p.recs, "the packet of the open connection", func(v *Verdict) bool { return v.Hook == HookEgress && v.Reason == ReasonNoRule && !v.Allowed })
	box, err := again.TakeOverRunning(p.cgroup, testSandbox)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	if err := box.SetState(open); err != nil {
		t.Fatal(err)
	}
	if r := p.in.try(out); r.Errno != 0 {
		t.Errorf("taken over: %v at %s", r.Errno, r.Step)
	}
}

// A listener serves the sandbox it was marked for, and no other.
func TestAdoptedListenerOfAnother(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS)
	p.names("198.18.1.7:443")
	if err := p.fence.redirect.serving.Put(uint32(p.listening.Sockets[0].Fd()), uint32(testSandbox+1)); err != nil {
		t.Fatal(err)
	}
	if r := p.in.try(attempt{Op: "tcp", Addr: "198.18.1.7:443"}); r.Errno != errnoFor(unix.EACCES) {
		t.Errorf("%q %v at %s", r.Reply, r.Errno, r.Step)
	}
	if r := p.in.try(attempt{Op: "question", Addr: "9.9.9.9:53"}); r.Errno != 0 {
		t.Errorf("control: %v at %s", r.Errno, r.Step)
	}
}

// What a keeper cannot serve is sent nowhere, until one says where again.
func TestAdoptedUnredirected(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS)
	p.names("198.18.1.7:443")
	try := func(want unix.Errno) {
		t.Helper()
		for _, a := range []attempt{{Op: "tcp", Addr: "198.18.1.7:443"}, {Op: "question", Addr: "9.9.9.9:53"}} {
			if r := p.in.try(a); r.Errno != want {
				t.Errorf("%s %s: %v at %s, want %v", a.Op, a.Addr, r.Errno, r.Step, want)
			}
		}
	}
	try(0)
	again := openFence(t, p.fence.pin) // one that has loaded nothing of redirection
	defer again.Close()
	if err := again.Shut(testSandbox+1, p.box.CgroupID()); err != nil {
		t.Fatal(err)
	}
	try(0)
	if err := again.Shut(testSandbox, p.box.CgroupID()); err != nil {
		t.Fatal(err)
	}
	try(errnoFor(unix.EACCES))
	if err := errors.Join(p.box.Redirect(p.listening), p.box.SetState(p.box.State())); err != nil {
		t.Fatal(err)
	}
	try(0)
	bare := p.listening
	bare.Sockets = nil
	if err := p.box.Redirect(bare); err == nil {
		t.Error("ports without sockets were taken")
	}
}

// With inbound connections open, a raw socket from before answers nobody.
func TestAdoptedRawSegments(t *testing.T) {
	p := newPod(t)
	p.in.try(attempt{Op: "open-raw", Addr: "10.99.0.1:0"})
	const syn, ack, rst = 2, 16, 4
	all := []int{syn, ack, syn | ack, rst | ack}
	for _, flags := range all {
		if r := p.in.try(attempt{Op: "segment", Addr: "10.99.0.1:7000", N: flags}); r.Errno != 0 {
			t.Fatalf("before: flags %#x: %v at %s", flags, r.Errno, r.Step)
		}
	}
	p.adopt(FlagDNS | FlagInbound)
	for _, flags := range all {
		if r := p.in.try(attempt{Op: "segment", Addr: "10.99.0.1:7000", N: flags}); r.Errno != unix.EPERM {
			t.Errorf("flags %#x: %v at %s, want EPERM", flags, r.Errno, r.Step)
		}
	}
}

// Whoever gets the source port of a redirected connection that never arrived,
// or that has ended, is not taken for it.
func TestAdoptedPortIsUsedAgain(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS | FlagLoopback)
	p.names("198.18.1.7:443")
	to := fmt.Sprintf("127.0.0.1:%d", p.listening.TCP4)
	if r := p.in.try(attempt{Op: "from", Addr: "198.18.1.7:443", N: 20001}); !strings.HasPrefix(r.Reply, "gateway") {
		t.Fatalf("control: %q %v at %s", r.Reply, r.Errno, r.Step)
	}
	for _, c := range []*child{p.beside, p.in} {
		if r := c.try(attempt{Op: "from", Addr: to, N: 20001}); r.Reply != "" {
			t.Errorf("taken for another: %q", r.Reply)
		}
	}
	none := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K} // the listener hears nothing: the connection is given up before it arrives
	if err := unix.SetsockoptSockFprog(int(p.listening.Sockets[0].Fd()), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none}); err != nil {
		t.Fatal(err)
	}
	if r := p.in.try(attempt{Op: "from", Addr: "198.18.1.7:443", N: 20002}); r.Step != "connect" || r.Errno == 0 || r.Errno == errnoFor(unix.EACCES) {
		t.Fatalf("%q %v at %s", r.Reply, r.Errno, r.Step)
	}
	p.noFlying()
}

// socketsOf holds copies of another process's descriptors.
func (p *pod) socketsOf(pid int, fds []int) (out []*os.File) {
	p.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		p.Fatal(err)
	}
	defer unix.Close(pidfd)
	for _, fd := range fds {
		copied, err := unix.PidfdGetfd(pidfd, fd, 0)
		if err != nil {
			p.Fatal(err)
		}
		f := os.NewFile(uintptr(copied), "listener")
		p.Cleanup(func() { f.Close() })
		out = append(out, f)
	}
	return out
}
