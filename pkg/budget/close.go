// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

// Close settles what a gateway left that is gone: each call as its slot says, or,
// where that is not known (nil), all that it was leased. It gives back the rest, and
// takes nothing more from that gateway.
func (l *Ledger) Close(ctx context.Context, id int64, under *Left) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.holders[id]
	if h == nil {
		return nil
	}
	t := l.begin(h)
	n := Notice{Kind: NoticeCrash, Holder: id}
	touched := map[int64]bool{}
	if under == nil || !t.closeCalls(under, &n, touched) {
		t = l.begin(h) // what no gateway of ours leaves counts for nothing
		n = Notice{Kind: NoticeCrash, Holder: id, Unknown: true}
		t.closeLeases(&n, touched)
	}
	for leaseID, s := range l.leases {
		if s.Holder == id {
			t.end(t.lease(leaseID))
		}
	}
	t.alertAll(touched)
	if n.Sent+n.Settled > 0 || n.Amount > 0 {
		t.notices = append(t.notices, n)
	}
	t.ended = true
	return t.commit(ctx)
}

// closeCalls settles calls; false: the slots are not of a gateway of ours.
func (t *turn) closeCalls(under *Left, n *Notice, touched map[int64]bool) bool {
	for i := range under.calls {
		c := &under.calls[i]
		amount := c.reserved
		switch c.state {
		case slotReserved:
			n.Released++
			continue
		case slotSettled:
			if c.sequence <= t.holder.Applied {
				continue
			}
			n.Settled++
			amount = c.actual
		case slotSent:
			n.Sent++
			n.Amount = plus(n.Amount, amount)
		}
		if amount > MaxAmount {
			return false
		}
		for _, id := range c.leases {
			s := t.lease(id)
			if s == nil {
				return false
			}
			t.use(s, amount, c.state == slotSent || c.estimated)
			touched[s.Account] = true
		}
		if amount > c.reserved {
			t.excess(c.leases, c.reserved, amount, c.sequence)
		}
	}
	return true
}

// closeLeases settles everything.
func (t *turn) closeLeases(n *Notice, touched map[int64]bool) {
	for id, s := range t.l.leases {
		if left := s.left(); s.Holder == t.holder.ID && left > 0 {
			t.use(t.lease(id), left, true)
			touched[s.Account] = true
			n.Amount = plus(n.Amount, left)
		}
	}
}

// Sweep gives up gateways that did not come back after a restart before what they
// were leased expired, and forgets accounts and amounts that no window reaches any
// more.
func (l *Ledger) Sweep(ctx context.Context) error {
	for _, id := range l.expired() {
		if err := l.Close(ctx, id, nil); err != nil {
			return err
		}
	}
	return l.prune(ctx)
}

// expired are holders that are not attached, and all of whose leases have expired.
func (l *Ledger) expired() (out []int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now().UnixNano()
	latest := map[int64]int64{}
	for _, n := range l.leases {
		latest[n.Holder] = max(latest[n.Holder], n.Expires)
	}
	for id, h := range l.holders {
		if until, has := latest[id]; !h.attached && has && until < now {
			out = append(out, id)
		}
	}
	return out
}

// keepSpent is how long amounts of calendar windows are kept at least: a window that
// is made longer counts them.
const keepSpent = 32 * 24 * time.Hour

// keepAccount is how long an account of a budget that is not in force is kept.
const keepAccount = 366 * 24 * time.Hour

func (l *Ledger) prune(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	c := &store.BudgetChange{}
	var kept []store.BudgetIncrease
	for _, n := range l.increases {
		if n.Until+int64(keepSpent) < now.UnixNano() {
			c.EndedIncreases = append(c.EndedIncreases, n.ID)
		} else {
			kept = append(kept, n)
		}
	}
	for id, a := range l.accounts {
		if a.refs > 0 {
			continue
		}
		from, over := l.reach(a, now)
		if over {
			c.EndedAccounts = append(c.EndedAccounts, id)
			continue
		}
		for bucket := range a.spent {
			if bucket < from {
				c.EndedSpent = append(c.EndedSpent, store.BudgetSpent{Account: id, Bucket: bucket})
			}
		}
	}
	if empty(c) {
		return nil
	}
	if err := l.o.Store.PutBudgets(ctx, c); err != nil {
		return err
	}
	l.increases = kept
	for _, id := range c.EndedAccounts {
		delete(l.byName, nameOf(&l.accounts[id].BudgetAccount))
		delete(l.accounts, id)
	}
	for _, s := range c.EndedSpent {
		delete(l.accounts[s.Account].spent, s.Bucket)
	}
	return nil
}

// reach is from when on an account's amounts may still count; over: none of them
// does.
func (l *Ledger) reach(a *account, now time.Time) (from int64, over bool) {
	b, ok := l.o.Policy.Budget(a.key())
	if !ok {
		return 0, now.UnixNano()-a.From > int64(keepAccount)
	}
	from = a.span(&b.Window, now).start.UnixNano()
	if b.Window.Unit != policy.BudgetRolling {
		from = min(from, now.Add(-keepSpent).UnixNano())
	}
	for bucket, n := range a.spent {
		if bucket >= from && n.amount > 0 {
			return from, false
		}
	}
	return from, a.From < from
}
