// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

// Raise is a temporary increase of a budget's limit.
type Raise struct {
	Scope, Document, Budget string
	Who                     string // of one account; "" of every one
	Amount                  int64
	For                     time.Duration
	By                      string
	UID                     int64
	Reason                  string
}

// MaxRaise bounds how long an increase lasts.
const MaxRaise = 31 * 24 * time.Hour

// ErrRaise says that an increase is out of bounds.
var ErrRaise = fmt.Errorf("an increase is of more than nothing and at most %s, for a minute to %d days", policy.FormatUSD(MaxAmount), MaxRaise/(24*time.Hour))

// ErrNoBudget says that no budget of that name is in force.
var ErrNoBudget = errors.New("no such budget is in force")

// Increase makes an increase durable, and returns when it ends.
func (l *Ledger) Increase(ctx context.Context, r Raise) (until time.Time, err error) {
	if _, ok := l.o.Policy.Budget(policy.KeyOfBudget(r.Scope, r.Document, r.Budget)); !ok {
		return until, fmt.Errorf("%s/%s of %s: %w", r.Document, r.Budget, r.Scope, ErrNoBudget)
	}
	if r.Amount <= 0 || r.Amount > MaxAmount || r.For < time.Minute || r.For > MaxRaise {
		return until, ErrRaise
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	l.lastID++
	n := store.BudgetIncrease{ID: l.lastID, Scope: r.Scope, Document: r.Document, Budget: r.Budget, Who: r.Who, Amount: r.Amount, From: now.UnixNano(), Until: now.Add(r.For).UnixNano(), By: r.By, UID: r.UID, Reason: r.Reason}
	if err := l.o.Store.PutBudgets(ctx, &store.BudgetChange{BudgetState: store.BudgetState{Increases: []store.BudgetIncrease{n}}}); err != nil {
		return until, err
	}
	l.increases = append(l.increases, n)
	return now.Add(r.For), nil
}

// Standing is one account as it is now.
type Standing struct {
	Budget                          *policy.Budget
	Who, Model                      string
	From, Until                     time.Time // the window
	Spent, Estimated, Leased, Limit int64     // Estimated is a part of Spent; Limit is with increases
	Increased                       int64     // how much of Limit is of increases
	Told                            uint8     // percent of the last alert in the window
}

// Left is what nobody has spent or been leased.
func (s *Standing) Left() int64 { return s.Limit - min(s.Limit, plus(s.Spent, s.Leased)) }

// Standings are the accounts of budgets that are in force, and one without amounts
// for a budget that has none yet, by name.
func (l *Ledger) Standings(list []*policy.Budget) (out []Standing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	by := map[policy.BudgetKey][]*account{}
	for _, a := range l.accounts {
		k := a.key()
		by[k] = append(by[k], a)
	}
	for _, b := range list {
		accounts := by[b.Key()]
		for _, a := range accounts {
			s := a.span(&b.Window, now)
			sum := a.since(s.start)
			st := Standing{Budget: b, Who: a.Who, Model: a.Model, From: s.start, Until: s.until, Spent: sum.amount, Estimated: sum.guessed, Leased: sum.leased, Limit: l.limit(b, a.Who, now), Told: a.Told}
			if b.Window.Unit != policy.BudgetRolling && a.From < s.bucket.UnixNano() {
				st.Told = 0
			}
			st.Increased = st.Limit - b.Limit
			out = append(out, st)
		}
		if len(accounts) == 0 {
			s := spanOf(&b.Window, now)
			limit := l.limit(b, "", now)
			out = append(out, Standing{Budget: b, Who: b.Selects.String(), From: s.start, Until: s.until, Limit: limit, Increased: limit - b.Limit})
		}
	}
	slices.SortFunc(out, func(a, b Standing) int {
		return cmp.Or(cmp.Compare(a.Budget.Ref.Scope, b.Budget.Ref.Scope), cmp.Compare(a.Budget.Ref.Doc, b.Budget.Ref.Doc), cmp.Compare(a.Budget.ID, b.Budget.ID), cmp.Compare(a.Who, b.Who), cmp.Compare(a.Model, b.Model))
	})
	return out
}
