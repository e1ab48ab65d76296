// SPDX-License-Identifier: Apache-2.0

package price

import (
	"math"
	"math/rand/v2"
	"testing"
)

// No usage with as many tokens, however they fall into units, costs more.
func TestBoundIsNeverExceeded(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		var m Model
		for u := range Unit(Units) {
			if rng.IntN(3) > 0 {
				m.Rates.Set(u, Rate(rng.IntN(1e9)))
			}
		}
		if rng.IntN(2) == 0 {
			tier := Tier{ContextOver: uint64(rng.IntN(1000))}
			tier.Set(Unit(rng.IntN(Units)), Rate(rng.IntN(1e9)))
			m.Tiers = []Tier{tier}
		}
		m.settle()
		var u Usage
		for i := range Image {
			u[i] = uint64(rng.IntN(500))
		}
		u[Request] = 1
		bound, ok := m.Bound(u.PromptTokens(), u.AnswerTokens())
		if !ok {
			continue
		}
		if c, err := m.Cost(&u); err != nil || c.Nano > bound {
			t.Fatalf("%d, %v; bound %d: %+v %v", c.Nano, err, bound, m, u)
		}
	}
}

func TestBoundOfWhatIsNotKnown(t *testing.T) {
	m := Model{Rates: rates(Input, "1")}
	if _, ok := m.Bound(1, 1); ok {
		t.Error("no price of the answer")
	}
	if v, ok := m.Bound(1000, 0); !ok || v != 1_000_000 {
		t.Error("embeddings", v, ok)
	}
	m.Rates.Set(Output, math.MaxInt64)
	if _, ok := m.Bound(1, math.MaxUint64); ok {
		t.Error("out of range")
	}
}
