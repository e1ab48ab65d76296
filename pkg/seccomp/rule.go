// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// Rule is one row of the must-block table: each of Calls is refused with
// Errno if all of When hold. A rule without conditions refuses every call.
type Rule struct {
	Group string
	Calls []string
	When  []Cond
	Errno syscall.Errno
	Why   string
}

// Op is how a condition compares. The zero value is invalid.
type Op uint8

const (
	_      Op = iota
	In        // arg & Mask is one of Values
	NotIn     // arg & Mask is none of Values
	AnyBit    // arg & Mask is not zero
)

// Cond is a condition on one argument register. Mask says which bits of the
// 64-bit register the kernel looks at: an int parameter is low32, so that
// garbage in the upper half changes nothing (CVE-2019-10063, CVE-2019-7303).
// NotIn with all64 counts such garbage as "not in": refused.
type Cond struct {
	Arg    uint // register, 0..5
	Name   string
	Op     Op
	Mask   uint64
	Values []uint64
	Text   string // how to print Values; empty = numbers
}

const (
	low32 = uint64(0xffffffff)
	all64 = ^uint64(0)
)

// Holds says whether the condition holds for the given register value. It is
// the meaning of a condition; the compiled filter is tested against it.
func (c Cond) Holds(v uint64) bool {
	switch c.Op {
	case In:
		return slices.Contains(c.Values, v&c.Mask)
	case NotIn:
		return !slices.Contains(c.Values, v&c.Mask)
	case AnyBit:
		return v&c.Mask != 0
	}
	return true // an invalid condition must not make a rule narrower
}

// Matches says whether the rule refuses a call with these arguments.
func (r Rule) Matches(args [6]uint64) bool {
	for _, c := range r.When {
		if !c.Holds(args[c.Arg]) {
			return false
		}
	}
	return true
}

// String prints a condition the way the listing shows it.
func (c Cond) String() string {
	vals := c.Text
	if vals == "" {
		parts := make([]string, len(c.Values))
		for i, v := range c.Values {
			parts[i] = fmt.Sprintf("%#x", v)
		}
		vals = strings.Join(parts, ", ")
	}
	name := c.Name
	if c.Op != AnyBit && c.Mask != all64 && c.Mask != low32 {
		name = fmt.Sprintf("%s&%#x", name, c.Mask)
	}
	switch c.Op {
	case In:
		return name + " in {" + vals + "}"
	case NotIn:
		return name + " not in {" + vals + "}"
	case AnyBit:
		if c.Text == "" {
			vals = fmt.Sprintf("%#x", c.Mask)
		}
		return name + " has any of " + vals
	}
	return "invalid"
}

func eq32(arg uint, name, text string, values ...uint64) Cond {
	return Cond{Arg: arg, Name: name, Op: In, Mask: low32, Values: values, Text: text}
}

func anyBit(arg uint, name, text string, mask uint64) Cond {
	return Cond{Arg: arg, Name: name, Op: AnyBit, Mask: mask, Text: text}
}
