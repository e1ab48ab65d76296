// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// NoticeKind says what a notice is about.
type NoticeKind uint8

// Kinds of notices.
const (
	// NoticeAlert: an account has passed a percentage of its limit, for the first
	// time in its window.
	NoticeAlert NoticeKind = iota + 1
	// NoticeExcess: a provider reported more than was reserved for a call, which is
	// what the cap that was declared to it costs at most. It is counted.
	NoticeExcess
	// NoticeCrash: a gateway is gone, and what was under way was settled.
	NoticeCrash
)

// Notice is something that people want to know of the ledger.
type Notice struct {
	Kind       NoticeKind
	Budget     policy.RuleRef
	Who, Model string
	Amount     int64 // spent, or of the excess, or settled at estimates
	Limit      int64

	// NoticeAlert
	Percent uint8
	Deed    policy.BudgetDeed
	Hard    bool
	Until   time.Time // the window's end

	// NoticeExcess and NoticeCrash
	Holder   int64
	Sequence uint64 // of the settlement; one that comes twice has the same
	Reserved int64

	// NoticeCrash
	Sent, Settled, Released int  // calls
	Unknown                 bool // what was under way is not known: Amount is all that was leased
}
