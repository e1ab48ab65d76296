// SPDX-License-Identifier: Apache-2.0

package store

import "context"

// BudgetAccount is one account of a budget: what its calls cost is counted there.
// Scope, Document and Budget name the budget, Who and Model what it is counted
// apart for; together they are unique.
type BudgetAccount struct {
	ID                      int64
	Scope, Document, Budget string
	Who, Model              string
	From                    int64 // where its newest window begins; it never goes back
	Told                    uint8 // percent of the last alert in that window
}

// BudgetSpent is what was spent of an account in one step of its windows, in
// nano-dollars; Estimated is the part of it that no provider reported.
type BudgetSpent struct {
	Account, Bucket, Amount, Estimated int64
}

// BudgetLease is an amount that a gateway may spend without asking again. What is
// left of it is Granted less Used.
type BudgetLease struct {
	ID, Account   int64
	Holder        int64 // the gateway's incarnation
	Bucket        int64 // where what is spent of it counts
	Granted, Used int64
	Expires       int64
}

// BudgetHolder is a gateway's incarnation, and the number of its last settlement
// that is in the account.
type BudgetHolder struct {
	ID      int64
	Applied uint64
}

// BudgetIncrease is a temporary raise of a budget's limit.
type BudgetIncrease struct {
	ID                      int64
	Scope, Document, Budget string
	Who                     string // of one account; "" is every one
	Amount                  int64
	From, Until             int64
	By                      string // who did it, as the node's user table told
	UID                     int64
	Reason                  string
}

// BudgetState is all of the ledger.
type BudgetState struct {
	Accounts  []BudgetAccount
	Spent     []BudgetSpent
	Leases    []BudgetLease
	Holders   []BudgetHolder
	Increases []BudgetIncrease
}

// BudgetChange is rows as they are from now on: they replace those of the same key.
// Amounts are absolute, so that one that is written twice is written once.
type BudgetChange struct {
	BudgetState
	EndedLeases    []int64
	EndedHolders   []int64
	EndedIncreases []int64
	EndedSpent     []BudgetSpent // by account and bucket
	EndedAccounts  []int64       // with what was spent of them; they have no lease
}

// Budgets is the ledger of what model calls may and did cost.
type Budgets interface {
	// BudgetState reads all of it.
	BudgetState(ctx context.Context) (BudgetState, error)
	// PutBudgets is one transaction.
	PutBudgets(ctx context.Context, c *BudgetChange) error
}
