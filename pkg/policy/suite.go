// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

// KindTest is the kind of documents that hold tests of other documents. They
// are never in force; [ParseSuite] reads them.
const KindTest = "PolicyTest"

// Suite is the tests of one PolicyTest document.
type Suite struct {
	Name     string
	File     string
	Policies []string // what is tested: files, directories and packs, relative to File
	Tests    []Test
}

// Test is one question and what must come of it.
type Test struct {
	Name string // "" where none is given
	As   scope.Principal
	Ask  Question
	Want string    // one of the Want constants
	Rule string    // "document/id" that must decide, NoRule for none; "" when any may
	At   time.Time // zero: without a time, so what depends on it is decided the stricter way
	// Sorted, complete; nil when they are not compared.
	Obligations []string // "kind document/id"
	Demands     []string // "document/id"
	File        string
	Line        int
}

// What a test may want.
const (
	WantAllow = "allow"
	WantHTTP  = "http" // the connection is allowed as inspected HTTP only: each request is asked for
	WantBlock = "block"
	WantAsk   = "require-approval"
)

var wants = []string{WantAllow, WantHTTP, WantAsk, WantBlock}

// Verdict is the decision in the words of tests.
func (d Decision) Verdict() string {
	switch {
	case d.Effect == RequireApproval:
		return WantAsk
	case d.Allowed() && d.HTTP:
		return WantHTTP
	case d.Allowed():
		return WantAllow
	}
	return WantBlock
}

// NoRule is how a test says that no rule decides.
const NoRule = "none"

// Outcome is what came of a test.
type Outcome struct {
	Test *Test
	Got  string // as Want
	Rule RuleRef
	Why  string // one sentence, of the decision
	OK   bool

	Obligations, Demands []string // as in Test
}

// Run asks all questions of the suite.
func (s *Suite) Run(snap *Snapshot) []Outcome {
	out := make([]Outcome, len(s.Tests))
	for i := range s.Tests {
		out[i] = s.Tests[i].run(snap)
	}
	return out
}

func (t *Test) run(snap *Snapshot) Outcome {
	view := snap.View(t.As)
	if !t.At.IsZero() {
		view = view.At(t.At)
	}
	d := view.Explain(t.Ask).Decision
	o := Outcome{Test: t, Got: d.Verdict(), Rule: d.Rule, Why: d.Reason, Obligations: []string{}, Demands: []string{}}
	for _, x := range d.Obligations() {
		o.Obligations = append(o.Obligations, x.Kind.String()+" "+x.Rule.String())
	}
	for _, x := range d.Demands() {
		o.Demands = append(o.Demands, x.Rule.String())
	}
	slices.Sort(o.Obligations)
	slices.Sort(o.Demands)
	name := d.Rule.String()
	if name == "" {
		name = NoRule
	}
	o.OK = o.Got == t.Want && (t.Rule == "" || t.Rule == name) &&
		(t.Obligations == nil || slices.Equal(t.Obligations, o.Obligations)) && (t.Demands == nil || slices.Equal(t.Demands, o.Demands))
	return o
}

// Coverage is one rule of the tested documents and how often it decided.
type Coverage struct {
	Rule RuleRef
	Hits int
}

// Cover counts for every rule of the documents how many outcomes it decided,
// in the order of files and lines.
func Cover(docs []Document, outcomes []Outcome) []Coverage {
	hits := map[string]int{}
	for i := range outcomes {
		hits[outcomes[i].Rule.place()]++
	}
	var out []Coverage
	eachRule(docs, func(d *Document, r *Rule) {
		ref := RuleRef{Doc: d.Name, ID: r.ID, File: d.File, Line: r.Line, Scope: d.Scope.String()}
		out = append(out, Coverage{ref, hits[ref.place()]})
	})
	return out
}

func (r RuleRef) place() string { return fmt.Sprintf("%s %s %s %s", r.File, r.Scope, r.Doc, r.ID) }

func eachRule(docs []Document, do func(*Document, *Rule)) {
	for i := range docs {
		d := &docs[i]
		if d.Policy == nil {
			continue
		}
		for _, rules := range [][]Rule{d.Policy.Egress, d.Policy.Inference, d.Policy.Tools} {
			for j := range rules {
				do(d, &rules[j])
			}
		}
	}
}

// Mutate deletes each rule of the documents in turn and runs the suites on what
// is left. It returns the rules without which every test still passes: no test
// says what they are for.
func Mutate(docs []Document, suites []*Suite) []RuleRef {
	var out []RuleRef
	for i := range docs {
		d := &docs[i]
		if d.Policy == nil {
			continue
		}
		whole := d.Policy
		less := *whole
		d.Policy = &less
		for _, part := range []struct{ from, to *[]Rule }{{&whole.Egress, &less.Egress}, {&whole.Inference, &less.Inference}, {&whole.Tools, &less.Tools}} {
			for j := range *part.from {
				*part.to = slices.Delete(slices.Clone(*part.from), j, j+1)
				if r := &(*part.from)[j]; allPass(docs, suites) {
					out = append(out, RuleRef{Doc: d.Name, ID: r.ID, File: d.File, Line: r.Line, Scope: d.Scope.String()})
				}
			}
			*part.to = *part.from
		}
		d.Policy = whole
	}
	return out
}

func allPass(docs []Document, suites []*Suite) bool {
	snap, _ := Compile(1, docs)
	for _, s := range suites {
		for i := range s.Tests {
			if !s.Tests[i].run(snap).OK {
				return false
			}
		}
	}
	return true
}
