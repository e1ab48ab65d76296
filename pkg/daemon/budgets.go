// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/budget"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

// budgets is the ledger, and the memory in which gateways keep what is under way.
type budgets struct {
	ledger *budget.Ledger
	snap   func() *policy.Snapshot
	living func(context.Context, uint32) (scope.Principal, error) // set before a gateway is asked

	mu       sync.Mutex // guards what follows
	journals map[int64]*os.File
	revision uint64 // of byKey
	byKey    map[policy.BudgetKey]*policy.Budget
}

var _ budget.Policy = (*budgets)(nil)

// openBudgets reads the ledger.
func (d *Daemon) openBudgets() (err error) {
	d.budgets = &budgets{snap: d.library.Snapshot, journals: map[int64]*os.File{}}
	d.budgets.ledger, err = budget.NewLedger(context.Background(), budget.Options{Store: d.store, Policy: d.budgets, Now: time.Now, Record: d.recordBudgets})
	return err
}

// Budget finds one in the policy in force.
func (b *budgets) Budget(k policy.BudgetKey) (*policy.Budget, bool) {
	s := b.snap()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byKey == nil || b.revision != s.Revision() {
		b.revision, b.byKey = s.Revision(), map[policy.BudgetKey]*policy.Budget{}
		for _, x := range s.AllBudgets() {
			b.byKey[x.Key()] = x
		}
	}
	x, ok := b.byKey[k]
	return x, ok
}

// Principal is whom a living sandbox acts for.
func (b *budgets) Principal(ctx context.Context, sandbox uint32) (scope.Principal, error) {
	return b.living(ctx, sandbox)
}

// feedBudgets takes the memory of a gateway that has some, or gives it some, and
// settles what gateways before it left.
func (d *Daemon) feedBudgets(ctx context.Context, p caller) error {
	b := d.budgets
	id, f, err := askJournal(ctx, p, wire.BudgetJournal{})
	if err != nil {
		return err
	}
	switch {
	case f != nil && b.ledger.Attach(id):
		b.keep(id, f)
	default:
		if f != nil { // of another ledger, such as one before a backup was put back
			f.Close()
			d.logger.Warn("the gateway keeps money that the budget ledger does not know; calls that are under way are not counted", "gateway", id)
		}
		if err := b.begin(ctx, p); err != nil {
			return err
		}
	}
	d.settleGone(ctx)
	return nil
}

// begin gives a gateway a number and memory.
func (b *budgets) begin(ctx context.Context, p caller) error {
	id, err := b.ledger.NewHolder(ctx)
	if err != nil {
		return fmt.Errorf("budgets: %w", err)
	}
	f, err := newJournal()
	if err != nil {
		return err
	}
	_, theirs, err := askJournal(ctx, p, wire.BudgetJournal{Holder: id}, f)
	if theirs != nil {
		theirs.Close() // it is the same
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	b.keep(id, f)
	return nil
}

// newJournal is memory that cannot change its size (memfd_create(2); Linux 3.17).
func newJournal() (*os.File, error) {
	fd, err := unix.MemfdCreate("budgets", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("budgets: memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "budgets")
	err = f.Truncate(int64(budget.SlotsSize))
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, journalSeals)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("budgets: memory for calls under way: %w", err), f.Close())
	}
	return f, nil
}

const journalSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW

// askJournal sends a message about memory; f is nil where the gateway has none.
func askJournal(ctx context.Context, p caller, q wire.BudgetJournal, fds ...*os.File) (id int64, f *os.File, err error) {
	reply, got, err := p.Call(ctx, wire.TypeBudgetJournal, q.Encode(), fds...)
	if err != nil {
		return 0, nil, fmt.Errorf("budgets: %w", err)
	}
	var r wire.BudgetJournal
	if err := r.Decode(reply); err != nil {
		wire.CloseAll(got)
		return 0, nil, err
	}
	if r.Holder == 0 || len(got) != 1 {
		wire.CloseAll(got)
		return 0, nil, nil
	}
	return r.Holder, got[0], nil
}

// keep keeps the memory of a gateway, one descriptor for each.
func (b *budgets) keep(id int64, f *os.File) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.journals[id] != nil { // this keeper made it, whatever the gateway shows now
		f.Close()
		return
	}
	b.journals[id] = f
}

// newest is the gateway that was fed last: numbers only grow.
func (b *budgets) newest() (id int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.journals {
		id = max(id, k)
	}
	return id
}

// settleGone settles what every gateway but the present one left. One that may
// still write is left for the next time.
func (d *Daemon) settleGone(ctx context.Context) {
	d.settleOthers(ctx, d.budgets.newest())
}

func (d *Daemon) settleOthers(ctx context.Context, present int64) {
	for _, id := range d.budgets.ledger.Others(present) {
		left, err := d.budgets.read(ctx, id)
		if errors.Is(err, unix.EBUSY) {
			d.logger.Warn("a gateway that was replaced has not ended; what it left is settled later", "gateway", id)
			continue
		}
		if err != nil {
			d.logger.Warn("what a gateway had under way is not known; all that it was leased counts as spent", "gateway", id, "error", err)
		}
		if err := d.budgets.ledger.Close(ctx, id, left); err != nil {
			d.logger.Error("what a gateway left could not be settled; it is tried again", "gateway", id, "error", err)
			continue
		}
		d.budgets.drop(id)
	}
}

var errNoJournal = errors.New("its memory is gone with it, or with the machine")

// goneWait is how long a process that was killed may take to be gone.
const goneWait = 2 * time.Second

// read seals the memory of a gateway and reads it. The kernel seals it against
// writing only when nobody has it mapped to write any more (F_SEAL_WRITE in
// fcntl(2)): EBUSY says that the gateway is there.
func (b *budgets) read(ctx context.Context, id int64) (*budget.Left, error) {
	b.mu.Lock()
	f := b.journals[id]
	b.mu.Unlock()
	if f == nil {
		return nil, errNoJournal
	}
	for deadline := time.Now().Add(goneWait); ; {
		_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, unix.EBUSY
		case <-time.After(2 * time.Millisecond):
		}
	}
	have, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || have&journalSeals != journalSeals {
		return nil, budget.ErrSlots
	}
	return budget.ReadSlots(f, id)
}

func (b *budgets) drop(id int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.journals[id]; f != nil {
		f.Close()
		delete(b.journals, id)
	}
}

// close gives up descriptors; a gateway that lives on has its own.
func (b *budgets) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, f := range b.journals {
		f.Close()
		delete(b.journals, id)
	}
}

// budgetsEvery is how often the ledger is tidied up.
const budgetsEvery = time.Minute

func (d *Daemon) sweepBudgets(ctx context.Context) {
	tick := time.NewTicker(budgetsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if d.budgets.newest() != 0 {
			d.settleGone(ctx)
		}
		if err := d.budgets.ledger.Sweep(ctx); err != nil && ctx.Err() == nil {
			d.logger.Error("the budget ledger could not be tidied up", "error", err)
		}
	}
}

// endBudgets settles everything when the last gateway was ended.
func (d *Daemon) endBudgets() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*goneWait)
	defer cancel()
	d.settleOthers(ctx, 0)
}

// recordBudgets makes notices of the ledger durable.
func (d *Daemon) recordBudgets(ctx context.Context, list []budget.Notice) error {
	evs := make([]*event.Event, len(list))
	for i := range list {
		evs[i] = budgetEvent(&list[i], time.Now().UTC(), d.version)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := d.log.Append(ctx, evs...)
	return err
}

func budgetEvent(n *budget.Notice, now time.Time, version string) *event.Event {
	e := &event.Event{Kind: event.KindBudget, Time: now, Source: "keeper", Layer: "budget", Verdict: event.Observed, Version: version,
		Rule: n.Budget.String(), Scope: n.Who, Model: n.Model, Object: n.Budget.String() + " of " + n.Who}
	if n.Budget.File != "" {
		e.RuleAt = ruleAt(n.Budget.File, n.Budget.Line)
	}
	usd := policy.FormatUSD
	switch n.Kind {
	case budget.NoticeAlert:
		e.Activity, e.ReasonCode = "alert", "budget-alert"
		e.Reason = fmt.Sprintf("the budget %s of %s has passed %d percent: %s of %s are spent", n.Budget, n.Who, n.Percent, usd(n.Amount), usd(n.Limit))
		e.Detail = fmt.Sprintf("percent=%d spent=%d limit=%d hard=%t action=%s until=%s", n.Percent, n.Amount, n.Limit, n.Hard, n.Deed, n.Until.UTC().Format(time.RFC3339))
		if n.Percent >= 100 || n.Deed > policy.BudgetNotify {
			e.Severity = event.SeverityMedium
		}
	case budget.NoticeExcess:
		e.Activity, e.ReasonCode, e.Severity = "excess", "budget-excess", event.SeverityMedium
		e.Reason = fmt.Sprintf("a provider reported %s more for a call than the cap that was declared to it costs; it is counted", usd(n.Amount))
		e.Detail = fmt.Sprintf("excess=%d reserved=%d gateway=%d settlement=%d", n.Amount, n.Reserved, n.Holder, n.Sequence)
	case budget.NoticeCrash:
		e.Activity, e.ReasonCode, e.Object = "crash", "budget-crash", "gateway"
		e.Reason = fmt.Sprintf("a gateway ended with calls under way: %d that were sent are settled at what was reserved for them, %s in all; %d that were not are released", n.Sent, usd(n.Amount), n.Released)
		if n.Unknown {
			e.Severity = event.SeverityMedium
			e.Reason = fmt.Sprintf("a gateway ended, and what it had under way is not known: all that it was leased counts as spent, %s", usd(n.Amount))
		}
		e.Rule, e.Scope = "", ""
		e.Detail = fmt.Sprintf("gateway=%d sent=%d settled=%d released=%d estimated=%d unknown=%t", n.Holder, n.Sent, n.Settled, n.Released, n.Amount, n.Unknown)
	}
	return e
}
