// SPDX-License-Identifier: Apache-2.0

package top

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

// page is shown instead of the list until it is closed.
type page interface {
	title(m *model) string
	body(m *model, width int) []line
	keys() []binding // besides those of every page
}

// loader is a page that asks the daemon for what it shows.
type loader interface{ load(m *model) tea.Cmd }

// answerWithin bounds every question of a page.
const answerWithin = 10 * time.Second

// fetch asks in the background, for a page that is then filled in.
func fetch(m *model, ask func(ctx context.Context) (fill func())) tea.Cmd {
	parent := m.ctx
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(parent, answerWithin)
		defer cancel()
		return pageMsg(ask(ctx))
	}
}

// errorLines says what went wrong and what to do.
func errorLines(err error, width int) []line {
	out := field("", safe(err.Error(), 2000), width, red)
	if remedy := remedyOf(err); remedy != "" {
		out = append(out, field("", safe(remedy, 1000), width, plain)...)
	}
	return out
}

func remedyOf(err error) string {
	var u *api.UnreachableError
	var a *api.Error
	switch {
	case errors.As(err, &u):
		return u.Remedy()
	case errors.As(err, &a):
		return a.Remedy
	}
	return ""
}

// help lists all keys.
type help struct{}

func (*help) title(*model) string { return "Keys" }
func (*help) keys() []binding     { return nil }

func (*help) body(_ *model, _ int) (out []line) {
	for _, part := range []struct {
		name string
		keys []binding
	}{
		{"In a list", inList()}, {"Sandboxes", ofTab[tabBoxes]()}, {"Events", ofTab[tabEvents]()}, {"Approvals", votes()}, {"When you approve", (&confirmation{}).keys()}, {"Drafts", ofTab[tabDrafts]()}, {"Before a rule is written", (&proposal{}).keys()}, {"In a page like this one", inPage()}, {"Everywhere", always()},
	} {
		out = append(out, line{{part.name, bold}})
		for _, b := range part.keys {
			out = append(out, line{{"  " + fill(strings.ReplaceAll(strings.Join(b.keys, " "), "space  ", "space "), 18), plain}, {b.help, plain}})
		}
	}
	out = append(out, nil, line{{"What is shown", bold}})
	for _, s := range []string{
		"You see what your roles let you see. Counts are of what was recorded since the",
		"time in the second line; a rate is of the last ten seconds. Tokens are those",
		"that providers reported, ~ in front where some are an estimate; prices are not",
		"known to this version. Calls are calls of models.",
	} {
		out = append(out, text("  "+s))
	}
	return out
}

// sandbox is everything about one sandbox: its walls, what it was refused, and
// the documents that are in force for it.
type sandbox struct {
	id       string
	asked    uint64 // the revision that the documents were asked for at
	policy   *api.PolicyView
	failed   error // to read them
	denied   bool  // the log was read
	noDenied error
}

func (p *sandbox) title(*model) string { return "Sandbox " + safe(p.id, 40) }
func (*sandbox) keys() []binding       { return nil }

func (p *sandbox) find(m *model) *api.Sandbox {
	for i := range m.snap.boxes {
		if m.snap.boxes[i].ID == p.id {
			return &m.snap.boxes[i]
		}
	}
	return nil
}

func (p *sandbox) load(m *model) tea.Cmd {
	m.st.watch(p.id)
	node, st := m.node, m.st
	var since time.Time
	if b := p.find(m); b != nil {
		since = b.Created
	}
	return tea.Batch(p.documents(m), fetch(m, func(ctx context.Context) func() {
		var last [][]byte
		err := node.Events(ctx, api.EventQuery{Sandbox: p.id, Denied: true, Since: since}, func(raw []byte) error {
			if last = append(last, bytes.Clone(raw)); len(last) > maxDenials {
				last = last[1:]
			}
			return nil
		})
		return func() {
			p.denied, p.noDenied = true, err
			st.setDenials(p.id, entries(last))
			m.refresh()
		}
	}))
}

// documents asks for the documents in force.
func (p *sandbox) documents(m *model) tea.Cmd {
	node := m.node
	if b := p.find(m); b != nil {
		p.asked = b.Revision
	}
	return fetch(m, func(ctx context.Context) func() {
		v, err := node.Policy(ctx, p.id)
		return func() { p.policy, p.failed = &v, err }
	})
}

// again asks for the documents when another revision is in force.
func (p *sandbox) again(m *model) tea.Cmd {
	if b := p.find(m); b != nil && b.Revision != p.asked {
		return p.documents(m)
	}
	return nil
}

func entries(lines [][]byte) (out []entry) {
	for _, raw := range lines {
		if e, err := event.ParseOCSF(raw); err == nil {
			out = append(out, entryOf(&e))
		}
	}
	return out
}

func (p *sandbox) body(m *model, width int) (out []line) {
	b := p.find(m)
	if b == nil {
		out = append(out, text("It has ended."))
	} else {
		out = append(out, p.facts(m, b, width)...)
	}
	out = append(append(out, nil), p.refused(m, width)...)
	out = append(append(out, nil), p.texts(width)...)
	if b != nil {
		out = append(append(out, nil), p.details(b, width)...)
	}
	return out
}

// mostRefused is how many refusals stand before the documents.
const mostRefused = 10

func (p *sandbox) refused(m *model, width int) []line {
	out := []line{{{"Refused, newest first", bold}}}
	switch {
	case p.noDenied != nil:
		return append(out, errorLines(p.noDenied, width)...)
	case !p.denied:
		return append(out, text("  reading the event log ..."))
	case len(m.snap.denials) == 0:
		return append(out, text("  nothing"))
	}
	for i := range min(len(m.snap.denials), mostRefused) {
		for _, part := range wrap(m.snap.denials[i].text, max(1, width-2)) {
			out = append(out, line{{"  " + part, red}})
		}
	}
	if len(m.snap.denials) > mostRefused {
		out = append(out, text("  and more: ringfence events --denied --sandbox "+safe(p.id, 40)))
	}
	return out
}

// facts are what the daemon says of the sandbox, briefly.
func (p *sandbox) facts(m *model, b *api.Sandbox, width int) []line {
	word, st := fence(b)
	var not []string
	for _, part := range missing(b) {
		not = append(not, part.Name)
	}
	if len(not) > 0 {
		word += ": " + safe(strings.Join(not, ", "), 400)
	}
	t := m.snap.box[b.ID]
	return slices.Concat(
		field("name", safe(b.Name, 0), width, plain),
		field("scope", safe(agentOf(b.Scope), 0), width, plain),
		field("state", safe(b.State, 0)+", "+show.Age(m.now().Sub(b.Created))+" old, launched by uid "+strconv.FormatUint(uint64(b.Owner), 10), width, plain),
		field("fence", word, width, st),
		field("counted", fmt.Sprintf("denied %s, allowed %s, failed %s since %s; denied %s since it began", count(t.denied), count(t.allowed), count(t.failed), clock(m.opened), count(b.Denials)), width, plain),
		field("spent", fmt.Sprintf("%s, tokens %s in, %s out, %s of them cached", plural(t.calls, "call", "calls"), count(t.in), count(t.out), count(t.cached)), width, plain))
}

func (p *sandbox) details(b *api.Sandbox, width int) []line {
	out := []line{{{"Besides", bold}}}
	add := func(name, value string, st style) {
		if value != "" {
			out = append(out, field(name, value, width, st)...)
		}
	}
	add("profile", safe(b.Profile, 0), plain)
	add("program", safe(strings.Join(b.Argv, " "), 1000), plain)
	add("workspace", safe(b.Workspace, 0), plain)
	for _, part := range missing(b) {
		add("not up", safe(part.Name+": "+part.State+" "+part.Detail, 400), red)
	}
	return out
}

// texts are the documents in force.
func (p *sandbox) texts(width int) (out []line) {
	switch {
	case p.failed != nil:
		return append(append(out, line{{"Documents in force", bold}}), errorLines(p.failed, width)...)
	case p.policy == nil:
		return append(out, line{{"Documents in force", bold}}, text("  asking ..."))
	}
	out = append(out, line{{"Documents in force at revision " + strconv.FormatUint(p.policy.Revision, 10), bold}})
	if len(p.policy.Documents) == 0 {
		out = append(out, text("  none: nothing is allowed"))
	}
	for _, d := range p.policy.Documents {
		out = append(out, line{{"  " + safe(strings.TrimSpace(d.Kind+" "+d.Name+"  "+d.Scope+"  "+d.InFile()), 400), bold}})
		if d.Text == "" {
			out = append(out, text("    its text is not yours to see"))
		}
		for l := range strings.Lines(d.Text) {
			for _, part := range wrap(safe(strings.TrimRight(l, "\r\n"), 0), max(1, width-4)) {
				out = append(out, text("    "+part))
			}
		}
	}
	return out
}

// explanation is what `ringfence explain` says of one event.
type explanation struct {
	event string
	x     *api.Explanation
	err   error
}

func (p *explanation) title(*model) string { return "Event " + p.event }
func (*explanation) keys() []binding       { return nil }

func (p *explanation) load(m *model) tea.Cmd {
	node := m.node
	return fetch(m, func(ctx context.Context) func() {
		x, err := node.Explain(ctx, p.event)
		return func() { p.x, p.err = &x, err }
	})
}

func (p *explanation) body(_ *model, width int) (out []line) {
	switch {
	case p.err != nil:
		return errorLines(p.err, width)
	case p.x == nil:
		return []line{text("asking ...")}
	}
	x := p.x
	revision := ""
	if x.Revision > 0 {
		revision = strconv.FormatUint(x.Revision, 10)
	}
	rule := x.Rule
	if x.RuleAt != "" {
		rule += " (" + x.RuleAt + ")"
	}
	for _, f := range [][2]string{{"event", x.ID}, {"kind", x.Kind}, {"sandbox", x.Sandbox}, {"scope", x.Scope}, {"verdict", x.Verdict}, {"what", x.Summary}, {"wall", x.Layer},
		{"detail", x.Detail}, {"rule", rule}, {"revision", revision}, {"nearest", x.Nearest}, {"now", x.Now}, {"to do", x.Remedy}} {
		if f[1] != "" {
			out = append(out, field(f[0], safe(f[1], 4000), width, plain)...)
		}
	}
	return out
}
