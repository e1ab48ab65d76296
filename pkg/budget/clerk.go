// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"context"
	"time"

	"github.com/ringfence/ringfence/pkg/wire"
)

// Times of the clerk.
const (
	settleAfter = 200 * time.Millisecond // settlements wait for more of them
	sweepEvery  = 10 * time.Second
	idleAfter   = time.Minute // then a lease goes back
	pauseMost   = 2 * time.Second
)

// Run talks to the keeper until ctx ends: one message at a time. problem hears of an
// exchange that failed, once until one succeeds.
func (t *Till) Run(ctx context.Context, problem func(error)) {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	var later, again <-chan time.Time
	pause := 20 * time.Millisecond
	for {
		wake := t.wake
		if again != nil {
			wake = nil // the keeper refused: not at once again
		}
		idle := false
		select {
		case <-ctx.Done():
			return
		case <-t.settled:
			if later == nil {
				later = time.After(settleAfter)
			}
			continue
		case <-wake:
		case <-later:
		case <-again:
		case <-sweep.C:
			idle = true
		}
		later, again = nil, nil
		more, err := t.Step(ctx, idle)
		for more && err == nil {
			more, err = t.Step(ctx, false)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause = 20 * time.Millisecond
		default:
			if pause == 20*time.Millisecond {
				problem(err)
			}
			again = time.After(pause)
			pause = min(2*pause, pauseMost)
		}
	}
}

// Finish lets no call begin any more, and gives everything back, as far as calls
// under way end before ctx does. Run must have returned, or still run.
func (t *Till) Finish(ctx context.Context) error {
	t.mu.Lock()
	t.draining = true
	t.mu.Unlock()
	for {
		if _, err := t.Step(ctx, true); err != nil {
			return err
		}
		t.mu.Lock()
		under := len(t.leases) + len(t.queue)
		t.mu.Unlock()
		if under == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.settled:
		case <-time.After(settleAfter):
		}
	}
}

// Step says one message, if there is something to say; more: there is. idle also
// gives back what nobody has used for a while. Steps have turns.
func (t *Till) Step(ctx context.Context, idle bool) (more bool, err error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	q, asked, life := t.build(idle)
	if q == nil {
		return false, nil
	}
	reply, err := t.keeper.Exchange(ctx, q)
	if err == nil && (len(reply.Given) != len(q.Asked) || reply.Applied > q.First+uint64(len(q.Settled))-1) {
		err = &wire.ProtocolError{Msg: "an answer about other money than was asked for"}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if life != t.life {
		return true, nil
	}
	t.away = err
	if err != nil {
		for i, p := range asked { // for who waits
			t.want(p, q.Asked[i].Least, q.Asked[i].Most)
		}
		return false, err
	}
	t.apply(q, asked, &reply)
	close(t.changed)
	t.changed, t.answered = make(chan struct{}), t.built
	return len(t.wanting) > 0 || len(t.queue) >= wire.MaxBudgetSettled || len(t.back) > wire.MaxBudgetReturned, nil
}

// build makes the next message; nil: there is nothing to say.
func (t *Till) build(idle bool) (q *wire.BudgetExchange, asked []*purse, life uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots == nil {
		return nil, nil, 0
	}
	if idle {
		t.giveBack()
	}
	q = &wire.BudgetExchange{Holder: t.holder, First: t.applied + 1}
	for _, r := range t.queue[:min(len(t.queue), wire.MaxBudgetSettled)] {
		s := wire.BudgetSettled{Reserved: r.amount, Actual: r.actual, Estimated: r.estimated}
		for _, h := range r.of[:r.n] {
			s.Leases = append(s.Leases, h.id)
		}
		q.Settled = append(q.Settled, s)
	}
	for _, h := range t.back {
		ends := h.ended && h.reserved == 0 && h.unconfirmed == 0
		if len(q.Returned) < wire.MaxBudgetReturned && (ends || h.granted < h.kept) {
			q.Returned = append(q.Returned, wire.BudgetReturned{Lease: h.id, Granted: h.granted, Ended: ends})
		}
	}
	n := min(len(t.wanting), wire.MaxBudgetAsked)
	asked = append(asked, t.wanting[:n]...)
	t.wanting = append(t.wanting[:0], t.wanting[n:]...)
	for _, p := range asked {
		a := wire.BudgetAsked{Sandbox: p.sandbox, Budget: p.key.budget, Model: p.key.model, Least: min(p.least, p.most), Most: p.most}
		if h := cmp.Or(p.lease, p.former); h != nil {
			a.Lease, a.Have = h.id, h.granted
		}
		p.wanted = false
		q.Asked = append(q.Asked, a)
	}
	if len(q.Settled)+len(q.Returned)+len(q.Asked) == 0 {
		return nil, nil, 0
	}
	t.built++
	return q, asked, t.life
}

// giveBack ends the leases that nobody has used for a while, or all when the till
// is about to end, and forgets what it knows of those accounts.
func (t *Till) giveBack() {
	now := t.now()
	for k, p := range t.purses {
		if p.wanted || !t.draining && now.Sub(p.last) < idleAfter {
			continue
		}
		if p.lease == nil || t.draining || p.lease.reserved == 0 {
			t.endLease(p)
			delete(t.purses, k)
		}
	}
}

// apply takes the keeper's answer.
func (t *Till) apply(q *wire.BudgetExchange, asked []*purse, reply *wire.BudgetReply) {
	for len(t.queue) > 0 && t.applied < reply.Applied {
		r := t.queue[0]
		t.queue[0], t.queue = nil, t.queue[1:]
		t.applied++
		t.slots.give(r.slot)
		for _, h := range r.of[:r.n] {
			h.unconfirmed--
		}
	}
	for _, r := range q.Returned {
		h := t.back[r.Lease]
		h.kept = min(h.kept, r.Granted)
		if r.Ended {
			delete(t.back, r.Lease)
			delete(t.leases, r.Lease)
		}
	}
	for i, p := range asked {
		t.given(p, &q.Asked[i], &reply.Given[i])
	}
}

// given is the answer about one purse.
func (t *Till) given(p *purse, q *wire.BudgetAsked, g *wire.BudgetGiven) {
	p.reason, p.known = g.Reason, g.Lease != 0
	p.others, p.left, p.limits, p.reset = g.Others, g.Left, g.Limit, time.Unix(0, g.Reset).UTC()
	if h := p.lease; h != nil && h.id != g.Lease {
		t.endLease(p)
	}
	if g.Lease <= 0 {
		return
	}
	p.reason = ""
	h := t.leases[g.Lease]
	if h == nil {
		h = &held{id: g.Lease}
		t.leases[g.Lease] = h
	}
	if h.ended { // calls of it were still under way: it is the same again
		h.ended = false
		delete(t.back, h.id)
	}
	h.granted, h.kept = g.Granted, g.Granted
	h.until, h.expires = time.Unix(0, g.Until), time.Unix(0, g.Expires)
	if p.lease, p.former = h, nil; t.purses[p.key] != p { // it was given up meanwhile
		t.endLease(p)
	}
}
