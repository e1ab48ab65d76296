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
	// DefaultHold is how long a call is held for people, MaxHold the most.
	DefaultHold = time.Minute
	MaxHold     = 2 * time.Minute
	// MaxHeld is how many calls of one sandbox are held; one more is answered at
	// once that it waits.
	MaxHeld = 64

	sweepEvery = time.Minute // also when nothing is due: clocks are set
	sweepLeast = time.Second // between two sweeps, when the store fails
	pruneEvery = time.Hour
	watchAhead = 1024 // changes that a watcher may be behind
)

// Hold asks, and waits at most for a time until people have decided. decide
// decides the call on the policy of the moment: it is called before each asking,
// and its error ends the hold. Waiting is an answer too: the time is over, and
// nobody has decided.
//
// A grant for one time releases one of the calls that are held for the same
// request; the others ask again, and wait as a new request.
func (b *Book) Hold(ctx context.Context, most time.Duration, decide func(context.Context) (Call, error)) (Answer, error) {
	timer := time.NewTimer(min(most, MaxHold))
	defer timer.Stop()
	for {
		c, err := decide(ctx)
		if err != nil {
			return Answer{}, err
		}
		a, changed, err := b.ask(ctx, &c)
		if err != nil || a.Outcome != Waiting || !b.hold(c.Sandbox) {
			return a, err
		}
		again, err := b.wait(ctx, timer.C, &a, changed)
		b.release(c.Sandbox)
		if err != nil || !again {
			return a, err
		}
	}
}

func (b *Book) hold(sandbox string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[sandbox] >= MaxHeld {
		return false
	}
	b.held[sandbox]++
	return true
}

func (b *Book) release(sandbox string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[sandbox]--; b.held[sandbox] == 0 {
		delete(b.held, sandbox)
	}
}

// wait waits until the request of an answer is decided, and puts a refusal into
// the answer. again: ask once more.
func (b *Book) wait(ctx context.Context, over <-chan time.Time, a *Answer, changed <-chan struct{}) (again bool, err error) {
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-over:
			return false, nil
		case <-changed:
		}
		b.mu.Lock()
		e, err := b.get(ctx, a.ID)
		if b.open[a.ID] != nil {
			changed = b.onChange(a.ID)
		}
		b.mu.Unlock()
		if err != nil {
			return false, err
		}
		switch e.State {
		case Pending: // a vote that is not enough, or one more that asks
		case Approved, Consumed:
			return true, nil
		default:
			*a = Answer{Refused, e.ID, e.Why, "approval-" + e.State.String()}
			return false, nil
		}
	}
}

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

// End ends what a sandbox has open, and every hold of it.
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
		b.mu.Lock()
		open, err := b.list(ctx, false, 0)
		if err == nil {
			b.watchers[w] = struct{}{}
		}
		b.mu.Unlock()
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
