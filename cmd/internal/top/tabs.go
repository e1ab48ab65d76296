// SPDX-License-Identifier: Apache-2.0

package top

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// row is one row of a list. The key finds it again when the list has changed.
type row struct {
	key   string
	cells []string // safe
	style style
}

// tab is one list.
type tab struct {
	name  string
	count func(m *model) string
	empty string // instead of rows
	cols  []column
	all   func(m *model) []row
	open  func(m *model, key string) page
}

const (
	tabBoxes = iota
	tabEvents
	tabApprovals
	tabDrafts
	tabCount
)

var tabs = [tabCount]tab{
	tabBoxes: {
		name: "Sandboxes", count: func(m *model) string { return strconv.Itoa(len(m.snap.boxes) + m.snap.more) },
		empty: "No sandbox runs that you may see. `ringfence run -- PROGRAM` starts one.",
		cols: []column{
			{title: "ID", min: 8, max: 8, rank: 1}, {title: "NAME", min: 8, max: 24, rank: 0}, {title: "FENCE", min: 12, max: 16, rank: 2},
			{title: "DENIED", min: 6, rank: 3, number: true}, {title: "ALLOWED", min: 7, rank: 4, number: true}, {title: "CALLS", min: 5, rank: 5, number: true},
			{title: "TOKENS", min: 6, rank: 6, number: true}, {title: "AGE", min: 6, rank: 7, number: true}, {title: "PROFILE", min: 8, max: 12, rank: 9}, {title: "SCOPE", min: 20, rank: 8},
		},
		all: boxRows, open: func(_ *model, key string) page { return &sandbox{id: key} },
	},
	tabEvents: {
		name: "Events", count: func(*model) string { return "" },
		empty: "Nothing was recorded that you may see.",
		cols:  []column{{title: "TIME     VERDICT KIND  WHO          WHAT", min: 20}},
		all:   eventRows, open: func(_ *model, key string) page { return &explanation{event: key} },
	},
	tabApprovals: {
		name: "Approvals", count: func(m *model) string { return strconv.Itoa(m.waiting()) },
		empty: "Nothing waits for approval that you may see.",
		cols: []column{
			{title: "LEFT", min: 5, max: 7, rank: 0}, {title: "KIND", min: 6, max: 8, rank: 1}, {title: "TARGET", min: 20, max: 60, rank: 2},
			{title: "TIMES", min: 5, rank: 5, number: true}, {title: "WHO", min: 12, max: 30, rank: 3}, {title: "NEEDS", min: 16, rank: 4}, {title: "ID", min: 16, max: 16, rank: 6},
		},
		all: askRows, open: func(_ *model, key string) page { return &request{id: key} },
	},
	tabDrafts: {
		name: "Drafts", count: func(m *model) string { return strconv.Itoa(len(m.snap.drafts)) },
		empty: "Nothing was refused for want of a rule that you may see.",
		cols: []column{
			{title: "LAST", min: 5, max: 7, rank: 1}, {title: "TIMES", min: 5, rank: 2, number: true}, {title: "DESTINATION", min: 20, max: 60, rank: 0}, {title: "WHO", min: 20, max: 80, rank: 3},
			{title: "SANDBOXES", min: 9, rank: 4, number: true}, {title: "ID", min: 18, max: 18, rank: 5},
		},
		all: draftRows, open: func(_ *model, key string) page { return &proposal{id: key} },
	},
}

// rows are those that the filter of the list lets through.
func (t *tab) rows(m *model) []row {
	all := t.all(m)
	want := strings.ToLower(m.lists[m.index(t)].filter)
	if want == "" {
		return all
	}
	var out []row
	for _, r := range all {
		if strings.Contains(strings.ToLower(strings.Join(r.cells, " ")), want) {
			out = append(out, r)
		}
	}
	return out
}

func (m *model) index(t *tab) int {
	for i := range tabs {
		if &tabs[i] == t {
			return i
		}
	}
	return 0
}

// orders are what a list of sandboxes can be sorted by, the highest first.
var orders = []struct {
	name string
	by   func(t tally) uint64 // nil: as they were started
}{
	{"", nil},
	{"sorted by denied", func(t tally) uint64 { return t.denied }},
	{"sorted by tokens", func(t tally) uint64 { return t.tokens() }},
}

func boxRows(m *model) []row {
	var out []row
	boxes := m.snap.boxes
	if by := orders[m.order].by; by != nil {
		boxes = slices.Clone(boxes)
		slices.SortStableFunc(boxes, func(a, b api.Sandbox) int { return cmp.Compare(by(m.snap.box[b.ID]), by(m.snap.box[a.ID])) })
	}
	for i := range boxes {
		b := &boxes[i]
		t, counted := m.snap.box[b.ID]
		word, st := fence(b)
		if st == plain && t.denied > 0 {
			st = yellow
		}
		n := []string{count(t.denied), count(t.allowed), count(t.calls), t.spent()}
		if !counted && m.snap.full {
			n = []string{"?", "?", "?", "?"}
		}
		out = append(out, row{b.ID, []string{safe(b.ID, 8), safe(b.Name, 60), word, n[0], n[1], n[2], n[3], show.Age(m.now().Sub(b.Created)),
			safe(b.Profile, 40), safe(agentOf(b.Scope), 200)}, st})
	}
	return out
}

// agentOf leaves out the sandbox, which has its own column.
func agentOf(scope string) string {
	s, _, _ := strings.Cut(scope, "/sandbox:")
	return s
}

// fence is what holds a sandbox, in the words of `ringfence ps`, or its state
// while it does not run. No word from the daemon is no enforcement.
func fence(b *api.Sandbox) (word string, st style) {
	if b.State != api.StateRunning {
		return safe(b.State, 16), plain
	}
	n := len(missing(b))
	word = b.Enforcement
	switch {
	case word == "":
		word = api.Unenforced
	case b.Adopted && word == api.Degraded && n == 0:
		return "network only", plain
	}
	if b.Learns {
		word = "LEARNING"
	}
	if word != api.Enforced {
		st = red
	}
	if n > 0 {
		word = fmt.Sprintf("%s (%d)", word, n)
	}
	return safe(word, 20), st
}

// missing are the parts that are not up.
func missing(b *api.Sandbox) (out []api.Part) {
	for _, p := range b.Parts {
		if p.State != api.Enforced && p.State != api.NotApplied && p.State != api.Absent {
			out = append(out, p)
		}
	}
	return out
}

func eventRows(m *model) []row {
	var out []row
	for i := range m.snap.events[m.sight] {
		e := &m.snap.events[m.sight][i]
		st := plain
		switch {
		case e.denied:
			st = red
		case e.failed:
			st = yellow
		}
		out = append(out, row{strconv.FormatUint(e.seq, 10), []string{e.text}, st})
	}
	return out
}

func askRows(m *model) []row {
	var out []row
	for i := range m.snap.asks {
		a := &m.snap.asks[i]
		left, st := "given", plain
		if a.State == "pending" {
			left, st = show.Age(a.Expires.Sub(m.now())), bold
		}
		out = append(out, row{a.ID, []string{left, safe(a.Kind, 10), safe(strings.TrimSpace(a.Target+" "+a.Arguments), 200), count(a.Count), safe(whose(a), 60), needs(a), safe(a.ID, 20)}, st})
	}
	return out
}

// whose is who asks, briefly.
func whose(a *api.Approval) string {
	_, agent, ok := strings.Cut(agentOf(a.Scope), "/agent:")
	if !ok {
		agent = a.Scope
	}
	return agent + " " + a.Sandbox
}

// needs says who has to agree still.
func needs(a *api.Approval) string {
	if a.State != "pending" {
		return lasts(a.Grant)
	}
	return safe(a.Needs, 300)
}

func lasts(g *api.ApprovalGrant) string {
	if g == nil {
		return ""
	}
	out := g.Says
	if g.Until != nil {
		out += ", until " + clock(*g.Until)
	}
	return safe(out, 100)
}

// waiting is how many requests are pending.
func (m *model) waiting() int {
	n := 0
	for i := range m.snap.asks {
		if m.snap.asks[i].State == "pending" {
			n++
		}
	}
	return n
}
