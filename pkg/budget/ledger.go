// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
)

// Policy is what is in force, as the ledger asks it.
type Policy interface {
	// Budget finds one.
	Budget(key policy.BudgetKey) (*policy.Budget, bool)
	// Principal is whom a living sandbox acts for.
	Principal(ctx context.Context, sandbox uint32) (scope.Principal, error)
}

// Options of a ledger.
type Options struct {
	Store  store.Budgets
	Policy Policy
	Now    func() time.Time
	// Record makes notices durable before what they are about is. It may be told one
	// twice, when what follows fails.
	Record func(ctx context.Context, list []Notice) error
}

// Bounds of a ledger.
const (
	// MaxAccounts is how many accounts there may be: an agent that invents models, or
	// is started often, does not fill the disk. Over it new ones are refused.
	MaxAccounts = 1 << 16
	// MaxAmount bounds every amount that a gateway names.
	MaxAmount = int64(1e9) * policy.NanoPerUSD
	// LeaseTime is how long a gateway may begin calls without a word with the keeper.
	LeaseTime = 10 * time.Minute
)

// Ledger is the keeper's side: what every account has spent and given away. It is
// safe for concurrent use; what changes it has a turn, which ends when the change is
// durable.
type Ledger struct {
	o Options

	mu        sync.Mutex // the turn; guards what follows
	accounts  map[int64]*account
	byName    map[accountName]int64
	leases    map[int64]*lease
	current   map[leaseKey]int64 // the lease of a holder and account in a bucket
	holders   map[int64]*holder
	increases []store.BudgetIncrease
	lastID    int64
	lastHold  int64
}

type accountName struct{ scope, document, budget, who, model string }

type leaseKey struct{ holder, account, bucket int64 }

type account struct {
	store.BudgetAccount
	spent map[int64]spent // by bucket
	refs  int             // how many leases it has
}

// spent is an amount, how much of it no provider reported, and what is left of
// leases beside it.
type spent struct{ amount, guessed, leased int64 }

// lend adds to what is leased in a bucket.
func (a *account) lend(bucket, more int64) {
	if more == 0 {
		return
	}
	s := a.spent[bucket]
	s.leased += more
	a.spent[bucket] = s
}

type lease struct{ store.BudgetLease }

// left is what may still be spent of it. More than was granted may be spent of it,
// where a provider reported more than was reserved.
func (l *lease) left() int64 { return max(0, l.Granted-l.Used) }

type holder struct {
	store.BudgetHolder
	attached bool // it is connected, or was since this ledger was opened
}

// NewLedger reads what is in the store.
func NewLedger(ctx context.Context, o Options) (*Ledger, error) {
	st, err := o.Store.BudgetState(ctx)
	if err != nil {
		return nil, err
	}
	l := &Ledger{o: o, accounts: map[int64]*account{}, byName: map[accountName]int64{}, leases: map[int64]*lease{}, current: map[leaseKey]int64{},
		holders: map[int64]*holder{}, increases: st.Increases}
	for _, a := range st.Accounts {
		l.accounts[a.ID] = &account{BudgetAccount: a, spent: map[int64]spent{}}
		l.byName[nameOf(&a)] = a.ID
		l.lastID = max(l.lastID, a.ID)
	}
	for _, s := range st.Spent {
		if a := l.accounts[s.Account]; a != nil {
			a.spent[s.Bucket] = spent{amount: s.Amount, guessed: s.Estimated}
		}
	}
	for _, h := range st.Holders {
		l.holders[h.ID] = &holder{BudgetHolder: h}
		l.lastHold = max(l.lastHold, h.ID)
	}
	for _, s := range st.Leases {
		a := l.accounts[s.Account]
		if a == nil || l.holders[s.Holder] == nil {
			return nil, &store.Error{Kind: store.ErrCorrupt, What: "a lease of the budget ledger has no account or holder"}
		}
		n := &lease{s}
		l.leases[s.ID] = n
		l.current[leaseKey{s.Holder, s.Account, s.Bucket}] = s.ID
		a.lend(n.Bucket, n.left())
		a.refs++
		l.lastID = max(l.lastID, s.ID)
	}
	for _, n := range st.Increases {
		l.lastID = max(l.lastID, n.ID)
	}
	return l, nil
}

func nameOf(a *store.BudgetAccount) accountName {
	return accountName{a.Scope, a.Document, a.Budget, a.Who, a.Model}
}

// key is that of the account's budget.
func (a *account) key() policy.BudgetKey {
	return policy.KeyOfBudget(a.Scope, a.Document, a.Budget)
}

// span is where now lies for the account. A clock that went back stays in the
// newest step that anything was counted in.
func (a *account) span(w *policy.BudgetWindow, now time.Time) span {
	if newest := time.Unix(0, a.From); now.Before(newest) {
		now = newest
	}
	return spanOf(w, now)
}

// since is what was spent in the buckets from a moment on, and is left of leases
// that count in them.
func (a *account) since(start time.Time) (sum spent) {
	from := start.UnixNano()
	for bucket, n := range a.spent {
		if bucket >= from {
			sum = spent{plus(sum.amount, n.amount), plus(sum.guessed, n.guessed), plus(sum.leased, n.leased)}
		}
	}
	return sum
}

// room is what is left of a limit.
func (s spent) room(limit int64) int64 { return limit - min(limit, plus(s.amount, s.leased)) }

// frees is when the first of what is spent in the window is out of it.
func (a *account) frees(w *policy.BudgetWindow, s span) time.Time {
	if w.Unit != policy.BudgetRolling {
		return s.until
	}
	first := int64(math.MaxInt64)
	for bucket, n := range a.spent {
		if n.amount > 0 && bucket >= s.start.UnixNano() {
			first = min(first, bucket)
		}
	}
	if first == math.MaxInt64 {
		return s.until
	}
	return time.Unix(0, first).Add(w.Length + w.Length/steps)
}

// plus adds amounts and stays at the end of the range.
func plus(a, b int64) int64 {
	if s := a + b; b < 0 || s >= a {
		return s
	}
	return math.MaxInt64
}

// limit is that of a budget with what the account was given beyond it for a time.
func (l *Ledger) limit(b *policy.Budget, who string, now time.Time) int64 {
	sum, at := b.Limit, now.UnixNano()
	for i := range l.increases {
		n := &l.increases[i]
		if n.Scope == b.Ref.Scope && n.Document == b.Ref.Doc && n.Budget == b.ID && (n.Who == "" || n.Who == who) && n.From <= at && at < n.Until {
			sum = plus(sum, n.Amount)
		}
	}
	return sum
}

// ErrHolder says that the ledger knows no such gateway, or takes no more from it.
var ErrHolder = errors.New("budget: this gateway has no place in the ledger any more")

// NewHolder gives a new gateway its number, durably.
func (l *Ledger) NewHolder(ctx context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := max(l.lastHold+1, l.o.Now().UnixMilli())
	h := &holder{store.BudgetHolder{ID: id}, true}
	if err := l.o.Store.PutBudgets(ctx, &store.BudgetChange{BudgetState: store.BudgetState{Holders: []store.BudgetHolder{h.BudgetHolder}}}); err != nil {
		return 0, err
	}
	l.holders[id], l.lastHold = h, id
	return id, nil
}

// Attach says that a gateway lives which a former keeper knew; false: it is not
// known here.
func (l *Ledger) Attach(id int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.holders[id]
	if h == nil {
		return false
	}
	h.attached = true
	return true
}

// Others are all holders but one, in their order: gateways that are gone, when
// that one is connected.
func (l *Ledger) Others(id int64) (out []int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other := range l.holders {
		if other != id {
			out = append(out, other)
		}
	}
	slices.Sort(out)
	return out
}
