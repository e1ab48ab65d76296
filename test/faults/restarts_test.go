// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// restarts is how many there are; RINGFENCE_RESTARTS says otherwise (see
// `make test-restarts`).
func restarts() int {
	if n, err := strconv.Atoi(os.Getenv("RINGFENCE_RESTARTS")); err == nil && n > 0 {
		return n
	}
	return 20
}

// sink counts datagrams at every address of this machine.
type sink struct {
	conn   *net.UDPConn
	n      atomic.Int64
	probed int64
}

func newSink(t *testing.T, own netip.Addr) *sink {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{conn: c}
	t.Cleanup(func() { c.Close() })
	go func() {
		for b := make([]byte, 64); ; {
			if _, _, err := c.ReadFrom(b); err != nil {
				return
			}
			s.n.Add(1)
		}
	}()
	out, err := net.Dial("udp", netip.AddrPortFrom(own, s.port()).String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	eventually(t, "control: a datagram from outside a sandbox arrives", func() bool {
		_, err := out.Write([]byte("control"))
		s.probed++
		return err == nil && s.n.Load() > 0
	})
	return s
}

func (s *sink) port() uint16 { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// flooded are the names of the attempts of floods, a thousand a second each.
var flooded = []string{"flood", "datagrams", "flood6"}

// floods are denied attempts. On a machine that has no address but loopback,
// which inside is the sandbox's own, they are towards nobody.
func (w *world) floods(s *sink) []string {
	to := w.own
	if to.IsLoopback() {
		to = netip.MustParseAddr("203.0.113.9")
	}
	return []string{
		fmt.Sprintf("flood:flood:%s:%d", to, port(w.forbid.Addr())),
		fmt.Sprintf("datagrams:datagrams:%s:%d", to, s.port()),
		fmt.Sprintf("flood:flood6:[2001:db8::1]:%d", port(w.forbid.Addr())),
	}
}

// noneSucceeded fails the test if one of the flooding attempts got anywhere.
func noneSucceeded(t *testing.T, l *load, s *sink) {
	t.Helper()
	noneOf(t, l, s, flooded)
}

// TestRestarts restarts and upgrades the keeper under load, then the gateway,
// then both.
func TestRestarts(t *testing.T) {
	w := newWorld(t)
	s := newSink(t, w.own)
	n := node.Start(t, w.options())
	builds := []string{n.Daemon, node.Another(t, "other")}
	attempts := append(append(w.allowed(), fmt.Sprintf("stream:stream:echo.example:%d", w.echoPort)), w.floods(s)...)
	l := startLoad(t, n, "agent", append(attempts, w.denied()...)...)
	l.more(t, nil, 3, "echo", "web", "llm", "stream")
	l.tried(t, nil, 10, flooded...)
	was := standing(t, n)
	gateway, before, began := must(n.Gateway(t)), l.counts(t), time.Now()

	for i := range restarts() {
		if i%2 == 0 {
			n.KillDaemon(t)
		} else {
			n.StopDaemon(t, syscall.SIGTERM)
		}
		if i%4 >= 2 {
			n.Daemon = builds[(i/4+1)%2] // an upgrade, or the way back: only the build differs
		}
		if i%10 == 9 {
			l.tried(t, l.counts(t), 300, flooded...) // away for longer
		}
		since := l.counts(t)
		n.StartDaemon(t)
		l.more(t, since, 1, "echo", "stream")
		l.tried(t, since, 20, flooded...)
		if t.Failed() {
			t.Fatalf("restart %d", i)
		}
	}
	after := l.counts(t)
	if a, b := after["stream"], before["stream"]; a.Fail != b.Fail {
		t.Errorf("a long-lived stream broke %d times: %s", a.Fail-b.Fail, a.Last)
	}
	if now := must(n.Gateway(t)); now != gateway {
		t.Errorf("the gateway was replaced: %v, was %v", now, gateway)
	}
	was.still(t, n)
	noneSucceeded(t, l, s)
	w.nothingPassed(t, l)
	report(t, "keeper restarts", restarts(), before, after, time.Since(began))

	kills := max(3, restarts()/10)
	began, before = time.Now(), after
	for i := range kills {
		since := l.counts(t)
		if i%3 == 2 { // both
			gw := must(n.Gateway(t))
			n.KillDaemon(t)
			if err := syscall.Kill(gw.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			l.tried(t, since, 20, flooded...)
			n.StartDaemon(t)
		} else {
			n.KillGateway(t)
		}
		l.more(t, since, 2, "echo", "web", "llm", "stream")
		l.tried(t, since, 20, flooded...)
	}
	was.listeners = nil // both at once: they are opened again
	was.still(t, n)
	noneSucceeded(t, l, s)
	w.nothingPassed(t, l)
	report(t, "gateway kills", kills, before, l.counts(t), time.Since(began))
	if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
		t.Errorf("audit verify: %s%s", v.Stdout, v.Stderr)
	}
}

func report(t *testing.T, what string, n int, before, after map[string]count, d time.Duration) {
	line := fmt.Sprintf("%d %s in %s:", n, what, d.Round(time.Second))
	for _, k := range append([]string{"echo", "web", "llm", "stream"}, flooded...) {
		line += fmt.Sprintf(" %s %d ok %d refused;", k, after[k].OK-before[k].OK, after[k].Fail-before[k].Fail)
	}
	t.Log(line)
}

// what must be the same after restarts.
type unchanged struct {
	id        string
	pid       int
	addr      string
	listeners []uint64 // nil: not compared
}

func standing(t *testing.T, n *node.Node) *unchanged {
	t.Helper()
	sb := n.Sandbox(t, "agent")
	return &unchanged{sb.ID, sb.PID, resolved(t, n, "agent", "echo.example"), cookies(t, n, sb.ID)}
}

func (u *unchanged) still(t *testing.T, n *node.Node) {
	t.Helper()
	checkAdopted(t, n, "agent", u.id, u.pid)
	if now := resolved(t, n, "agent", "echo.example"); now != u.addr {
		t.Errorf("echo.example has the address %s now, had %s", now, u.addr)
	}
	if now := cookies(t, n, u.id); u.listeners != nil && fmt.Sprint(now) != fmt.Sprint(u.listeners) {
		t.Errorf("the listeners are %v, were %v", now, u.listeners)
	}
}

// What the kernel's rings lose while nobody reads them is told, each loss once.
func TestLossesAreTold(t *testing.T) {
	w := newWorld(t)
	n := node.Start(t, w.options())
	l := startLoad(t, n, "agent", fmt.Sprintf("blast:blast:%s:%d", w.own, port(w.forbid.Addr())))
	blast := func(times int64) {
		t.Helper()
		before := l.counts(t)["blast"]
		tmp := filepath.Join(l.ws, ".go")
		if err := os.WriteFile(tmp, fmt.Appendln(nil, times), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(l.ws, "blast.go")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "all attempts are made", func() bool { return l.counts(t)["blast"].Fail >= before.Fail+times })
	}
	blast(100)
	n.WaitEvent(t, "a denial", func(e *event.Event) bool { return e.Verdict == event.Denied })
	if told := lost(t, n); len(told) > 0 {
		t.Fatalf("control: nothing was lost yet, and is told: %v", told)
	}
	for round := range 2 {
		n.KillDaemon(t)
		blast(200_000)
		n.StartDaemon(t)
		eventually(t, "what was lost is told", func() bool {
			m, told := n.Metrics(t), lost(t, n)
			full := uint64(m[`ringfence_bpf_records_lost_total{reason="full",ring="denials"}`])
			throttled := uint64(m[`ringfence_bpf_records_lost_total{reason="throttled",ring="denials"}`])
			return full+throttled > 0 && told["full"] == full && told["throttled"] == throttled
		})
		t.Logf("round %d: %v", round, lost(t, n))
	}
	told := lost(t, n)
	for range 2 {
		n.StopDaemon(t, syscall.SIGTERM)
		n.StartDaemon(t)
	}
	time.Sleep(100 * time.Millisecond) // the first look is at the start
	if now := lost(t, n); fmt.Sprint(now) != fmt.Sprint(told) {
		t.Errorf("told again after a restart: %v, was %v", now, told)
	}
	if c := l.counts(t)["blast"]; c.OK != 0 {
		t.Errorf("%d attempts succeeded", c.OK)
	}
	if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
		t.Errorf("audit verify: %s%s", v.Stdout, v.Stderr)
	}
}

// lost sums the gap events of the kernel's records by reason.
func lost(t *testing.T, n *node.Node) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	for _, e := range n.Events(t) {
		if e.Kind == event.KindLoss && e.Object == "denials ring" {
			out[e.ReasonCode] += e.Lost
		}
	}
	return out
}
