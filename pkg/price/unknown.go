// SPDX-License-Identifier: Apache-2.0

package price

import (
	"errors"
	"time"
)

// ErrUnknown is the cost of a model of which no price is known.
var ErrUnknown = errors.New("price: the model's price is not known")

// Unknown is what becomes of a call whose price is not known: policy.UnknownPrice, in
// the same order (a test of pkg/inference compares them). The zero value denies.
type Unknown uint8

// Ways.
const (
	Deny     Unknown = iota // the call is refused
	Estimate                // it costs what the dearest known model would
	Flag                    // it goes through without a cost, and its record says so
)

// String is the word of documents.
func (u Unknown) String() string {
	switch u {
	case Estimate:
		return "estimate"
	case Flag:
		return "flag"
	}
	return "deny"
}

// Decide finds the price of a call before it is made. ok is false when the call has
// to be refused: nothing is known of its price, and u says deny, or estimate with no
// price at all to go by. A match that is not Known and ok is a call without a cost.
// estimated says that the price is another model's.
func (u Unknown) Decide(b *Book, kind, model string, at time.Time) (m Match, estimated, ok bool) {
	if m = b.Lookup(kind, model, at); m.Known() {
		return m, false, true
	}
	switch u {
	case Estimate:
		m = b.dearest(kind, at)
		return m, true, m.Known()
	case Flag:
		return Match{}, false, true
	}
	return Match{}, false, false
}

// dearest is the most expensive model of a kind, of all kinds if the kind has none:
// the sum of a token in and a token out counts.
func (b *Book) dearest(kind string, at time.Time) Match {
	var of, all Match
	if b == nil {
		return of
	}
	more := func(best *Match, list []dated) {
		m := inForce(list, at.UnixNano(), Pattern)
		if m.Known() && (!best.Known() || m.Model.weight() > best.Model.weight() ||
			m.Model.weight() == best.Model.weight() && m.Model.Name < best.Model.Name) {
			*best = m
		}
	}
	for k, list := range b.exact {
		more(&all, list)
		if k.provider == kind {
			more(&of, list)
		}
	}
	for provider, patterns := range b.patterns {
		for _, p := range patterns {
			more(&all, p.prices)
			if provider == kind {
				more(&of, p.prices)
			}
		}
	}
	if of.Known() {
		return of
	}
	return all
}

// weight orders models by how dear they are. Those priced by the picture or by the
// call only come last.
func (m *Model) weight() uint64 {
	in, _, _ := m.Rates.find(Input)
	out, _, _ := m.Rates.find(Output)
	return uint64(in) + uint64(out)
}
