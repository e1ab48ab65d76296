// SPDX-License-Identifier: Apache-2.0

// Package store says what a node keeps for good: policy revisions, what people
// decided, and what model calls cost. It holds records and an interface; pkg/store/sqlite keeps them
// in a file. Only the keeper opens a store.
//
// Nothing here belongs to one kind of database: times are nanoseconds since 1970
// in UTC, ids are text, and every method that writes is one transaction, durable
// when it returns nil. One that returns an error has changed nothing, except
// that a failing disk may show it after the next start all the same.
package store

// Store is everything a node keeps. It is safe for concurrent use.
type Store interface {
	Revisions
	Approvals
	Costs
	Prices
	Budgets
	Close() error
}
