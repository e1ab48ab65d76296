// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Keeper answers a till.
type Keeper interface {
	// Exchange returns when the keeper has done what q says, or when it has not and
	// never will. It waits while no keeper is there, until ctx ends, which ends the
	// till.
	Exchange(ctx context.Context, q *wire.BudgetExchange) (wire.BudgetReply, error)
}

// Counts is what counts the calls of one sandbox under one policy. It is immutable.
type Counts struct {
	sandbox uint32
	of      []counted
}

type counted struct {
	b   *policy.Budget
	key policy.BudgetKey
	who string
}

// Count finds the accounts of a sandbox. Make it once for a snapshot.
func Count(sandbox uint32, p scope.Principal, list []*policy.Budget) *Counts {
	c := &Counts{sandbox: sandbox}
	for _, b := range list {
		c.of = append(c.of, counted{b, b.Key(), b.Who(p)})
	}
	return c
}

// MaxOutput is the most output tokens that the budgets give a call of a model whose
// client sets no cap; 0 is no such limit.
func (c *Counts) MaxOutput(model string) (most int64) {
	for i := range c.of {
		if b := c.of[i].b; b.MaxOutput > 0 && b.Covers(model) && (most == 0 || b.MaxOutput < most) {
			most = b.MaxOutput
		}
	}
	return most
}

// Empty says that nothing counts calls of a model.
func (c *Counts) Empty(model string) bool {
	for i := range c.of {
		if c.of[i].b.Covers(model) {
			return false
		}
	}
	return true
}

// Hard says that a hard budget counts calls of a model.
func (c *Counts) Hard(model string) bool {
	for i := range c.of {
		if b := c.of[i].b; b.Hard && b.Covers(model) {
			return true
		}
	}
	return false
}

// Till is the gateway's side. It is safe for concurrent use. Its owner runs Run.
type Till struct {
	keeper Keeper
	now    func() time.Time

	wake    chan struct{} // something is wanted
	settled chan struct{} // something is to be told, which has time
	turn    chan struct{} // full while a message is under way

	mu       sync.Mutex // guards what follows; nothing under it waits
	holder   int64
	slots    *Slots // nil until Open
	life     uint64 // one more with each Open
	purses   map[purseKey]*purse
	wanting  []*purse // of which something is wanted in the next message
	leases   map[int64]*held
	back     map[int64]*held // those of which something is to be given back
	queue    []*Reservation  // settlements that the keeper did not confirm, in their order
	applied  uint64          // the last that it did
	built    uint64          // messages that were made
	answered uint64          // and the last one that was answered
	changed  chan struct{}   // closed and replaced with each answer
	draining bool
	away     error // why the last message had no answer
}

type purseKey struct {
	budget     policy.BudgetKey
	who, model string
}

// purse is an account as the till knows it.
type purse struct {
	key     purseKey
	sandbox uint32 // one that may ask for it
	limited terms
	lease   *held // nil: none, or none any more
	former  *held // the last one that was ended

	// As of the last answer.
	known                bool
	others, left, limits int64
	reset                time.Time
	reason               string

	wanted      bool // in the next message
	least, most int64
	last        time.Time // a call asked for it
}

// terms are what of a budget makes a lease void when it changes.
type terms struct {
	limit  int64
	hard   bool
	unit   policy.BudgetUnit
	length time.Duration
	zone   string
}

func termsOf(b *policy.Budget) terms {
	return terms{b.Limit, b.Hard, b.Window.Unit, b.Window.Length, b.Window.Zone}
}

// held is a lease as the till has it. What may still be reserved of it is granted
// less used and reserved.
type held struct {
	id                      int64
	granted, used, reserved int64
	kept                    int64 // as much as the keeper knows to be granted
	unconfirmed             int   // settlements in the queue
	until, expires          time.Time
	ended                   bool // nothing more is reserved of it
}

func (h *held) room() int64 { return h.granted - h.used - h.reserved }

// NewTill makes a till without memory: until Open it refuses what counts.
func NewTill(k Keeper, now func() time.Time) *Till {
	return &Till{keeper: k, now: now, wake: make(chan struct{}, 1), settled: make(chan struct{}, 1), turn: make(chan struct{}, 1), changed: make(chan struct{}),
		purses: map[purseKey]*purse{}, leases: map[int64]*held{}, back: map[int64]*held{}}
}

// Open begins a life of the till: with a number of its own and memory that nobody
// has used. What was before counts no more.
func (t *Till) Open(holder int64, s *Slots) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holder, t.slots, t.queue, t.applied = holder, s, nil, 0
	t.life++
	clear(t.purses)
	clear(t.leases)
	clear(t.back)
	t.wanting = nil
}

// Holder is the number of the present life, 0 before the first.
func (t *Till) Holder() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holder
}

// maxPurses bounds them: an agent that invents models gets no more.
const maxPurses = MaxAccounts

// purseOf finds or makes one; nil: there are too many. A lease under other terms
// is given back.
func (t *Till) purseOf(c *Counts, i int, model string, now time.Time) *purse {
	b := c.of[i].b
	k := purseKey{budget: c.of[i].key, who: c.of[i].who}
	if b.PerModel() {
		k.model = model
	}
	p := t.purses[k]
	if p == nil {
		if len(t.purses) >= maxPurses {
			return nil
		}
		p = &purse{key: k, limited: termsOf(b)}
		t.purses[k] = p
	}
	if now := termsOf(b); p.limited != now {
		p.limited, p.known = now, false
		t.endLease(p)
	}
	p.sandbox, p.last = c.sandbox, now
	if h := p.lease; h != nil && !now.Before(h.until) {
		t.endLease(p)
		p.known = false
	}
	return p
}

// endLease gives the lease of a purse back, when what is under way of it is over.
func (t *Till) endLease(p *purse) {
	if h := p.lease; h != nil {
		h.ended, p.lease, p.former = true, nil, h
		h.granted = h.used + h.reserved
		t.back[h.id] = h
	}
}

// want puts a purse into the next message.
func (t *Till) want(p *purse, least, most int64) {
	if !p.wanted {
		p.wanted, p.least, p.most = true, math.MaxInt64, 0
		t.wanting = append(t.wanting, p)
	}
	p.least, p.most = min(p.least, least), min(plus(p.most, most), MaxAmount)
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
