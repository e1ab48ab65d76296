// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
	"github.com/ringfence/ringfence/test/env"
)

// openRelays adds the listeners for datagrams, where the kernel has marks for
// them.
func (p *pod) openRelays() {
	p.Helper()
	if !env.Linux(5, 19) {
		return
	}
	r := p.gateway.try(attempt{Op: "gateway-relays"})
	words := strings.Fields(r.Reply)
	if len(words) != 4*Relays {
		p.Fatalf("relays: %+v", r)
	}
	fds := make([]int, 2*Relays)
	for i := range 2 * Relays {
		to := &p.listening.UDP4[i%Relays]
		if i >= Relays {
			to = &p.listening.UDP6[i%Relays]
		}
		if _, err := fmt.Sscan(words[i]+" "+words[2*Relays+i], to, &fds[i]); err != nil {
			p.Fatal(err)
		}
	}
	p.listening.Sockets = append(p.listening.Sockets, p.socketsOf(p.gateway.cmd.Process.Pid, fds)...)
}

// relayPod has names and addresses that are open for datagrams.
func relayPod(t *testing.T, flags Flags) *pod {
	t.Helper()
	if !env.Linux(5, 19) {
		env.Lack(t, false, "marks of datagrams (SO_RCVMARK, Linux 5.19)")
	}
	p := newPod(t)
	p.adopt(FlagDNS | flags)
	fill(t, p.fence, testPolicy, "198.18.1.7", "198.18.1.8", "192.0.2.0/24", "2001:db8:5::/64")
	return p
}

func TestAdoptedDatagrams(t *testing.T) {
	p := relayPod(t, 0)
	for _, c := range []struct{ addr, meant string }{
		{addr: "198.18.1.7:443"}, {addr: "192.0.2.7:9000"}, {addr: "[2001:db8:5::1]:9000"},
		{addr: "[::ffff:198.18.1.7]:443", meant: "198.18.1.7:443"}, {addr: "[::ffff:192.0.2.7]:9000", meant: "192.0.2.7:9000"},
	} {
		if c.meant == "" {
			c.meant = c.addr
		}
		want := fmt.Sprintf("%s gateway %s for %d: q", c.addr, c.meant, testSandbox)
		if r := p.in.try(attempt{Op: "question", Addr: c.addr}); r.Reply != want {
			t.Errorf("sendto %s: %q (%v at %s), want %q", c.addr, r.Reply, r.Errno, r.Step, want)
		}
		if r := p.in.try(attempt{Op: "question-connected", Addr: c.addr}); r.Reply != c.addr+" "+want && r.Reply != c.meant+" "+want {
			t.Errorf("connect %s: %q (%v at %s), want %q", c.addr, r.Reply, r.Errno, r.Step, want)
		}
	}
	for _, a := range []string{"198.18.1.7:444", "198.18.1.9:443", "10.99.0.1:4000", "[fd00:99::1]:4000", "[::ffff:10.99.0.1]:4000", "198.18.0.1:443"} {
		for _, op := range []string{"question", "question-connected"} {
			if r := p.in.try(attempt{Op: op, Addr: a}); r.Errno != errnoFor(unix.EACCES) {
				t.Errorf("%s %s: %q %v at %s", op, a, r.Reply, r.Errno, r.Step)
			}
		}
	}
	find(t, p.recs, "the flow", func(v *Verdict) bool {
		return v.Allowed && v.Hook == HookSendmsg4 && v.Dst.String() == "192.0.2.7:9000" && v.Reason == ReasonRule && v.PID != 0
	})
}

// One socket has several destinations at a time, and each answers under its own
// address.
func TestAdoptedDatagramsToMany(t *testing.T) {
	p := relayPod(t, 0)
	for _, form := range []string{"192.0.2.%d:9000", "[2001:db8:5::%d]:9000", "[::ffff:192.0.2.%d]:9000"} {
		var list []string
		for i := range Relays {
			list = append(list, fmt.Sprintf(form, i+1))
		}
		r := p.in.try(attempt{Op: "questions", Addr: strings.Join(list, " ")})
		if r.Errno != 0 {
			t.Fatalf("%v at %s: %q", r.Errno, r.Step, r.Reply)
		}
		lines := strings.Split(r.Reply, "\n")
		for _, a := range list {
			meant := netip.MustParseAddrPort(a)
			meant = netip.AddrPortFrom(meant.Addr().Unmap(), meant.Port())
			want := fmt.Sprintf("%s gateway %s for %d: for %s", a, meant, testSandbox, a)
			if !slices.Contains(lines, want) {
				t.Errorf("no %q in\n%s", want, r.Reply)
			}
		}
		list = append(list, fmt.Sprintf(form, Relays+1))
		if r := p.in.try(attempt{Op: "questions", Addr: strings.Join(list, " ")}); r.Errno != errnoFor(unix.EACCES) {
			t.Errorf("one more: %q %v at %s", r.Reply, r.Errno, r.Step)
		}
	}
	find(t, p.recs, "the denial", func(v *Verdict) bool { return !v.Allowed && v.Hook == HookSendmsg4 && v.Reason == ReasonTooMany })
	r := p.in.try(attempt{Op: "connect-then-sends", Addr: "192.0.2.1:9000 192.0.2.2:9000 192.0.2.3:9000"})
	if want := fmt.Sprintf("192.0.2.1:9000 gateway 192.0.2.1:9000 for %d: connected", testSandbox); r.Reply != want {
		t.Errorf("connected, and sends to others: %q %v at %s, want %q", r.Reply, r.Errno, r.Step, want)
	}
}

// A place that was silent for two minutes is another's, unless the socket is
// connected by it.
func TestAdoptedDatagramPlaceIsUsedAgain(t *testing.T) {
	p := relayPod(t, 0)
	var list []string
	for i := range Relays {
		list = append(list, fmt.Sprintf("192.0.2.%d:9000", i+1))
	}
	r := p.in.try(attempt{Op: "questions-kept", Addr: strings.Join(list, " ")})
	fd, err := strconv.Atoi(r.Reply)
	if err != nil {
		t.Fatalf("%+v", r)
	}
	const one, another = "192.0.2.100:9000", "192.0.2.101:9000"
	if r := p.in.try(attempt{Op: "question-again", Addr: one}); r.Errno != errnoFor(unix.EACCES) {
		t.Fatalf("all places are in use: %v at %s", r.Errno, r.Step)
	}
	sock := p.socketsOf(p.in.cmd.Process.Pid, []int{fd})[0]
	var places bpf.RedirectRfRelays
	silent := func(which ...int) {
		t.Helper()
		if err := p.fence.redirect.relays.Lookup(uint32(sock.Fd()), &places); err != nil {
			t.Fatal(err)
		}
		for _, i := range which {
			places.To[i].UsedNs = 1
		}
		if err := p.fence.redirect.relays.Put(uint32(sock.Fd()), places); err != nil {
			t.Fatal(err)
		}
	}
	silent(0, 5)
	before := places.To[5].Number
	if r := p.in.try(attempt{Op: "question-again", Addr: one}); r.Errno != 0 {
		t.Fatalf("a silent place: %v at %s", r.Errno, r.Step)
	}
	silent()
	if now := places.To[5]; now.Number == before || now.Taken != 0 || netip.AddrFrom16(now.Asked.Addr).Unmap().String() != "192.0.2.100" {
		t.Errorf("the silent place: %+v", now)
	}
	if slices.Contains(p.numbers(), before) {
		t.Error("the number from before stands for something")
	}
	silent(0)
	if r := p.in.try(attempt{Op: "question-again", Addr: another}); r.Errno != errnoFor(unix.EACCES) {
		t.Errorf("only the connected place is silent: %v at %s", r.Errno, r.Step)
	}
	if r := p.in.try(attempt{Op: "say"}); r.Errno != 0 || !strings.HasPrefix(r.Reply, "gateway 192.0.2.1:9000 ") {
		t.Errorf("connected: %q %v at %s", r.Reply, r.Errno, r.Step)
	}
}

// What is sent in parts, or as several at once, goes where it was addressed.
func TestAdoptedDatagramsInParts(t *testing.T) {
	p := relayPod(t, 0)
	for _, to := range []string{"192.0.2.7:9000", "[2001:db8:5::1]:9000"} {
		r := p.in.try(attempt{Op: "question-segments", Addr: to})
		for _, say := range []string{"aaaa", "bbbb", "cc"} {
			if want := fmt.Sprintf("%s gateway %s for %d: %s", to, to, testSandbox, say); !slices.Contains(strings.Split(r.Reply, "\n"), want) {
				t.Errorf("segments: no %q in %q (%v at %s)", want, r.Reply, r.Errno, r.Step)
			}
		}
	}
	r := p.in.try(attempt{Op: "question-corked", Addr: "192.0.2.7:9000 192.0.2.8:9000"})
	if want := fmt.Sprintf("192.0.2.7:9000 gateway 192.0.2.7:9000 for %d: begun and ended", testSandbox); r.Reply != want {
		t.Errorf("corked: %q (%v at %s), want %q", r.Reply, r.Errno, r.Step, want)
	}
}

// Who cannot have an answer is told so.
func TestAdoptedDatagramsOfBoundSockets(t *testing.T) {
	p := relayPod(t, 0)
	const to = "192.0.2.7:9000"
	for _, a := range []string{to, "9.9.9.9:53"} {
		for op, want := range map[string]unix.Errno{
			"question-bound": errnoFor(unix.EACCES), "question-device": errnoFor(unix.EACCES), "question-source": unix.EPERM, "question": 0,
		} {
			if r := p.in.try(attempt{Op: op, Addr: a}); r.Errno != want {
				t.Errorf("%s %s: %q %v at %s, want %v", op, a, r.Reply, r.Errno, r.Step, want)
			}
		}
	}
	for _, h := range []Hook{HookSendmsg4, HookEgress} {
		find(t, p.recs, "the denial", func(v *Verdict) bool { return !v.Allowed && v.Hook == h && v.Reason == ReasonBound })
	}
}

// Answers reach the socket that asked, or nobody.
func TestAdoptedDatagramsOfASharedPort(t *testing.T) {
	p := relayPod(t, 0)
	for i := range 8 { // the kernel chooses one of the two by a hash
		if r := p.in.try(attempt{Op: "question-shared", Addr: "192.0.2.7:9000", N: 21000 + i}); r.Errno != 0 && r.Errno != unix.EAGAIN {
			t.Errorf("%q %v at %s", r.Reply, r.Errno, r.Step)
		}
	}
}

// Whoever else lives in the namespace, or has the source port of a socket that
// asked, gets nothing and is not served.
func TestRelaysServeNobodyElse(t *testing.T) {
	p := relayPod(t, FlagLoopback)
	const to = "192.0.2.7:9000"
	if r := p.in.try(attempt{Op: "open-udp", Addr: to}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	if r := p.in.try(attempt{Op: "say"}); !strings.HasPrefix(r.Reply, "gateway "+to) {
		t.Fatalf("control: %q %v at %s", r.Reply, r.Errno, r.Step)
	}
	before := p.gateway.try(attempt{Op: "gateway-heard"}).Reply
	for _, who := range []*child{p.beside, p.in} {
		for i := range Relays {
			for _, addr := range []string{fmt.Sprintf("127.0.0.1:%d", p.listening.UDP4[i]), fmt.Sprintf("[::1]:%d", p.listening.UDP6[i])} {
				if r := who.try(attempt{Op: "udp-sendto", Addr: addr}); r.Errno != 0 {
					t.Errorf("a datagram to the listener %s: %q %v at %s", addr, r.Reply, r.Errno, r.Step)
				}
			}
		}
		if r := who.try(attempt{Op: "question", Addr: fmt.Sprintf("127.0.0.1:%d", p.listening.UDP4[0])}); r.Errno != unix.EAGAIN {
			t.Errorf("%q %v at %s", r.Reply, r.Errno, r.Step)
		}
	}
	if r := p.in.try(attempt{Op: "fenced"}); r.Reply != fmt.Sprint(testSandbox) {
		t.Errorf("control: %q", r.Reply)
	}
	for _, number := range p.numbers() {
		for _, port := range p.listening.UDP4[:2] { // the first one is its listener's
			if r := p.in.try(attempt{Op: "numbered", Addr: fmt.Sprintf("127.0.0.1:%d", port), N: int(number)}); r.Errno != unix.EAGAIN {
				t.Errorf("with another's number: %q %v at %s", r.Reply, r.Errno, r.Step)
			}
		}
		if r := p.in.try(attempt{Op: "ask-number", N: int(number)}); r.Errno == 0 {
			t.Errorf("an adopted process is told about a number: %q %v", r.Reply, r.Errno)
		}
	}
	if now := p.gateway.try(attempt{Op: "gateway-heard"}).Reply; now != before || before != "1" {
		t.Errorf("the gateway heard %s datagrams, before %s", now, before)
	}
}

// numbers are those that stand for something.
func (p *pod) numbers() []uint32 {
	p.Helper()
	n, err := keysWhere(p.fence.redirect.relayed, func(*uint32, *bpf.RedirectRfRelay) bool { return true })
	if err != nil || len(n) == 0 {
		p.Fatalf("numbers: %v, %v", n, err)
	}
	return n
}

// An answer that comes late does not go to who has the port by then: a process
// beside, one of the same cgroup that never asked, one that has asked something
// by the same listener, which the gateway does not know yet.
func TestAdoptedLateAnswers(t *testing.T) {
	p := relayPod(t, FlagLoopback)
	const port = 22000
	ask := attempt{Op: "question-port", Addr: "192.0.2.7:9000", N: port}
	for _, next := range []struct {
		who  *child
		asks string
	}{{p.beside, ""}, {p.in, ""}, {p.in, "192.0.2.8:9000"}} {
		if r := p.in.try(ask); r.Errno != 0 {
			t.Fatal(r.Errno, r.Step)
		}
		if r := next.who.try(attempt{Op: "silent-port", N: port, Addr: next.asks}); r.Errno != 0 {
			t.Fatal(r.Errno, r.Step)
		}
		if r := p.gateway.try(attempt{Op: "gateway-late"}); r.Errno != unix.EPERM {
			t.Errorf("a late answer, %q asked: %q %v", next.asks, r.Reply, r.Errno)
		}
		if r := next.who.try(attempt{Op: "await"}); r.Errno != unix.EAGAIN {
			t.Errorf("an answer came, %q asked: %q %v at %s", next.asks, r.Reply, r.Errno, r.Step)
		}
		if r := next.who.try(attempt{Op: "drop-port"}); r.Errno != 0 {
			t.Fatal(r.Errno, r.Step)
		}
	}
	if r := p.in.try(attempt{Op: "later-port", Addr: ask.Addr, N: port}); r.Errno != 0 {
		t.Fatal(r.Errno, r.Step)
	}
	if r := p.gateway.try(attempt{Op: "gateway-late"}); r.Reply != "1 <nil>" {
		t.Errorf("control: %q %v", r.Reply, r.Errno)
	}
	if r := p.in.try(attempt{Op: "await"}); !strings.HasPrefix(r.Reply, "gateway") {
		t.Errorf("control: %q %v at %s", r.Reply, r.Errno, r.Step)
	}
}

// A raw socket in the namespace, of somebody who is not fenced, takes no part
// in another's flow, though it can write the source port.
func TestAdoptedDatagramsForged(t *testing.T) {
	p := relayPod(t, 0)
	const port = 23000
	if r := p.in.try(attempt{Op: "later-port", Addr: "192.0.2.7:9000", N: port}); r.Errno != 0 {
		t.Fatal(r.Errno, r.Step)
	}
	if r := p.gateway.try(attempt{Op: "gateway-late"}); r.Reply != "1 <nil>" {
		t.Fatalf("control: %q %v", r.Reply, r.Errno)
	}
	if r := p.in.try(attempt{Op: "await"}); !strings.HasPrefix(r.Reply, "gateway") {
		t.Fatalf("control: %q %v at %s", r.Reply, r.Errno, r.Step)
	}
	for _, to := range p.listening.UDP4 {
		if r := p.beside.try(attempt{Op: "forge", Addr: fmt.Sprintf("127.0.0.1:%d", to), N: port}); r.Errno != 0 {
			t.Fatal(r.Errno, r.Step)
		}
	}
	if r := p.in.try(attempt{Op: "await"}); r.Errno != unix.EAGAIN {
		t.Errorf("a forged datagram was served: %q %v", r.Reply, r.Errno)
	}
}

// Each datagram is judged on the policy of its moment, and none goes to whoever
// has the listener's port.
func TestAdoptedDatagramsRevoked(t *testing.T) {
	p := relayPod(t, 0)
	const to = "192.0.2.7:9000"
	if r := p.in.try(attempt{Op: "open-udp", Addr: to}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	if r := p.in.try(attempt{Op: "say"}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	st := p.box.State()
	st.Policy++
	if err := p.box.SetState(st); err != nil {
		t.Fatal(err)
	}
	if r := p.in.try(attempt{Op: "say"}); r.Errno != unix.EPERM {
		t.Errorf("after the switch: %q %v at %s", r.Reply, r.Errno, r.Step)
	}
	st.Policy--
	if err := p.box.SetState(st); err != nil {
		t.Fatal(err)
	}
	if r := p.in.try(attempt{Op: "say"}); r.Errno != 0 {
		t.Errorf("control: %v at %s", r.Errno, r.Step)
	}
	for _, f := range p.listening.Sockets {
		f.Close()
	}
	if r := p.gateway.try(attempt{Op: "gateway-end"}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	for _, port := range p.listening.UDP4 {
		if r := p.beside.try(attempt{Op: "usurp", Addr: fmt.Sprintf("127.0.0.1:%d", port)}); r.Errno != 0 {
			t.Fatal(r.Errno)
		}
	}
	if r := p.in.try(attempt{Op: "say"}); r.Errno != unix.EPERM {
		t.Errorf("to a stranger: %q %v at %s", r.Reply, r.Errno, r.Step)
	}
	if r := p.in.try(attempt{Op: "question", Addr: to}); r.Errno != errnoFor(unix.EACCES) {
		t.Errorf("to a stranger: %q %v at %s", r.Reply, r.Errno, r.Step)
	}
}

// Where the gateway relays no datagrams they are refused, and it is said why.
func TestAdoptedWithoutRelays(t *testing.T) {
	p := relayPod(t, 0)
	if r := p.in.try(attempt{Op: "question", Addr: "192.0.2.7:9000"}); r.Errno != 0 {
		t.Fatalf("control: %v at %s", r.Errno, r.Step)
	}
	p.listening.UDP4, p.listening.UDP6 = [Relays]uint16{}, [Relays]uint16{}
	if err := p.box.Redirect(p.listening); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"192.0.2.7:9000", "[2001:db8:5::1]:9000"} {
		if r := p.in.try(attempt{Op: "question", Addr: a}); r.Errno != errnoFor(unix.EACCES) {
			t.Errorf("%s: %q %v at %s", a, r.Reply, r.Errno, r.Step)
		}
	}
	find(t, p.recs, "the denial", func(v *Verdict) bool { return !v.Allowed && v.Reason == ReasonNoRelay })
	if r := p.in.try(attempt{Op: "question", Addr: "9.9.9.9:53"}); r.Errno != 0 {
		t.Errorf("DNS: %v at %s", r.Errno, r.Step)
	}
}
