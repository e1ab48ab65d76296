// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Bounds of a queue.
const (
	MaxQueued   = 1000      // deliveries: the first of whoever has the most gives way to the next
	MaxQueuedOf = 100       // of one source: its first gives way to its next
	GiveUpAfter = time.Hour // from when it was queued, which a restart does anew

	firstPause = time.Second
	maxPause   = time.Minute
)

// Delivery is one thing to tell.
type Delivery struct {
	ID     string
	Source string // what made it: one source does not crowd out another
	Body   []byte

	queued time.Time
}

// Options of a Queue.
type Options struct {
	// Tell takes what an operator should know: failing and working again.
	Tell func(failing bool, text string)
	Now  func() time.Time
	// Pause waits between attempts; false: ctx has ended. nil: time passes.
	Pause func(ctx context.Context, d time.Duration) bool
}

// Queue holds what is to be told, in its order, and sends it one after the other.
// Adding never waits. Nothing of it is durable: who fills it knows what to fill
// it with after a restart.
type Queue struct {
	o Options

	mu    sync.Mutex // guards what follows
	list  []Delivery
	lost  uint64 // given up, refused, or without room, since that was told
	fails bool
	wake  chan struct{}
}

// NewQueue makes an empty queue.
func NewQueue(o Options) *Queue {
	if o.Pause == nil {
		o.Pause = pause
	}
	return &Queue{o: o, wake: make(chan struct{}, 1)}
}

// Add queues a delivery, unless one of its id is queued. It never waits.
func (q *Queue) Add(d Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	of, most := map[string]int{}, d.Source
	for i := range q.list {
		if q.list[i].ID == d.ID {
			return
		}
		of[q.list[i].Source]++
	}
	for i := range q.list { // not over the map: the first of those that have as many
		if s := q.list[i].Source; of[s] > of[most] {
			most = s
		}
	}
	switch {
	case len(d.Body) > MaxBody:
		q.lost++
		return
	case of[d.Source] >= MaxQueuedOf:
		q.drop(d.Source)
	case len(q.list) >= MaxQueued:
		q.drop(most)
	}
	d.queued = q.o.Now()
	q.list = append(q.list, d)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// drop takes out the first of a source, which has one.
func (q *Queue) drop(source string) {
	i := slices.IndexFunc(q.list, func(d Delivery) bool { return d.Source == source })
	q.list = slices.Delete(q.list, i, i+1)
	q.lost++
}

// Run sends until ctx ends. post makes one attempt, and ends with its context.
func (q *Queue) Run(ctx context.Context, post func(ctx context.Context, d *Delivery) Result) {
	wait := firstPause
	for ctx.Err() == nil {
		d, ok := q.first()
		if !ok {
			select {
			case <-q.wake:
			case <-ctx.Done():
			}
			continue
		}
		res := post(ctx, &d)
		if ctx.Err() != nil {
			return // it is sent again by the next
		}
		over := !res.Outcome.final() && q.o.Now().Sub(d.queued) >= GiveUpAfter
		if res.Outcome.final() || over {
			q.done(d.ID, res.Outcome != Delivered)
		}
		q.tell(res)
		switch {
		case res.Outcome.final():
			wait = firstPause
		case !q.o.Pause(ctx, wait):
			return
		default:
			wait = min(2*wait, maxPause)
		}
	}
}

func (q *Queue) first() (Delivery, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return Delivery{}, false
	}
	return q.list[0], true
}

// done takes a delivery out. It may have given way meanwhile.
func (q *Queue) done(id string, lost bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.IndexFunc(q.list, func(d Delivery) bool { return d.ID == id }); i >= 0 {
		q.list = slices.Delete(q.list, i, i+1)
	}
	if lost {
		q.lost++
	}
}

// tell says when deliveries begin to fail, and when they arrive again with what
// was lost meanwhile; nothing in between.
func (q *Queue) tell(res Result) {
	q.mu.Lock()
	works, was, lost := res.Outcome == Delivered, q.fails, q.lost
	q.fails = !works
	if works {
		q.lost = 0
	}
	q.mu.Unlock()
	switch {
	case !works && !was:
		q.o.Tell(true, "a webhook was not delivered: "+res.String())
	case works && (was || lost > 0):
		text := "webhooks are delivered again"
		if lost > 0 {
			text += fmt.Sprintf("; lost meanwhile: %d", lost)
		}
		q.o.Tell(false, text)
	}
}

// Failing says whether the last attempt failed.
func (q *Queue) Failing() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.fails
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
