// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/budget"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// Budgets lists the accounts of the budgets in force.
func (b *backend) Budgets(context.Context) ([]api.Budget, error) {
	list := b.d.budgets.ledger.Standings(b.d.library.Snapshot().AllBudgets())
	out := make([]api.Budget, len(list))
	for i := range list {
		s := &list[i]
		out[i] = api.Budget{Name: s.Budget.Ref.String(), Scope: s.Budget.Ref.Scope, Who: s.Who, Model: s.Model, Hard: s.Budget.Hard, Window: s.Budget.Window.String(),
			From: s.From.UTC(), Until: s.Until.UTC(), Limit: s.Limit, Increased: s.Increased, Spent: s.Spent, Estimated: s.Estimated, Leased: s.Leased, Left: s.Left(), Alert: s.Told}
	}
	return out, nil
}

// IncreaseBudget raises a limit. It is recorded before it is answered.
func (b *backend) IncreaseBudget(ctx context.Context, c *api.Caller, r *api.BudgetIncrease) (res api.BudgetIncreased, err error) {
	doc, id, ok := strings.Cut(r.Name, "/")
	if !ok {
		return res, api.Errorf(api.CodeBadRequest, "a budget is named DOCUMENT/ID, not %q", r.Name)
	}
	by := scope.Operator(c.UID, b.d.people.name(c.UID))
	until, err := b.d.budgets.ledger.Increase(ctx, budget.Raise{Scope: r.Scope, Document: doc, Budget: id, Who: r.Who, Amount: r.Amount, For: time.Duration(r.For), By: by, UID: int64(c.UID), Reason: r.Reason})
	switch {
	case errors.Is(err, budget.ErrNoBudget):
		return res, api.Errorf(api.CodeNotFound, "no budget %q", r.Name).WithRemedy("`ringfence budgets` lists them")
	case errors.Is(err, budget.ErrRaise):
		return res, api.Errorf(api.CodeBadRequest, "%v", err)
	case err != nil:
		return res, err
	}
	whom := r.Who
	if whom == "" {
		whom = "every account"
	}
	e := &event.Event{Kind: event.KindBudget, Time: time.Now().UTC(), Source: "keeper", Layer: "budget", Verdict: event.Observed, Version: b.d.version, Activity: "increase", ReasonCode: "budget-increase",
		Rule: r.Name, Scope: r.Scope, Object: r.Name + " of " + whom, Actor: by, UID: c.UID,
		Reason: fmt.Sprintf("the budget %s has %s more until %s", r.Name, policy.FormatUSD(r.Amount), until.UTC().Format(time.RFC3339)), Detail: r.Reason}
	return api.BudgetIncreased{Name: r.Name, Scope: r.Scope, Until: until.UTC()}, b.d.appendErr(e)
}
