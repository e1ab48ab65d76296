// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"iter"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/audit"
	"github.com/ringfence/ringfence/pkg/costs"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/store"
)

// sumUpEvery is how far the sums of costs may lag behind the event log.
const sumUpEvery = time.Second

// keepCosts is how long the rows of a day are kept.
const keepCosts = 400 * 24 * time.Hour

// sumUpCosts keeps the ledger of costs until ctx ends.
func (d *Daemon) sumUpCosts(ctx context.Context) {
	if n, err := d.store.PruneCosts(ctx, time.Now().Add(-keepCosts).UTC().Format(time.DateOnly)); err != nil {
		d.logger.Warn("old costs stay", "error", err)
	} else if n > 0 {
		d.logger.Info("old costs were removed", "rows", n)
	}
	costs.New(costs.Options{Store: d.store, Log: costLog{d.log}, Every: sumUpEvery, Tell: func(failing bool, text string) {
		what := "costs"
		if failing {
			what = "degraded"
			d.logger.Error(text)
		}
		d.daemonEvent(what, text)
	}}).Run(ctx)
}

// costLog is the event log as the ledger reads it.
type costLog struct{ *audit.Log }

func (l costLog) Last() uint64 { return l.Head().Sequence }

func (l costLog) Calls(ctx context.Context, from uint64, other func(uint64)) iter.Seq2[costs.Record, error] {
	return func(yield func(costs.Record, error) bool) {
		q := audit.Query{FromSeq: from, Follow: true, Match: func(h *event.Header) bool {
			if h.Kind != event.KindInference {
				other(h.Sequence)
			}
			return h.Kind == event.KindInference
		}}
		for r, err := range l.Read(ctx, q) {
			if !yield(costs.Record{Sequence: r.Seq, Line: r.Line}, err) {
				return
			}
		}
	}
}

// Costs lists rows of the ledger.
func (b *backend) Costs(ctx context.Context, q api.CostQuery) (res api.Costs, err error) {
	at, err := b.d.store.CostCursor(ctx)
	if err != nil {
		return res, err
	}
	res.SummedUpTo, res.Missed = at.Sequence, at.Missed
	list, err := b.d.store.Costs(ctx, store.CostQuery{From: q.From, To: q.To, Org: q.Org, Team: q.Team, Agent: q.Agent, Provider: q.Provider, Model: q.Model})
	for i := range list {
		c := &list[i]
		res.Rows = append(res.Rows, api.CostRow{Day: c.Day, Org: c.Org, Team: c.Team, Agent: c.Agent, Provider: c.Provider, Model: c.Model,
			Calls: c.Calls, Failed: c.Failed, Estimated: c.Estimated, Unpriced: c.Unpriced, CostNanoUSD: c.Nano, TokensIn: c.TokensIn, TokensOut: c.TokensOut,
			Cached: c.Cached, CacheWrite5m: c.CacheWrite5m, CacheWrite1h: c.CacheWrite1h, Reasoning: c.Reasoning, AudioIn: c.AudioIn, AudioOut: c.AudioOut,
			ImageIn: c.ImageIn, ImageOut: c.ImageOut, Images: c.Images, WebSearches: c.WebSearches})
	}
	return res, err
}
