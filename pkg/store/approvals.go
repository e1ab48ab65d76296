// SPDX-License-Identifier: Apache-2.0

package store

import "context"

// Approval is one request that people decide, as pkg/approval writes it. The
// store knows only what it looks for; Body is the whole of it.
type Approval struct {
	ID      string
	Sandbox string
	Binding string // of what will run: at most one of them is pending
	State   string
	Version uint64 // 1 when it is new, and one more with each change
	Created int64
	Ended   int64 // when it changed for the last time, 0: it may change still
	Body    []byte
}

// ApprovalQuery chooses requests; the zero value means all.
type ApprovalQuery struct {
	Sandbox string // only those of this one
	// EndedSince is only those that are open, or ended then or later. 1<<63-1 is
	// those that are open.
	EndedSince int64
	Limit      int // the newest so many, 0: all
	// Before is only those that are listed after this one; nil: from the newest.
	Before *ApprovalPlace
}

// ApprovalPlace is where a request stands in the list: the newest first, of one
// time the largest id.
type ApprovalPlace struct {
	Created int64
	ID      string
}

// Approvals are the requests that people decide, and what they gave.
type Approvals interface {
	// PutApprovals writes requests in their order, all or none. One of version 1
	// must be new, another one must replace the version before: whoever else
	// wrote meanwhile, ErrConflict. So must be the second pending one of a
	// binding.
	PutApprovals(ctx context.Context, list ...Approval) error
	// Approval is one request, or ErrNotFound.
	Approval(ctx context.Context, id string) (Approval, error)
	// Approvals lists requests, newest first.
	Approvals(ctx context.Context, q ApprovalQuery) ([]Approval, error)
	// PruneApprovals forgets those that ended before a time, and says how many.
	PruneApprovals(ctx context.Context, endedBefore int64) (int64, error)
}
