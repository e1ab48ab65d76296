// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"math"
	"strings"
	"sync"
	"time"
)

// Rule is the buckets of one rule.
type Rule struct {
	// Immutable.
	num  uint64 // the order of locks
	name Name

	mu      sync.Mutex // guards what follows, and the buckets
	gone    bool       // the table has dropped it: find it again
	spec    Spec       // the newest one
	last    *bucket    // the one used last, nil or in buckets
	buckets map[Split]*bucket
	owners  map[string]int // buckets that each owner made
	sweep   int            // as many buckets as make a look for idle ones worth it
	idleAt  int64          // none becomes idle before
}

// lookAgain is how long idle buckets of a rule, and idle rules, are not looked for
// after a look: who asks for new ones all the time does not cause one each time.
const lookAgain = 100 * time.Millisecond

// bucket is what is counted together.
type bucket struct {
	split    Split
	owner    string // who made it
	requests meter
	tokens   meter
	open     uint64 // holds that are not over: calls that run
	queue    *queue // who waits; nil for nobody
}

// find looks for a bucket and makes it where there is none; nil where there may
// be no more. mu is held.
func (r *Rule) find(t *Table, split Split, owner string, now int64) *bucket {
	if r.last != nil && r.last.split == split {
		return r.last
	}
	b := r.buckets[split]
	if b == nil {
		if b = r.add(t, split, owner, now); b == nil {
			return nil
		}
	}
	r.last = b
	return b
}

// add makes a bucket. The strings are copied: they may be parts of a request.
func (r *Rule) add(t *Table, split Split, owner string, now int64) *bucket {
	full := len(r.buckets) >= t.opt.Buckets || r.owners[owner] >= t.opt.OwnerBuckets
	if (full || len(r.buckets) >= r.sweep) && now >= r.idleAt {
		r.dropIdle(now)
		full = len(r.buckets) >= t.opt.Buckets || r.owners[owner] >= t.opt.OwnerBuckets
	}
	if full {
		return nil
	}
	if r.buckets == nil {
		r.buckets, r.owners, r.sweep = map[Split]*bucket{}, map[string]int{}, minSweep
	}
	split = Split{strings.Clone(split.Who), strings.Clone(split.Model), strings.Clone(split.Provider)}
	b := &bucket{split: split, owner: strings.Clone(owner)}
	b.requests.at, b.tokens.at = now, now
	r.buckets[split] = b
	r.owners[b.owner]++
	r.idleAt = min(r.idleAt, now)
	return b
}

// dropIdle drops the buckets that are as good as new, and notes when to look
// again. mu is held.
func (r *Rule) dropIdle(now int64) {
	next := int64(math.MaxInt64)
	for split, b := range r.buckets {
		if at := b.idleAt(&r.spec, now); at > now {
			next = min(next, at)
			continue
		}
		delete(r.buckets, split)
		if r.owners[b.owner]--; r.owners[b.owner] == 0 {
			delete(r.owners, b.owner)
		}
		if r.last == b {
			r.last = nil
		}
	}
	r.idleAt = max(next, later(now, lookAgain))
	r.sweep = max(minSweep, 2*len(r.buckets))
}

// idleAt is when the bucket is as good as new, if nothing happens before.
func (b *bucket) idleAt(s *Spec, now int64) int64 {
	if b.open > 0 || b.queue != nil {
		return math.MaxInt64
	}
	return max(now, b.requests.idleAt(now, s.Requests, s.RequestsWindow), b.tokens.idleAt(now, s.Tokens, s.TokensWindow))
}
