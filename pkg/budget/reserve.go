// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"fmt"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Ask is what a call needs, in nano-dollars. Where the client declared a cap Least
// is Most: what the call costs at most. Else the reservation is as much as there is
// between the two, and who asks makes a cap of it.
type Ask struct {
	Model       string
	Least, Most int64
	// Downgraded and Approved say that the caller did what an action of a budget
	// demands, or cannot: where one demands it and it was not, the call is refused.
	Downgraded, Approved bool
}

// RefusalKind says why a call may not be made. The zero value is no reason.
type RefusalKind uint8

// Kinds of refusals.
const (
	RefusedLimit     RefusalKind = iota + 1 // it does not fit
	RefusedBlock                            // an action of the budget blocks
	RefusedApproval                         // people have to approve it
	RefusedDowngrade                        // it has to go to a lower tier
	RefusedAway                             // the keeper does not answer, and the lease is used up
	RefusedBusy                             // there is no room for one more call, or account
	RefusedNone                             // the keeper knows no such account
)

// Refusal is why a call may not be made.
type Refusal struct {
	Kind       RefusalKind
	Budget     policy.RuleRef
	Who, Model string // the account
	Limit      int64
	Left       int64     // of the limit, without what calls under way reserve
	Need       int64     // Ask.Least
	Percent    int64     // of the limit, spent or reserved
	RetryAt    time.Time // when there may be room; zero: not known
	Why        string    // RefusedAway, RefusedNone
}

func (r *Refusal) Error() string {
	name := fmt.Sprintf("the budget %s of %s", r.Budget, r.Who)
	if r.Model != "" {
		name += " for " + r.Model
	}
	switch r.Kind {
	case RefusedLimit:
		return fmt.Sprintf("%s has %s left of %s, and the call may cost %s", name, policy.FormatUSD(r.Left), policy.FormatUSD(r.Limit), policy.FormatUSD(r.Need))
	case RefusedBlock:
		return fmt.Sprintf("%s is used up to %d percent of %s, where it blocks", name, r.Percent, policy.FormatUSD(r.Limit))
	case RefusedApproval:
		return fmt.Sprintf("%s is used up to %d percent of %s, where people have to approve calls", name, r.Percent, policy.FormatUSD(r.Limit))
	case RefusedDowngrade:
		return fmt.Sprintf("%s is used up to %d percent of %s, where calls go to a lower tier", name, r.Percent, policy.FormatUSD(r.Limit))
	case RefusedBusy:
		return "there are too many calls under way to count one more"
	case RefusedAway:
		return "the keeper's answer about " + name + " is missing: " + r.Why
	}
	return name + " cannot be used: " + r.Why
}

// tries is how often a call asks again when others took what it asked for.
const tries = 8

// Reserve takes what a call may cost out of every account that counts it, all or
// nothing. While the leases have room it neither waits nor allocates more than the
// reservation; else it waits for the keeper's word, as long as ctx. nil, nil: nothing
// counts the call.
func (t *Till) Reserve(ctx context.Context, c *Counts, a Ask) (*Reservation, *Refusal) {
	if c.Empty(a.Model) {
		return nil, nil
	}
	if a.Least < 0 || a.Most < a.Least || a.Most > MaxAmount || len(a.Model) > wire.MaxBudgetModel {
		return nil, &Refusal{Kind: RefusedNone, Budget: c.of[0].b.Ref, Who: c.of[0].who, Why: "the amount or the model's name is out of bounds"}
	}
	asked := uint64(0) // the message that asks for this call; 0: none yet
	for n := 0; ; n++ {
		r, ref, changed := t.attempt(c, &a, &asked, n >= tries)
		if r != nil || ref != nil {
			return r, ref
		}
		for waits := true; waits; {
			select {
			case <-ctx.Done():
				return nil, t.unanswered(c, &a)
			case <-changed:
			}
			waits, changed = t.waits(asked)
		}
	}
}

// waits says whether a message has no answer yet, and what to wait for then.
func (t *Till) waits(message uint64) (bool, chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.answered < message, t.changed
}

func (t *Till) unanswered(c *Counts, a *Ask) *Refusal {
	t.mu.Lock()
	defer t.mu.Unlock()
	why := "it took too long"
	if t.away != nil {
		why = t.away.Error()
	}
	for i := range c.of {
		if c.of[i].b.Covers(a.Model) {
			return &Refusal{Kind: RefusedAway, Budget: c.of[i].b.Ref, Who: c.of[i].who, Need: a.Least, Why: why}
		}
	}
	return &Refusal{Kind: RefusedAway, Why: why}
}

// attempt takes it, or refuses it, or asks for what is missing: then all three are
// nil but the channel. What was not asked about for this call is never refused.
func (t *Till) attempt(c *Counts, a *Ask, asked *uint64, last bool) (*Reservation, *Refusal, chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots == nil || t.draining {
		return nil, &Refusal{Kind: RefusedAway, Budget: c.of[0].b.Ref, Who: c.of[0].who, Why: "the gateway has just started, or is about to end"}, nil
	}
	now := t.now()
	final := *asked != 0 // the keeper was asked
	var list [MaxLeases]*purse
	amount, missing, n := a.Most, false, 0
	for i := range c.of {
		b := c.of[i].b
		if !b.Covers(a.Model) {
			continue
		}
		if n == MaxLeases {
			return nil, &Refusal{Kind: RefusedNone, Budget: b.Ref, Who: c.of[i].who, Why: fmt.Sprintf("more than %d budgets count one call", MaxLeases)}, nil
		}
		p := t.purseOf(c, i, a.Model, now)
		if p == nil {
			return nil, &Refusal{Kind: RefusedBusy, Budget: b.Ref, Who: c.of[i].who}, nil
		}
		list[n] = p
		n++
		room, ref := p.look(b, a, now, final)
		switch {
		case ref != nil && (last || ref.Kind != RefusedLimit || p.left == 0):
			return nil, ref, nil
		case ref != nil || room < 0 || !final && room < a.Most:
			missing = true
		default:
			amount = min(amount, room)
		}
	}
	if missing && last {
		return nil, &Refusal{Kind: RefusedBusy, Budget: c.of[0].b.Ref, Who: c.of[0].who}, nil
	}
	if !missing {
		r, ref := t.take(c, &list, n, amount)
		return r, ref, nil
	}
	for _, p := range list[:n] {
		t.wantFor(p, a, now)
	}
	*asked = t.built + 1
	nudge(t.wake)
	return nil, nil, t.changed
}

// wantFor asks for what a purse lacks for a call, and only for news where it lacks
// nothing.
func (t *Till) wantFor(p *purse, a *Ask, now time.Time) {
	switch h := p.lease; {
	case !p.limited.hard:
		t.want(p, 0, 0)
	case h == nil || !now.Before(h.expires):
		t.want(p, a.Least, a.Most)
	default:
		t.want(p, max(0, a.Least-h.room()), max(0, a.Most-h.room()))
	}
}

// look says how much a purse has for a call: below zero that it has to be asked
// for. final: it was, and a refusal is the last word.
func (p *purse) look(b *policy.Budget, a *Ask, now time.Time, final bool) (int64, *Refusal) {
	refuse := func(kind RefusalKind, percent int64) (int64, *Refusal) {
		if !final {
			return -1, nil
		}
		return -1, &Refusal{Kind: kind, Budget: b.Ref, Who: p.key.who, Model: p.key.model, Limit: p.limits, Left: p.left, Need: a.Least, Percent: percent, RetryAt: p.reset, Why: p.reason}
	}
	h := p.lease
	if !p.known || h != nil && !now.Before(h.expires) {
		if p.reason != "" {
			return refuse(RefusedNone, 0)
		}
		return -1, nil
	}
	used := p.others
	if h != nil {
		used = plus(used, h.used+h.reserved)
	}
	percent := percentOf(used, p.limits)
	switch deed, ok := b.Deed(percent); {
	case !ok || deed == policy.BudgetNotify:
	case deed == policy.BudgetBlock:
		return refuse(RefusedBlock, percent)
	case deed == policy.BudgetApproval && !a.Approved:
		return refuse(RefusedApproval, percent)
	case deed == policy.BudgetDowngrade && !a.Downgraded:
		return refuse(RefusedDowngrade, percent)
	}
	switch {
	case !b.Hard && h != nil:
		return a.Most, nil
	case h == nil || h.room() < a.Least:
		return refuse(RefusedLimit, percent)
	}
	return h.room(), nil
}

// take reserves an amount in every one of the purses.
func (t *Till) take(c *Counts, list *[MaxLeases]*purse, n int, amount int64) (*Reservation, *Refusal) {
	s := t.slots.take()
	if s == nil {
		return nil, &Refusal{Kind: RefusedBusy, Budget: c.of[0].b.Ref, Who: c.of[0].who}
	}
	r := &Reservation{t: t, life: t.life, slot: s, n: n, amount: amount}
	for i, p := range list[:n] {
		h := p.lease
		h.reserved += amount
		r.of[i], s.list[i] = h, h.id
		t.refill(p, amount)
	}
	s.leases, s.reserved, s.actual, s.estimated, s.sequence = uint32(n), amount, 0, 0, 0
	s.state.Store(slotReserved)
	return r, nil
}

// refill asks for more before a lease runs dry, and before it expires.
func (t *Till) refill(p *purse, amount int64) {
	h := p.lease
	switch {
	case p.wanted:
	case p.limited.hard && h.room() < plus(amount, amount) && p.left > 0:
		t.want(p, 0, 4*min(amount, MaxAmount/4))
	case h.expires.Sub(p.last) < LeaseTime/2:
		t.want(p, 0, 0)
	default:
		return
	}
	nudge(t.wake)
}
