// SPDX-License-Identifier: Apache-2.0

package limit

import "time"

// inline is how many claims a Hold keeps without an allocation.
const inline = 6

// Hold is what a call has taken. The zero value holds nothing. It must not be
// copied while it holds something. It is over with Settle or Cancel: until then the
// call counts as running.
type Hold struct {
	few  [inline]part
	more []part
	n    int

	// Shadow is the first claim in shadow mode, by its index, for which there was
	// no room: its rule would have refused the call, for ShadowKind.
	Shadow     int
	ShadowKind Kind
}

// part is what a call has in one bucket. A bucket with an open part stays.
type part struct {
	rule   *Rule
	b      *bucket
	spec   Spec
	tokens uint64 // taken
	tMark  uint64 // the bucket's in, with them
	rMark  uint64
}

func (h *Hold) part(i int) *part {
	if i < inline {
		return &h.few[i]
	}
	return &h.more[i-inline]
}

// Take takes from the buckets of all enforced claims, or, where one has no room
// or others wait, from none. Of claims in shadow mode it takes from those that
// have room, if the call passes. h must hold nothing.
func (t *Table) Take(c *Call, h *Hold) Refusal {
	return t.attempt(c, h, nil)
}

// attempt is Take for a call that waits with w, or does not wait.
func (t *Table) attempt(c *Call, h *Hold, w *waiter) Refusal {
	if i := t.lock(c.Claims); i >= 0 {
		return Refusal{Kind: Rules, Claim: i}
	}
	now := t.now()
	ref := t.judge(c, w, now)
	if ref.Kind == None {
		c.take(h)
	}
	if w != nil {
		t.place(c, w, &ref)
	}
	c.clear()
	unlock(c.Claims)
	return ref
}

// lock locks the rules in their order. It returns the claim that cannot be
// counted, with nothing locked, or -1.
func (t *Table) lock(claims []Claim) int {
again:
	for i := range claims {
		if claims[i].Rule == nil {
			return i
		}
		for j := i; j > 0 && claims[j].Rule.num < claims[j-1].Rule.num; j-- {
			claims[j], claims[j-1] = claims[j-1], claims[j]
		}
	}
	for i := range claims {
		r := claims[i].Rule
		if i > 0 && r == claims[i-1].Rule { // a rule twice is not ours to add up
			unlock(claims[:i])
			return i
		}
		r.mu.Lock()
		if r.gone {
			unlock(claims[:i+1])
			claims[i].Rule = t.Rule(r.name)
			goto again
		}
	}
	return -1
}

func unlock(claims []Claim) {
	for i := range claims {
		claims[i].Rule.mu.Unlock()
	}
}

// judge finds the bucket of each claim and says whether there is room in all. It
// takes nothing. Of several claims without room, that counts for which a call
// cannot wait, and then that for which it waits longest.
func (t *Table) judge(c *Call, w *waiter, now int64) (ref Refusal) {
	for i := range c.Claims {
		cl := &c.Claims[i]
		r := cl.Rule
		r.spec = cl.Spec
		b := r.find(t, cl.Split, c.Owner, now)
		cl.b = b
		one := Refusal{Kind: Buckets}
		if b != nil {
			one = b.judge(&cl.Spec, c.Tokens, w, now)
		} else {
			one.Wait = max(0, time.Duration(r.idleAt-now))
		}
		cl.short = one.Kind
		if one.Kind != None && !cl.Shadow {
			one.Claim = i
			ref.and(&one)
		}
	}
	if ref.Kind != None {
		c.levels(&ref)
	}
	return ref
}

// and puts two refusals of a call together.
func (ref *Refusal) and(o *Refusal) {
	if ref.Kind == None {
		*ref = *o
		return
	}
	patience := min(ref.Patience, o.Patience)
	if final := ref.Patience == 0; final == (o.Patience == 0) && o.Wait > ref.Wait || !final && o.Patience == 0 {
		*ref = *o
	}
	ref.Patience = patience
}

// judge says whether one bucket has room.
func (b *bucket) judge(s *Spec, tokens uint64, w *waiter, now int64) (ref Refusal) {
	if s.Requests > 0 {
		b.requests.drain(now, s.Requests, s.RequestsWindow)
		if !b.requests.room(s.Requests, 1) {
			ref.Kind, ref.Wait = Requests, b.requests.wait(s.Requests, 1)
		}
	}
	if s.Tokens > 0 {
		b.tokens.drain(now, s.Tokens, s.TokensWindow)
		if tokens > 0 && !b.tokens.room(s.Tokens, tokens) {
			if tokens > s.Tokens {
				return Refusal{Kind: Tokens, Never: true}
			}
			if d := b.tokens.wait(s.Tokens, tokens); ref.Kind == None || d > ref.Wait {
				ref.Kind, ref.Wait = Tokens, d
			}
		}
	}
	if ref.Kind == None && s.Concurrency > 0 && b.open >= s.Concurrency {
		ref.Kind = Concurrency
	}
	if ref.Kind == None && b.queue != nil && (w == nil || b.queue.head() != w) {
		ref.Kind = Queue // those who wait come first
	}
	if ref.Kind != None {
		ref.Patience = s.Queue
	}
	return ref
}

// take takes what was judged.
func (c *Call) take(h *Hold) {
	h.n, h.more, h.Shadow, h.ShadowKind = 0, h.more[:0], 0, None
	for i := range c.Claims {
		cl := &c.Claims[i]
		if cl.short != None {
			if h.ShadowKind == None {
				h.Shadow, h.ShadowKind = i, cl.short
			}
			continue
		}
		if h.n >= inline {
			h.more = append(h.more, part{})
		}
		p := h.part(h.n)
		h.n++
		p.rule, p.b, p.spec, p.tokens = cl.Rule, cl.b, cl.Spec, 0
		b := cl.b
		b.open++
		if cl.Spec.Requests > 0 {
			b.requests.put(1)
		}
		if cl.Spec.Tokens > 0 {
			p.tokens = c.Tokens
			b.tokens.put(c.Tokens)
		}
		p.rMark, p.tMark = b.requests.in, b.tokens.in
	}
}

// clear forgets what judge found.
func (c *Call) clear() {
	for i := range c.Claims {
		c.Claims[i].b, c.Claims[i].short = nil, None
	}
}

// levels finds the enforced rates with the least remaining.
func (c *Call) levels(ref *Refusal) {
	for i := range c.Claims {
		cl := &c.Claims[i]
		if cl.Shadow || cl.b == nil {
			continue
		}
		if s := &cl.Spec; s.Requests > 0 {
			ref.Requests.tighter(cl.b.requests.level(s.Requests))
		}
		if s := &cl.Spec; s.Tokens > 0 {
			ref.Tokens.tighter(cl.b.tokens.level(s.Tokens))
		}
	}
}

func (l *Level) tighter(o Level) {
	if l.Limit == 0 || o.Remaining < l.Remaining || o.Remaining == l.Remaining && o.Reset > l.Reset {
		*l = o
	}
}

// Settle ends the hold of a call that used so many tokens. What it used more than
// the estimate is a debt; of what it used less, that is given back which has not
// drained since. A second time it does nothing.
func (h *Hold) Settle(t *Table, tokens uint64) { h.end(t, tokens, false) }

// Cancel ends the hold of a call that went nowhere, and gives its request back
// too.
func (h *Hold) Cancel(t *Table) { h.end(t, 0, true) }

func (h *Hold) end(t *Table, tokens uint64, cancel bool) {
	if h.n == 0 {
		return
	}
	now := t.now()
	for i := range h.n {
		h.part(i).end(now, tokens, cancel)
		*h.part(i) = part{}
	}
	h.n = 0
}

func (p *part) end(now int64, tokens uint64, cancel bool) {
	r, b := p.rule, p.b
	r.mu.Lock()
	defer r.mu.Unlock()
	b.open--
	if s := &p.spec; s.Requests > 0 && cancel {
		b.requests.drain(now, s.Requests, s.RequestsWindow)
		b.requests.back(1, p.rMark)
	}
	if s := &p.spec; s.Tokens > 0 {
		b.tokens.drain(now, s.Tokens, s.TokensWindow)
		if tokens < p.tokens {
			b.tokens.back(p.tokens-tokens, p.tMark)
		} else {
			b.tokens.put(tokens - p.tokens)
		}
	}
	r.idleAt = min(r.idleAt, b.idleAt(&r.spec, now))
	if b.queue != nil {
		b.queue.head().poke()
	}
}
