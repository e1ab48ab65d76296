// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"container/list"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/keeper"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

const (
	// maxClients is how many processes are remembered on the whole node. Each
	// sandbox has an equal part of it, within the two bounds below: one that
	// starts many pushes out its own.
	maxClients    = 65536
	sandboxMost   = 1024
	sandboxLeast  = 32
	catchUpWithin = 200 * time.Millisecond
	catchUpAgain  = time.Second            // for a sandbox with which it could not
	catchUpMost   = 3                      // how often within that it may fail for all of them together
	onceWithin    = 10 * time.Millisecond  // flows of one process: the first tells of the others
	settledAfter  = 200 * time.Millisecond // what a process did before has been read then from every ring
)

// clients remembers the processes of sandboxes whose flows the kernel let
// through to the gateway, from the records of those flows: the gateway is told
// only a tag, and its records get the process from here. Whoever is not known
// for certain is not named.
type clients struct {
	program func(pid uint32, o *kernel.Origin, forgotten func(uint32) (kernel.Ran, bool)) (kernel.Program, bool, error)
	lost    func(sandbox uint32) (uint64, error) // how many records of its processes the kernel has not kept
	catchUp func(context.Context) bool           // reads what flows there were until now
	known   func(sandbox uint32) bool            // whether records of it may still come
	failed  func(what string, args ...any)       // logs

	mu     sync.Mutex // guards what follows
	of     map[uint32]*clientTable
	behind map[uint32]time.Time // no catching up for these sandboxes until then: they make more than is read
}

// clientTable is that of one sandbox, least recently used in front.
type clientTable struct {
	byTag map[uint32]*list.Element // of *client
	order list.List
	execs []executed // the latest, in the order of their records
}

// client is one process and what its records say of it.
type client struct {
	tag      uint32
	process  kernel.Process
	doubtful bool      // another one has the same tag
	at       time.Time // of its latest flow
	executed time.Time // when it executed another program after that; zero: it has not
	read     time.Time // when the record of the first flow under this program was read
	says     event.Event
}

// executed is a program that a process began to run.
type executed struct {
	process kernel.Process
	at      time.Time
	program kernel.Program
	lost    uint64 // when its record was read
}

func (d *Daemon) newClients() *clients {
	return &clients{
		program: d.fence.ProgramOf,
		lost:    d.lostProcesses,
		catchUp: func(ctx context.Context) bool { return d.fence.CatchUp(ctx, kernel.RingFlows, kernel.RingProcesses) },
		known: func(number uint32) bool {
			_, ok := d.sandboxes.Principal(sandbox.IDOf(number))
			return ok
		},
		failed: d.logger.Warn,
	}
}

// add takes the record of a flow that was let through.
func (c *clients) add(v *kernel.Verdict) {
	if v.PID == 0 {
		return
	}
	process := v.Process(v.PID)
	if c.toldOf(process, v) {
		return
	}
	p, found, err := c.programOf(&v.Head, &v.Origin)
	if err != nil {
		c.failed("the program of a process cannot be read", "error", err)
	}
	one := &client{tag: process.Tag(), process: process, at: v.Time, read: time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.table(v.Sandbox)
	if el := t.byTag[one.tag]; el != nil && el.Value.(*client).process == process && el.Value.(*client).says.Comm == v.Comm && el.Value.(*client).executed.IsZero() {
		one.says = el.Value.(*client).says // and its program, where the kernel has forgotten it
	} else {
		one.says = event.Event{PID: v.PID, UID: v.UID, Comm: v.Comm, PPID: v.PPID(), Parents: parents(v.Ancestors)}
	}
	if found {
		one.says.Exe, one.says.Args = p.Filename, p.CommandLine()
	}
	t.judge(one)
	t.put(one)
	t.trim(c.share())
}

// toldOf says whether the process has had a flow a moment before, as the same:
// who floods must not have the reader ask for its program each time. A program
// that it executes in between is no flow's, then.
func (c *clients) toldOf(process kernel.Process, v *kernel.Verdict) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.of[v.Sandbox]
	if t == nil || t.byTag[process.Tag()] == nil {
		return false
	}
	have := t.byTag[process.Tag()].Value.(*client)
	since := v.Time.Sub(have.at)
	return have.process == process && have.says.Comm == v.Comm && have.executed.IsZero() && since >= 0 && since < onceWithin
}

// exec takes the record of a program that started. What a process runs is read
// after its flow's record: it may be what it has executed since.
func (c *clients) exec(x *kernel.Exec) {
	process := x.Process(x.PID)
	lost, err := c.lost(x.Sandbox)
	if err != nil {
		c.failed("the losses of a sandbox cannot be read", "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.table(x.Sandbox)
	t.execs = append(t.execs, executed{process, x.Time, x.Program, lost})
	if el := t.byTag[process.Tag()]; el != nil && el.Value.(*client).process == process {
		t.judge(el.Value.(*client))
	}
	t.trim(c.share())
}

// judge puts right what a process ran at its latest flow. If that is not known
// any more it runs nothing that is known.
func (t *clientTable) judge(one *client) {
	var before, after *executed
	for i := range t.execs {
		switch x := &t.execs[i]; {
		case x.process != one.process:
		case x.at.After(one.at):
			if after = x; one.executed.IsZero() {
				one.executed = x.at
			}
		default:
			before = x
		}
	}
	if after == nil || after.program.Filename != one.says.Exe || after.program.CommandLine() != one.says.Args {
		return // what was read is what it ran
	}
	one.says.Exe, one.says.Args = "", ""
	if before != nil {
		one.says.Exe, one.says.Args = before.program.Filename, before.program.CommandLine()
	}
}

// share is how many processes each sandbox may have remembered.
func (c *clients) share() int {
	return max(sandboxLeast, min(sandboxMost, maxClients/len(c.of)))
}

// table returns that of a sandbox. A new one makes room by forgetting those of
// sandboxes that are long gone.
func (c *clients) table(sandbox uint32) *clientTable {
	if t := c.of[sandbox]; t != nil {
		return t
	}
	for s := range c.of {
		if !c.known(s) {
			delete(c.of, s)
		}
	}
	if c.of == nil {
		c.of = map[uint32]*clientTable{}
	}
	t := &clientTable{byTag: map[uint32]*list.Element{}}
	c.of[sandbox] = t
	for _, other := range c.of {
		other.trim(c.share())
	}
	return t
}

func (t *clientTable) put(one *client) {
	if e := t.byTag[one.tag]; e != nil {
		have := e.Value.(*client)
		one.doubtful = have.doubtful || have.process != one.process
		if have.process == one.process && have.says.Exe == one.says.Exe && have.says.Args == one.says.Args {
			one.read = have.read // it has executed nothing since
		}
		e.Value = one // what it executes may have changed
		t.order.MoveToBack(e)
		return
	}
	t.byTag[one.tag] = t.order.PushBack(one)
}

func (t *clientTable) trim(most int) {
	for t.order.Len() > most {
		oldest := t.order.Remove(t.order.Front()).(*client)
		delete(t.byTag, oldest.tag)
	}
	if most /= 4; len(t.execs) > 2*most { // not one by one
		t.execs = append(t.execs[:0:0], t.execs[len(t.execs)-most:]...)
	}
}

// name puts processes into records of the gateway. Of one that connected a
// moment ago the records may be in the rings still.
func (c *clients) name(ctx context.Context, of []keeper.Client) {
	left := c.fill(of, time.Now().Add(-settledAfter))
	waiting := c.mayWait(left)
	if len(waiting) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpWithin)
	defer cancel()
	if c.catchUp(ctx) {
		c.fill(left, time.Now())
		return
	}
	c.fellBehind(waiting)
}

// mayWait counts, by sandbox, the records that are worth waiting for: those of
// sandboxes that are not behind.
func (c *clients) mayWait(left []keeper.Client) map[uint32]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(c.behind, func(_ uint32, until time.Time) bool { return now.After(until) })
	waiting := map[uint32]int{}
	for _, one := range left {
		number, err := strconv.ParseUint(one.Event.Sandbox, 16, 32)
		if _, behind := c.behind[uint32(number)]; err == nil && !behind && len(c.behind) < catchUpMost {
			waiting[uint32(number)]++
		}
	}
	return waiting
}

// fellBehind notes whose records it was that could not be read in time: of
// several sandboxes those with the most, so that one that floods does not take
// the others' names along.
func (c *clients) fellBehind(waiting map[uint32]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.behind == nil {
		c.behind = map[uint32]time.Time{}
	}
	most := slices.Max(slices.Collect(maps.Values(waiting)))
	for number, n := range waiting {
		if 2*n >= most {
			c.behind[number] = time.Now().Add(catchUpAgain)
		}
	}
}

// fill names those it knows from records that were read before a time, and
// returns the others.
func (c *clients) fill(of []keeper.Client, before time.Time) (left []keeper.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range of {
		number, err := strconv.ParseUint(one.Event.Sandbox, 16, 32)
		t := c.of[uint32(number)]
		if err != nil || t == nil || t.byTag[one.Tag] == nil || t.byTag[one.Tag].Value.(*client).read.After(before) {
			left = append(left, one)
			continue
		}
		el := t.byTag[one.Tag]
		t.order.MoveToBack(el)
		if have := el.Value.(*client); !have.doubtful {
			e, says := one.Event, &have.says
			e.PID, e.UID, e.PPID, e.Parents = says.PID, says.UID, says.PPID, says.Parents
			// What it runs since it executed another program says only its
			// next flow, whose record may be throttled.
			if have.executed.IsZero() || e.Time.Before(have.executed) {
				e.Comm, e.Exe, e.Args = says.Comm, says.Exe, says.Args
			}
		}
	}
	return left
}
