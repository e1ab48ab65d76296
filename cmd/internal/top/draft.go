// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// maxDrafts is how many drafts are kept, those that came last.
const maxDrafts = 500

func (s *state) setDrafts(list []api.Draft) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drafts = slices.Clone(list[:min(len(list), maxDrafts)])
}

func draftRows(m *model) []row {
	var out []row
	for i := range m.snap.drafts {
		d := &m.snap.drafts[i]
		out = append(out, row{d.ID, []string{show.Age(m.now().Sub(d.Last)), count(d.Count), safe(d.Destination, 200), safe(d.Scope, 200), strconv.Itoa(len(d.Sandboxes)), safe(d.ID, 40)}, plain})
	}
	return out
}

// proposal is a rule that stays, made of a draft or of a request, before it is
// written: the documents as they are and as they would be.
type proposal struct {
	reading
	id      string
	rule    *api.LastingRule
	err     error
	comment string
}

func (p *proposal) title(*model) string { return "A rule that stays?" }

func (p *proposal) ask(m *model) func(context.Context, string, api.LastingRequest) (api.LastingRule, error) {
	if api.IsDraft(p.id) {
		return m.node.LastDraft
	}
	return m.node.LastApproval
}

func (p *proposal) load(m *model) tea.Cmd {
	ask := p.ask(m)
	return fetch(m, func(ctx context.Context) func() {
		res, err := ask(ctx, p.id, api.LastingRequest{})
		return func() {
			p.reading = reading{} // what was on the screen before was not this
			if p.err = err; err == nil {
				p.rule = &res
			}
		}
	})
}

func (p *proposal) keys() []binding {
	return []binding{
		{[]string{"y"}, "y write", "write the rule that is shown", func(m *model) tea.Cmd {
			if p.rule == nil || !m.hasRead(&p.reading) {
				return nil
			}
			return p.write(m)
		}},
		{[]string{"c"}, "c comment", "say why, for the record", act(func(m *model) {
			m.typing = &input{label: "comment", value: p.comment, done: func(v string) tea.Cmd { p.comment = v; return nil }}
		})},
	}
}

// write has what was shown written, and nothing else.
func (p *proposal) write(m *model) tea.Cmd {
	ask, parent := p.ask(m), m.ctx
	r := api.LastingRequest{Apply: true, Expect: p.rule.Digest, Comment: p.comment}
	m.notice = notice{text: "the rule is written ..."}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(parent, answerWithin)
		defer cancel()
		res, err := ask(ctx, p.id, r)
		return writtenMsg{p, res, err}
	}
}

type writtenMsg struct {
	page *proposal
	got  api.LastingRule
	err  error
}

func (m *model) written(w *writtenMsg) {
	if m.page == w.page {
		m.close()
	}
	if w.err != nil {
		m.notice = notice{}
		m.show(&refusal{w.page.id, w.err})
		return
	}
	m.notice = notice{text: safe(fmt.Sprintf("%s may reach %s, revision %d", w.got.For, w.got.Allows, w.got.Revision), 300)}
}

func (p *proposal) body(_ *model, width int) (out []line) {
	switch {
	case p.err != nil:
		return errorLines(p.err, width)
	case p.rule == nil:
		return []line{text("asking ...")}
	}
	out = slices.Concat(field("for", safe(p.rule.For, 0), width, plain), field("allows", safe(p.rule.Allows, 0), width, plain))
	if p.comment != "" {
		out = append(out, field("comment", safe(p.comment, 0), width, plain)...)
	}
	for i := range p.rule.Documents {
		d := &p.rule.Documents[i]
		out = append(out, nil, line{{safe(fmt.Sprintf("%s %s of %s, %s", d.Kind, d.Name, d.Scope, d.Change), 400), bold}})
		out = append(out, changed(d.Before, d.After, width)...)
	}
	return out
}

// around is how many lines stand before and after what changes.
const around = 3

// changed shows two texts from the first line in which they differ to the last.
func changed(before, after string, width int) (out []line) {
	a, b := linesOf(before), linesOf(after)
	same, tail := 0, 0
	for same < min(len(a), len(b)) && a[same] == b[same] {
		same++
	}
	for tail < min(len(a), len(b))-same && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	add := func(mark string, list []string, st style) {
		for _, l := range list {
			for _, part := range wrap(safe(l, 0), max(1, width-4)) {
				out = append(out, line{{mark + part, st}})
			}
		}
	}
	add("    ", a[max(0, same-around):same], plain)
	add("  - ", a[same:len(a)-tail], red)
	add("  + ", b[same:len(b)-tail], green)
	add("    ", b[len(b)-tail:len(b)-max(0, tail-around)], plain)
	return out
}

func linesOf(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// propose looks at the rule that the selected request or draft would become.
func (m *model) propose() tea.Cmd {
	id := ""
	if a, ok := m.selected(); ok {
		id = a.ID
	} else if m.tab == tabDrafts && m.page == nil {
		id = m.lists[tabDrafts].sel
	}
	if id == "" {
		m.notice = notice{"nothing is selected", true}
		return nil
	}
	p := &proposal{id: id}
	m.show(p)
	return p.load(m)
}
