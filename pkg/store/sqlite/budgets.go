// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/ringfence/ringfence/pkg/store"
)

func budgetSchema() migration {
	return migration{"budgets", `
CREATE TABLE budget_accounts (
	id       INTEGER NOT NULL PRIMARY KEY,
	scope    TEXT NOT NULL,
	document TEXT NOT NULL,
	budget   TEXT NOT NULL,
	who      TEXT NOT NULL,
	model    TEXT NOT NULL,
	start    INTEGER NOT NULL,
	told     INTEGER NOT NULL,
	UNIQUE (scope, document, budget, who, model)
) STRICT;
CREATE TABLE budget_spent (
	account INTEGER NOT NULL REFERENCES budget_accounts(id),
	bucket  INTEGER NOT NULL,
	amount  INTEGER NOT NULL,
	guessed INTEGER NOT NULL,
	PRIMARY KEY (account, bucket)
) STRICT, WITHOUT ROWID;
CREATE TABLE budget_holders (
	id      INTEGER NOT NULL PRIMARY KEY,
	applied INTEGER NOT NULL
) STRICT;
CREATE TABLE budget_leases (
	id      INTEGER NOT NULL PRIMARY KEY,
	account INTEGER NOT NULL REFERENCES budget_accounts(id),
	holder  INTEGER NOT NULL REFERENCES budget_holders(id),
	bucket  INTEGER NOT NULL,
	granted INTEGER NOT NULL,
	used    INTEGER NOT NULL,
	expires INTEGER NOT NULL
) STRICT;
CREATE TABLE budget_increases (
	id       INTEGER NOT NULL PRIMARY KEY,
	scope    TEXT NOT NULL,
	document TEXT NOT NULL,
	budget   TEXT NOT NULL,
	who      TEXT NOT NULL,
	amount   INTEGER NOT NULL,
	start    INTEGER NOT NULL,
	until    INTEGER NOT NULL,
	author   TEXT NOT NULL,
	uid      INTEGER NOT NULL,
	reason   TEXT NOT NULL
) STRICT;`}
}

const budgetsUnread = "the budget ledger cannot be read"

// readAll appends one value for each row of a query.
func readAll[T any](ctx context.Context, s *Store, to *[]T, query string, fields func(*T) []any) error {
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return s.failed(budgetsUnread, err)
	}
	for rows.Next() {
		var v T
		if err := rows.Scan(fields(&v)...); err != nil {
			return s.failed(budgetsUnread, errors.Join(err, rows.Close()))
		}
		*to = append(*to, v)
	}
	return s.failed(budgetsUnread, errors.Join(rows.Err(), rows.Close()))
}

// BudgetState reads all of the ledger.
func (s *Store) BudgetState(ctx context.Context) (st store.BudgetState, err error) {
	err = errors.Join(
		readAll(ctx, s, &st.Accounts, "SELECT id, scope, document, budget, who, model, start, told FROM budget_accounts ORDER BY id", func(a *store.BudgetAccount) []any {
			return []any{&a.ID, &a.Scope, &a.Document, &a.Budget, &a.Who, &a.Model, &a.From, &a.Told}
		}),
		readAll(ctx, s, &st.Spent, "SELECT account, bucket, amount, guessed FROM budget_spent ORDER BY account, bucket", func(a *store.BudgetSpent) []any {
			return []any{&a.Account, &a.Bucket, &a.Amount, &a.Estimated}
		}),
		readAll(ctx, s, &st.Leases, "SELECT id, account, holder, bucket, granted, used, expires FROM budget_leases ORDER BY id", func(l *store.BudgetLease) []any {
			return []any{&l.ID, &l.Account, &l.Holder, &l.Bucket, &l.Granted, &l.Used, &l.Expires}
		}),
		readAll(ctx, s, &st.Holders, "SELECT id, applied FROM budget_holders ORDER BY id", func(h *store.BudgetHolder) []any { return []any{&h.ID, &h.Applied} }),
		readAll(ctx, s, &st.Increases, "SELECT id, scope, document, budget, who, amount, start, until, author, uid, reason FROM budget_increases ORDER BY id", func(i *store.BudgetIncrease) []any {
			return []any{&i.ID, &i.Scope, &i.Document, &i.Budget, &i.Who, &i.Amount, &i.From, &i.Until, &i.By, &i.UID, &i.Reason}
		}))
	return st, err
}

// PutBudgets writes rows as they are from now on.
func (s *Store) PutBudgets(ctx context.Context, c *store.BudgetChange) error {
	return s.write(ctx, false, func(tx *sql.Tx) error {
		for _, step := range []func(context.Context, *sql.Tx, *store.BudgetChange) error{putAccounts, putLeases, putIncreases, endBudgets} {
			if err := step(ctx, tx, c); err != nil {
				return err
			}
		}
		return nil
	})
}

func putAccounts(ctx context.Context, tx *sql.Tx, c *store.BudgetChange) error {
	for i := range c.Accounts {
		a := &c.Accounts[i]
		if _, err := tx.ExecContext(ctx, "INSERT INTO budget_accounts (id, scope, document, budget, who, model, start, told) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET start=excluded.start, told=excluded.told",
			a.ID, a.Scope, a.Document, a.Budget, a.Who, a.Model, a.From, a.Told); err != nil {
			return err
		}
	}
	for _, p := range c.Spent {
		if _, err := tx.ExecContext(ctx, "INSERT INTO budget_spent (account, bucket, amount, guessed) VALUES (?, ?, ?, ?) ON CONFLICT (account, bucket) DO UPDATE SET amount=excluded.amount, guessed=excluded.guessed", p.Account, p.Bucket, p.Amount, p.Estimated); err != nil {
			return err
		}
	}
	return nil
}

func putLeases(ctx context.Context, tx *sql.Tx, c *store.BudgetChange) error {
	for _, h := range c.Holders {
		if _, err := tx.ExecContext(ctx, "INSERT INTO budget_holders (id, applied) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET applied=excluded.applied", h.ID, int64(h.Applied)); err != nil {
			return err
		}
	}
	for i := range c.Leases {
		l := &c.Leases[i]
		if _, err := tx.ExecContext(ctx, "INSERT INTO budget_leases (id, account, holder, bucket, granted, used, expires) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET granted=excluded.granted, used=excluded.used, expires=excluded.expires",
			l.ID, l.Account, l.Holder, l.Bucket, l.Granted, l.Used, l.Expires); err != nil {
			return err
		}
	}
	return nil
}

func putIncreases(ctx context.Context, tx *sql.Tx, c *store.BudgetChange) error {
	for i := range c.Increases {
		n := &c.Increases[i]
		if _, err := tx.ExecContext(ctx, "INSERT INTO budget_increases (id, scope, document, budget, who, amount, start, until, author, uid, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET until=excluded.until",
			n.ID, n.Scope, n.Document, n.Budget, n.Who, n.Amount, n.From, n.Until, n.By, n.UID, n.Reason); err != nil {
			return err
		}
	}
	return nil
}

// endBudgets comes last: a lease goes before its holder.
func endBudgets(ctx context.Context, tx *sql.Tx, c *store.BudgetChange) error {
	for _, gone := range []struct {
		query string
		ids   []int64
	}{
		{"DELETE FROM budget_leases WHERE id=?", c.EndedLeases},
		{"DELETE FROM budget_holders WHERE id=?", c.EndedHolders},
		{"DELETE FROM budget_increases WHERE id=?", c.EndedIncreases},
		{"DELETE FROM budget_spent WHERE account=?", c.EndedAccounts},
		{"DELETE FROM budget_accounts WHERE id=?", c.EndedAccounts},
	} {
		for _, id := range gone.ids {
			if _, err := tx.ExecContext(ctx, gone.query, id); err != nil {
				return err
			}
		}
	}
	for _, s := range c.EndedSpent {
		if _, err := tx.ExecContext(ctx, "DELETE FROM budget_spent WHERE account=? AND bucket=?", s.Account, s.Bucket); err != nil {
			return err
		}
	}
	return nil
}
