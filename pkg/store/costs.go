// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"math"
)

// CostKey is what model calls are summed up by.
type CostKey struct {
	Day              string // "2026-11-30", UTC, when the call began
	Org, Team, Agent string
	Provider, Model  string // by which the call was answered, as what
}

// CostSums are sums over calls. They stay at the largest number of an int64.
type CostSums struct {
	Calls     uint64 // that were let through
	Failed    uint64 // of which no answer came
	Estimated uint64 // of which tokens were counted here, not reported
	Unpriced  uint64 // of which the cost is not known, or not all of it
	Nano      uint64 // what the others cost, nano-dollars

	TokensIn, TokensOut uint64 // all of them; of which:

	Cached, CacheWrite5m, CacheWrite1h, Reasoning uint64
	AudioIn, AudioOut, ImageIn, ImageOut          uint64

	Images, WebSearches uint64
}

// CostFields names the sums, in the order of [CostSums.Fields].
var CostFields = []string{"calls", "failed", "estimated", "unpriced", "nano", "tokens_in", "tokens_out", "cached", "cache_write_5m", "cache_write_1h", "reasoning",
	"audio_in", "audio_out", "image_in", "image_out", "images", "web_searches"}

// Fields are places of all sums.
func (s *CostSums) Fields() []*uint64 {
	return []*uint64{&s.Calls, &s.Failed, &s.Estimated, &s.Unpriced, &s.Nano, &s.TokensIn, &s.TokensOut, &s.Cached, &s.CacheWrite5m, &s.CacheWrite1h, &s.Reasoning,
		&s.AudioIn, &s.AudioOut, &s.ImageIn, &s.ImageOut, &s.Images, &s.WebSearches}
}

// Add adds o.
func (s *CostSums) Add(o *CostSums) {
	to, from := s.Fields(), o.Fields()
	for i := range to {
		*to[i] = min(*to[i], math.MaxInt64)
		*to[i] = min(*to[i]+min(*from[i], math.MaxInt64), math.MaxInt64)
	}
}

// Cost is one row of the ledger.
type Cost struct {
	CostKey
	CostSums
}

// CostCursor says how far the event log has been summed up.
type CostCursor struct {
	Chain    string // of the log; "": nothing was read
	Sequence uint64 // everything up to this one is in the sums
	Missed   uint64 // records that were gone, or could not be read, before they were looked at
}

// CostQuery chooses rows; "" means all.
type CostQuery struct {
	From, To         string // days, both included
	Org, Team, Agent string
	Provider, Model  string
}

// OtherModels is the model of calls beyond MaxCostModels models of one day, agent
// and provider: names of models are an agent's to choose.
const (
	OtherModels   = "(other)"
	MaxCostModels = 200
)

// Costs are the ledger of what model calls cost.
type Costs interface {
	// AddCosts adds rows to the sums and moves the cursor, both or nothing. Where
	// the cursor is not at from, ErrConflict.
	AddCosts(ctx context.Context, from, to CostCursor, rows []Cost) error
	CostCursor(ctx context.Context) (CostCursor, error)
	// Costs lists rows in the order of their keys.
	Costs(ctx context.Context, q CostQuery) ([]Cost, error)
	// PruneCosts forgets what is older than a day, and says how many rows.
	PruneCosts(ctx context.Context, before string) (int64, error)
}
