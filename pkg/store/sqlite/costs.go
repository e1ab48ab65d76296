// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/ringfence/ringfence/pkg/store"
)

func costSchema() migration {
	return migration{"costs of model calls", `
CREATE TABLE costs (
	day TEXT NOT NULL, org TEXT NOT NULL, team TEXT NOT NULL, agent TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
	` + strings.Join(store.CostFields, " INTEGER NOT NULL, ") + ` INTEGER NOT NULL,
	PRIMARY KEY (day, org, team, agent, provider, model)
) STRICT, WITHOUT ROWID;
CREATE TABLE cost_cursor (
	id INTEGER NOT NULL PRIMARY KEY CHECK (id=1),
	chain TEXT NOT NULL, sequence INTEGER NOT NULL, missed INTEGER NOT NULL
) STRICT;
INSERT INTO cost_cursor VALUES (1, '', 0, 0);`}
}

const (
	costsUnread = "the costs cannot be read"
	costKeys    = "day, org, team, agent, provider, model"
	costOf      = " WHERE (" + costKeys + ")=(?, ?, ?, ?, ?, ?)"
)

func costKey(k *store.CostKey) []any {
	return []any{k.Day, k.Org, k.Team, k.Agent, k.Provider, k.Model}
}

// AddCosts is one transaction.
func (s *Store) AddCosts(ctx context.Context, from, to store.CostCursor, rows []store.Cost) error {
	return s.write(ctx, false, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "UPDATE cost_cursor SET chain=?, sequence=?, missed=? WHERE chain=? AND sequence=? AND missed=?",
			to.Chain, int64(to.Sequence), int64(to.Missed), from.Chain, int64(from.Sequence), int64(from.Missed))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, &store.Error{Kind: store.ErrConflict, What: "the costs were summed up to another place of the event log"})
		}
		for i := range rows {
			if err := addCost(ctx, tx, rows[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// addCost adds to one row. The sums are made here and not by SQLite, whose integers
// become inexact numbers when they overflow.
func addCost(ctx context.Context, tx *sql.Tx, c store.Cost) error {
	had, found, err := costRow(ctx, tx, &c.CostKey)
	if err == nil && !found {
		var models int
		err = tx.QueryRowContext(ctx, "SELECT count(*) FROM costs WHERE (day, org, team, agent, provider)=(?, ?, ?, ?, ?)", costKey(&c.CostKey)[:5]...).Scan(&models)
		if err == nil && models >= store.MaxCostModels {
			c.Model = store.OtherModels
			had, _, err = costRow(ctx, tx, &c.CostKey)
		}
	}
	if err != nil {
		return err
	}
	had.Add(&c.CostSums)
	args := costKey(&c.CostKey)
	for _, v := range had.Fields() {
		args = append(args, int64(*v))
	}
	_, err = tx.ExecContext(ctx, "INSERT OR REPLACE INTO costs ("+costKeys+", "+strings.Join(store.CostFields, ", ")+") VALUES (?"+strings.Repeat(", ?", len(args)-1)+")", args...)
	return err
}

func costRow(ctx context.Context, tx *sql.Tx, k *store.CostKey) (had store.CostSums, found bool, err error) {
	err = scanCost(tx.QueryRowContext(ctx, "SELECT "+strings.Join(store.CostFields, ", ")+" FROM costs"+costOf, costKey(k)...), nil, &had)
	if errors.Is(err, sql.ErrNoRows) {
		return had, false, nil
	}
	return had, err == nil, err
}

type scanner interface{ Scan(...any) error }

// scanCost reads the key, unless it is nil, and the sums.
func scanCost(row scanner, k *store.CostKey, sums *store.CostSums) error {
	var to []any
	if k != nil {
		to = []any{&k.Day, &k.Org, &k.Team, &k.Agent, &k.Provider, &k.Model}
	}
	for _, v := range sums.Fields() {
		to = append(to, v)
	}
	return row.Scan(to...)
}

// CostCursor says how far the event log has been summed up.
func (s *Store) CostCursor(ctx context.Context) (c store.CostCursor, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT chain, sequence, missed FROM cost_cursor").Scan(&c.Chain, &c.Sequence, &c.Missed)
	return c, s.failed(costsUnread, err)
}

// Costs lists rows.
func (s *Store) Costs(ctx context.Context, q store.CostQuery) (list []store.Cost, err error) {
	where, args := "WHERE 1", []any{}
	for _, f := range []struct{ cond, value string }{
		{"day>=?", q.From}, {"day<=?", q.To}, {"org=?", q.Org}, {"team=?", q.Team}, {"agent=?", q.Agent}, {"provider=?", q.Provider}, {"model=?", q.Model},
	} {
		if f.value != "" {
			where, args = where+" AND "+f.cond, append(args, f.value)
		}
	}
	rows, err := s.db.QueryContext(ctx, "SELECT "+costKeys+", "+strings.Join(store.CostFields, ", ")+" FROM costs "+where+" ORDER BY "+costKeys, args...)
	if err != nil {
		return nil, s.failed(costsUnread, err)
	}
	for rows.Next() {
		var c store.Cost
		if err := scanCost(rows, &c.CostKey, &c.CostSums); err != nil {
			return nil, s.failed(costsUnread, errors.Join(err, rows.Close()))
		}
		list = append(list, c)
	}
	return list, s.failed(costsUnread, errors.Join(rows.Err(), rows.Close()))
}

// PruneCosts forgets old days.
func (s *Store) PruneCosts(ctx context.Context, before string) (n int64, err error) {
	err = s.write(ctx, false, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "DELETE FROM costs WHERE day<?", before)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}
