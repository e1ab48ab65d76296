// SPDX-License-Identifier: Apache-2.0

// Package price says what a model call costs.
//
// A [Table] is a list of prices with a version and the time from which they hold;
// a [Book] is several of them merged, and answers what was in force at a time. Money
// is integer nano-dollars (1e-9 USD), a [Rate] is nano-dollars per million units;
// no price ever passes through a floating point number. A model without a price is
// unknown, which is never free: see [Unknown].
//
// Tables are written by people ([Parse]) or imported from what others publish
// ([ImportLiteLLM], [ImportModelsDev]); none is shipped, because a list of prices is
// wrong from the day on which a provider changes one. The package does no I/O.
package price

import "math/bits"

// Unit is something that is counted and priced. The units of one [Usage] never
// overlap: a token is counted in exactly one of them.
type Unit uint8

// Units. Input is what no other unit of input says, Output likewise.
const (
	Input        Unit = iota // tokens of the prompt
	CachedInput              // tokens of the prompt that a cache held
	CacheWrite5m             // tokens of the prompt that were put in a cache for five minutes
	CacheWrite1h             // and for one hour
	AudioInput               // tokens of sound
	ImageInput               // tokens of pictures
	Output                   // tokens of the answer
	Reasoning                // tokens of the answer that are the model's thinking
	AudioOutput              // tokens of sound
	ImageOutput              // tokens of pictures
	Image                    // pictures that were made
	Request                  // calls
	WebSearch                // searches that the provider did
	units
)

// Units is how many there are.
const Units = int(units)

// names are those of documents.
var names = [Units]string{"input", "cachedInput", "cacheWrite5m", "cacheWrite1h", "audioInput", "imageInput",
	"output", "reasoning", "audioOutput", "imageOutput", "image", "request", "webSearch"}

func (u Unit) String() string {
	if int(u) < Units {
		return names[u]
	}
	return "unknown"
}

// isToken says whether the unit is priced per million; the others are priced each.
func (u Unit) isToken() bool { return u < Image }

// Set is a set of units.
type Set uint16

// Has says whether u is in the set.
func (s Set) Has(u Unit) bool { return s&(1<<u) != 0 }

// List names the members.
func (s Set) List() (out []string) {
	for ; s != 0; s &= s - 1 {
		out = append(out, Unit(bits.TrailingZeros16(uint16(s))).String())
	}
	return out
}

// Usage is how much of each unit one call took.
type Usage [Units]uint64

// PromptTokens is everything that the model read: what tiers of a price go by.
func (u *Usage) PromptTokens() uint64 { return u.sum(Input, ImageInput) }

// AnswerTokens is everything that the model wrote.
func (u *Usage) AnswerTokens() uint64 { return u.sum(Output, ImageOutput) }

// sum adds the units from one to another, and stays at the largest number.
func (u *Usage) sum(from, to Unit) (n uint64) {
	for _, v := range u[from : to+1] {
		if n += v; n < v {
			return ^uint64(0)
		}
	}
	return n
}
