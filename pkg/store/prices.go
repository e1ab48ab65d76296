// SPDX-License-Identifier: Apache-2.0

package store

import "context"

// PriceTable is one list of prices, as pkg/price reads it.
type PriceTable struct {
	Version string
	Text    string
	Added   int64
	Author  string // as scope.Operator writes it
}

// Prices are the tables of prices in force.
type Prices interface {
	// PutPrices adds a table. One with its version must not be there: what records
	// of calls name must not change its meaning.
	PutPrices(ctx context.Context, t PriceTable) error
	// DeletePrices removes one, or ErrNotFound.
	DeletePrices(ctx context.Context, version string) error
	// Prices lists tables in the order of their versions.
	Prices(ctx context.Context) ([]PriceTable, error)
}
