// SPDX-License-Identifier: Apache-2.0

// Package limit counts how often and how much. It holds rates of requests and of
// tokens, and how many calls run at a time, for rules whose buckets are split by
// who asks for what. It does no I/O and knows no policy.
//
// # Rates
//
// A rate of N in a time W is the generic cell rate algorithm (ITU-T I.371; the
// same as a token bucket): a bucket of N that empties evenly, N in W. So N pass
// at once after a time of rest, and N in W after that. The level is kept as a
// whole number and a remainder over W, so nothing is rounded: a rate of 7 a
// minute lets 7 pass at once, and an eighth after 60/7 seconds, not a nanosecond
// before.
//
// # One take
//
// [Table.Take] takes from all buckets of a call, or from none. Each rule has a
// lock; a call locks its rules in the order of their numbers, so two calls wait
// for each other at most for that moment, and calls under different rules never.
//
// Tokens are taken by an estimate, and [Hold.Settle] puts right what was used in
// the end. More than that is a debt: the bucket is fuller than full, and what
// comes later waits longer. Less is given back, but only what has not drained
// since: what drained was time that nobody else could use.
//
// # Memory
//
// A bucket is dropped when it is empty of use again: nothing in it, nothing
// running, nobody waiting. There are at most [Options].Buckets of one rule, of
// which one owner makes at most [Options].OwnerBuckets. A call that would need
// one more is refused ([Buckets]): who varies what is counted apart neither gets
// new buckets for ever, nor takes the room of others, nor fills the memory.
package limit

import (
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of [Options].
const (
	DefaultRules        = 1 << 16
	DefaultBuckets      = 4096
	DefaultOwnerBuckets = 64
	DefaultQueue        = 256
	DefaultOwnerQueue   = 32
)

// Options bound a [Table]. Zero fields take their defaults.
type Options struct {
	Clock        Clock // nil: the monotonic clock of the process
	Rules        int   // rules that are counted at a time
	Buckets      int   // buckets of one rule
	OwnerBuckets int   // of these, those that calls of one owner made
	Queue        int   // calls that wait for one bucket
	OwnerQueue   int   // of these, those of one owner
}

// Clock tells the time since some moment, and waits. It should never go back:
// where it does, time stands still until it is where it was, so that nobody gets
// more than the latest time seen allows.
type Clock interface {
	Now() time.Duration
	// After sends once when d has passed. stop gives back what it holds.
	After(d time.Duration) (c <-chan time.Time, stop func() bool)
}

type monotonic struct{ start time.Time }

func (m monotonic) Now() time.Duration { return time.Since(m.start) }
func (m monotonic) After(d time.Duration) (<-chan time.Time, func() bool) {
	t := time.NewTimer(d)
	return t.C, t.Stop
}

// Name is what a rule is called. It keeps its buckets while it keeps its name,
// whatever happens to its numbers: a new revision of the policy is no new bucket.
type Name struct{ Scope, Doc, ID string }

// Spec is what a rule limits. 0 is no limit. A window must be above 0 where its
// amount is.
type Spec struct {
	Requests, Tokens             uint64
	RequestsWindow, TokensWindow time.Duration
	Concurrency                  uint64        // calls that run at a time
	Queue                        time.Duration // how long a call waits for room; 0: not at all
}

// Split is what a rule counts apart, in an order that the caller chooses; "" for
// what it counts together.
type Split struct{ Who, Model, Provider string }

// Claim is what one rule wants of a call.
type Claim struct {
	Rule   *Rule // from [Table.Rule]; nil refuses
	Spec   Spec
	Split  Split
	Shadow bool // counted as if it were in force, and refuses nothing
	Tag    int  // the caller's own: Take puts claims in another order

	b     *bucket // while Take works
	short Kind    // what b has no room in
}

// Call is what wants to pass.
type Call struct {
	// Claims are of different rules. Take puts them in the order of their rules.
	Claims []Claim
	// Owner is whose call it is: who shares buckets and queues fairly.
	Owner string
	// Tokens is the estimate. 0: the call uses none, and their limits do not
	// hold it.
	Tokens uint64
}

// Kind is what there was no room in.
type Kind uint8

// Kinds of refusals, in the order in which they are told.
const (
	None        Kind = iota
	Requests         // the rate of requests
	Tokens           // the rate of tokens
	Concurrency      // calls that run at a time
	Queue            // others wait already, and as many as may
	Buckets          // the rule has as many buckets as it may, or its owner has
	Rules            // the rule cannot be counted: there are as many as may be
)

var kindNames = [...]string{"none", "requests", "tokens", "concurrency", "queue", "buckets", "rules"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Level is how full a rate's bucket is.
type Level struct {
	Limit     uint64        // 0: the call has no such limit
	Window    time.Duration // what Limit is for
	Remaining uint64        // that may be taken now
	Reset     time.Duration // until the bucket is empty of use
}

// Refusal is why a call may not pass. The zero value is no refusal.
type Refusal struct {
	Kind  Kind
	Claim int // index into the claims, as Take left them
	// Wait is how long until there is room, if nobody takes it before; 0 where
	// nobody knows.
	Wait time.Duration
	// Never: the call is larger than the whole bucket.
	Never bool
	// Patience is how long the call may wait with [Table.Wait]; 0: not at all.
	Patience time.Duration
	// Requests and Tokens are those rates of the enforced claims with the least
	// remaining.
	Requests, Tokens Level
}

// Table holds the rules. It is safe for concurrent use.
type Table struct {
	// Immutable after New.
	opt Options

	seen atomic.Int64 // the latest time

	mu    sync.RWMutex
	rules map[Name]*Rule // guarded by mu
	last  uint64         // number of the newest rule; guarded by mu
	sweep int            // as many rules as make a look for idle ones worth it; guarded by mu
	look  int64          // not before; guarded by mu
}

// New makes an empty table.
func New(o Options) *Table {
	if o.Clock == nil {
		o.Clock = monotonic{time.Now()}
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&o.Rules, DefaultRules}, {&o.Buckets, DefaultBuckets}, {&o.OwnerBuckets, DefaultOwnerBuckets}, {&o.Queue, DefaultQueue}, {&o.OwnerQueue, DefaultOwnerQueue}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	t := &Table{opt: o, rules: map[Name]*Rule{}, sweep: min(o.Rules, minSweep)}
	t.seen.Store(int64(o.Clock.Now()))
	return t
}

// now is the time, which never goes back.
func (t *Table) now() int64 {
	now := int64(t.opt.Clock.Now())
	for {
		seen := t.seen.Load()
		if now <= seen {
			return seen
		}
		if t.seen.CompareAndSwap(seen, now) {
			return now
		}
	}
}

// minSweep is how many entries there are before idle ones are looked for.
const minSweep = 64

// Rule finds a rule or makes it; nil when there are as many as may be and none
// is idle.
func (t *Table) Rule(name Name) *Rule {
	t.mu.RLock()
	r := t.rules[name]
	t.mu.RUnlock()
	if r != nil {
		return r
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.rules[name]; r != nil {
		return r
	}
	if now := t.now(); len(t.rules) >= t.sweep && now >= t.look {
		t.dropIdle(now)
	}
	if len(t.rules) >= t.opt.Rules {
		return nil
	}
	t.last++
	r = &Rule{num: t.last, name: name}
	t.rules[name] = r
	return r
}

// dropIdle drops rules without a bucket in use; mu is held.
func (t *Table) dropIdle(now int64) {
	for name, r := range t.rules {
		r.mu.Lock()
		r.dropIdle(now)
		if len(r.buckets) == 0 {
			r.gone = true
			delete(t.rules, name)
		}
		r.mu.Unlock()
	}
	t.sweep, t.look = min(t.opt.Rules, max(minSweep, 2*len(t.rules))), later(now, lookAgain)
}

// Size is how many rules and buckets there are, for metrics.
func (t *Table) Size() (rules, buckets int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, r := range t.rules {
		r.mu.Lock()
		buckets += len(r.buckets)
		r.mu.Unlock()
	}
	return len(t.rules), buckets
}
