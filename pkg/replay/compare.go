// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"cmp"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// Verdict is what a question gets, and by which rule.
type Verdict struct {
	Verdict string
	Rule    string // "document/id", "" for none
}

func verdictOf(d *policy.Decision) Verdict { return Verdict{d.Verdict(), d.Rule.String()} }

// Change is past decisions that other documents decide in another way.
type Change struct {
	Scope    string // the agent
	Question string
	From, To Verdict
	Count    uint64 // decisions
	Example  string // id of the first event
}

// MaxChanges bounds how many different changes a comparison keeps; of those
// beyond it the decisions are counted.
const MaxChanges = 10_000

// Comparison asks two sets of documents what was asked in the past. Add records,
// then take Changes.
type Comparison struct {
	From, To    *policy.Snapshot
	Decided     uint64            // past decisions that both were asked
	Changed     uint64            // of which the verdict differs
	Beyond      uint64            // of these, those that MaxChanges left no room for
	Undecidable map[string]uint64 // decisions whose record lacks something, by what
	changes     map[[2]string]*Change
}

// Add asks what a record asks, if it tells of a decision.
func (c *Comparison) Add(ev *event.Event) {
	if !Decides(ev) {
		return
	}
	p, why := Read(ev)
	if why != "" {
		c.undecidable(why, p.Count)
		return
	}
	c.Decided += p.Count
	a, b := p.Decide(c.From), p.Decide(c.To)
	if a.Verdict() == b.Verdict() {
		return
	}
	c.Changed += p.Count
	change := Change{Scope: p.agent(), Question: p.Text(), From: verdictOf(&a), To: verdictOf(&b), Example: p.ID}
	key := [2]string{change.Scope, strings.Join([]string{change.Question, change.From.Verdict, change.From.Rule, change.To.Verdict, change.To.Rule}, "\x00")}
	if c.changes == nil {
		c.changes = map[[2]string]*Change{}
	}
	if c.changes[key] == nil {
		if len(c.changes) >= MaxChanges {
			c.Beyond += p.Count
			return
		}
		c.changes[key] = &change
	}
	c.changes[key].Count += p.Count
}

// Cut counts a record of which the log holds only the beginning.
func (c *Comparison) Cut() { c.undecidable(cutRecord, 1) }

func (c *Comparison) undecidable(why string, n uint64) {
	if c.Undecidable == nil {
		c.Undecidable = map[string]uint64{}
	}
	c.Undecidable[why] += n
}

// Changes are all kept, the most frequent first.
func (c *Comparison) Changes() []Change {
	out := []Change{}
	for _, x := range c.changes {
		out = append(out, *x)
	}
	slices.SortFunc(out, func(a, b Change) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Question, b.Question), cmp.Compare(a.Example, b.Example))
	})
	return out
}
