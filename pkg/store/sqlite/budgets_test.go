// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"reflect"
	"testing"

	"github.com/ringfence/ringfence/pkg/store"
)

func budgetErr(s *Store, c *store.BudgetChange) error { return s.PutBudgets(context.Background(), c) }

// leaseChange is a gateway's first lease.
func leaseChange() *store.BudgetChange {
	return &store.BudgetChange{BudgetState: store.BudgetState{
		Accounts:  []store.BudgetAccount{{ID: 1, Scope: "org:acme", Document: "d", Budget: "b", Who: "org:acme/team:x", Model: "m", From: 100}},
		Holders:   []store.BudgetHolder{{ID: 7}},
		Leases:    []store.BudgetLease{{ID: 2, Account: 1, Holder: 7, Bucket: 100, Granted: 50, Expires: 900}},
		Increases: []store.BudgetIncrease{{ID: 3, Scope: "org:acme", Document: "d", Budget: "b", Who: "w", Amount: 9, From: 1, Until: 2, By: "uid=0(root)", UID: 0, Reason: "demo"}},
	}}
}

// spentChange is a settlement of it.
func spentChange() *store.BudgetChange {
	return &store.BudgetChange{BudgetState: store.BudgetState{
		Accounts: []store.BudgetAccount{{ID: 1, Scope: "org:acme", Document: "d", Budget: "b", Who: "org:acme/team:x", Model: "m", From: 100, Told: 80}},
		Spent:    []store.BudgetSpent{{Account: 1, Bucket: 100, Amount: 30, Estimated: 10}, {Account: 1, Bucket: 99, Amount: 1}},
		Holders:  []store.BudgetHolder{{ID: 7, Applied: 4}},
		Leases:   []store.BudgetLease{{ID: 2, Account: 1, Holder: 7, Bucket: 100, Granted: 50, Used: 30, Expires: 950}},
	}}
}

// backChange is its end, and that of its gateway.
func backChange() *store.BudgetChange {
	return &store.BudgetChange{EndedLeases: []int64{2}, EndedHolders: []int64{7}, EndedIncreases: []int64{3}, EndedSpent: []store.BudgetSpent{{Account: 1, Bucket: 99}}}
}

func TestBudgetsAreWhatWasWrittenLast(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	want := leaseChange().BudgetState
	steps := []struct {
		c    *store.BudgetChange
		then func()
	}{
		{leaseChange(), func() {}},
		{leaseChange(), func() {}}, // once more is the same
		{spentChange(), func() {
			c := spentChange()
			want.Accounts, want.Holders, want.Leases = c.Accounts, c.Holders, c.Leases
			want.Spent = []store.BudgetSpent{c.Spent[1], c.Spent[0]}
		}},
		{backChange(), func() { want.Leases, want.Holders, want.Increases, want.Spent = nil, nil, nil, want.Spent[1:] }},
		{&store.BudgetChange{EndedAccounts: []int64{1}}, func() { want = store.BudgetState{} }},
	}
	for i, step := range steps {
		if err := budgetErr(s, step.c); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		step.then()
		closeStore(t, s)
		s = open(t, dir)
		if got, err := s.BudgetState(context.Background()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d: %+v\nwant %+v %v", i, got, want, err)
		}
	}
	closeStore(t, s)
}

// What refers to something that is not there is a mistake of the keeper's, and
// nothing of the change is kept.
func TestBudgetsHoldTogether(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	for name, c := range map[string]*store.BudgetChange{
		"a lease without a gateway": {BudgetState: store.BudgetState{Accounts: leaseChange().Accounts, Leases: leaseChange().Leases}},
		"a lease of no account":     {BudgetState: store.BudgetState{Holders: leaseChange().Holders, Leases: leaseChange().Leases}},
		"spent of no account":       {BudgetState: store.BudgetState{Holders: leaseChange().Holders, Spent: spentChange().Spent}},
		"two accounts of one name":  {BudgetState: store.BudgetState{Accounts: append(leaseChange().Accounts, store.BudgetAccount{ID: 9, Scope: "org:acme", Document: "d", Budget: "b", Who: "org:acme/team:x", Model: "m"})}},
	} {
		if err := budgetErr(s, c); err == nil {
			t.Errorf("%s was taken", name)
		}
		if got, err := s.BudgetState(context.Background()); err != nil || !reflect.DeepEqual(got, store.BudgetState{}) {
			t.Errorf("%s: half of it was kept: %+v %v", name, got, err)
		}
	}
}
