// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"math/bits"
	"slices"

	lib "github.com/seccomp/libseccomp-golang"
)

// libseccomp ANDs the conditions of one rule, takes each argument at most once
// per rule, and ORs rules. So every condition becomes a list of alternatives
// and a rule becomes the product of its conditions.

// expand returns the rules, each a list of conditions, that together mean "all
// of when".
func expand(when []Cond) ([][]lib.ScmpCondition, error) {
	out := [][]lib.ScmpCondition{nil}
	for _, c := range when {
		alts := c.alternatives()
		if len(alts) == 0 {
			return nil, fmt.Errorf("condition on argument %d (%s) has no form", c.Arg, c.Name)
		}
		var next [][]lib.ScmpCondition
		for _, have := range out {
			for _, alt := range alts {
				next = append(next, append(slices.Clone(have), alt))
			}
		}
		out = next
	}
	return out, nil
}

// alternatives returns comparisons of which one holds exactly when c holds;
// none for an invalid condition, which fails the compilation.
func (c Cond) alternatives() []lib.ScmpCondition {
	var out []lib.ScmpCondition
	masked := func(mask, value uint64) {
		if mask == all64 {
			out = append(out, lib.ScmpCondition{Argument: c.Arg, Op: lib.CompareEqual, Operand1: value})
			return
		}
		out = append(out, lib.ScmpCondition{Argument: c.Arg, Op: lib.CompareMaskedEqual, Operand1: mask, Operand2: value})
	}
	switch {
	case c.Op == In:
		for _, v := range c.Values {
			masked(c.Mask, v)
		}
	case c.Op == AnyBit:
		for m := c.Mask; m != 0; m &= m - 1 {
			bit := uint64(1) << bits.TrailingZeros64(m)
			masked(bit, bit)
		}
	case c.Op == NotIn && c.Mask == all64 && len(c.Values) > 0:
		top := slices.Max(c.Values)
		for v := range top {
			if !slices.Contains(c.Values, v) {
				masked(all64, v)
			}
		}
		out = append(out, lib.ScmpCondition{Argument: c.Arg, Op: lib.CompareGreater, Operand1: top})
	case c.Op == NotIn:
		c.cubes(c.Mask, 0, 0, masked)
	}
	return out
}

// cubes covers the complement of c.Values over the bits of c.Mask with
// (mask, value) pairs: it fixes bits from the top and stops as soon as no
// value of the set begins that way.
func (c Cond) cubes(rest, mask, value uint64, emit func(mask, value uint64)) {
	if !slices.ContainsFunc(c.Values, func(v uint64) bool { return v&mask == value }) {
		emit(mask, value)
		return
	}
	if rest == 0 {
		return
	}
	bit := uint64(1) << (63 - bits.LeadingZeros64(rest))
	c.cubes(rest&^bit, mask|bit, value, emit)
	c.cubes(rest&^bit, mask|bit, value|bit, emit)
}
