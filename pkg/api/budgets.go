// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// Budget is one account of a budget, as it is now. Amounts are nano-dollars.
type Budget struct {
	Name      string    `json:"name"`            // "document/id"
	Scope     string    `json:"scope"`           // of the document
	Who       string    `json:"who"`             // whose calls count here
	Model     string    `json:"model,omitempty"` // of which model, "" for all
	Hard      bool      `json:"hard"`
	Window    string    `json:"window"`
	From      time.Time `json:"from"`
	Until     time.Time `json:"until"`
	Limit     int64     `json:"limit"`               // with what it was increased by
	Increased int64     `json:"increased,omitempty"` // for a time
	Spent     int64     `json:"spent"`
	Estimated int64     `json:"estimated,omitempty"` // the part of it that no provider reported
	Leased    int64     `json:"leased"`              // that the gateway may spend without asking
	Left      int64     `json:"left"`
	Alert     uint8     `json:"alert,omitempty"` // percentage that was passed last in the window
}

// BudgetIncrease is the body of POST /v1/budgets/increase.
type BudgetIncrease struct {
	Name   string   `json:"name"`            // "document/id"
	Scope  string   `json:"scope,omitempty"` // of the document, where several have that name
	Who    string   `json:"who,omitempty"`   // one account of it; all when absent
	Amount int64    `json:"amount"`          // nano-dollars
	For    Duration `json:"for"`
	Reason string   `json:"reason,omitempty"`
}

// BudgetIncreased answers it.
type BudgetIncreased struct {
	Name  string    `json:"name"`
	Scope string    `json:"scope"`
	Until time.Time `json:"until"`
}

// BudgetBackend keeps the ledger of budgets. What a caller may see and do is the
// server's to say.
type BudgetBackend interface {
	// Budgets lists the accounts of all budgets in force.
	Budgets(ctx context.Context) ([]Budget, error)
	// IncreaseBudget raises a limit for a time; r.Scope is that of the document.
	IncreaseBudget(ctx context.Context, c *Caller, r *BudgetIncrease) (BudgetIncreased, error)
}

// seesBudget: who may look at a scope, or start agents in it, may know what they have
// left.
func seesBudget(r Rights, b *Budget) bool {
	return r.mayIn(policy.RightSee, b.Who) || r.mayIn(policy.RightLaunch, b.Who)
}

// listBudgets shows accounts of scopes where the caller is a viewer or launcher.
func (s *Server) listBudgets(w http.ResponseWriter, r *call) error {
	all, err := s.o.Backend.Budgets(r.Context())
	if err != nil {
		return err
	}
	out := []Budget{}
	for i := range all {
		if seesBudget(r.caller.Rights, &all[i]) {
			out = append(out, all[i])
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// increaseBudget raises a limit. It needs the right to approve in the whole scope
// of the document: who made the limit lets approvers of it lift it, and nobody's of
// a part of it. A budget that the caller does not see is not there.
func (s *Server) increaseBudget(w http.ResponseWriter, r *call) error {
	var req BudgetIncrease
	if err := s.readJSON(r, &req); err != nil {
		return err
	}
	if req.Amount <= 0 || req.For <= 0 || len(req.Reason) > 512 || len(req.Name) > 512 || len(req.Who) > 512 {
		return Errorf(CodeBadRequest, "an increase is of an amount above zero for some time, with a reason of at most 512 bytes")
	}
	scope, err := s.budgetScope(r, &req)
	if err != nil {
		return err
	}
	req.Scope = scope
	r.note("increase the budget %s of %s by %s for %s", req.Name, scope, policy.FormatUSD(req.Amount), time.Duration(req.For))
	r.scope = scope
	res, err := s.o.Backend.IncreaseBudget(r.Context(), r.caller, &req)
	return answer(w, res, err)
}

// budgetScope is the scope of the one budget that is meant.
func (s *Server) budgetScope(r *call, req *BudgetIncrease) (string, error) {
	all, err := s.o.Backend.Budgets(r.Context())
	if err != nil {
		return "", err
	}
	var seen []string
	who := req.Who == ""
	for i := range all {
		b := &all[i]
		if b.Name != req.Name || req.Scope != "" && b.Scope != req.Scope || !seesBudget(r.caller.Rights, b) {
			continue
		}
		who = who || b.Who == req.Who
		if len(seen) == 0 || seen[len(seen)-1] != b.Scope {
			seen = append(seen, b.Scope)
		}
	}
	switch {
	case len(seen) == 0:
		return "", Errorf(CodeNotFound, "no budget %q", req.Name).WithRemedy("`ringfence budgets` lists them")
	case len(seen) > 1:
		return "", Errorf(CodeBadRequest, "several documents have a budget %q", req.Name).WithRemedy("say which with --scope")
	case !r.caller.Rights.mayIn(policy.RightApprove, seen[0]):
		return "", denied("an increase of the budget "+req.Name+" needs root, or the role approver of "+seen[0], "ask whoever has it")
	case !who:
		return "", Errorf(CodeNotFound, "the budget %q has no account of %q", req.Name, req.Who).WithRemedy("`ringfence budgets` lists them")
	}
	return seen[0], nil
}

// Budgets lists the accounts of budgets that the caller sees.
func (c *Client) Budgets(ctx context.Context) ([]Budget, error) {
	return call1[[]Budget](ctx, c, "GET", "/v1/budgets", nil)
}

// IncreaseBudget raises a limit for a time.
func (c *Client) IncreaseBudget(ctx context.Context, r BudgetIncrease) (BudgetIncreased, error) {
	return call1[BudgetIncreased](ctx, c, "POST", "/v1/budgets/increase", r)
}
