// SPDX-License-Identifier: Apache-2.0

// Package costs sums up what model calls cost: by day, principal, provider and model,
// from the records of the event log.
//
// A [Ledger] is a reader of the log whose place is durable together with the sums, in
// one transaction of the store. So no call is counted twice and none is left out,
// whenever the process ends; what was removed from the log before it was read is
// counted as missed. It reads what is durable, behind the log's writer: nothing waits
// for it.
package costs

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
)

// Log is the event log.
type Log interface {
	// Chain is its name, and Last its last durable sequence.
	Chain() string
	Last() uint64
	// Calls yields the records of model calls from a sequence on, in order, and
	// waits for more until ctx ends. It calls other for each record in between that
	// is none, before the next one is yielded. A yielded error ends it.
	Calls(ctx context.Context, from uint64, other func(sequence uint64)) iter.Seq2[Record, error]
}

// Record is one record, as the log has it.
type Record struct {
	Sequence uint64
	Line     []byte
}

// Store is where the sums are: a part of store.Costs.
type Store interface {
	AddCosts(ctx context.Context, from, to store.CostCursor, rows []store.Cost) error
	CostCursor(ctx context.Context) (store.CostCursor, error)
}

// Options of a Ledger. All are required.
type Options struct {
	Store Store
	Log   Log
	Every time.Duration // between two transactions, while there is something new
	// Tell says that the sums fall behind, and once more when they do not.
	Tell func(failing bool, text string)
}

// maxRows and maxIdle bound what waits: rows that are not in the store, and records
// without a call after which the place is written down all the same.
const (
	maxRows = 4096
	maxIdle = 10000
)

// Ledger sums up. Run owns it.
type Ledger struct {
	o Options

	failing bool
	cursor  store.CostCursor // as the store has it

	mu   sync.Mutex // guards what follows
	room *sync.Cond // of rows
	full chan struct{}
	rows map[store.CostKey]*store.CostSums
	at   store.CostCursor // up to where rows reach
}

// New returns a Ledger, which does nothing before Run.
func New(o Options) *Ledger {
	l := &Ledger{o: o, full: make(chan struct{}, 1), rows: map[store.CostKey]*store.CostSums{}}
	l.room = sync.NewCond(&l.mu)
	return l
}

// Run sums up until ctx ends, and what was read then is in the store before it
// returns, if the store takes it.
func (l *Ledger) Run(ctx context.Context) {
	tick := time.NewTicker(l.o.Every)
	defer tick.Stop()
	for !l.begin(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- l.read(reading) }()
	for {
		select {
		case <-tick.C:
		case <-l.full:
		case err := <-done:
			l.flush(true)
			if ctx.Err() == nil {
				l.tell(errors.Join(errors.New("the event log cannot be read, and no more costs are summed up before a restart"), err))
				<-ctx.Done()
			}
			return
		case <-ctx.Done():
			stop()
			l.drain(done)
			l.flush(true)
			return
		}
		l.flush(false)
	}
}

// drain waits for the reader, which may wait for room.
func (l *Ledger) drain(done <-chan error) {
	for {
		l.mu.Lock()
		l.room.Broadcast()
		l.mu.Unlock()
		select {
		case <-done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// begin finds the place; false: the store does not say it.
func (l *Ledger) begin(ctx context.Context) bool {
	c, err := l.o.Store.CostCursor(ctx)
	if l.tell(err); err != nil {
		return false
	}
	at := c
	switch last := l.o.Log.Last(); {
	case c.Chain != l.o.Log.Chain(): // another log, of which nothing was counted
		at.Chain, at.Sequence = l.o.Log.Chain(), 0
	case c.Sequence > last: // it was put back: what it lost was counted
		at.Sequence = last
	}
	l.cursor, l.at = c, at
	return true
}

// tell says it once when something fails, and once when it is over.
func (l *Ledger) tell(err error) {
	switch {
	case err != nil && !l.failing:
		l.failing = true
		l.o.Tell(true, "the sums of costs fall behind: "+err.Error())
	case err == nil && l.failing:
		l.failing = false
		l.o.Tell(false, "the sums of costs are up to date again")
	}
}

// read takes records until ctx ends.
func (l *Ledger) read(ctx context.Context) error {
	l.mu.Lock()
	from := l.at.Sequence + 1
	l.mu.Unlock()
	for r, err := range l.o.Log.Calls(ctx, from, l.other) {
		if err != nil {
			return err
		}
		ev, err := event.ParseOCSF(r.Line)
		if !l.take(ctx, r.Sequence, &ev, err) {
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// other notes a record without a call.
func (l *Ledger) other(sequence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moveLocked(sequence)
}

// moveLocked moves the place on; a gap is what nobody can look at any more.
func (l *Ledger) moveLocked(to uint64) {
	if to > l.at.Sequence+1 {
		l.at.Missed += to - l.at.Sequence - 1
	}
	l.at.Sequence = max(l.at.Sequence, to)
}

// take adds one call; false: ctx ended before there was room.
func (l *Ledger) take(ctx context.Context, sequence uint64, ev *event.Event, broken error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.rows) >= maxRows {
		select {
		case l.full <- struct{}{}:
		default:
		}
		l.room.Wait()
		if ctx.Err() != nil {
			return false
		}
	}
	l.moveLocked(sequence)
	switch {
	case broken != nil:
		l.at.Missed++
	case ev.Kind == event.KindInference && !ev.IsDenial():
		k, sums := Of(ev)
		if l.rows[k] == nil {
			l.rows[k] = &store.CostSums{}
		}
		l.rows[k].Add(&sums)
	}
	return true
}

// flush writes what waits. The place alone is written when it has moved far, or with
// the last one.
func (l *Ledger) flush(last bool) {
	l.mu.Lock()
	rows, to := l.rows, l.at
	moved := to != l.cursor && (last || to.Sequence-l.cursor.Sequence > maxIdle || to.Missed != l.cursor.Missed || to.Chain != l.cursor.Chain && to.Sequence > 0)
	if len(rows) == 0 && !moved {
		l.mu.Unlock()
		return
	}
	l.rows = map[store.CostKey]*store.CostSums{}
	l.mu.Unlock()
	list := make([]store.Cost, 0, len(rows))
	for k, sums := range rows {
		list = append(list, store.Cost{CostKey: k, CostSums: *sums})
	}
	err := l.o.Store.AddCosts(context.Background(), l.cursor, to, list)
	if err != nil && l.landed(to) {
		err = nil
	}
	l.mu.Lock()
	if err == nil {
		l.cursor = to
	} else {
		l.backLocked(rows)
	}
	l.room.Broadcast()
	l.mu.Unlock()
	l.tell(err)
}

// landed says whether a transaction that gave an error is in the store all the same.
func (l *Ledger) landed(to store.CostCursor) bool {
	c, err := l.o.Store.CostCursor(context.Background())
	return err == nil && c == to
}

// backLocked puts rows back that the store did not take.
func (l *Ledger) backLocked(rows map[store.CostKey]*store.CostSums) {
	for k, sums := range l.rows {
		if rows[k] == nil {
			rows[k] = sums
		} else {
			rows[k].Add(sums)
		}
	}
	l.rows = rows
}

// Of is the row that a call belongs to, and what it adds.
func Of(ev *event.Event) (k store.CostKey, s store.CostSums) {
	k = store.CostKey{Day: ev.Time.UTC().Format(time.DateOnly), Provider: ev.Provider, Model: ev.ModelServed}
	if k.Model == "" {
		k.Model = ev.Model
	}
	k.Org, k.Team, k.Agent = principal(ev.Scope)
	s = store.CostSums{Calls: 1, TokensIn: ev.TokensIn, TokensOut: ev.TokensOut,
		Cached: ev.TokensCached, CacheWrite5m: ev.TokensCacheWrite5m, CacheWrite1h: ev.TokensCacheWrite1h, Reasoning: ev.TokensReasoning,
		AudioIn: ev.TokensAudioIn, AudioOut: ev.TokensAudioOut, ImageIn: ev.TokensImageIn, ImageOut: ev.TokensImageOut,
		Images: ev.Images, WebSearches: ev.WebSearches}
	set := func(to *uint64, is bool) {
		if is {
			*to = 1
		}
	}
	if ev.Priced() {
		s.Nano = ev.Cost
	}
	set(&s.Failed, ev.IsFailure() || ev.Status >= 400)
	set(&s.Estimated, ev.Estimated)
	set(&s.Unpriced, !ev.Priced() && (ev.TokensIn > 0 || ev.TokensOut > 0 || ev.Images > 0) || ev.Price == event.PricePartial)
	return k, s
}

// principal takes the names out of a scope, as they stand there; what is no scope
// has none.
func principal(text string) (org, team, agent string) {
	p, err := scope.ParsePrincipal(text)
	if err != nil {
		return "", "", ""
	}
	return p.Org, p.Team, p.Agent
}
