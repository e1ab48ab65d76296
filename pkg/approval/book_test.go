// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/store/sqlite"
)

// desk is a book on a real store, with a clock and sandboxes of its own.
type desk struct {
	*Book
	store *sqlite.Store

	mu     sync.Mutex
	now    time.Time
	dead   map[string]bool
	told   []Change
	broken error
}

func openDesk(t testing.TB, dir string, atCommit func(sqlite.Moment)) *desk {
	t.Helper()
	s, err := sqlite.Open(context.Background(), sqlite.Options{Dir: dir, Version: "1", Logger: slog.New(slog.DiscardHandler), AtCommit: atCommit})
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{store: s, now: start, dead: map[string]bool{}}
	n := 0
	d.Book, err = NewBook(context.Background(), Options{Store: s, Limits: DefaultLimits, Now: d.clock, Record: d.record,
		NewID: func() string { n++; return fmt.Sprintf("r%03d", n) },
		Lives: func(box string) bool { d.mu.Lock(); defer d.mu.Unlock(); return !d.dead[box] }})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newDesk(t testing.TB) *desk {
	d := openDesk(t, t.TempDir(), nil)
	t.Cleanup(func() { _ = d.store.Close() })
	return d
}

func (d *desk) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *desk) pass(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

func (d *desk) kill(box string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead[box] = true
}

func (d *desk) record(c Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told = append(d.told, c)
	return d.broken
}

func (d *desk) verbs() (out []Verb) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.told {
		out = append(out, c.Verb)
	}
	return out
}

func (d *desk) asks(t *testing.T, c Call, want Outcome, id string) {
	t.Helper()
	a, err := d.Ask(context.Background(), &c)
	if err != nil || a.Outcome != want || a.ID != id {
		t.Fatalf("asking comes to %+v (%v), not %d by %q", a, err, want, id)
	}
}

func (d *desk) votes(t *testing.T, id string, p Person, yes bool, tt Terms, want error) Request {
	t.Helper()
	r, err := d.Vote(context.Background(), id, p, yes, tt, "")
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Fatalf("the vote of %s: %v, not %v", p.Name, err, want)
	}
	return r
}

func (d *desk) state(t *testing.T, id string, want State) Request {
	t.Helper()
	r, err := d.Get(context.Background(), id)
	if err != nil || r.State != want {
		t.Fatalf("%s is %s (%v), not %s", id, r.State, err, want)
	}
	return r
}

var root, launcher = people[0], people[1]

// one is a call that one person may approve.
func one() Call { return someCall(0) }

func TestLifeOfAnApproval(t *testing.T) {
	d := newDesk(t)
	d.asks(t, one(), Waiting, "r001")
	d.asks(t, one(), Waiting, "r001")
	d.votes(t, "r001", people[5], true, Terms{}, ErrNotApprover)
	d.votes(t, "r001", launcher, true, Terms{}, nil)
	d.votes(t, "r001", root, false, Terms{}, ErrDecided)
	d.asks(t, one(), Released, "r001")
	if r := d.state(t, "r001", Consumed); r.Count != 2 {
		t.Errorf("asked for %d times", r.Count)
	}
	d.asks(t, one(), Waiting, "r004") // ids are taken for each asking
	d.votes(t, "r004", root, false, Terms{}, nil)
	d.asks(t, one(), Refused, "r004")
	if got, want := d.verbs(), []Verb{VerbAsk, VerbApprove, VerbConsume, VerbAsk, VerbDeny}; !slices.Equal(got, want) {
		t.Errorf("told %q, not %q", got, want)
	}
	if _, err := d.Get(context.Background(), "r099"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestCountIsKeptWhateverItIsWrittenLike(t *testing.T) {
	d := newDesk(t)
	for range 100 {
		d.asks(t, one(), Waiting, "r001")
	}
	if r := d.state(t, "r001", Pending); r.Count != 100 {
		t.Errorf("it was asked for 100 times, and says %d", r.Count)
	}
	if a, err := d.store.Approval(context.Background(), "r001"); err != nil || a.Version != 1 {
		t.Errorf("the store was written %d times (%v)", a.Version, err)
	}
	d.pass(2 * time.Second)
	d.asks(t, one(), Waiting, "r001")
	if a, err := d.store.Approval(context.Background(), "r001"); err != nil || a.Version != 2 {
		t.Errorf("the store was written %d times (%v)", a.Version, err)
	}
	if r := d.votes(t, "r001", root, true, Terms{}, nil); r.Count != 101 {
		t.Errorf("it was asked for 101 times, and says %d", r.Count)
	}
}

func TestWhoWaitsAlreadyIsNotCounted(t *testing.T) {
	d := newDesk(t)
	d.asks(t, one(), Waiting, "r001")
	c := one()
	c.Waits = "r001"
	for range 5 {
		d.pass(2 * time.Second)
		d.asks(t, c, Waiting, "r001")
	}
	if r := d.state(t, "r001", Pending); r.Count != 1 {
		t.Errorf("one call counts as %d", r.Count)
	}
	c.Waits = "r999" // another id is no excuse
	d.asks(t, c, Waiting, "r001")
	if r := d.state(t, "r001", Pending); r.Count != 2 {
		t.Errorf("two calls count as %d", r.Count)
	}
	c.Waits = "r001"
	d.votes(t, "r001", root, true, Terms{}, nil)
	d.asks(t, c, Released, "r001")
}

func TestOtherRulesSupersede(t *testing.T) {
	d := newDesk(t)
	d.asks(t, one(), Waiting, "r001")
	d.votes(t, "r001", root, true, Terms{}, nil)
	other := one()
	other.Fingerprint, other.Demands = rules[2].fingerprint, rules[2].demands
	d.asks(t, other, Waiting, "r002")
	d.state(t, "r001", Superseded)
	d.asks(t, one(), Waiting, "r003") // back again: a person has to say so again
	d.state(t, "r002", Superseded)
}

func TestNobodyReleasedWhenTheLogFails(t *testing.T) {
	d := newDesk(t)
	d.asks(t, one(), Waiting, "r001")
	d.votes(t, "r001", root, true, Terms{}, nil)
	d.broken = errors.New("the log is full")
	c := one()
	if a, err := d.Ask(context.Background(), &c); err == nil || a.Outcome != Refused {
		t.Errorf("asking comes to %+v, %v", a, err)
	}
	d.broken = nil
	d.asks(t, one(), Waiting, "r003") // it is used up all the same
}

func TestNothingIsOpenOfADeadSandbox(t *testing.T) {
	d := newDesk(t)
	ctx := context.Background()
	forever := Terms{Lasts: LastsSandbox, Covers: CoversTarget}
	d.asks(t, one(), Waiting, "r001")
	d.votes(t, "r001", root, true, forever, nil)
	d.asks(t, one(), Released, "r001")
	d.asks(t, someCall(2), Waiting, "r003")
	d.asks(t, someCall(1), Waiting, "r004") // of another sandbox
	d.kill(one().Sandbox)
	c := one()
	if a, err := d.Ask(ctx, &c); err != nil || a.Outcome != Refused {
		t.Errorf("asking comes to %+v, %v", a, err)
	}
	d.votes(t, "r003", root, true, Terms{}, ErrDecided)
	if err := d.End(ctx, one().Sandbox); err != nil {
		t.Fatal(err)
	}
	d.state(t, "r001", Expired)
	d.state(t, "r003", Cancelled)
	d.state(t, "r004", Pending)
	d.kill(someCall(1).Sandbox) // the daemon was not there then
	if err := d.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	d.state(t, "r004", Cancelled)
}

func TestSweepWritesWhatTimeHasDone(t *testing.T) {
	d := newDesk(t)
	ctx := context.Background()
	d.asks(t, one(), Waiting, "r001")
	d.asks(t, someCall(2), Waiting, "r002")
	d.votes(t, "r002", root, true, Terms{Lasts: LastsFor, For: time.Hour}, nil)
	d.pass(DefaultExpiry)
	if err := d.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if a, err := d.store.Approval(ctx, "r001"); err != nil || a.State != "expired" {
		t.Errorf("the store says %s (%v)", a.State, err)
	}
	d.asks(t, someCall(2), Released, "r002")
	d.pass(time.Hour)
	d.asks(t, someCall(2), Waiting, "r004") // no sweep was needed
	d.state(t, "r002", Expired)
	d.pass(Keep + time.Minute)
	for range 2 {
		if err := d.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := d.List(ctx, true, 0); err != nil || len(list) != 1 || list[0].ID != "r004" {
		t.Errorf("%d are left (%v)", len(list), err)
	}
}

// holds starts so many calls that are held, and returns where their answers come.
func (d *desk) holds(t *testing.T, n int, c Call) <-chan Answer {
	t.Helper()
	out := make(chan Answer, n)
	for range n {
		go func() {
			a, err := d.Hold(context.Background(), MaxHold, func(context.Context) (Call, error) { return c, nil })
			if err != nil {
				a = Answer{Reason: err.Error(), Code: "error"}
			}
			out <- a
		}()
	}
	return out
}

// waits until a condition of the book holds.
func (d *desk) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("never: ", what)
}

func (d *desk) heldBy(box string) int {
	d.Book.mu.Lock()
	defer d.Book.mu.Unlock()
	return d.Book.held[box]
}

func (d *desk) pending(t *testing.T) string {
	list, err := d.List(context.Background(), false, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if r.State == Pending {
			return r.ID
		}
	}
	return ""
}

func TestOnceReleasesOneOfThoseThatAreHeld(t *testing.T) {
	d := newDesk(t)
	const n = 12
	out := d.holds(t, n, one())
	for i := range n {
		id := ""
		d.until(t, "all are held by one request", func() bool {
			id = d.pending(t)
			return id != "" && d.heldBy(one().Sandbox) == n-i
		})
		d.votes(t, id, launcher, true, Terms{}, nil)
		if a := <-out; a.Outcome != Released || a.ID != id {
			t.Fatalf("%+v", a)
		}
		select {
		case a := <-out:
			t.Fatalf("a second one: %+v", a)
		default:
		}
	}
}

func TestALastingGrantReleasesAll(t *testing.T) {
	d := newDesk(t)
	out := d.holds(t, 5, one())
	d.until(t, "all are held", func() bool { return d.heldBy(one().Sandbox) == 5 })
	d.votes(t, "r001", root, true, Terms{Lasts: LastsSandbox}, nil)
	for range 5 {
		if a := <-out; a.Outcome != Released {
			t.Errorf("%+v", a)
		}
	}
}

func TestEveryEndEndsAHold(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(d *desk)
		code string
	}{
		"a denial": {func(d *desk) { _, _ = d.Vote(context.Background(), "r001", root, false, Terms{}, "") }, "approval-denied"},
		"time":     {func(d *desk) { d.pass(time.Hour); _ = d.Sweep(context.Background()) }, "approval-expired"},
		"the end of the sandbox": {func(d *desk) {
			d.kill(one().Sandbox)
			_ = d.End(context.Background(), one().Sandbox)
		}, "approval-cancelled"},
		"other rules": {func(d *desk) {
			c := one()
			c.Fingerprint = rules[2].fingerprint
			_, _ = d.Ask(context.Background(), &c)
		}, "approval-superseded"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			out := d.holds(t, 3, one())
			d.until(t, "all are held", func() bool { return d.heldBy(one().Sandbox) == 3 })
			c.end(d)
			for range 3 {
				if a := <-out; a.Outcome != Refused || a.ID != "r001" || a.Code != c.code || a.Reason == "" {
					t.Errorf("%+v", a)
				}
			}
			d.until(t, "nothing is held", func() bool { return d.heldBy(one().Sandbox) == 0 })
		})
	}
}

func TestHoldIsBounded(t *testing.T) {
	d := newDesk(t)
	decide := func(context.Context) (Call, error) { return one(), nil }
	if a, err := d.Hold(context.Background(), time.Millisecond, decide); err != nil || a.Outcome != Waiting || a.ID != "r001" {
		t.Errorf("%+v %v", a, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if a, err := d.Hold(ctx, MaxHold, decide); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v %v", a, err)
	}
	d.holds(t, MaxHeld, one())
	d.until(t, "all are held", func() bool { return d.heldBy(one().Sandbox) == MaxHeld })
	if a, err := d.Hold(context.Background(), MaxHold, decide); err != nil || a.Outcome != Waiting {
		t.Errorf("one more: %+v %v", a, err)
	}
	d.votes(t, "r001", root, false, Terms{}, nil)
	d.until(t, "nothing is held", func() bool { return d.heldBy(one().Sandbox) == 0 })
	no := errors.New("policy blocks it")
	if _, err := d.Hold(context.Background(), MaxHold, func(context.Context) (Call, error) { return Call{}, no }); !errors.Is(err, no) {
		t.Error(err)
	}
}

// TestManyUseOneGrant: many ask at the same time for what one may use.
func TestManyUseOneGrant(t *testing.T) {
	d := newDesk(t)
	d.asks(t, one(), Waiting, "r001")
	d.votes(t, "r001", root, true, Terms{}, nil)
	var released atomic.Int32
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			c := one()
			if a, err := d.Ask(context.Background(), &c); err != nil {
				t.Error(err)
			} else if a.Outcome == Released {
				released.Add(1)
			}
		})
	}
	if all.Wait(); released.Load() != 1 {
		t.Errorf("%d were released", released.Load())
	}
}

func TestWatchTellsWhatIsOpenAndWhatChanges(t *testing.T) {
	d := newDesk(t)
	d.asks(t, one(), Waiting, "r001")
	d.asks(t, someCall(2), Waiting, "r002")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var got []string
	for r, err := range d.Watch(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.ID+" "+r.State.String())
		switch len(got) {
		case 2:
			d.votes(t, "r002", root, true, Terms{}, nil)
			d.asks(t, someCall(2), Released, "r002")
		case 4:
			cancel()
		}
	}
	if want := []string{"r001 pending", "r002 pending", "r002 approved", "r002 consumed"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestWatcherThatDoesNotRead(t *testing.T) {
	d := newDesk(t)
	d.asks(t, one(), Waiting, "r001")
	var last error
	n := 0
	for _, err := range d.Watch(context.Background()) {
		if last = err; n == 0 {
			d.Book.mu.Lock()
			for range watchAhead + 1 {
				d.tell(&Request{})
			}
			d.Book.mu.Unlock()
		}
		n++
	}
	if !errors.Is(last, ErrBehind) || n != watchAhead+2 {
		t.Errorf("%d changes, then %v", n, last)
	}
}

func TestRunSweepsWhenSomethingIsDue(t *testing.T) {
	d := newDesk(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx, func(err error) { t.Error(err) }) }()
	out := d.holds(t, 1, one())
	d.until(t, "it is held", func() bool { return d.heldBy(one().Sandbox) == 1 })
	d.pass(time.Hour)
	d.asks(t, someCall(2), Waiting, "r002") // this clock wakes nobody; a new deadline has Run look at it
	if a := <-out; a.Outcome != Refused || a.Code != "approval-expired" {
		t.Errorf("%+v", a)
	}
	cancel()
	<-done
}
