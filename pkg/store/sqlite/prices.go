// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ringfence/ringfence/pkg/store"
)

func priceSchema() migration {
	return migration{"tables of prices", `
CREATE TABLE prices (
	version TEXT NOT NULL PRIMARY KEY,
	text TEXT NOT NULL, added INTEGER NOT NULL, author TEXT NOT NULL
) STRICT;`}
}

// PutPrices adds a table.
func (s *Store) PutPrices(ctx context.Context, t store.PriceTable) error {
	return s.write(ctx, false, func(tx *sql.Tx) error {
		var had int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM prices WHERE version=?", t.Version).Scan(&had); err != nil {
			return err
		}
		if had > 0 {
			return &store.Error{Kind: store.ErrConflict, What: fmt.Sprintf("there is a price table %s already", t.Version)}
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO prices (version, text, added, author) VALUES (?, ?, ?, ?)", t.Version, t.Text, t.Added, t.Author)
		return err
	})
}

// DeletePrices removes one.
func (s *Store) DeletePrices(ctx context.Context, version string) error {
	return s.write(ctx, true, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "DELETE FROM prices WHERE version=?", version)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, &store.Error{Kind: store.ErrNotFound, What: "price table " + version})
		}
		return nil
	})
}

// Prices lists them.
func (s *Store) Prices(ctx context.Context) (list []store.PriceTable, err error) {
	const what = "the prices cannot be read"
	rows, err := s.db.QueryContext(ctx, "SELECT version, text, added, author FROM prices ORDER BY version")
	if err != nil {
		return nil, s.failed(what, err)
	}
	for rows.Next() {
		var t store.PriceTable
		if err := rows.Scan(&t.Version, &t.Text, &t.Added, &t.Author); err != nil {
			return nil, s.failed(what, errors.Join(err, rows.Close()))
		}
		list = append(list, t)
	}
	return list, s.failed(what, errors.Join(rows.Err(), rows.Close()))
}
