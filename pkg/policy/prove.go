// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Proof is what [Prove] found out.
type Proof struct {
	Holds          bool
	Counterexample *Counterexample // when it does not hold
	Compared       int             // questions that stand for all
	Conditions     []string        // of which nothing was assumed, sorted
}

// Counterexample is a question that the newer documents decide more
// permissively.
type Counterexample struct {
	As         scope.Principal
	Question   Question
	Resolved   netip.Addr // valid: the name of the question has this address
	Assuming   []Assumption
	New, Old   Decision
	Difference string // one sentence, what the newer documents let pass
}

// Assumption is a value of a condition under which a counterexample is one.
type Assumption struct {
	Condition string
	Value     string // "true", "false" or "error"
}

// TooLargeError says that a proof was given up: of the documents nothing is known.
type TooLargeError struct {
	What     string // the targets that were looked at
	Done, Of int    // of them
	Limit    string // what was reached
}

// Error says how far the proof came.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("too large to prove: %d of %d %s were compared when the limit of %s was reached", e.Done, e.Of, e.What, e.Limit)
}

// Bounds of one target.
const (
	maxPrincipals = 100_000
	maxPathStates = 50_000 // of all patterns of paths together
)

// MaxQuestions is how many questions a proof compares where the caller does not
// say.
const MaxQuestions = 4_000_000

// Prove decides whether no question gets a more permissive decision from the
// newer documents than from the older: no looser effect, none that is seen less
// (a connection instead of its requests), no obligation and no demand for an
// approval less, no address of a name and no provider of a model more.
//
// All questions are covered by the finitely many that the rules of both tell
// apart, and each is decided by the engine itself. Nothing is assumed about
// conditions (`when`): each takes every value, the same text the same value in
// both, so a counterexample that assumes something may be one that cannot
// happen. Profiles and who operates what are not compared.
func Prove(newer, older []Document, most int) (*Proof, error) {
	p := &prover{walk: walk{most: most}, rates: map[RuleRef]map[RuleRef]bool{}}
	p.question, p.address = p.compare, p.resolvedTo
	for i, docs := range [][]Document{newer, older} {
		snap, problems := Compile(uint64(i), docs)
		if len(problems) > 0 {
			return nil, Problems(problems)
		}
		p.sides[i] = snap
	}
	if err := p.everything(); err != nil {
		return nil, err
	}
	proof := &Proof{Holds: p.found == nil, Counterexample: p.found, Compared: p.compared}
	for _, u := range p.unknowns {
		proof.Conditions = append(proof.Conditions, u.text)
	}
	slices.Sort(proof.Conditions)
	return proof, nil
}

// prover compares two snapshots, the newer first.
type prover struct {
	walk
	rates map[RuleRef]map[RuleRef]bool // of each rate of the older side, those of the newer that limit all it limits
}

// compare decides a question on both sides.
func (p *prover) compare(views [2]*View, q Question, _ *target) *Counterexample {
	c := &Counterexample{Question: q, New: views[0].Ask(&q), Old: views[1].Ask(&q)}
	if c.Difference = looser(&c.New, &c.Old); c.Difference == "" {
		c.Difference = p.limits(&c.New, &c.Old)
	}
	if c.Difference == "" && q.Section == SectionInference {
		c.Difference = elsewhere(views, &q, &c.New)
	}
	if c.Difference == "" {
		return nil
	}
	return c
}

// String is one sentence.
func (c *Counterexample) String() string {
	s := fmt.Sprintf("%s, %s: %s", c.As, &c.Question, c.Difference)
	for i, a := range c.Assuming {
		if i == 0 {
			s += ", assuming "
		} else {
			s += ", "
		}
		s += fmt.Sprintf("%q %s", a.Condition, a.Value)
	}
	return s
}
