// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/env"
)

// redirectedRig is a rig with one listener of a namespace that is not ours. What
// the kernel's programs do, pkg/kernel tests: here a client gives its datagrams
// their number itself, and a table tells what it stands for.
type redirectedRig struct {
	*rig
	at   *net.UDPAddr
	s    *redirectedSocket
	done chan struct{} // its reader has ended

	mu    sync.Mutex
	meant map[uint32]origin
	asked []uint32
	onAsk func(number uint32)
}

func newRedirectedRig(t *testing.T, l Limits) *redirectedRig {
	t.Helper()
	r := &redirectedRig{rig: newDatagramRig(t, l), meant: map[uint32]origin{}}
	var c *net.UDPConn
	var err error
	r.ns.do(func() { c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}) })
	if err != nil {
		t.Fatal(err)
	}
	r.at = c.LocalAddr().(*net.UDPAddr)
	if err := setMark(c, unix.SO_RCVMARK, 1); err != nil {
		env.Lack(t, false, "marks of datagrams (SO_RCVMARK, Linux 5.19): "+err.Error())
	}
	r.g.mu.Lock()
	sb := r.g.sandboxes[1]
	r.g.mu.Unlock()
	if r.s, err = newRedirectedSocket(c, 1); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.s.ask(soRelayed | 1); ok {
		t.Error("a kernel without the programs knows a number")
	}
	r.s.ask = r.ask
	r.done = make(chan struct{})
	go func() { defer close(r.done); sb.relayRedirected(r.s) }()
	t.Cleanup(func() { c.Close(); <-r.done })
	return r
}

func (r *redirectedRig) ask(number uint32) (origin, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, number)
	if r.onAsk != nil {
		r.onAsk(number)
	}
	o, ok := r.meant[number]
	return o, ok
}

// knows makes a number stand for the address of a name.
func (r *redirectedRig) knows(number uint32, dst netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meant[number] = origin{dst, 77}
}

func setMark(c *net.UDPConn, option, value int) (err error) {
	raw, rerr := c.SyscallConn()
	if rerr != nil {
		return rerr
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, value) })
	return errors.Join(err, cerr)
}

// from is a client's socket at local that sends datagrams of that number.
func (r *redirectedRig) from(local string, number uint32) *net.UDPConn {
	r.tb.Helper()
	c := r.udp("udp4", local, r.at.String())
	if err := setMark(c, unix.SO_MARK, int(number)); err != nil {
		r.tb.Fatal(err)
	}
	return c
}

func TestRedirectedDatagrams(t *testing.T) {
	r := newRedirectedRig(t, Limits{})
	r.answers("a.test", datagramPort)
	peers := r.answers("b.test", datagramPort)
	a := r.virtual("a.test")
	r.knows(soRelayed|1, a)
	r.knows(soRelayed|3, r.virtual("tcp.test"))
	c := r.from("", soRelayed|1)
	for _, say := range []string{"1", "2"} {
		if got, err := askOnce(c, say); got != "a.test "+say {
			t.Errorf("%q, %v", got, err)
		}
	}
	r.mu.Lock()
	if len(r.asked) != 1 {
		t.Errorf("the kernel was asked about %x", r.asked)
	}
	r.mu.Unlock()
	for what, number := range map[string]uint32{"no number": 0, "a mark that is none": 77, "one that the kernel does not know": soRelayed | 2, "to what policy refuses": soRelayed | 3} {
		s := r.from("", number)
		_ = s.SetDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d bytes came, %v", what, n, err)
		}
	}
	r.event("the refusal", func(e *event.Event) bool { return e.DstName == "tcp.test" && e.Verdict == event.Denied && e.PID == 77 })
	if n := r.lost(lostStray); n != 3 {
		t.Errorf("%v stray datagrams", n)
	}
	if len(peers) != 0 {
		t.Errorf("%d datagrams came out elsewhere", len(peers))
	}
}

// Who has the port next gets nothing of what it stood for before: that has ended
// when the kernel is asked, and only from then on the kernel lets answers through.
func TestRedirectedPortIsUsedAgain(t *testing.T) {
	r := newRedirectedRig(t, Limits{})
	first := r.answers("a.test", datagramPort)
	r.answers("b.test", datagramPort)
	a, b := r.virtual("a.test"), r.virtual("b.test")
	r.knows(soRelayed|1, a)
	r.knows(soRelayed|2, b)
	const local = "127.0.0.1:31000"
	c := r.from(local, soRelayed|1)
	if got, err := askOnce(c, "1"); got != "a.test 1" {
		t.Fatalf("%q, %v", got, err)
	}
	old := <-first
	c.Close()
	r.mu.Lock()
	r.onAsk = func(number uint32) {
		if number == soRelayed|2 && r.open(a) {
			t.Error("the flow from before is open when the kernel is asked about the next")
		}
	}
	r.mu.Unlock()
	next := r.from(local, soRelayed|2)
	if got, err := askOnce(next, "2"); got != "b.test 2" {
		t.Errorf("%q, %v", got, err)
	}
	lateAnswer, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.host("a.test"), 0)), net.UDPAddrFromAddrPort(old))
	if err != nil {
		t.Fatal(err)
	}
	defer lateAnswer.Close()
	_, _ = lateAnswer.Write([]byte("late"))
	if got, err := askOnce(next, "3"); got != "b.test 3" {
		t.Errorf("%q, %v", got, err)
	}
	ev := r.event("the end of the first", func(e *event.Event) bool { return e.ReasonCode == codeReplaced })
	if ev.DstName != "a.test" || ev.Verdict != event.Allowed || ev.DatagramsIn != 1 || ev.SrcAddr != local {
		t.Errorf("%+v", ev)
	}
}

// open says whether an association with a destination takes datagrams.
func (r *redirectedRig) open(dst netip.AddrPort) bool {
	r.g.mu.Lock()
	sb := r.g.sandboxes[1]
	r.g.mu.Unlock()
	for _, a := range sb.associations.all() {
		if a.key.dst == dst && !a.isOver() {
			return true
		}
	}
	return false
}

// Flows are bounded and end when they are silent, and so is what is known of
// clients.
func TestRedirectedFlowsAreBounded(t *testing.T) {
	r := newRedirectedRig(t, Limits{SandboxDatagrams: 3, DatagramIdle: 300 * time.Millisecond})
	r.answers("a.test", datagramPort)
	a := r.virtual("a.test")
	for round := range 5 {
		var conns []*net.UDPConn
		for i := range 3 {
			number := uint32(soRelayed | round<<8 | i)
			r.knows(number, a)
			conns = append(conns, r.from("", number))
			if got, err := askOnce(conns[i], "1"); got != "a.test 1" {
				t.Fatalf("%q, %v", got, err)
			}
		}
		number := uint32(soRelayed | round<<8 | 3)
		r.knows(number, a)
		fourth := r.from("", number)
		if _, err := fourth.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		r.denied(codeConnections)
		r.until("silent flows end", func() bool { return r.flows() == 0 })
		if got, err := askOnce(fourth, "2"); got != "a.test 2" {
			t.Errorf("once there is room: %q, %v", got, err)
		}
		r.until("silent flows end", func() bool { return r.flows() == 0 })
	}
	r.s.stop()
	<-r.done
	if n := len(r.s.clients); n > 2*3 {
		t.Errorf("%d clients are known", n)
	}
}
