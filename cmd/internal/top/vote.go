// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// request is everything about one request, as it is now.
type request struct{ id string }

func (p *request) title(*model) string { return "Request " + safe(p.id, 40) }
func (*request) keys() []binding       { return votes() }

func (p *request) body(m *model, width int) []line {
	a, ok := m.request(p.id)
	if !ok {
		return []line{text("It is over.")}
	}
	return append(what(m, &a, width), history(&a, width)...)
}

// what names all that is asked for: nothing of it is cut.
func what(m *model, a *api.Approval, width int) (out []line) {
	add := func(name, value string) {
		if value != "" {
			out = append(out, field(name, safe(value, 0), width, plain)...)
		}
	}
	add(safe(a.Kind, 10), a.Target)
	add("arguments", a.Arguments)
	for _, g := range a.Args {
		value := "=" + g.Text
		if !g.Kept {
			value = " (not shown)"
		}
		add("argument", g.Path+value)
	}
	add("of", agentOf(a.Scope)+", sandbox "+a.Called()+", launched by uid "+strconv.FormatUint(uint64(a.Launcher), 10))
	add("runs", a.Program)
	add("in", a.Workspace)
	add("profile", a.Profile)
	add("asked", plural(a.Count, "time", "times")+", first at "+clock(a.Created))
	if a.State == "pending" {
		add("expires", "in "+show.Age(a.Expires.Sub(m.now()))+", which denies it")
	}
	for i := range a.Demands {
		d := &a.Demands[i]
		add("rule", strings.TrimSpace(d.Rule+" "+d.RuleAt))
		add("says", d.Reason)
		add("needs", fmt.Sprintf("%d of %s (%d lacking)", d.Quorum, d.Who, d.Lacks))
	}
	return out
}

// history is what people said.
func history(a *api.Approval, width int) (out []line) {
	add := func(name, value string) { out = append(out, field(name, safe(value, 0), width, plain)...) }
	add("state", a.State)
	for _, v := range a.Votes {
		word := "denied"
		if v.Approve {
			word = "approved"
		}
		add(word, fmt.Sprintf("uid %d %s at %s  %s", v.UID, v.Name, clock(v.At), strings.TrimSpace(v.Gives+"  "+v.Comment)))
	}
	if a.Grant != nil {
		add("given", lasts(a.Grant))
	}
	if a.State == "pending" && !a.MayVote {
		add("you", "your vote does not count here")
	}
	return out
}

// terms are how long an approval can be given for.
var terms = []struct {
	words string
	lasts string
	time  time.Duration
}{
	{"one use of it", "", 0},
	{"it for an hour", api.ApproveFor, time.Hour},
	{"it until the sandbox ends", api.ApproveSandbox, 0},
}

// confirmation asks whether this request is to be approved. It shows the request
// as it was when it was opened, and is closed when that is no longer what an
// approval would be for.
type confirmation struct {
	reading
	of      api.Approval
	term    int
	comment string
}

// reading is what is known of somebody who is to agree to a page.
type reading struct {
	drawn bool // it has been on the screen
	read  bool // to its end
	sent  bool // it was agreed to
}

func (r *reading) reads() *reading { return r }

// hasRead says, once, that the page was on the screen, all of it. Before, a "y"
// is one that was typed ahead or pasted.
func (m *model) hasRead(r *reading) bool {
	if r.sent {
		return false
	}
	if !r.drawn || !m.atEnd() && !r.read {
		m.notice = notice{"read it first, to its end (space), then y", true}
		return false
	}
	r.sent = true
	return true
}

func (p *confirmation) title(*model) string { return "Approve request " + safe(p.of.ID, 40) + "?" }

func (*confirmation) keys() []binding {
	return []binding{
		{[]string{"y"}, "y approve", "approve what is shown", (*model).approve},
		{[]string{"t"}, "t how long", "for one use, an hour, or until the sandbox ends", act(func(m *model) {
			if c, ok := m.page.(*confirmation); ok {
				c.term = (c.term + 1) % len(terms)
			}
		})},
		{[]string{"c"}, "c comment", "say why, for the record", act(func(m *model) {
			if c, ok := m.page.(*confirmation); ok {
				m.typing = &input{label: "comment", value: c.comment, done: func(v string) tea.Cmd { c.comment = v; return nil }}
			}
		})},
	}
}

func (p *confirmation) body(m *model, width int) []line {
	out := what(m, &p.of, width)
	words := terms[p.term].words
	if p.of.Kind == "tool" && terms[p.term].lasts != "" {
		words += ", with the same arguments only"
	}
	out = append(out, field("gives", words, width, bold)...)
	if p.comment != "" {
		out = append(out, field("comment", safe(p.comment, 0), width, plain)...)
	}
	if !p.of.MayVote {
		out = append(out, field("you", "your vote does not count here; the daemon says why when it refuses it", width, yellow)...)
	}
	return out
}

// pending is the request that a vote would be for. Where the one that was chosen
// is gone, nothing is in its place.
func (m *model) pending() (api.Approval, bool) {
	a, ok := m.selected()
	switch l := &m.lists[tabApprovals]; {
	case !ok && l.gone > 0:
		m.move(0)
		m.notice = notice{"what was selected is over, and nothing was sent: choose again", true}
	case !ok:
		m.notice = notice{"no request is selected", true}
	case a.State != "pending":
		m.notice = notice{"request " + safe(a.ID+" is "+a.State, 60) + " already", true}
	}
	return a, ok && a.State == "pending"
}

func (m *model) confirm() {
	if a, ok := m.pending(); ok {
		m.show(&confirmation{of: a})
	}
}

// recheck closes a confirmation of what is no longer there to approve.
func (m *model) recheck(c *confirmation) {
	a, ok := m.request(c.of.ID)
	if c.sent || ok && a.State == "pending" && a.Binding == c.of.Binding && a.Fingerprint == c.of.Fingerprint {
		return
	}
	m.close()
	m.notice = notice{"request " + safe(c.of.ID, 40) + " is over or has changed, and nothing was sent", true}
}

// approve sends the vote of a confirmation.
func (m *model) approve() tea.Cmd {
	c, ok := m.page.(*confirmation)
	if !ok || !m.hasRead(&c.reading) {
		return nil
	}
	t := terms[c.term]
	return m.vote(c.of.ID, api.VoteRequest{Approve: true, Lasts: t.lasts, For: api.Duration(t.time), Comment: c.comment})
}

func (m *model) deny() tea.Cmd {
	a, ok := m.pending()
	if !ok {
		return nil
	}
	return m.vote(a.ID, api.VoteRequest{})
}

func (m *model) denyWhy() tea.Cmd {
	a, ok := m.pending()
	if !ok {
		return nil
	}
	m.typing = &input{label: "deny " + safe(a.ID, 40) + ", comment", done: func(v string) tea.Cmd { return m.vote(a.ID, api.VoteRequest{Comment: v}) }}
	return nil
}

func (m *model) vote(id string, v api.VoteRequest) tea.Cmd {
	node, parent := m.node, m.ctx
	m.notice = notice{text: "the vote is sent ..."}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(parent, answerWithin)
		defer cancel()
		a, err := node.Vote(ctx, id, v)
		return votedMsg{id, v, a, err}
	}
}

// voted says what became of a vote.
func (m *model) voted(v *votedMsg) {
	if c, ok := m.page.(*confirmation); ok && c.of.ID == v.id {
		m.close()
	}
	if v.err != nil {
		m.notice = notice{}
		m.show(&refusal{v.id, v.err})
		return
	}
	m.st.setAsk(v.got)
	a := &v.got
	said := safe(a.State+" "+a.ID+": "+a.Kind+" "+a.Target, 300)
	if a.State == "pending" {
		said = "your approval of " + safe(a.ID, 40) + " counts; it needs " + needs(a)
	}
	m.refresh()
	m.notice = notice{text: said}
}

// refusal is a vote that did not count, and why.
type refusal struct {
	id  string
	err error
}

func (p *refusal) title(*model) string { return "Not taken: " + safe(p.id, 40) }
func (*refusal) keys() []binding       { return nil }

func (p *refusal) body(_ *model, width int) []line {
	out := errorLines(p.err, width)
	var answered *api.Error
	if !errors.As(p.err, &answered) {
		out = append(out, field("", "There was no answer, so whether it counts is not known: look at the list.", width, plain)...)
	}
	return out
}
