// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/wire"
)

// disk is a store in memory that fails when it is told to. It keeps the rules of
// the tables: what refers to a row that is not there is an error.
type disk struct {
	mu        sync.Mutex
	accounts  map[int64]store.BudgetAccount
	spent     map[[2]int64]store.BudgetSpent
	leases    map[int64]store.BudgetLease
	holders   map[int64]store.BudgetHolder
	increases map[int64]store.BudgetIncrease
	ops       int
	fault     func(op int) fault
	dead      bool
}

// fault is what becomes of one operation.
type fault uint8

const (
	works     fault = iota
	fails           // an error, and nothing has changed
	diesUndo        // the keeper dies before it is durable
	diesDone        // it is durable, and the keeper dies before it hears so
	liesAbout       // an error, durable all the same; the disk takes nothing more until it is opened again
)

var (
	errDisk = errors.New("disk")
	errDead = errors.New("the keeper is dead")
)

func newDisk() *disk {
	return &disk{accounts: map[int64]store.BudgetAccount{}, spent: map[[2]int64]store.BudgetSpent{}, leases: map[int64]store.BudgetLease{},
		holders: map[int64]store.BudgetHolder{}, increases: map[int64]store.BudgetIncrease{}}
}

func (d *disk) BudgetState(context.Context) (st store.BudgetState, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = false
	return store.BudgetState{Accounts: slices.Collect(maps.Values(d.accounts)), Spent: slices.Collect(maps.Values(d.spent)), Leases: slices.Collect(maps.Values(d.leases)),
		Holders: slices.Collect(maps.Values(d.holders)), Increases: slices.Collect(maps.Values(d.increases))}, nil
}

func (d *disk) PutBudgets(_ context.Context, c *store.BudgetChange) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return errDead
	}
	d.ops++
	f := works
	if d.fault != nil {
		f = d.fault(d.ops)
	}
	switch f {
	case fails:
		return errDisk
	case diesUndo:
		d.dead = true
		return errDead
	}
	for _, r := range c.Accounts {
		d.accounts[r.ID] = r
	}
	for _, r := range c.Spent {
		d.spent[[2]int64{r.Account, r.Bucket}] = r
	}
	for _, r := range c.Holders {
		d.holders[r.ID] = r
	}
	for _, r := range c.Leases {
		if _, ok := d.holders[r.Holder]; !ok {
			panic("a lease without its holder")
		}
		d.leases[r.ID] = r
	}
	for _, r := range c.Increases {
		d.increases[r.ID] = r
	}
	for _, id := range c.EndedLeases {
		delete(d.leases, id)
	}
	for _, id := range c.EndedHolders {
		delete(d.holders, id)
	}
	for _, id := range c.EndedIncreases {
		delete(d.increases, id)
	}
	for _, s := range c.EndedSpent {
		delete(d.spent, [2]int64{s.Account, s.Bucket})
	}
	for _, id := range c.EndedAccounts {
		maps.DeleteFunc(d.spent, func(k [2]int64, _ store.BudgetSpent) bool { return k[0] == id })
		delete(d.accounts, id)
	}
	for _, l := range d.leases {
		if _, ok := d.holders[l.Holder]; !ok {
			panic("a holder went before its lease")
		}
	}
	if f == diesDone || f == liesAbout {
		d.dead = true
		return errDead
	}
	return nil
}

// clock is a time that a test sets.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// rules is the policy in force.
type rules struct {
	mu   sync.Mutex
	list []*policy.Budget
	gone map[uint32]bool
}

func (r *rules) Budget(k policy.BudgetKey) (*policy.Budget, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.list {
		if b.Key() == k {
			return b, true
		}
	}
	return nil, false
}

func (r *rules) Principal(_ context.Context, sandbox uint32) (scope.Principal, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone[sandbox] {
		return scope.Principal{}, errors.New("no such sandbox")
	}
	return who(sandbox), nil
}

// who is the principal of a sandbox: two of an agent, two agents of a team, two
// teams.
func who(sandbox uint32) scope.Principal {
	return scope.Principal{Org: "acme", Team: string(rune('a' + sandbox/4%2)), Agent: string(rune('k' + sandbox/2%4)), Sandbox: string(rune('0' + sandbox%8))}
}

// world is a keeper and a gateway on one disk.
type world struct {
	t       testing.TB
	disk    *disk
	clock   *clock
	rules   *rules
	ledger  *Ledger
	till    *Till
	mem     []byte
	holder  int64
	mu      sync.Mutex
	notices []Notice
	refuse  bool // the keeper is away
}

func newWorld(t testing.TB, budgets ...string) *world {
	w := &world{t: t, disk: newDisk(), clock: &clock{at: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}, rules: &rules{list: budgetsOf(t, budgets...), gone: map[uint32]bool{}}}
	w.startKeeper()
	w.startGateway()
	return w
}

// startKeeper reads the ledger anew, as after a crash.
func (w *world) startKeeper() {
	w.t.Helper()
	l, err := NewLedger(context.Background(), Options{Store: w.disk, Policy: w.rules, Now: w.clock.now, Record: func(_ context.Context, list []Notice) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.notices = append(w.notices, list...)
		return nil
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.ledger = l
	if w.holder != 0 && !l.Attach(w.holder) {
		w.t.Fatalf("the keeper does not know gateway %d any more", w.holder)
	}
}

// retry does what a keeper does again after it has died with it.
func (w *world) retry(what func() error) {
	w.t.Helper()
	for range 10 {
		err := what()
		if err == nil {
			return
		}
		if errors.Is(err, errDead) {
			w.startKeeper()
		}
	}
	w.t.Fatal("the keeper does not come to it")
}

func memory() []byte {
	b := make([]uint64, (SlotsSize+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(&b[0])), SlotsSize)
}

// startGateway starts one; what the one before it left is settled.
func (w *world) startGateway() {
	w.t.Helper()
	var id int64
	w.retry(func() (err error) { id, err = w.ledger.NewHolder(context.Background()); return err })
	mem, before := w.mem, w.holder
	w.holder, w.mem = id, memory()
	slots, err := NewSlots(w.mem, id)
	if err != nil {
		w.t.Fatal(err)
	}
	w.till = NewTill(w, w.clock.now)
	w.till.Open(id, slots)
	if before != 0 {
		w.retry(func() error {
			under, err := ReadSlots(bytes.NewReader(mem), before)
			if err != nil {
				w.t.Fatal(err)
			}
			return w.ledger.Close(context.Background(), before, under)
		})
	}
}

// Exchange is the way to the keeper: what one takes with it is said to the next.
func (w *world) Exchange(ctx context.Context, q *wire.BudgetExchange) (reply wire.BudgetReply, err error) {
	b, err := q.Encode()
	if err != nil {
		w.t.Error(err)
	}
	for {
		if w.refuse {
			<-ctx.Done()
			return reply, ctx.Err()
		}
		var again wire.BudgetExchange
		if err := again.Decode(b); err != nil {
			w.t.Error(err)
		}
		reply, err = w.ledger.Exchange(ctx, &again)
		if !errors.Is(err, errDead) {
			return reply, err
		}
		w.mu.Lock()
		if w.disk.dead {
			w.startKeeperLocked()
		}
		w.mu.Unlock()
	}
}

func (w *world) startKeeperLocked() {
	w.mu.Unlock()
	w.startKeeper()
	w.mu.Lock()
}

func (w *world) counts(sandbox uint32) *Counts {
	var list []*policy.Budget
	for _, b := range w.rules.list {
		if b.Selects.Matches(who(sandbox), "", "") {
			list = append(list, b)
		}
	}
	return Count(sandbox, who(sandbox), list)
}

// reserve is Till.Reserve in one thread: it does the clerk's steps itself.
func (w *world) reserve(sandbox uint32, a Ask) (*Reservation, *Refusal) {
	w.t.Helper()
	c := w.counts(sandbox)
	if c.Empty(a.Model) {
		return nil, nil
	}
	asked := uint64(0)
	for n := 0; ; n++ {
		r, ref, changed := w.till.attempt(c, &a, &asked, n >= tries)
		if r != nil || ref != nil {
			return r, ref
		}
		for range 5 {
			w.step()
			if waits, _ := w.till.waits(asked); !waits {
				break
			}
		}
		select {
		case <-changed:
		default:
			return nil, w.till.unanswered(c, &a)
		}
	}
}

// step is one of the clerk's; what the disk refuses is said again later.
func (w *world) step() {
	if _, err := w.till.Step(context.Background(), false); err != nil && !errors.Is(err, errDisk) {
		w.t.Fatal(err)
	}
}

// finish ends the gateway in good order.
func (w *world) finish() {
	w.t.Helper()
	w.till.mu.Lock()
	w.till.draining = true
	w.till.mu.Unlock()
	for range 1000 {
		if _, err := w.till.Step(context.Background(), true); err != nil && !errors.Is(err, errDisk) {
			w.t.Fatal(err)
		}
		if len(w.till.leases)+len(w.till.queue) == 0 {
			return
		}
	}
	w.t.Fatalf("after everything has ended there are %d leases, %d settlements", len(w.till.leases), len(w.till.queue))
}

// spent is what an account spent in all, whatever the window.
func (w *world) spent(budget, who, model string) (sum int64) {
	for _, a := range w.ledger.accounts {
		if a.Budget == budget && (who == "" || a.Who == who) && a.Model == model {
			for _, s := range a.spent {
				sum += s.amount
			}
		}
	}
	return sum
}

// whole says whether the ledger is one: what it holds in memory is what is on the
// disk, and the sums of its accounts are those of its leases.
func (w *world) whole(atEnd bool) {
	w.t.Helper()
	leased := map[[2]int64]int64{}
	for _, n := range w.ledger.leases {
		leased[[2]int64{n.Account, n.Bucket}] += n.left()
	}
	for id, a := range w.ledger.accounts {
		if row := w.disk.accounts[id]; row != a.BudgetAccount {
			w.t.Errorf("account %+v is %+v on the disk", a.BudgetAccount, row)
		}
		for bucket, s := range a.spent {
			if want := leased[[2]int64{id, bucket}]; s.leased != want || atEnd && s.leased != 0 {
				w.t.Errorf("account %s of %s: %d leased, its leases say %d", a.Who, a.Budget, s.leased, want)
			}
			if row := w.disk.spent[[2]int64{id, bucket}]; row.Amount != s.amount || row.Estimated != s.guessed {
				w.t.Errorf("account %s of %s: spent %+v, on the disk %+v", a.Who, a.Budget, s, row)
			}
		}
	}
	if atEnd && len(w.ledger.leases)+len(w.disk.leases) != 0 {
		w.t.Errorf("%d leases are left, %d on the disk", len(w.ledger.leases), len(w.disk.leases))
	}
}

func (w *world) count(k NoticeKind) (n int) {
	for i := range w.notices {
		if w.notices[i].Kind == k {
			n++
		}
	}
	return n
}
