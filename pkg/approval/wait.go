// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"context"
	"errors"
	"iter"
	"math"
	"time"

	"github.com/ringfence/ringfence/pkg/store"
)

const (
	sweepEvery = time.Minute // also when nothing is due: clocks are set
	sweepLeast = time.Second // between two sweeps, when the store fails
	pruneEvery = time.Hour
	watchAhead = 1024 // changes that a watcher may be behind
)

// Sweep ends what time or the end of its sandbox has ended, and forgets what is
// older than [Keep].
func (b *Book) Sweep(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	was, err := b.load(ctx, store.ApprovalQuery{EndedSince: math.MaxInt64})
	if err != nil {
		return err
	}
	now := b.now()
	var changed []Request
	for _, e := range was {
		r := e.At(now)
		if !b.o.Lives(e.Sandbox) {
			r = r.End(now)
		}
		if r.State.Open() && b.open[r.ID] == nil {
			b.note(&r) // the store has what it said that it had not taken
		}
		if r.State != e.State {
			changed = append(changed, r)
		}
	}
	told, err := b.put(ctx, was, changed, nil)
	if err != nil {
		return err
	}
	if now.Sub(b.pruned) >= pruneEvery || now.Before(b.pruned) {
		_, err = b.o.Store.PruneApprovals(ctx, now.Add(-Keep).UnixNano())
		b.pruned = now
	}
	return errors.Join(told, err)
}

// End ends what a sandbox has open, as the keeper does when the sandbox ends.
func (b *Book) End(ctx context.Context, sandbox string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	was, err := b.load(ctx, store.ApprovalQuery{Sandbox: sandbox, EndedSince: math.MaxInt64})
	if err != nil {
		return err
	}
	now := b.now()
	var changed []Request
	for _, e := range was {
		if r := e.End(now); r.State != e.State {
			changed = append(changed, r)
		}
	}
	told, err := b.put(ctx, was, changed, nil)
	return errors.Join(told, err)
}

// Run sweeps whenever something is due, until ctx ends. failed is told what went
// wrong; it is tried again.
func (b *Book) Run(ctx context.Context, failed func(error)) {
	for ctx.Err() == nil {
		if err := b.Sweep(ctx); err != nil && ctx.Err() == nil {
			failed(err)
		}
		if !b.sleep(ctx) {
			return
		}
	}
}

// sleep waits until something is due; false: ctx has ended.
func (b *Book) sleep(ctx context.Context) bool {
	pause := time.NewTimer(sweepLeast)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-pause.C:
	}
	for {
		timer := time.NewTimer(b.next())
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
			return true
		case <-b.earlier:
			timer.Stop()
		}
	}
}

// next is how long nothing is due.
func (b *Book) next() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	soonest, now := sweepEvery, b.now()
	for _, l := range b.open {
		if !l.deadline.IsZero() {
			soonest = min(soonest, l.deadline.Sub(now))
		}
	}
	return soonest
}

// ErrBehind ends a watch whose reader did not keep up; begin again.
var ErrBehind = errors.New("more approvals have changed than were read")

// Watch yields every request that is open, oldest first, then each that changes,
// until ctx ends.
func (b *Book) Watch(ctx context.Context) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		w := make(chan Request, watchAhead)
		open, err := b.watch(ctx, w)
		if err != nil {
			yield(Request{}, err)
			return
		}
		defer func() {
			b.mu.Lock()
			delete(b.watchers, w)
			b.mu.Unlock()
		}()
		for i := range open {
			if !yield(open[len(open)-1-i], nil) {
				return
			}
		}
		for {
			select {
			case <-ctx.Done():
				return
			case r, ok := <-w:
				if !ok {
					yield(Request{}, ErrBehind)
					return
				}
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// watch returns what is open, and has w told of each change after that.
func (b *Book) watch(ctx context.Context, w chan Request) (open []Request, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list, err := b.load(ctx, store.ApprovalQuery{EndedSince: math.MaxInt64})
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if r := e.At(b.now()); r.State.Open() {
			open = append(open, r)
		}
	}
	b.watchers[w] = struct{}{}
	return open, nil
}
