// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// gate is a clock that stands still for who asks it while a rule is decided.
type gate struct {
	mu     sync.Mutex
	shut   chan struct{} // nil: open
	inside int           // who waits
}

func (c *gate) Now() time.Time {
	c.mu.Lock()
	shut := c.shut
	if shut == nil || !deciding() {
		shut = nil
	} else {
		c.inside++
	}
	c.mu.Unlock()
	if shut != nil {
		<-shut
	}
	return time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
}

// deciding says whether the caller's caller is a condition of a rule.
func deciding() bool {
	var pc [16]uintptr
	frames := runtime.CallersFrames(pc[:runtime.Callers(2, pc[:])])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "policy.(*facts).time") {
			return true
		}
		if !more {
			return false
		}
	}
}

func (c *gate) close() (open func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = make(chan struct{})
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		close(c.shut)
		c.shut = nil
	})
}

func (c *gate) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inside
}

// slowTenant adds sandboxes of another owner, each with a connection that is decided by
// a rule that asks the clock.
func slowTenant(t *testing.T, r *rig, ids ...uint32) (open []net.Conn) {
	t.Helper()
	addr := netip.MustParseAddr("198.18.7.7")
	for _, id := range ids {
		own := *r
		own.ns, own.p = newNamespace(t), r.p
		own.p.Team = "slow"
		s := own.sandbox(id, false)
		s.Owner, s.Names = 1002, map[netip.Addr]string{addr: "slow.test"}
		if err := r.g.AddSandbox(s); err != nil {
			t.Fatal(err)
		}
		c, err := own.ns.dial("tcp", netip.AddrPortFrom(addr, 22).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		greeted(t, c)
		open = append(open, c)
	}
	return open
}

func greeted(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

const slowDoc = docHead + `egress:
  - {id: slow, allow: "slow.test:22", for: "org:local/team:slow", resolvesTo: [127.77.0.0/16], when: {windows: [{from: "08:00", to: "18:00"}]}}
`

// However long somebody's open connections take to be decided again, others' changes
// of policy are in force, end what they close, and their sandboxes come and go.
func TestNobodyWaitsForAnothersConnections(t *testing.T) {
	clock := &gate{}
	r := newRig(t, slowDoc+"  - {id: db, allow: \"db.test:22\", resolvesTo: [127.77.0.0/16]}\n  - {id: keep, allow: \"keep.test:22\", resolvesTo: [127.77.0.0/16]}\n", rigOptions{clock: clock.Now})
	for _, name := range []string{"db.test", "keep.test"} {
		r.echo(name, 22, "")
	}
	r.echo("slow.test", 22, "!")
	theirs := slowTenant(t, r, 11, 12, 13)
	gone, stays := openRelay(t, r, "db.test", 22), openRelay(t, r, "keep.test", 22)

	open := clock.close()
	defer open()
	meanwhile := func(what string, f func()) {
		t.Helper()
		done := make(chan struct{})
		go func() { defer close(done); f() }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s waits for another tenant's connections", what)
		}
	}
	meanwhile("a change of policy", func() {
		r.g.SetSnapshot(compile(t, 2, slowDoc+"  - {id: keep, allow: \"keep.test:22\", resolvesTo: [127.77.0.0/16]}\n"))
	})
	r.until("the other tenant's are being decided", func() bool { return clock.waiting() > 0 })
	ended(t, gone)
	r.until("the change is settled here", func() bool { return r.g.Revisions()[1] == 2 })
	meanwhile("a launch", func() {
		if err := r.g.AddSandbox(Sandbox{ID: 2, Owner: 1003, Principal: r.p}); err != nil {
			t.Error(err)
		}
	})
	if on := r.g.Revisions()[2]; on != 2 {
		t.Errorf("a new sandbox is decided on %d", on)
	}
	meanwhile("a stop", func() { r.g.RemoveSandbox(2) })
	meanwhile("an edge of time", r.g.lookAtClock)
	meanwhile("another change of policy", func() { r.g.SetSnapshot(compile(t, 3, closedPolicy)) })
	ended(t, stays)
	r.until("the other change is settled here", func() bool { return r.g.Revisions()[1] == 3 })
	for id, on := range r.g.Revisions() {
		if id > 10 && on != 1 {
			t.Errorf("sandbox %d is said to be settled on %d, and its connection is not decided yet", id, on)
		}
	}
	if n := clock.waiting(); n != 1 {
		t.Errorf("%d connections of one owner are decided at a time", n)
	}

	// What was decided on the revision before has not the last word.
	open()
	r.settled(3)
	for _, c := range theirs {
		ended(t, c)
	}
}

// counted is a flow that takes a turn.
type counted struct {
	id  string
	see func(id string)
}

func (c counted) judgeAgain(*epoch) {
	time.Sleep(judgeTurn)
	c.see(c.id)
}

// Who has one connection waits for at most a turn of each other owner, however many
// sandboxes and connections those have.
func TestOwnersTakeTurns(t *testing.T) {
	g, err := New(Options{Keeper: &fakeKeeper{}, Inference: stubInference{}})
	if err != nil {
		t.Fatal(err)
	}
	g.judges.turns = make(chan struct{}, 1)
	var mu sync.Mutex
	var seen []string
	see := func(id string) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, id)
	}
	snap := compile(t, 1, closedPolicy)
	box := func(owner, id uint32, flows int) *sandbox {
		sb := newSandbox(g, Sandbox{ID: id, Owner: owner})
		sb.setSnapshot(snap)
		sb.round.epoch = sb.epoch.Load()
		for range flows {
			sb.round.left = append(sb.round.left, counted{fmt.Sprint(owner, "/", id), see})
		}
		return sb
	}
	const many, flows = 10, 20
	var all []*sandbox
	for id := range uint32(many) {
		all = append(all, box(1, id, flows))
		g.judges.want(all[id])
	}
	last := box(2, many, 1)
	g.judges.want(last)
	mu.Lock()
	queued := len(seen)
	mu.Unlock()
	for _, sb := range append(all, last) {
		for end := time.Now().Add(20 * time.Second); sb.settled.Load() != 1; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it does not end")
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != many*flows+1 {
		t.Fatalf("%d flows were decided", len(seen))
	}
	own := map[string]int{}
	for i, id := range seen {
		if id == "2/10" && i-queued > 3 {
			t.Errorf("%d flows of another owner came first", i-queued)
		}
		if own[id]++; own[id] == 1 && id != "2/10" && i > many {
			t.Errorf("%s had its first turn after %d of others of its owner", id, i)
		}
	}
	g.judges.mu.Lock()
	defer g.judges.mu.Unlock()
	for _, sb := range all {
		if sb.judging && len(g.judges.queues) == 0 {
			t.Error("a sandbox waits that nobody looks at")
		}
	}
}
