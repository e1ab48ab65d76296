// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"context"
	"slices"
	"time"
)

// queue is who waits for one bucket: in the order in which they came for each
// owner, and the owners in turns. Only the head tries; who leaves wakes the next.
type queue struct {
	lines []*line // the first one's first waiter is the head
	n     int
}

// line is those of one owner.
type line struct {
	owner   string
	waiters []*waiter
}

// waiter is one call that waits. It stands in at most one queue.
type waiter struct {
	owner string
	rule  *Rule // where it stands, nil for nowhere
	b     *bucket
	lead  bool          // it was the head when it last tried
	wake  chan struct{} // one place: a wake-up is not lost
}

func (q *queue) head() *waiter { return q.lines[0].waiters[0] }

func (w *waiter) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// join puts a waiter at the end; false when there is no room. The rule's lock is
// held.
func (b *bucket) join(t *Table, r *Rule, w *waiter) bool {
	if b.queue == nil {
		b.queue = &queue{}
	}
	q := b.queue
	i := slices.IndexFunc(q.lines, func(l *line) bool { return l.owner == w.owner })
	if q.n >= t.opt.Queue || i >= 0 && len(q.lines[i].waiters) >= t.opt.OwnerQueue {
		return false
	}
	if i < 0 {
		i = len(q.lines)
		q.lines = append(q.lines, &line{owner: w.owner})
	}
	q.lines[i].waiters = append(q.lines[i].waiters, w)
	q.n++
	w.rule, w.b = r, b
	return true
}

// leave takes a waiter out. One that got through gives the turn to the next
// owner. The rule's lock is held.
func (w *waiter) leave(through bool, now int64) {
	b, r := w.b, w.rule
	if b == nil {
		return
	}
	w.b, w.rule = nil, nil
	q := b.queue
	for i, l := range q.lines {
		j := slices.Index(l.waiters, w)
		if j < 0 {
			continue
		}
		l.waiters = slices.Delete(l.waiters, j, j+1)
		q.n--
		if len(l.waiters) == 0 || through {
			q.lines = slices.Delete(q.lines, i, i+1)
		}
		if len(l.waiters) > 0 && through {
			q.lines = append(q.lines, l)
		}
		break
	}
	if q.n == 0 {
		b.queue = nil
		r.idleAt = min(r.idleAt, b.idleAt(&r.spec, now))
		return
	}
	q.head().poke()
}

// place puts a call that waits where it has to wait now, and takes it out where
// it does not wait any more: it passed, it may not wait, or it waits for another
// bucket first.
func (t *Table) place(c *Call, w *waiter, ref *Refusal) {
	now := t.now()
	if ref.Kind == None || ref.Patience == 0 {
		w.leave(ref.Kind == None, now)
		return
	}
	cl := &c.Claims[ref.Claim]
	if w.b != cl.b {
		w.leave(false, now)
		if !cl.b.join(t, cl.Rule, w) {
			ref.Kind, ref.Patience = Queue, 0
			return
		}
	}
	w.lead = cl.b.queue.head() == w
}

// Wait is Take for a call that may wait as long as the rules without room let
// it, each in turn and the shortest of them counting. Where the room would come
// too late it is refused at once. It ends when ctx does, with its error.
func (t *Table) Wait(ctx context.Context, c *Call, h *Hold) (Refusal, error) {
	start := time.Duration(t.now())
	end := time.Duration(-1)
	w := &waiter{owner: c.Owner, wake: make(chan struct{}, 1)}
	defer t.quit(w)
	for {
		ref := t.attempt(c, h, w)
		if ref.Kind == None || ref.Patience == 0 {
			return ref, nil
		}
		now := time.Duration(t.now())
		if e := start + ref.Patience; end < 0 || e < end {
			end = e
		}
		if now >= end || ref.Wait > end-now {
			ref.Patience = 0
			return ref, nil
		}
		if err := t.sleep(ctx, w, &ref, end-now); err != nil {
			return ref, err
		}
	}
}

// quit takes a waiter out that gave up.
func (t *Table) quit(w *waiter) {
	r := w.rule
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w.leave(false, t.now())
}

// sleep waits until something may have changed for the waiter.
func (t *Table) sleep(ctx context.Context, w *waiter, ref *Refusal, most time.Duration) error {
	if ref.Wait > 0 && w.lead {
		most = min(most, ref.Wait)
	}
	c, stop := t.opt.Clock.After(most)
	defer stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.wake:
	case <-c:
	}
	return nil
}
