// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// MaxLearned bounds the different destinations that a lesson keeps.
const MaxLearned = 10_000

// Lesson learns from denials what would have to be allowed. Add records, then
// Write.
type Lesson struct {
	Docs     []policy.Document // in force: what they allow already, or refuse, is not learned
	Port     uint16            // taken for names of which no port is known; 0: they are left out
	Wildcard bool              // names below one parent become one pattern

	Beyond uint64 // denials that MaxLearned left no room for

	snap    *policy.Snapshot
	asked   map[string]*want
	skipped map[string]uint64 // denials that nothing is learned from, by why
}

// want is one destination that an agent was refused.
type want struct {
	past            Past // the latest
	refused, passed uint64
}

// Learned is one rule.
type Learned struct {
	Agent   string // whose
	Target  string // as in documents
	Request *policy.HTTPMatch
	Refused uint64 // how often
	Passed  uint64 // how often it was let through because the sandbox learned
	Last    time.Time
	Names   []string // that a pattern stands for
}

// Add takes a record in.
func (l *Lesson) Add(ev *event.Event) {
	learned := ev.Verdict == event.Allowed && ev.Rule == policy.Learn().Ref.String() // also of what failed
	if !Decides(ev) || ev.Verdict != event.Denied && !learned {
		return
	}
	p, why := Read(ev)
	switch {
	case why == "" && p.Question.Section == policy.SectionInference:
		why = "about models: write an inference rule"
	case why == "" && p.Code != policy.CodeNoRule && !learned:
		why = "refused by a rule, or for good: " + cmp.Or(p.Rule, p.Code)
	case why == "":
		if a, err := netip.ParseAddr(p.Question.Host); err == nil {
			if what, private := policy.SpecialPurpose(a); private {
				why = "to an address that is not public: " + policy.JudgedAddr(a).String() + ", " + what
			}
		}
	}
	if why != "" {
		l.skip(why, p.Count)
		return
	}
	if l.asked == nil {
		l.asked = map[string]*want{}
	}
	key := p.agent() + "\x00" + p.Text()
	w := l.asked[key]
	if w == nil {
		if len(l.asked) >= MaxLearned {
			l.Beyond += p.Count
			return
		}
		w = &want{}
		l.asked[key] = w
	}
	if learned {
		w.passed += p.Count
	} else {
		w.refused += p.Count
	}
	if !p.At.Before(w.past.At) {
		w.past = p
	}
}

// Cut counts a record of which the log holds only the beginning.
func (l *Lesson) Cut() { l.skip(cutRecord, 1) }

func (l *Lesson) skip(why string, n uint64) {
	if l.skipped == nil {
		l.skipped = map[string]uint64{}
	}
	if _, known := l.skipped[why]; !known && len(l.skipped) >= MaxLearned {
		l.Beyond += n
		return
	}
	l.skipped[why] += n
}

// Rules are what would have allowed what was refused, each needed: of the
// documents in force, none allows or refuses it by a rule. Left are the denials
// that nothing was learned from, by why.
func (l *Lesson) Rules() (rules []Learned, left map[string]uint64, err error) {
	snap, problems := policy.Compile(1, l.Docs)
	if len(problems) > 0 {
		return nil, nil, policy.Problems(problems)
	}
	l.snap = snap
	ports := map[string]bool{} // agent and name of which a port is known
	for _, w := range l.asked {
		if !w.past.Name {
			ports[w.past.agent()+"\x00"+w.past.Question.Host] = true
		}
	}
	byTarget := map[string]*Learned{}
	for _, asked := range slices.Sorted(maps.Keys(l.asked)) {
		w := l.asked[asked]
		if w.past.Name && ports[w.past.agent()+"\x00"+w.past.Question.Host] {
			continue
		}
		r, why := l.rule(w)
		if why == "" {
			if _, err := Document([]Learned{*r}, nil, 0); err != nil {
				why = "which no document can allow: " + w.past.Text() // a name that is none, a protocol's own port
			}
		}
		if why != "" {
			l.skip(why, w.refused+w.passed)
			continue
		}
		merge(byTarget, r)
	}
	for _, r := range byTarget {
		rules = append(rules, *r)
	}
	if l.Wildcard {
		rules = widen(rules)
	}
	slices.SortFunc(rules, func(a, b Learned) int {
		return cmp.Or(cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Target, b.Target), cmp.Compare(fmt.Sprint(a.Request), fmt.Sprint(b.Request)))
	})
	return rules, l.skipped, nil
}

// rule is the narrowest that allows what was refused.
func (l *Lesson) rule(w *want) (*Learned, string) {
	p := w.past
	d := p.Decide(l.snap)
	switch {
	case d.Effect != policy.Block:
		return nil, "allowed by now, or with an approval"
	case d.Rule.Doc != "":
		return nil, "refused by a rule by now: " + d.Rule.String()
	case d.ReasonCode != policy.CodeNoRule:
		return nil, "refused for good: " + d.ReasonCode
	}
	q := p.Question
	if p.Name {
		if q.Port = l.Port; q.Port == 0 {
			return nil, "names that were asked for, and nothing says at which port (--port N takes one): " + q.Host
		}
	}
	r := &Learned{Agent: p.agent(), Refused: w.refused, Passed: w.passed, Last: p.At}
	r.Target = (&policy.Question{Section: q.Section, Host: q.Host, Port: q.Port, Proto: q.Proto}).String()
	if c := l.snap.View(p.As).At(p.At).Egress(q.Host, q.Port); q.Method != "" && c.Allowed() && c.HTTP {
		path, ok := policy.ExactPath(q.Path)
		if !ok {
			return nil, "requests whose path no rule can name exactly: " + q.String()
		}
		r.Request = &policy.HTTPMatch{Methods: []string{q.Method}, Paths: []string{path}}
	}
	return r, ""
}

// merge joins requests of one method into one rule, or as few as hold their paths.
func merge(rules map[string]*Learned, r *Learned) {
	key := r.Agent + "\x00" + r.Target
	if r.Request != nil {
		key += "\x00" + r.Request.Methods[0]
	}
	have := rules[key]
	for have != nil && have.Request != nil && len(have.Request.Paths) >= policy.MaxList {
		key += "\x00"
		have = rules[key]
	}
	if have == nil {
		rules[key] = r
		return
	}
	have.Refused += r.Refused
	have.Passed += r.Passed
	if r.Last.After(have.Last) {
		have.Last = r.Last
	}
	if r.Request != nil {
		have.Request.Paths = append(have.Request.Paths, r.Request.Paths...)
		slices.Sort(have.Request.Paths)
		have.Request.Paths = slices.Compact(have.Request.Paths)
	}
}

// widen puts "*.parent" in the place of several names with one label before a
// parent that belongs to somebody: not below a public suffix.
func widen(rules []Learned) (out []Learned) {
	groups := map[string][]Learned{}
	for _, r := range rules {
		_, parent, ok := strings.Cut(r.Target, ".")
		host, _, _ := strings.Cut(parent, ":")
		suffix, _ := publicsuffix.PublicSuffix(host)
		if a, _, _ := strings.Cut(r.Target, ":"); !ok || r.Request != nil || host == suffix || isAddr(a) || strings.HasPrefix(r.Target, "[") {
			out = append(out, r)
			continue
		}
		groups[r.Agent+"\x00"+parent] = append(groups[r.Agent+"\x00"+parent], r)
	}
	for key, of := range groups {
		if len(of) == 1 {
			out = append(out, of...)
			continue
		}
		agent, parent, _ := strings.Cut(key, "\x00")
		w := Learned{Agent: agent, Target: "*." + parent}
		for _, r := range of {
			w.Refused += r.Refused
			w.Passed += r.Passed
			w.Names = append(w.Names, r.Target)
			if r.Last.After(w.Last) {
				w.Last = r.Last
			}
		}
		slices.Sort(w.Names)
		out = append(out, w)
	}
	return out
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}
