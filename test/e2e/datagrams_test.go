// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/node"
)

// datagramWorld has servers for datagrams: each sends back what it gets, the
// small with its own name in front.
type datagramWorld struct {
	*world
	n  *node.Node
	ws string

	// from is where the last datagram to a server came from, by its name.
	from map[string]*atomic.Pointer[netip.AddrPort]
	got  map[string]*atomic.Int64
}

const (
	datagramPort = 7007
	far6         = "fd00:20::5"
)

// datagramRules is what the sandboxes of this world may send to.
const datagramRules = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: base}
scope: org:local
egress:
  - {id: a, allow: "a.test:7007/udp"}
  - {id: b, allow: "b.test:7007/udp"}
  - {id: nobody, allow: "a.test:7008/udp"}
  - {id: tcp, allow: "tcp.test:7007"}
  - {id: inside, allow: "inside.test:7007/udp"}
  - {id: admitted, allow: "admitted.test:7007/udp", resolvesTo: [10.20.0.0/16]}
  - {id: six, allow: "six.test:7007/udp", resolvesTo: ["fd00:20::/64"]}
  - {id: net, allow: "93.184.216.50/31:7007/udp"}
  - {id: net6, allow: "[fd00:20::/64]:7007/udp"}
`

func newDatagramWorld(t *testing.T) *datagramWorld {
	t.Helper()
	w := &datagramWorld{world: newWorld(t), from: map[string]*atomic.Pointer[netip.AddrPort]{}, got: map[string]*atomic.Int64{}}
	six := func(name, addr string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		return netlink.AddrAdd(l, a)
	}
	var err error
	w.far.do(func() { err = six("far", far6+"/64") })
	need(t, err)
	w.near.do(func() { err = six("near", "fd00:20::2/64") })
	need(t, err)
	for name, addr := range map[string]string{"a.test": w.address(), "b.test": w.address(), "tcp.test": w.address(), "admitted.test": privateAddr, "six.test": far6} {
		w.hosts[name] = addr
		w.serve(t, name, netip.AddrPortFrom(netip.MustParseAddr(addr), datagramPort))
	}
	w.hosts["inside.test"] = privateAddr
	w.serve(t, "literal", netip.MustParseAddrPort("93.184.216.50:7007"))
	w.serve(t, "dns", netip.MustParseAddrPort("93.184.216.50:53"))
	w.n = w.start(t, node.Options{Policies: map[string]string{"base.yaml": datagramRules}})
	w.ws = w.n.Workspace(t)
	node.BuildInto(t, w.ws, "test/e2e/testdata/datagramgo")
	return w
}

// serve answers datagrams to at.
func (w *datagramWorld) serve(t *testing.T, name string, at netip.AddrPort) {
	t.Helper()
	var c *net.UDPConn
	var err error
	w.far.do(func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)) })
	need(t, err)
	t.Cleanup(func() { c.Close() })
	from, got := &atomic.Pointer[netip.AddrPort]{}, &atomic.Int64{}
	w.from[name], w.got[name] = from, got
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, peer, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			from.Store(&peer)
			got.Add(1)
			reply := buf[:n]
			if n < 200 {
				reply = append([]byte(name+":"), reply...)
			}
			_, _ = c.WriteToUDPAddrPort(reply, peer)
		}
	}()
}

// datagramClient is the program inside; see testdata/datagramgo.
type datagramClient struct {
	*node.Talk
	t *testing.T
}

func (w *datagramWorld) client(t *testing.T, name string) *datagramClient {
	t.Helper()
	return &datagramClient{w.n.Talk(t, w.ws, "--profile", "coding", "--name", name, "--", "./datagramgo"), t}
}

// say gives one command and returns the answer.
func (c *datagramClient) say(format string, args ...any) string {
	c.t.Helper()
	command := fmt.Sprintf(format, args...)
	c.Tell(command)
	select {
	case line, ok := <-c.Lines:
		if !ok {
			c.t.Fatalf("%s: the client has ended", command)
		}
		return line
	case <-time.After(env.Wait(60 * time.Second)):
		c.t.Fatalf("%s: no answer", command)
	}
	return ""
}

// want gives a command and checks the answer; the last word may be any of those
// separated by "|".
func (c *datagramClient) want(command, answer string) string {
	c.t.Helper()
	line := c.say("%s", command)
	i := strings.LastIndexByte(answer, ' ') + 1
	for last := range strings.SplitSeq(answer[i:], "|") {
		if line == answer[:i]+last {
			return line
		}
	}
	c.t.Errorf("%s: %q, want %q", command, line, answer)
	return line
}

// where is the virtual address of a name: what an answer must come from.
func (c *datagramClient) where(name string) string {
	c.t.Helper()
	line := c.say("to where %s:%d x", name, datagramPort)
	_, from, ok := strings.Cut(line, " from ")
	if !ok || !strings.HasPrefix(line, "where said "+name+":x from 198.1") {
		c.t.Fatalf("%s: %q", name, line)
	}
	return from
}

func TestDatagrams(t *testing.T) {
	w := newDatagramWorld(t)
	c := w.client(t, "client")
	c.say("sock where udp4 -")
	a, b := c.where("a.test"), c.where("b.test")
	if a == b {
		t.Fatalf("both names are %s", a)
	}
	t.Run("connected", func(t *testing.T) {
		c.say("conn a udp4 a.test:7007")
		for i := range 3 {
			c.want(fmt.Sprintf("ask a hello%d", i), fmt.Sprintf("a said a.test:hello%d from %s", i, a))
		}
		// From the very port it sends to, as NTP and IKE do.
		c.say("sock same udp4 198.18.0.1:7007")
		c.want("to same a.test:7007 x", "same said a.test:x from "+a)
	})
	t.Run("one socket, many destinations", func(t *testing.T) {
		c.say("sock u udp4 -")
		for range 3 {
			c.want("to u "+a+" x", "u said a.test:x from "+a)
			c.want("to u "+b+" y", "u said b.test:y from "+b)
			c.want("to u 93.184.216.50:7007 z", "u said literal:z from 93.184.216.50:7007")
		}
	})
	t.Run("literal addresses", func(t *testing.T) {
		c.say("conn l4 udp4 93.184.216.50:7007")
		c.want("ask l4 x", "l4 said literal:x from 93.184.216.50:7007")
		c.say("conn l6 udp6 [%s]:7007", far6)
		c.want("ask l6 x", "l6 said six.test:x from ["+far6+"]:7007")
		c.say("sock u6 udp6 -")
		c.want("to u6 ["+far6+"]:7007 x", "u6 said six.test:x from ["+far6+"]:7007")
	})
	t.Run("names with private addresses", func(t *testing.T) {
		c.say("conn p udp4 admitted.test:7007")
		if line := c.say("ask p x"); !strings.HasPrefix(line, "p said admitted.test:x from 198.1") {
			t.Error(line)
		}
		c.say("conn six udp4 six.test:7007") // an address of IPv6 behind an IPv4 socket
		if line := c.say("ask six x"); !strings.HasPrefix(line, "six said six.test:x from 198.1") {
			t.Error(line)
		}
		before := w.got["admitted.test"].Load()
		c.say("conn inside udp4 inside.test:7007")
		c.want("ask inside x", "inside failed EHOSTUNREACH")
		if n := w.got["admitted.test"].Load(); n != before {
			t.Errorf("%d datagrams reached a private address that no rule admits", n-before)
		}
		w.n.WaitEvent(t, "the refused private address", func(e *event.Event) bool {
			return e.DstName == "inside.test" && e.Verdict == event.Denied && e.ReasonCode == "private-address" && e.Proto == "udp"
		})
	})
	t.Run("big", func(t *testing.T) {
		c.say("conn big udp4 a.test:7007")
		for _, n := range []int{1472, 1473, 9000, 65507} {
			c.want(fmt.Sprintf("big big %d", n), fmt.Sprintf("big back %d", n))
		}
		c.want("big big 65508", "big failed EMSGSIZE")
		c.say("conn big6 udp6 [%s]:7007", far6)
		c.want("big big6 65488", "big6 back 65488")
	})
	t.Run("denied", func(t *testing.T) { w.denied(t, c) })
	t.Run("nobody there", func(t *testing.T) {
		c.say("conn n udp4 a.test:7008")
		c.want("ask n x", "n failed ECONNREFUSED")
	})
	t.Run("DNS stays ours", func(t *testing.T) {
		c.say("conn dns udp4 93.184.216.50:53")
		line := c.say("ask dns 0123456789abcdef") // no question at all: an error of our resolver, not an echo
		if strings.Contains(line, "dns:") || w.got["dns"].Load() != 0 {
			t.Errorf("%q, and %d datagrams at the other server", line, w.got["dns"].Load())
		}
	})
	t.Run("records", func(t *testing.T) { w.records(t) })
}

// denied: each refusal has its control above, with the rule.
func (w *datagramWorld) denied(t *testing.T, c *datagramClient) {
	// Nothing resolves that has no rule at all; other ports and TCP's rules open
	// nothing for datagrams.
	c.want("conn d1 udp4 other.test:7007", "d1 failed name|EACCES")
	c.want("conn d2 udp4 a.test:7009", "d2 failed EACCES")
	c.want("conn d3 udp4 tcp.test:7007", "d3 failed EACCES")
	c.want("conn d4 udp4 93.184.216.52:7007", "d4 failed EACCES")
	c.want("conn d5 udp6 [fd00:21::1]:7007", "d5 failed EACCES")
	c.want("conn d6 udp4 93.184.216.50:443", "d6 failed EACCES") // QUIC
	c.say("sock du udp4 -")
	for _, dst := range []string{"93.184.216.52:7007", "93.184.216.50:443", "169.254.169.254:123", "224.0.0.251:5353"} {
		c.want("send du "+dst+" x", "du failed EACCES")
	}
	if n := w.got["tcp.test"].Load(); n != 0 {
		t.Errorf("%d datagrams reached a destination that is open for TCP", n)
	}
	e := w.n.WaitEvent(t, "the refused name", func(e *event.Event) bool {
		return e.DstName == "tcp.test" && e.Verdict == event.Denied && e.Proto == "udp"
	})
	if e.Remedy != "ringfence allow tcp.test:7007/udp" {
		t.Errorf("remedy %q", e.Remedy)
	}
	contains(t, "explain", w.n.CLI(t, "explain", e.ID).Stdout, "ringfence allow tcp.test:7007/udp", "base/tcp", "is for TCP, this is UDP")
	e = w.n.WaitEvent(t, "the refused address", func(e *event.Event) bool {
		return strings.HasPrefix(e.DstAddr, "93.184.216.52:7007") && e.Activity == "sendmsg"
	})
	if e.Remedy != "ringfence allow 93.184.216.52:7007/udp" {
		t.Errorf("remedy %q", e.Remedy)
	}
	// The remedy is what helps, and is taken back as it was given.
	if r := w.n.CLI(t, "allow", "tcp.test:7007/udp"); r.Code != 0 {
		t.Fatalf("allow: %s%s", r.Stdout, r.Stderr)
	}
	c.say("conn d3 udp4 tcp.test:7007")
	if line := c.say("ask d3 x"); !strings.HasPrefix(line, "d3 said tcp.test:x from 198.1") {
		t.Errorf("after the remedy: %q", line)
	}
	if r := w.n.CLI(t, "allow", "--remove", "tcp.test:7007/udp"); r.Code != 0 {
		t.Fatalf("allow --remove: %s%s", r.Stdout, r.Stderr)
	}
	c.want("ask d3 x", "d3 failed ECONNABORTED|EDESTADDRREQ")
}

func (w *datagramWorld) records(t *testing.T) {
	if r := w.n.CLI(t, "stop", "client"); r.Code != 0 {
		t.Fatalf("stop: %s%s", r.Stdout, r.Stderr)
	}
	e := w.n.WaitEvent(t, "the flow of the connected socket", func(e *event.Event) bool {
		return e.DstName == "a.test" && e.Activity == "reset" && e.DatagramsOut == 3 && e.BytesOut == 18
	})
	if e.Kind != event.KindNetwork || e.Verdict != event.Allowed || e.Proto != "udp" || e.DatagramsIn != 3 || e.BytesIn != 18+3*uint64(len("a.test:")) ||
		e.Rule != "base/a" || e.PeerAddr != w.hosts["a.test"]+":7007" {
		t.Errorf("%+v", e)
	}
	m := w.n.Metrics(t)
	if m[`ringfence_gateway_datagrams_total{direction="out"}`] < 20 || m["ringfence_gateway_datagram_flows"] != 0 {
		t.Errorf("out %v, flows %v", m[`ringfence_gateway_datagrams_total{direction="out"}`], m["ringfence_gateway_datagram_flows"])
	}
}

// A rule that goes ends its flows at once and no other; those of connected
// sockets and of others.
func TestRevokedDatagramFlows(t *testing.T) {
	w := newDatagramWorld(t)
	c := w.client(t, "client")
	c.say("sock where udp4 -")
	a, b := c.where("a.test"), c.where("b.test")
	c.say("conn a udp4 %s", a)
	c.say("conn b udp4 %s", b)
	c.say("sock u udp4 -")
	c.want("ask a 1", "a said a.test:1 from "+a)
	c.want("ask b 1", "b said b.test:1 from "+b)
	c.want("to u "+a+" 1", "u said a.test:1 from "+a)
	c.want("ask b 2", "b said b.test:2 from "+b)
	port := w.from["b.test"].Load().Port()
	w.n.WritePolicy(t, "gone.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: gone}\nscope: org:local\negress:\n  - {id: gone, deny: \"a.test\", mandatory: true}\n")
	w.n.WaitEvent(t, "the end of the flow", func(e *event.Event) bool {
		return e.DstName == "a.test" && e.ReasonCode == "revoked" && e.Proto == "udp" && e.Verdict == event.Denied
	})
	before := w.got["a.test"].Load()
	c.want("ask a 3", "a failed ECONNABORTED|EDESTADDRREQ")
	c.want("send u "+a+" 3", "u failed EACCES|EPERM")
	if n := w.got["a.test"].Load(); n != before {
		t.Errorf("%d datagrams arrived after the revocation", n-before)
	}
	c.want("ask b 4", "b said b.test:4 from "+b)
	c.want("to u "+b+" 4", "u said b.test:4 from "+b)
	c.want("ask b 5", "b said b.test:5 from "+b)
	if p := w.from["b.test"].Load().Port(); p != port {
		t.Errorf("the flow that is still allowed was made anew: port %d, then %d", port, p)
	}
}

// Sockets go on after the gateway or the keeper has died, without their
// programs doing anything.
func TestDatagramsAcrossRestarts(t *testing.T) {
	w := newDatagramWorld(t)
	c := w.client(t, "client")
	c.say("sock where udp4 -")
	a := c.where("a.test")
	c.say("conn a udp4 %s", a)
	c.say("sock u udp4 -")
	c.want("ask a 1", "a said a.test:1 from "+a)
	port := w.from["a.test"].Load().Port()

	w.n.KillDaemon(t)
	c.want("ask a 2", "a said a.test:2 from "+a) // the gateway serves on
	w.near.do(func() { w.n.StartDaemon(t) })
	w.n.WaitEvent(t, "the sandbox was adopted", func(e *event.Event) bool { return e.Kind == event.KindDaemon && e.Activity == "adopt" })
	c.want("ask a 3", "a said a.test:3 from "+a)
	if p := w.from["a.test"].Load().Port(); p != port {
		t.Errorf("the keeper's restart has ended the flow: port %d, then %d", port, p)
	}

	old := w.n.KillGateway(t)
	eventually(t, "another gateway", func() bool { p, ok := w.n.Gateway(t); return ok && p.PID != old.PID })
	c.want("ask a 4", "a said a.test:4 from "+a) // it waited in the socket that the keeper holds
	c.want("to u "+a+" 5", "u said a.test:5 from "+a)
	c.want("to u 93.184.216.50:7007 6", "u said literal:6 from 93.184.216.50:7007")

	w.n.KillDaemon(t)
	gw, ok := w.n.Gateway(t)
	if !ok {
		t.Fatal("no gateway")
	}
	need(t, syscall.Kill(gw.PID, syscall.SIGKILL)) // both: the sockets are opened anew
	eventually(t, "the end of the gateway", func() bool { return !gw.Alive() })
	w.near.do(func() { w.n.StartDaemon(t) })
	eventually(t, "another gateway", func() bool { _, ok := w.n.Gateway(t); return ok })
	w.n.WaitEvent(t, "the sandbox was adopted again", func(e *event.Event) bool {
		return e.Kind == event.KindDaemon && e.Activity == "adopt" && e.Time.After(time.Unix(0, 0))
	})
	eventually(t, "answers again", func() bool { return strings.HasPrefix(c.say("ask a 7"), "a said a.test:") })
}

// One sandbox has so many flows and no more, and its neighbour has its own.
func TestDatagramFlowsOfASandboxAreBounded(t *testing.T) {
	w := newDatagramWorld(t)
	c, other := w.client(t, "client"), w.client(t, "other")
	var limit unix.Rlimit
	if err := unix.Prlimit(w.n.PID(), unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	most := min(512, int(limit.Max/5/8)) // an eighth of the connections, which are a fifth of the descriptors
	if line, want := c.say("crowd 700 udp4 93.184.216.50:7007"), fmt.Sprintf("700 answered %d refused %d", most, 700-most); line != want {
		t.Errorf("%s, want %s", line, want)
	}
	e := w.n.WaitEvent(t, "the bound", func(e *event.Event) bool { return e.ReasonCode == "too-many-connections" && e.Proto == "udp" })
	if e.Verdict != event.Denied {
		t.Errorf("%+v", e)
	}
	other.say("conn a udp4 a.test:7007")
	if line := other.say("ask a x"); !strings.HasPrefix(line, "a said a.test:x from ") {
		t.Errorf("the neighbour: %s", line)
	}
}
