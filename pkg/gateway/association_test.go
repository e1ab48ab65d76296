// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
)

// A revocation while the name is still being resolved, or an address that a
// new revision does not admit any more, ends the flow as well.
func TestDatagramsAreJudgedAgain(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	peers := r.answers("a.test", datagramPort)
	c := r.udp("udp4", "", r.virtual("a.test").String())
	if got, err := askOnce(c, "1"); got != "a.test 1" {
		t.Fatalf("%q, %v", got, err)
	}
	r.setPolicy(2, docHead+"egress:\n  - {id: a, allow: \"a.test:7007/udp\", resolvesTo: [10.0.0.0/8]}\n  - {id: slow, allow: \"slow.mute:7007/udp\"}\n")
	if _, err := askOnce(c, "2"); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("to an address that is not admitted any more: %v", err)
	}
	if n := len(peers); n != 1 {
		t.Errorf("%d datagrams came out", n)
	}
	slow := r.udp("udp4", "", r.virtual("slow.mute").String())
	if _, err := slow.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	r.until("it waits for its name", func() bool {
		r.g.mu.Lock()
		defer r.g.mu.Unlock()
		for _, a := range r.g.sandboxes[1].associations.all() {
			a.mu.Lock()
			waits := a.name == "slow.mute" && a.decided && a.up == nil
			a.mu.Unlock()
			if waits {
				return true
			}
		}
		return false
	})
	r.setPolicy(3, closedPolicy)
	r.event("the end of the flow that waited", func(e *event.Event) bool { return e.DstName == "slow.mute" && e.ReasonCode == codeRevoked })
}

func TestDatagramFlowsAreBounded(t *testing.T) {
	r := newDatagramRig(t, Limits{SandboxDatagrams: 3, DatagramIdle: 3 * time.Second})
	r.answers("a.test", datagramPort)
	a := r.virtual("a.test").String()
	for range 3 {
		if got, err := askOnce(r.udp("udp4", "", a), "1"); got != "a.test 1" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	fourth := r.udp("udp4", "", a)
	if _, err := askOnce(fourth, "1"); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("a fourth of three: %v", err)
	}
	ev := r.denied(codeConnections)
	if ev.Proto != "udp" {
		t.Errorf("%+v", ev)
	}
	r.until("silent flows end", func() bool { return r.flows() == 0 })
	if got, err := askOnce(fourth, "2"); got != "a.test 2" {
		t.Errorf("once there is room: %q, %v", got, err)
	}
}

// Datagrams that wait for a name that does not resolve take bounded memory.
func TestWaitingDatagramsAreBounded(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	slow := r.virtual("slow.mute").String()
	big := make([]byte, 60000)
	for range 20 {
		c := r.udp("udp4", "", slow)
		for range 2 {
			if _, err := c.Write(big); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond) // the socket itself holds few of this size
		}
	}
	r.until("there is no more room", func() bool { return r.lost(lostWaiting) > 0 })
	r.g.mu.Lock()
	held := &r.g.sandboxes[1].associations.held
	r.g.mu.Unlock()
	if n := held.Load(); n > maxHeld || n < maxHeld/2 {
		t.Errorf("%d bytes wait", n)
	}
	r.setPolicy(2, closedPolicy)
	if n := held.Load(); n != 0 {
		t.Errorf("%d bytes wait for nothing", n)
	}
}

// What the gateway cannot record it does not do.
func TestNoDatagramsUnrecorded(t *testing.T) {
	r := newDatagramRig(t, Limits{Events: 8})
	peers := r.answers("a.test", datagramPort)
	a := r.virtual("a.test").String()
	r.keeper.setDown(true)
	held := 0
	for t := r.g.rec.reserve(1); t != nil; t = r.g.rec.reserve(1) {
		held++
	}
	if _, err := askOnce(r.udp("udp4", "", a), "1"); !errors.Is(err, unix.EHOSTUNREACH) || len(peers) != 0 {
		t.Errorf("with %d places taken: %v, %d datagrams came out", held, err, len(peers))
	}
	r.keeper.setDown(false)
}

// A flow lasts while something passes, in either direction, and has a record
// before its end if it lasts.
func TestDatagramFlowsLast(t *testing.T) {
	const idle = time.Second
	r := newDatagramRig(t, Limits{DatagramIdle: idle, TellOpen: 50 * time.Millisecond})
	peers := r.answers("a.test", datagramPort)
	c := r.udp("udp4", "", r.virtual("a.test").String())
	from := map[netip.AddrPort]bool{}
	asked, stalls := uint64(0), 0 // a machine that stands still for so long ends the flow, too
	for start, last := time.Now(), time.Now(); time.Since(start) < 2*idle; asked++ {
		if got, err := askOnce(c, "1"); got != "a.test 1" {
			t.Fatalf("%q, %v", got, err)
		}
		from[<-peers] = true
		if time.Since(last) > idle/2 {
			stalls++
		}
		last = time.Now()
		time.Sleep(20 * time.Millisecond)
	}
	if len(from) > 1+stalls {
		t.Errorf("the flow came from %v: it was not one", from)
	}
	r.event("the open flow", func(e *event.Event) bool { return e.Activity == "open" && e.DstName == "a.test" && e.Proto == "udp" })
	r.event("its end", func(e *event.Event) bool {
		return e.Activity == "close" && e.DstName == "a.test" && (e.DatagramsOut == asked || stalls > 0)
	})
}

// Many sockets at once, each gets its own answers.
func TestManyDatagramFlows(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	r.answers("a.test", datagramPort)
	a := r.virtual("a.test").String()
	var wg sync.WaitGroup
	for i := range 50 {
		c := r.udp("udp4", "", a)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range 20 {
				say := fmt.Sprint(i, " ", j)
				if got, err := askOnce(c, say); got != "a.test "+say {
					t.Errorf("%q, %v; want %q", got, err, say)
					return
				}
			}
		}()
	}
	wg.Wait()
	for _, reason := range []string{lostOverflow, lostWaiting, lostRefused, lostStray, lostSize, lostSend, lostReceive} {
		if n := r.lost(reason); n != 0 {
			t.Errorf("%v datagrams lost: %s", n, reason)
		}
	}
}

// A rule for one connection is for one flow of datagrams.
func TestOneDatagramFlow(t *testing.T) {
	const doc = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: allow.once-1}\nscope: org:local\negress:\n  - {id: allow, allow: \"a.test:7007/udp\", resolvesTo: [127.77.0.0/16]}\n"
	r := newRig(t, doc, rigOptions{})
	r.answers("a.test", datagramPort)
	a := r.virtual("a.test").String()
	c := r.udp("udp4", "", a)
	for range 2 {
		if got, err := askOnce(c, "1"); got != "a.test 1" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if _, err := askOnce(r.udp("udp4", "", a), "1"); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("a second flow: %v", err)
	}
	r.denied(codeGrantUsed)
	r.g.RemoveSandbox(1)
	r.event("the end of the grant", func(e *event.Event) bool { return e.Activity == event.ActivityRelease && e.Proto == "udp" })
}

func TestNoDatagramFlowOutlivesItsSandbox(t *testing.T) {
	r := newDatagramRig(t, Limits{})
	r.answers("a.test", datagramPort)
	c := r.udp("udp4", "", r.virtual("a.test").String())
	if got, err := askOnce(c, "1"); got != "a.test 1" {
		t.Fatalf("%q, %v", got, err)
	}
	r.g.RemoveSandbox(1)
	if r.flows() != 0 {
		t.Errorf("%d flows are left", r.flows())
	}
	r.event("its end", func(e *event.Event) bool {
		return e.ReasonCode == codeStopped && e.DstName == "a.test" && e.Verdict != event.Denied
	})
}
