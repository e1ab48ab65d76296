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

	"github.com/ringfence/ringfence/pkg/store"
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

// answer is that to one call.
type answer struct {
	Outcome          Outcome
	ID, Reason, Code string
}

// Ask asks for one call.
func (d *desk) Ask(ctx context.Context, c *Call) (answer, error) {
	a, err := d.AskAll(ctx, []*Call{c})
	if err != nil {
		return answer{}, err
	}
	return answer{a.Outcome, a.IDs[0], a.Reason, a.Code}, nil
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
	d.asks(t, one(), Waiting, "r002")
	d.votes(t, "r002", root, false, Terms{}, nil)
	c := one()
	if a, err := d.Ask(context.Background(), &c); err != nil || a.Outcome != Refused || a.ID != "r002" || a.Reason != "people have denied it (r002)" {
		t.Errorf("a denial tells the sandbox %+v (%v)", a, err) // and not who
	}
	if r := d.state(t, "r002", Denied); r.Why != "denied by uid=0(root)" {
		t.Errorf("it tells people %q", r.Why) // the control
	}
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

// TestNobodyReleasedWhenTheLogFails: what the log does not have releases nothing,
// neither now nor once the log works again, or another book reads the store.
func TestNobodyReleasedWhenTheLogFails(t *testing.T) {
	ctx := context.Background()
	for _, terms := range []Terms{{}, {Lasts: LastsFor, For: time.Hour, Covers: CoversTarget}, {Lasts: LastsSandbox, Covers: CoversTarget}} {
		t.Run(terms.Lasts.String(), func(t *testing.T) {
			d := newDesk(t)
			var announced []State
			d.o.Announce = func(r *Request) { announced = append(announced, r.State) }
			d.asks(t, one(), Waiting, "r001")
			d.broken = errors.New("the log is full")
			if _, err := d.Vote(ctx, "r001", root, true, terms, ""); !errors.Is(err, d.broken) {
				t.Fatalf("the vote: %v", err)
			}
			d.asks(t, one(), Waiting, "r001")
			again, err := NewBook(ctx, d.o)
			if err != nil {
				t.Fatal(err)
			}
			d.Book, d.broken = again, nil
			d.asks(t, one(), Waiting, "r001")
			d.votes(t, "r001", root, true, terms, nil)
			if want := []State{Pending, Approved}; !slices.Equal(announced, want) {
				t.Errorf("announced: %v", announced)
			}
			d.asks(t, one(), Released, "r001")
		})
	}
}

// TestAnApprovalIsInTheLogBeforeTheStoreHasIt: also when nobody can say whether
// the store has it.
func TestAnApprovalIsInTheLogBeforeTheStoreHasIt(t *testing.T) {
	d := newDesk(t)
	d.asks(t, one(), Waiting, "r001")
	d.o.Store = &unclear{d.store, true}
	if _, err := d.Vote(context.Background(), "r001", root, true, Terms{Lasts: LastsSandbox}, ""); err == nil {
		t.Fatal("the vote was taken")
	}
	d.asks(t, one(), Released, "r001")
	if want := []Verb{VerbAsk, VerbApprove}; !slices.Equal(d.verbs(), want) {
		t.Errorf("the log has %v", d.verbs())
	}
}

// TestAVoteThatTheLogHasNotIsNone: of several people's too.
func TestAVoteThatTheLogHasNotIsNone(t *testing.T) {
	d := newDesk(t)
	d.asks(t, someCall(16), Waiting, "r001")
	d.broken = errors.New("the log is full")
	d.votes(t, "r001", people[2], true, Terms{}, d.broken)
	d.broken = nil
	if r := d.votes(t, "r001", people[3], true, Terms{}, nil); r.State != Pending || len(r.Votes) != 1 {
		t.Errorf("%s with %d votes", r.State, len(r.Votes))
	}
}

func TestOneUseDoesNotCountWhenTheLogFails(t *testing.T) {
	d := newDesk(t)
	d.asks(t, one(), Waiting, "r001")
	d.votes(t, "r001", root, true, Terms{}, nil)
	d.broken = errors.New("the log is full")
	c := one()
	if a, err := d.Ask(context.Background(), &c); err == nil || a.Outcome != Refused {
		t.Errorf("asking comes to %+v, %v", a, err)
	}
	d.broken = nil
	d.asks(t, one(), Waiting, "r002") // it is used up all the same
}

func TestNothingIsOpenOfADeadSandbox(t *testing.T) {
	d := newDesk(t)
	ctx := context.Background()
	forever := Terms{Lasts: LastsSandbox, Covers: CoversTarget}
	d.asks(t, one(), Waiting, "r001")
	d.votes(t, "r001", root, true, forever, nil)
	d.asks(t, one(), Released, "r001")
	d.asks(t, someCall(2), Waiting, "r002")
	d.asks(t, someCall(1), Waiting, "r003") // of another sandbox
	d.kill(one().Sandbox)
	c := one()
	if a, err := d.Ask(ctx, &c); err != nil || a.Outcome != Refused {
		t.Errorf("asking comes to %+v, %v", a, err)
	}
	d.votes(t, "r002", root, true, Terms{}, ErrDecided)
	if err := d.End(ctx, one().Sandbox); err != nil {
		t.Fatal(err)
	}
	d.state(t, "r001", Expired)
	d.state(t, "r002", Cancelled)
	d.state(t, "r003", Pending)
	d.kill(someCall(1).Sandbox) // the daemon was not there then
	if err := d.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	d.state(t, "r003", Cancelled)
}

func TestSweepWritesWhatTimeHasDone(t *testing.T) {
	d := newDesk(t)
	ctx := context.Background()
	d.asks(t, one(), Waiting, "r001")
	d.asks(t, someCall(2), Waiting, "r002")
	d.votes(t, "r002", root, true, Terms{Lasts: LastsFor, For: time.Hour}, nil)
	d.pass(15 * time.Minute)
	if err := d.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if a, err := d.store.Approval(ctx, "r001"); err != nil || a.State != "expired" {
		t.Errorf("the store says %s (%v)", a.State, err)
	}
	d.asks(t, someCall(2), Released, "r002")
	d.pass(time.Hour)
	d.asks(t, someCall(2), Waiting, "r003") // no sweep was needed
	d.state(t, "r002", Expired)
	d.pass(Keep + time.Minute)
	for range 2 {
		if err := d.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if got := d.listed(t, true); !slices.Equal(got, []string{"r003"}) {
		t.Errorf("%q are left", got)
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

// TestManyUseTwoGrantsTogether: of many that want both, and many that want one of
// them and another that nobody gave, one gets both.
func TestManyUseTwoGrantsTogether(t *testing.T) {
	d := newDesk(t)
	ctx := context.Background()
	if a, err := d.AskAll(ctx, callsOf(0, 4)); err != nil || a.Outcome != Waiting || !slices.Equal(a.IDs, []string{"r001", "r002"}) {
		t.Fatalf("%+v %v", a, err)
	}
	d.votes(t, "r001", root, true, Terms{}, nil)
	d.votes(t, "r002", root, true, Terms{}, nil)
	var released atomic.Int32
	var all sync.WaitGroup
	for n := range 60 {
		all.Go(func() {
			a, err := d.AskAll(ctx, callsOf([][]byte{{0, 4}, {4, 0}, {0, 8}, {8, 4}}[n%4]...))
			if err != nil {
				t.Error(err)
			} else if a.Outcome == Released {
				released.Add(1)
			}
		})
	}
	if all.Wait(); released.Load() != 1 {
		t.Errorf("%d were released", released.Load())
	}
	d.state(t, "r001", Consumed)
	d.state(t, "r002", Consumed)
}

// TestNoneOfSeveralIsUsed where the store, or the log, does not take all of them.
func TestNoneOfSeveralIsUsed(t *testing.T) {
	d := newDesk(t)
	ctx := context.Background()
	refuses := func(why string, want Answers, list ...byte) {
		t.Helper()
		if a, err := d.AskAll(ctx, callsOf(list...)); err != nil || a.Outcome != want.Outcome || !slices.Equal(a.IDs, want.IDs) || a.Code != want.Code {
			t.Errorf("%s: %+v %v", why, a, err)
		}
	}
	refuses("the first time", Answers{Waiting, []string{"r001", "r002"}, "", ""}, 0, 4)
	d.votes(t, "r001", root, true, Terms{}, nil)
	refuses("one of two", Answers{Waiting, []string{"", "r002"}, "", ""}, 0, 4)
	d.state(t, "r001", Approved)
	d.votes(t, "r002", root, false, Terms{}, nil)
	refuses("a denial of one", Answers{Refused, []string{"", "r002"}, "", "approval-denied"}, 0, 4)
	d.state(t, "r001", Approved)
	for why, list := range map[string][]byte{"the same twice": {0, 0}, "of two sandboxes": {0, 1}, "nothing": {}} {
		if a, err := d.AskAll(ctx, callsOf(list...)); err == nil || a.Outcome != Refused {
			t.Errorf("%s: %+v %v", why, a, err)
		}
	}
	d.pass(time.Second)
	refuses("another", Answers{Waiting, []string{"", "r003"}, "", ""}, 0, 8)
	d.votes(t, "r003", root, true, Terms{}, nil)
	d.broken = errors.New("no room")
	if a, err := d.AskAll(ctx, callsOf(0, 8)); !errors.Is(err, d.broken) || a.Outcome != Refused {
		t.Errorf("the log did not take it: %+v %v", a, err)
	}
	d.broken = nil
	d.o.Limits = Limits{Pending: 2, PerMinute: 30}
	refuses("too many", Answers{Refused, []string{"", "", ""}, "", "approval-limit"}, 2, 6, 10)
	refuses("control", Answers{Waiting, []string{"r004", "r005"}, "", ""}, 2, 6)
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
	d.asks(t, one(), Waiting, "r001")
	d.pass(time.Hour)
	d.asks(t, someCall(3), Waiting, "r002") // of another sandbox: this clock wakes nobody; a new deadline has Run look at it
	for range 2000 {
		if slices.Contains(d.verbs(), VerbExpire) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if r := d.state(t, "r001", Expired); !slices.Contains(d.verbs(), VerbExpire) {
		t.Errorf("nothing was swept: %+v", r)
	}
	cancel()
	<-done
}

// all is every request that is kept, newest first.
func (d *desk) all() (out []Request, err error) {
	for r, err := range d.List(context.Background(), true) {
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (d *desk) listed(t *testing.T, all bool) (ids []string) {
	t.Helper()
	for r, err := range d.List(context.Background(), all) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	return ids
}

// TestListIsReadInPages: whole, newest first, each once, also of requests that
// were made at one time.
func TestListIsReadInPages(t *testing.T) {
	d := newDesk(t)
	var want, open []string
	for i := range 2*listPage + 3 {
		c := one()
		c.Sandbox = fmt.Sprintf("%08x", i)
		c.Scope = "org:acme/team:x/agent:y/sandbox:" + c.Sandbox
		id := fmt.Sprintf("r%03d", i+1)
		d.asks(t, c, Waiting, id)
		want = append(want, id)
		if i%7 == 0 {
			d.pass(time.Second)
		}
	}
	for i, id := range want {
		if i%3 == 0 {
			d.votes(t, id, root, false, Terms{}, nil)
		} else {
			open = append(open, id)
		}
	}
	slices.Reverse(want)
	slices.Reverse(open)
	if got := d.listed(t, true); !slices.Equal(got, want) {
		t.Errorf("all: %d of %d, or in another order", len(got), len(want))
	}
	if got := d.listed(t, false); !slices.Equal(got, open) {
		t.Errorf("open: %d of %d, or in another order", len(got), len(open))
	}
}

// unclear is a store that once says it failed after it has done what it was told.
type unclear struct {
	kept
	once bool
}

type kept = store.Approvals

func (u *unclear) PutApprovals(ctx context.Context, list ...store.Approval) error {
	err := u.kept.PutApprovals(ctx, list...)
	if u.once {
		u.once = false
		return errors.New("nobody knows")
	}
	return err
}

// TestACommitOfWhichNobodyKnows: what the store has, though it said otherwise, is
// a request like all others.
func TestACommitOfWhichNobodyKnows(t *testing.T) {
	d := newDesk(t)
	u := &unclear{d.store, true}
	d.o.Store = u
	c := one()
	if a, err := d.Ask(context.Background(), &c); err == nil || a.Outcome != Refused {
		t.Fatalf("%+v %v", a, err)
	}
	c.Waits = "r001"
	d.asks(t, c, Waiting, "r001") // nothing is to be written
	d.asks(t, one(), Waiting, "r001")
	u.once = true
	if _, err := d.Vote(context.Background(), "r001", root, true, Terms{}, ""); err == nil {
		t.Error("the vote was taken")
	}
	d.asks(t, one(), Released, "r001")
	u.once = true
	c = someCall(2)
	if _, err := d.Ask(context.Background(), &c); err == nil {
		t.Error("it was taken")
	}
	if err := d.Sweep(context.Background()); err != nil || len(d.open) != 1 {
		t.Errorf("%d have a deadline (%v)", len(d.open), err)
	}
}
