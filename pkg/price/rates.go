// SPDX-License-Identifier: Apache-2.0

package price

import (
	"errors"
	"math/bits"
)

// Rates are the prices of one model.
type Rates struct {
	set  Set // those that are there; a price of zero is there
	rate [Units]Rate
}

// Set gives a unit a price.
func (r *Rates) Set(u Unit, v Rate) { r.set, r.rate[u] = r.set|1<<u, v }

// Get is the price of a unit, if it has one of its own.
func (r *Rates) Get(u Unit) (Rate, bool) { return r.rate[u], r.set.Has(u) }

// Empty says whether no unit has a price.
func (r *Rates) Empty() bool { return r.set == 0 }

// allZero says whether no unit costs anything.
func (r *Rates) allZero() bool { return r.rate == [Units]Rate{} }

// Tier is what holds from a size of the prompt on. Units that it has no price for
// keep the price below it.
type Tier struct {
	ContextOver uint64 // tokens of the prompt, of which there are more
	Rates
}

// fallback is the unit whose price is taken for one that has none. Of reasoning and
// of pictures in a prompt this is how providers bill; of the others it is an
// assumption, and said so.
var fallback = [Units]struct {
	to      Unit
	has     bool
	assumed bool
}{
	CachedInput:  {Input, true, true},
	CacheWrite5m: {Input, true, true},
	CacheWrite1h: {CacheWrite5m, true, true},
	AudioInput:   {Input, true, true},
	ImageInput:   {Input, true, false},
	Reasoning:    {Output, true, false},
	AudioOutput:  {Output, true, true},
	ImageOutput:  {Output, true, true},
}

// find is the price of a unit, its own or that of another one.
func (r *Rates) find(u Unit) (v Rate, found, assumed bool) {
	for {
		if r.set.Has(u) {
			return r.rate[u], true, assumed
		}
		f := &fallback[u]
		if !f.has {
			return 0, false, assumed
		}
		u, assumed = f.to, assumed || f.assumed
	}
}

// Charge is what one call cost.
type Charge struct {
	Nano  int64        // in all, nano-dollars, rounded up
	Parts [Units]int64 // of which for each unit; their sum is Nano
	// Assumed are units for which the price of another one was taken, Unpriced
	// those that were used and that nothing is known of: Nano is too little then.
	Assumed, Unpriced Set
	Tier              uint64 // the tier that was used, by its ContextOver; 0: none
}

// ErrOverflow is returned for an amount that no int64 holds.
var ErrOverflow = errors.New("price: the amount is out of range")

// Cost is what a usage costs at these prices. The sum is exact and then rounded up
// to a nano-dollar, once.
func (m *Model) Cost(u *Usage) (Charge, error) {
	var c Charge
	r := &m.Rates
	if t := m.tier(u.PromptTokens()); t != nil {
		r, c.Tier = &t.Rates, t.ContextOver
	}
	var hi, lo, prev uint64 // of the sum, in nano-dollars times a million
	for i := range u {
		n := u[i]
		if n == 0 {
			continue
		}
		v, found, assumed := r.find(Unit(i))
		switch {
		case Unit(i) == Image && u[ImageOutput] > 0:
			continue // billed by tokens
		case Unit(i) == Request && !found:
			continue // no fee
		case Unit(i) == Image && !found && u.AnswerTokens() > 0:
			continue
		case !found:
			c.Unpriced |= 1 << i
			continue
		case assumed:
			c.Assumed |= 1 << i
		}
		h, l := bits.Mul64(n, uint64(v))
		var carry uint64
		lo, carry = bits.Add64(lo, l, 0)
		if hi, carry = bits.Add64(hi, h, carry); carry != 0 {
			return Charge{}, ErrOverflow
		}
		sum, ok := ceil(hi, lo)
		if !ok {
			return Charge{}, ErrOverflow
		}
		c.Parts[i], prev = int64(sum-prev), sum
	}
	c.Nano = int64(prev)
	return c, nil
}

// ceil divides by a million, rounding up; false: the result is above an int64.
func ceil(hi, lo uint64) (uint64, bool) {
	if hi >= mega {
		return 0, false
	}
	q, rest := bits.Div64(hi, lo, mega)
	if rest != 0 {
		q++
	}
	return q, q <= 1<<63-1
}

// tier is the one that a prompt of so many tokens is in, nil: none.
func (m *Model) tier(prompt uint64) *Tier {
	for i := len(m.Tiers) - 1; i >= 0; i-- {
		if prompt > m.Tiers[i].ContextOver {
			return &m.Tiers[i]
		}
	}
	return nil
}

// settle completes the tiers, which are in ascending order: what a tier does not say
// it takes from the one below. An hour in a cache is never cheaper than five minutes.
func (m *Model) settle() {
	below := &m.Rates
	for i := range m.Tiers {
		t := &m.Tiers[i].Rates
		own := t.set
		for u := range Unit(Units) {
			if v, ok := below.Get(u); ok && !t.set.Has(u) {
				t.Set(u, v)
			}
		}
		if own.Has(CacheWrite5m) && !own.Has(CacheWrite1h) && t.set.Has(CacheWrite1h) {
			t.rate[CacheWrite1h] = max(t.rate[CacheWrite1h], t.rate[CacheWrite5m])
		}
		below = t
	}
}

// Bound is the most that a call can cost whose prompt has so many tokens and whose
// answer has at most so many: each token at the dearest price that a token of its
// side can have, and the fee for the call. Searches that the provider may do are not
// in it. ok is false when that is out of range, or nothing is known of one side.
func (m *Model) Bound(prompt, answer uint64) (nano int64, ok bool) {
	r := &m.Rates
	if t := m.tier(prompt); t != nil {
		r = &t.Rates
	}
	in, inKnown := r.dearest(Input, ImageInput)
	out, outKnown := r.dearest(Output, ImageOutput)
	if prompt > 0 && !inKnown || answer > 0 && !outKnown {
		return 0, false
	}
	bound := Model{}
	bound.Rates.Set(Input, in)
	bound.Rates.Set(Output, out)
	u := Usage{Input: prompt, Output: answer}
	if fee, has := r.Get(Request); has {
		bound.Rates.Set(Request, fee)
		u[Request] = 1
	}
	c, err := bound.Cost(&u)
	return c.Nano, err == nil
}

// dearest is the highest price of the units from one to another.
func (r *Rates) dearest(from, to Unit) (v Rate, known bool) {
	for u := from; u <= to; u++ {
		if x, found, _ := r.find(u); found {
			v, known = max(v, x), true
		}
	}
	return v, known
}
