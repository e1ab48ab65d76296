// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/keeper"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// knownClients is one that finds the program "/bin/p<pid>" for every process.
func knownClients() *clients {
	return &clients{
		program: func(pid uint32, _ *kernel.Origin, _ func(uint32) (kernel.Ran, bool)) (kernel.Program, bool, error) {
			return kernel.Program{Filename: fmt.Sprintf("/bin/p%d", pid), Args: []string{"p", "-x"}}, true, nil
		},
		lost:    func(uint32) (uint64, error) { return 0, nil },
		catchUp: func(context.Context) bool { return true },
		known:   func(uint32) bool { return true },
		failed:  func(string, ...any) {},
	}
}

func flowOf(sandbox, pid uint32, start uint64) *kernel.Verdict {
	return &kernel.Verdict{Head: kernel.Head{Sandbox: sandbox, PID: pid}, Origin: kernel.Origin{UID: 1, Comm: "p", Start: start}, Allowed: true}
}

// named asks for the process of one record of a sandbox.
func named(c *clients, number, tag uint32) event.Event {
	e := &event.Event{Kind: event.KindHTTP, Sandbox: sandbox.IDOf(number)}
	c.name(context.Background(), []keeper.Client{{Event: e, Tag: tag}})
	return *e
}

func tagOf(v *kernel.Verdict) uint32 { return v.Process(v.PID).Tag() }

func TestClientsAreNamedWithinTheirSandbox(t *testing.T) {
	c := knownClients()
	v := flowOf(1, 100, 5)
	c.add(v)
	if e := named(c, 1, tagOf(v)); e.PID != 100 || e.Exe != "/bin/p100" || e.Args != "p -x" || e.Comm != "p" || e.UID != 1 {
		t.Errorf("%+v", e)
	}
	for what, e := range map[string]event.Event{
		"another sandbox": named(c, 2, tagOf(v)), "another tag": named(c, 1, tagOf(v)+1),
		"the same pid at another time": named(c, 1, tagOf(flowOf(1, 100, 6))),
	} {
		if e.PID != 0 || e.Exe != "" || e.Comm != "" {
			t.Errorf("%s: %+v", what, e)
		}
	}
	e := &event.Event{Sandbox: "no number"}
	c.name(context.Background(), []keeper.Client{{Event: e, Tag: tagOf(v)}})
	if e.PID != 0 {
		t.Errorf("%+v", e)
	}
}

// Of two processes with the same tag neither is named.
func TestClientsWithOneTagAreNotNamed(t *testing.T) {
	c := knownClients()
	a := flowOf(1, 100, 5)
	b := flowOf(1, 100, 6)
	for start := uint64(6); tagOf(b) != tagOf(a); start++ {
		b = flowOf(1, 100, start)
	}
	c.add(a)
	c.add(a)
	if e := named(c, 1, tagOf(a)); e.PID != 100 { // the control
		t.Errorf("%+v", e)
	}
	c.add(b)
	c.add(b)
	if e := named(c, 1, tagOf(a)); e.PID != 0 {
		t.Errorf("%+v", e)
	}
}

// A sandbox that starts many processes pushes out its own, the latest used last.
func TestClientsAreBoundedBySandbox(t *testing.T) {
	c := knownClients()
	other, kept := flowOf(2, 7, 1), flowOf(1, 8, 1)
	c.add(other)
	c.add(kept)
	for i := range uint32(3 * sandboxMost) {
		c.add(flowOf(1, 1000+i, 1))
		if named(c, 1, tagOf(kept)).PID != 8 {
			t.Fatalf("one in use was pushed out after %d", i)
		}
	}
	if n := c.of[1].order.Len(); n != sandboxMost || len(c.of[1].byTag) != n {
		t.Errorf("%d and %d are remembered", n, len(c.of[1].byTag))
	}
	if named(c, 1, tagOf(flowOf(1, 1000, 1))).PID != 0 || named(c, 2, tagOf(other)).PID != 7 {
		t.Error("the wrong one was pushed out")
	}
}

func TestClientsOfManySandboxesAreBounded(t *testing.T) {
	c := knownClients()
	const boxes = 1000
	for range 2 {
		for s := range uint32(boxes) {
			for i := range uint32(100) {
				c.add(flowOf(s+1, 1000+i, 1))
			}
		}
	}
	n := 0
	for _, t := range c.of {
		n += t.order.Len()
	}
	if n > maxClients {
		t.Errorf("%d are remembered, at most %d", n, maxClients)
	}
	c.known = func(s uint32) bool { return s <= 10 }
	c.add(flowOf(boxes+1, 1, 1))
	if len(c.of) != 11 {
		t.Errorf("%d sandboxes are remembered, ten live and one is new", len(c.of))
	}
}

// The program is what the process ran when it connected, in whatever order the
// records are read and however late.
func TestClientsAndWhatTheyExecute(t *testing.T) {
	began := time.Now()
	flow := flowOf(1, 100, 5)
	flow.Time = began.Add(time.Second)
	exec := func(after time.Duration, file string) *kernel.Exec {
		return &kernel.Exec{Head: kernel.Head{Time: began.Add(after), Sandbox: 1, PID: 100}, Origin: flow.Origin, Program: kernel.Program{Filename: file, Args: []string{file}}}
	}
	first, second := exec(0, "/bin/first"), exec(2*time.Second, "/bin/second")
	other := exec(2*time.Second, "/bin/first")
	other.Start++ // another process that had the pid
	for _, tt := range []struct {
		name    string
		runs    *kernel.Exec // what the kernel knows when the flow's record is read
		records []any
		want    string
	}{
		{"read in time", first, []any{first, flow, second}, "/bin/first"},
		{"read late", second, []any{first, flow, second}, "/bin/first"},
		{"read late, flow last", second, []any{first, second, flow}, "/bin/first"},
		{"read in time, flow last", second, []any{first, second, flow}, "/bin/first"},
		{"no word of the first", second, []any{flow, second}, ""},
		{"no word of the second", first, []any{first, flow}, "/bin/first"},
		{"another process", first, []any{first, flow, other}, "/bin/first"},
	} {
		c := knownClients()
		c.program = func(uint32, *kernel.Origin, func(uint32) (kernel.Ran, bool)) (kernel.Program, bool, error) {
			return tt.runs.Program, true, nil
		}
		for _, r := range tt.records {
			switch r := r.(type) {
			case *kernel.Verdict:
				c.add(r)
			case *kernel.Exec:
				c.exec(r)
			}
		}
		if e := named(c, 1, tagOf(flow)); e.PID != 100 || e.Exe != tt.want || e.Args != tt.want {
			t.Errorf("%s: %d %q %q, want %q", tt.name, e.PID, e.Exe, e.Args, tt.want)
		}
	}
	c := knownClients()
	for range 10 * sandboxMost {
		c.exec(first)
	}
	if n := len(c.of[1].execs); n > sandboxMost {
		t.Errorf("%d programs are remembered", n)
	}
}

// What a process does after it executed another program is not the former
// one's, although the record of its next flow was throttled.
func TestClientsThatExecutedSince(t *testing.T) {
	c := knownClients()
	began := time.Now()
	flow := flowOf(1, 100, 5)
	flow.Time = began
	c.add(flow)
	c.exec(&kernel.Exec{Head: kernel.Head{Time: began.Add(time.Second), Sandbox: 1, PID: 100}, Origin: flow.Origin, Program: kernel.Program{Filename: "/tmp/evil"}})
	for after, want := range map[time.Duration]string{500 * time.Millisecond: "/bin/p100", 2 * time.Second: ""} {
		e := &event.Event{Kind: event.KindHTTP, Sandbox: sandbox.IDOf(1), Time: began.Add(after)}
		c.name(context.Background(), []keeper.Client{{Event: e, Tag: tagOf(flow)}})
		if e.PID != 100 || e.Exe != want || (want == "") != (e.Comm == "") {
			t.Errorf("after %v: %d %q %q, want %q", after, e.PID, e.Exe, e.Comm, want)
		}
	}
}

// Neighbours that execute much push programs out of the kernel's table: what is
// known stays.
func TestClientsWhoseProgramTheKernelForgot(t *testing.T) {
	c := knownClients()
	v := flowOf(1, 100, 5)
	c.add(v)
	c.program = func(uint32, *kernel.Origin, func(uint32) (kernel.Ran, bool)) (kernel.Program, bool, error) {
		return kernel.Program{}, false, nil
	}
	v.Time = v.Time.Add(time.Second)
	c.add(v)
	if e := named(c, 1, tagOf(v)); e.Exe != "/bin/p100" {
		t.Errorf("%+v", e)
	}
}

// A process that floods is not asked for its program each time; one that says it
// is another is.
func TestClientsAreAskedOncePerMoment(t *testing.T) {
	c := knownClients()
	asked := 0
	c.program = func(uint32, *kernel.Origin, func(uint32) (kernel.Ran, bool)) (kernel.Program, bool, error) {
		asked++
		return kernel.Program{}, false, nil
	}
	v := flowOf(1, 100, 5)
	for _, step := range []struct {
		after time.Duration
		comm  string
		want  int
	}{{0, "p", 1}, {onceWithin / 2, "p", 1}, {onceWithin - 1, "p", 1}, {onceWithin - 1, "q", 2}, {onceWithin, "p", 3}, {2 * onceWithin, "p", 4}} {
		later := *v
		later.Time, later.Comm = v.Time.Add(step.after), step.comm
		if c.add(&later); asked != step.want {
			t.Errorf("after %v as %s: asked %d times, want %d", step.after, step.comm, asked, step.want)
		}
	}
	c.exec(&kernel.Exec{Head: kernel.Head{Time: v.Time.Add(2*onceWithin + 1), Sandbox: 1, PID: 100}, Origin: v.Origin})
	v.Time = v.Time.Add(2*onceWithin + 2)
	if c.add(v); asked != 5 {
		t.Errorf("after it executed something: asked %d times", asked)
	}
}

// A reader that cannot follow is not waited for again and again.
func TestClientsDoNotWaitForABusyReader(t *testing.T) {
	c := knownClients()
	tries := 0
	c.catchUp = func(context.Context) bool { tries++; return false }
	for range 100 {
		named(c, 1, 1)
	}
	if tries > 2 {
		t.Errorf("%d times", tries)
	}
}

// A sandbox that makes more records than are read is not waited for, and the
// others are: their processes are named while it floods.
func TestClientsOfAFloodDoNotTakeTheOthersNames(t *testing.T) {
	c := knownClients()
	read := false
	v := flowOf(2, 7, 1)
	c.catchUp = func(context.Context) bool {
		if read {
			c.add(v)
		}
		return read
	}
	batch := []keeper.Client{{Event: &event.Event{Kind: event.KindHTTP, Sandbox: sandbox.IDOf(2)}, Tag: tagOf(v)}}
	for i := range uint32(10) {
		batch = append(batch, keeper.Client{Event: &event.Event{Kind: event.KindHTTP, Sandbox: sandbox.IDOf(1)}, Tag: i + 1})
	}
	c.name(context.Background(), batch) // it is too much
	read = true
	if named(c, 1, 5); len(c.of) > 0 {
		t.Error("the flooding sandbox is waited for")
	}
	if e := named(c, 2, tagOf(v)); e.PID != 7 {
		t.Errorf("the other one's process is not named: %+v", e)
	}
	if _, behind := c.behind[2]; behind || len(c.behind) != 1 {
		t.Errorf("behind are %v", c.behind)
	}
	c.behind[1] = time.Now().Add(-time.Second)
	if named(c, 1, 5); len(c.behind) != 0 {
		t.Error("the flooding sandbox is never waited for again")
	}
}

// Many that each make too much do not have the gateway wait for each of them.
func TestClientsOfManyFloodsWaitThreeTimes(t *testing.T) {
	c := knownClients()
	tries := 0
	c.catchUp = func(context.Context) bool { tries++; return false }
	for number := range uint32(100) {
		named(c, number+1, 1)
	}
	if tries != catchUpMost {
		t.Errorf("%d times", tries)
	}
}

// A process whose records cannot be read to the end is not named.
func TestClientsThatAreNotSettledAreNotNamed(t *testing.T) {
	c := knownClients()
	v := flowOf(1, 100, 5)
	c.add(v)
	c.catchUp = func(context.Context) bool { return false }
	if e := named(c, 1, tagOf(v)); e.PID != 0 {
		t.Errorf("%+v", e)
	}
	c.behind = nil
	c.of[1].byTag[tagOf(v)].Value.(*client).read = time.Now().Add(-time.Second)
	if e := named(c, 1, tagOf(v)); e.PID != 100 {
		t.Errorf("%+v", e)
	}
}

// A process that connected a moment ago is in the ring still.
func TestClientsAreReadFromTheRing(t *testing.T) {
	c := knownClients()
	v := flowOf(1, 100, 5)
	c.catchUp = func(context.Context) bool { c.add(v); return true }
	if e := named(c, 1, tagOf(v)); e.PID != 100 {
		t.Errorf("%+v", e)
	}
}
