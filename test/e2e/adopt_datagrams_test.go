// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/node"
)

// askUDP asks by a connected socket, and says whom the kernel names and what it
// answers; "each" asks every address of a list by one that is not connected.
func (o order) askUDP() (string, error) {
	if o.Op == "ask-udp-each" {
		return askEach(strings.Fields(o.Arg))
	}
	c := keptConns[o.Arg]
	if o.Op != "kept-udp" {
		var err error
		if c, err = (&net.Dialer{Resolver: &net.Resolver{PreferGo: true}}).Dial("udp", o.Arg); err != nil {
			return "", err
		}
		keptConns[o.Arg] = c
	}
	if o.Op == "ask-udp" {
		defer c.Close()
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "x"); err != nil {
		return "", err
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	return c.RemoteAddr().String() + " " + string(buf[:n]), err
}

func askEach(list []string) (string, error) {
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	for _, to := range list {
		a, err := net.ResolveUDPAddr("udp4", to)
		if err != nil {
			return "", err
		}
		if _, err := c.WriteToUDP([]byte("for "+to), a); err != nil {
			return "", err
		}
	}
	var lines []string
	buf := make([]byte, 512)
	for range list {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return strings.Join(lines, "\n"), err
		}
		lines = append(lines, from.String()+" "+string(buf[:n]))
	}
	return strings.Join(lines, "\n"), nil
}

const adoptDatagramRules = adoptPolicy + `  - {id: time, allow: "time.test:7007/udp"}
  - {id: inside, allow: "inside.test:7007/udp"}
  - {id: seven, allow: "10.20.0.0/16:7007/udp"}
  - {id: eight, allow: "10.20.0.0/16:7008/udp"}
  - {id: nine, allow: "10.20.0.0/16:7009/udp"}
`

// newDatagramAdopted is an adopted program in a world with servers for datagrams
// on four ports of a private address, and one behind a name.
func newDatagramAdopted(t *testing.T, flags ...string) *adopted {
	t.Helper()
	if !env.Linux(5, 19) {
		env.Lack(t, false, "marks of datagrams (SO_RCVMARK, Linux 5.19)")
	}
	w := newWorld(t)
	readable(t, w.roots)
	r := &adopted{world: w}
	w.hosts["time.test"], w.hosts["inside.test"] = w.address(), privateAddr
	r.echo(t, netip.AddrPortFrom(netip.MustParseAddr(w.hosts["time.test"]), 7007))
	for port := uint16(7007); port <= 7010; port++ {
		r.echo(t, netip.AddrPortFrom(netip.MustParseAddr(privateAddr), port))
	}
	r.a = startAdoptee(t, w, w.newPod(t), newCgroup(t))
	r.n = w.start(t, node.Options{Policies: map[string]string{"shop.yaml": adoptDatagramRules}})
	r.gives(t, "ask-udp", privateAddr+":7010", "7010 heard x from "+podAddr) // the control of every denial
	if res := r.adopt(t, flags...); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	return r
}

// echo answers datagrams with its port, what it heard, and from where.
func (r *adopted) echo(t *testing.T, at netip.AddrPort) {
	t.Helper()
	var c *net.UDPConn
	var err error
	r.far.do(func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)) })
	need(t, err)
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(fmt.Appendf(nil, "%d heard %s from %s", at.Port(), buf[:n], from.Addr().Unmap()), from)
		}
	}()
}

func TestAdoptDatagrams(t *testing.T) {
	r := newDatagramAdopted(t)
	const through = " from 10.20.0.2" // the gateway's address
	inside := privateAddr + ":7007"
	text, err := r.a.do("ask-udp", "time.test:7007")
	if err != nil || !strings.HasPrefix(text, "198.1") || !strings.Contains(text, ":7007 7007 heard x from ") || strings.HasSuffix(text, podAddr) {
		t.Errorf("by name: %q, %v", text, err)
	}
	r.gives(t, "ask-udp", inside, inside+" 7007 heard x"+through)
	r.denied(t, "ask-udp", privateAddr+":7010")
	r.denied(t, "ask-udp", "10.21.0.1:7007")
	r.denied(t, "ask-udp", "127.0.0.1:7007")
	r.denied(t, "ask-udp-each", inside+" "+privateAddr+":7010")

	// One socket, several destinations: each answers under its own address.
	list := []string{inside, privateAddr + ":7008", privateAddr + ":7009"}
	text, err = r.a.do("ask-udp-each", strings.Join(list, " "))
	lines := strings.Split(text, "\n")
	for _, a := range list {
		if want := fmt.Sprintf("%s %s heard for %s%s", a, a[len(a)-4:], a, through); err != nil || !slices.Contains(lines, want) {
			t.Errorf("%q is not among %q, %v", want, lines, err)
		}
	}

	pid := uint32(r.a.cmd.Process.Pid)
	r.n.WaitEvent(t, "the question to the resolver, with its process", func(e *event.Event) bool {
		return e.Kind == event.KindDNS && e.DstName == "time.test" && e.Source == "gateway" && e.PID == pid && e.Comm != ""
	})
	r.n.WaitEvent(t, "the denial", func(e *event.Event) bool {
		return e.Verdict == event.Denied && e.Proto == "udp" && e.DstAddr == privateAddr+":7010" && e.PID == pid
	})
	// A private address that no rule admits for the name: told in the record alone.
	if text, err := r.a.do("ask-udp", "inside.test:7007"); err == nil {
		t.Errorf("a private address by name: %q", text)
	}
	r.n.WaitEvent(t, "the refused private address", func(e *event.Event) bool {
		return e.Verdict == event.Denied && e.DstName == "inside.test" && e.Proto == "udp" && e.PID == pid && e.Source == "gateway"
	})
	if s := r.n.CLI(t, "release", "shop"); s.Code != 0 {
		t.Fatalf("release: %s", s.Stderr)
	}
	r.gives(t, "ask-udp", privateAddr+":7010", "from "+podAddr)
	r.n.WaitEvent(t, "the flow by address", func(e *event.Event) bool {
		return e.Verdict == event.Allowed && e.Source == "gateway" && e.Proto == "udp" && e.DstAddr == inside && e.DatagramsIn > 0 && e.PID == pid && e.Comm != ""
	})
}

func TestAdoptDatagramsDirect(t *testing.T) {
	r := newDatagramAdopted(t, "--direct")
	r.gives(t, "ask-udp", privateAddr+":7007", "7007 heard x from "+podAddr)
	if text, err := r.a.do("ask-udp", "time.test:7007"); err != nil || strings.HasSuffix(text, podAddr) { // a name goes through the gateway all the same
		t.Errorf("by name: %q, %v", text, err)
	}
	r.denied(t, "ask-udp", privateAddr+":7010")
}

// A flow that is not allowed any more ends; others and the keeper's end do not
// touch it.
func TestAdoptDatagramsLast(t *testing.T) {
	r := newDatagramAdopted(t)
	kept, other := privateAddr+":7007", privateAddr+":7008"
	r.gives(t, "keep-udp", kept, "7007 heard")
	r.gives(t, "keep-udp", other, "7008 heard")
	r.n.KillDaemon(t)
	r.gives(t, "kept-udp", kept, "7007 heard")
	r.near.do(func() { r.n.StartDaemon(t) })
	r.gives(t, "kept-udp", kept, "7007 heard")
	before := r.n.KillGateway(t)
	eventually(t, "another gateway", func() bool { now, ok := r.n.Gateway(t); return ok && now.PID != before.PID })
	eventually(t, "it serves the socket", func() bool { text, _ := r.a.do("kept-udp", kept); return strings.Contains(text, "7007 heard") })
	r.n.WritePolicy(t, "shop.yaml", strings.Replace(adoptDatagramRules, "10.20.0.0/16:7007", "10.20.0.0/16:7001", 1))
	eventually(t, "it is revoked", func() bool { _, err := r.a.do("kept-udp", kept); return err != nil })
	r.denied(t, "ask-udp", kept)
	r.gives(t, "kept-udp", other, "7008 heard")
}
