// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

// turn is one change of a ledger: it works on copies of what it touches, which
// become the ledger's when they are durable.
type turn struct {
	l        *Ledger
	now      time.Time
	holder   *holder
	accounts map[int64]*account
	leases   map[int64]*lease // nil: it has ended
	fresh    map[leaseKey]int64
	lastID   int64
	noted    bool // the holder's row has changed
	ended    bool // the holder ends
	notices  []Notice
}

func (l *Ledger) begin(h *holder) *turn {
	t := &turn{l: l, now: l.o.Now(), accounts: map[int64]*account{}, leases: map[int64]*lease{}, lastID: l.lastID}
	if h != nil {
		c := *h
		t.holder = &c
	}
	return t
}

func (t *turn) id() int64 {
	t.lastID++
	return t.lastID
}

// account is one to change, nil if there is none.
func (t *turn) account(id int64) *account {
	if a := t.accounts[id]; a != nil {
		return a
	}
	a := t.l.accounts[id]
	if a == nil {
		return nil
	}
	c := *a
	c.spent = maps.Clone(a.spent)
	t.accounts[id] = &c
	return &c
}

// lease is one of the holder's to change, nil if there is none.
func (t *turn) lease(id int64) *lease {
	if n, ok := t.leases[id]; ok {
		return n
	}
	n := t.l.leases[id]
	if n == nil || n.Holder != t.holder.ID {
		return nil
	}
	c := *n
	t.leases[id] = &c
	return &c
}

// find is the lease of an account in a bucket, nil if there is none.
func (t *turn) find(k leaseKey) *lease {
	id, ok := t.fresh[k]
	if !ok {
		id, ok = t.l.current[k]
	}
	if !ok {
		return nil
	}
	return t.lease(id)
}

// use takes an amount out of a lease, and counts it as spent.
func (t *turn) use(n *lease, amount int64, guessed bool) {
	a := t.account(n.Account)
	before := n.left()
	n.Used = plus(n.Used, amount)
	a.lend(n.Bucket, n.left()-before)
	s := a.spent[n.Bucket]
	s.amount = plus(s.amount, amount)
	if guessed {
		s.guessed = plus(s.guessed, amount)
	}
	a.spent[n.Bucket] = s
}

// shrink makes a lease smaller, not below what was spent of it.
func (t *turn) shrink(n *lease, granted int64) {
	a := t.account(n.Account)
	before := n.left()
	n.Granted = min(n.Granted, max(granted, n.Used))
	a.lend(n.Bucket, n.left()-before)
}

// end gives a lease back.
func (t *turn) end(n *lease) {
	a := t.account(n.Account)
	a.lend(n.Bucket, -n.left())
	a.refs--
	t.leases[n.ID] = nil
}

// alerts notes what an account has passed of its budget's percentages.
func (t *turn) alerts(a *account) {
	b, ok := t.l.o.Policy.Budget(a.key())
	if !ok {
		return
	}
	s := a.span(&b.Window, t.now)
	limit, spent := t.l.limit(b, a.Who, t.now), a.since(s.start).amount
	percent := percentOf(spent, limit)
	if b.Window.Unit == policy.BudgetRolling && int64(a.Told) > percent {
		a.Told = uint8(percent) // it went down: what it passes again is told again
	}
	for _, at := range thresholds(b) {
		if at <= a.Told || int64(at) > percent {
			continue
		}
		a.Told = at
		deed, _ := b.Deed(int64(at))
		t.notices = append(t.notices, Notice{Kind: NoticeAlert, Budget: b.Ref, Who: a.Who, Model: a.Model, Percent: at, Amount: spent, Limit: limit, Deed: deed, Hard: b.Hard, Until: s.until})
	}
}

// thresholds are all percentages at which something happens, ascending.
func thresholds(b *policy.Budget) []uint8 {
	list := slices.Clone(b.Alerts)
	for _, a := range b.OnAlert {
		list = append(list, a.At)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// percentOf rounds down, and does not overflow.
func percentOf(spent, limit int64) int64 {
	if limit <= 0 {
		return 100
	}
	if spent <= 0 {
		return 0
	}
	if p := spent / limit; p > 1000 {
		return 100_000
	}
	if spent < MaxAmount/100 {
		return spent * 100 / limit
	}
	return spent / max(1, limit/100)
}

// change is the turn as rows.
func (t *turn) change() *store.BudgetChange {
	c := &store.BudgetChange{}
	for _, id := range slices.Sorted(maps.Keys(t.accounts)) {
		a, was := t.accounts[id], t.l.accounts[id]
		if was == nil || a.BudgetAccount != was.BudgetAccount {
			c.Accounts = append(c.Accounts, a.BudgetAccount)
		}
		for _, bucket := range slices.Sorted(maps.Keys(a.spent)) {
			row := func(of *account) store.BudgetSpent {
				return store.BudgetSpent{Account: id, Bucket: bucket, Amount: of.spent[bucket].amount, Estimated: of.spent[bucket].guessed}
			}
			if is := row(a); was == nil && is.Amount > 0 || was != nil && row(was) != is {
				c.Spent = append(c.Spent, is)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(t.leases)) {
		n, was := t.leases[id], t.l.leases[id]
		switch {
		case n == nil && was != nil:
			c.EndedLeases = append(c.EndedLeases, id)
		case n != nil && (was == nil || n.BudgetLease != was.BudgetLease):
			c.Leases = append(c.Leases, n.BudgetLease)
		}
	}
	switch {
	case t.ended:
		c.EndedHolders = []int64{t.holder.ID}
	case t.noted:
		c.Holders = []store.BudgetHolder{t.holder.BudgetHolder}
	}
	return c
}

func empty(c *store.BudgetChange) bool {
	return len(c.Accounts)+len(c.Spent)+len(c.Leases)+len(c.Holders)+len(c.Increases)+len(c.EndedLeases)+len(c.EndedHolders)+len(c.EndedIncreases)+len(c.EndedAccounts)+len(c.EndedSpent) == 0
}

// commit makes the turn durable, and then the ledger's. After an error the ledger
// is as it was.
func (t *turn) commit(ctx context.Context) error {
	c := t.change()
	t.l.lastID = t.lastID // also when it fails: no number is given twice
	if len(t.notices) > 0 {
		if err := t.l.o.Record(ctx, t.notices); err != nil {
			return err
		}
	}
	if !empty(c) {
		if err := t.l.o.Store.PutBudgets(ctx, c); err != nil {
			return err
		}
	}
	l := t.l
	for id, a := range t.accounts {
		l.accounts[id] = a
		l.byName[nameOf(&a.BudgetAccount)] = id
	}
	for id, n := range t.leases {
		if n == nil {
			if was := l.leases[id]; was != nil {
				if k := (leaseKey{was.Holder, was.Account, was.Bucket}); l.current[k] == id { // it may have a successor
					delete(l.current, k)
				}
			}
			delete(l.leases, id)
			continue
		}
		l.leases[id] = n
		l.current[leaseKey{n.Holder, n.Account, n.Bucket}] = id
	}
	if t.holder != nil {
		l.holders[t.holder.ID] = t.holder
		if t.ended {
			delete(l.holders, t.holder.ID)
		}
	}
	return nil
}
