// SPDX-License-Identifier: Apache-2.0

package top

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// Rows of the screen around the body: two of the node, one of tabs, one for a
// word, one of keys.
const frame = 5

func (m *model) bodyHeight() int  { return max(1, m.height-frame) }
func (m *model) tableHeight() int { return max(1, m.bodyHeight()-1) }

func (m *model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	return v
}

// screen is all of it as text.
func (m *model) screen() string {
	if m.small() {
		return wrapped(fmt.Sprintf("The terminal is %dx%d; ringfence top needs %dx%d. q quits.", m.width, m.height, minWidth, minHeight), m.width, m.height)
	}
	lines := []line{m.nodeLine(), m.countLine(), m.tabLine()}
	var body []line
	if m.page != nil {
		body = m.pageLines()
	} else {
		body = m.tableLines()
	}
	for len(body) < m.bodyHeight() {
		body = append(body, nil)
	}
	lines = append(append(lines, body[:m.bodyHeight()]...), m.wordLine(), m.keyLine())
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(l.paint(m.width, m.color))
	}
	return b.String()
}

func wrapped(s string, width, height int) string {
	rows := wrap(s, max(1, width))
	return strings.Join(rows[:min(len(rows), max(1, height))], "\n")
}

// nodeLine is the node and the state it is in.
func (m *model) nodeLine() line {
	st := &m.snap.status
	l := line{{"ringfence top", bold}, {"  " + safe(m.host, 40), plain}}
	if st.Started.IsZero() {
		return l
	}
	l = append(l, span{fmt.Sprintf("  up %s  revision %d  ", show.Age(m.now().Sub(st.Started)), st.Revision), plain})
	switch {
	case m.snap.down[linkNode] != nil:
		return append(l, span{"NOT CONNECTED", reverse})
	case st.State == api.Enforced:
		return append(l, span{"enforced", green})
	}
	l = append(l, span{safe(strings.ToUpper(st.State), 20), reverse})
	for _, p := range st.Parts {
		if p.State != api.Enforced && p.State != api.Absent {
			l = append(l, span{"  " + safe(strings.TrimRight(p.Name+" "+p.State+": "+p.Detail, ": "), 300), red})
		}
	}
	return l
}

// countLine is what was decided since the view was opened.
func (m *model) countLine() line {
	t, r := &m.snap.total, &m.snap.recent
	rate := func(n uint64) string { return fmt.Sprintf(" %.1f/s", float64(n)/window) }
	l := line{{"denied " + count(t.denied) + rate(r.denied), when(t.denied > 0, red)}, {"  allowed " + count(t.allowed) + rate(r.allowed), plain}}
	if t.failed > 0 {
		l = append(l, span{"  failed " + count(t.failed), yellow})
	}
	return append(l, span{"  calls " + count(t.calls) + "  tokens " + t.spent() + "  since " + m.opened.Local().Format("15:04"), plain})
}

func when(is bool, st style) style {
	if is {
		return st
	}
	return plain
}

// tabLine names the lists; the one that is shown is in brackets, without which
// a screen without attributes would not say it.
func (m *model) tabLine() (l line) {
	for i := range tabs {
		t := &tabs[i]
		if m.page != nil && i != m.tab { // the title needs the room
			continue
		}
		name := fmt.Sprintf("%d %s", i+1, t.name)
		if n := t.count(m); n != "" {
			name += " " + n
		}
		st := plain
		switch {
		case i == m.tab:
			name, st = "["+name+"]", reverse
		case i == tabApprovals && m.waiting() > 0:
			name, st = " "+name+" ", bold
		default:
			name = " " + name + " "
		}
		l = append(l, span{name, st}, span{" ", plain})
	}
	if f := m.lists[m.tab].filter; f != "" && m.page == nil {
		l = append(l, span{" only: " + safe(f, 100), yellow})
	}
	switch {
	case m.page != nil:
	case m.tab == tabEvents:
		l = append(l, span{" " + sightNames[m.sight], yellow})
	case m.tab == tabBoxes:
		l = append(l, span{" " + orders[m.order].name, yellow})
	}
	if m.page != nil {
		l = append(l, span{" " + m.page.title(m), bold})
	}
	return l
}

func (m *model) pageLines() []line {
	body := m.page.body(m, m.width)
	top := max(0, min(m.scroll, len(body)-m.bodyHeight()))
	return body[top:]
}

// atEnd says whether the last line of the page is on the screen.
func (m *model) atEnd() bool { return m.scroll+m.bodyHeight() >= len(m.page.body(m, m.width)) }

func (m *model) tableLines() []line {
	t, l := &tabs[m.tab], &m.lists[m.tab]
	rows := t.rows(m)
	out := make([]line, 0, m.bodyHeight())
	height := m.tableHeight()
	l.top = max(0, min(l.top, len(rows)-height))
	switch {
	case l.index < l.top:
		l.top = l.index
	case l.index >= l.top+height:
		l.top = l.index - height + 1
	}
	shown := rows[l.top:min(len(rows), l.top+height)]
	var all [][]string
	for _, r := range shown {
		all = append(all, r.cells)
	}
	width := m.width - 2
	widths := layout(t.cols, all, width)
	out = append(out, line{{"  " + tableRow(t.cols, widths, titles(t.cols)), bold}})
	if len(rows) == 0 {
		empty := t.empty
		if l.filter != "" || m.sight != seeDecided && m.tab == tabEvents {
			empty = "No row is let through; esc takes the filters away."
		}
		return append(out, text("  "+empty))
	}
	for _, r := range shown {
		s := tableRow(t.cols, widths, r.cells)
		if r.key == l.sel {
			out = append(out, line{{"> " + fill(s, width), reverse}})
			continue
		}
		out = append(out, line{{"  " + s, r.style}})
	}
	return out
}

// wordLine is the most pressing thing there is to say: what is typed, what does
// not work, what has just happened.
func (m *model) wordLine() line {
	switch {
	case m.typing != nil:
		return line{{m.typing.label + ": ", bold}, {tail(safe(m.typing.value, 0), m.width-cells(m.typing.label)-4), plain}, {"_", reverse}}
	case m.notice.bad:
		return line{{m.notice.text, red}}
	}
	for i, err := range m.snap.down {
		if err != nil {
			return line{{linkNames[i] + ": lost at " + clock(m.snap.since[i]) + ", trying again: " + safe(brief(err), 300), red}}
		}
	}
	if m.notice.text != "" {
		return line{{m.notice.text, bold}}
	}
	if m.snap.behind > patience {
		return line{{"events: " + show.Age(m.snap.behind) + " behind; more come than are read", yellow}}
	}
	if m.page != nil && !m.atEnd() {
		return line{{"more below", yellow}}
	}
	if m.snap.more > 0 && m.tab == tabBoxes {
		return line{{fmt.Sprintf("%d older sandboxes are not listed: ringfence ps", m.snap.more), yellow}}
	}
	return nil
}

// brief leaves out which daemon cannot be reached: there is one.
func brief(err error) string {
	var u *api.UnreachableError
	if errors.As(err, &u) && u.Unwrap() != nil {
		return u.Unwrap().Error()
	}
	return err.Error()
}

// tail is the end of printable text, as much as there is room for.
func tail(s string, width int) string {
	for s != "" && cells(s) > width {
		_, n := utf8.DecodeRuneInString(s)
		s = s[n:]
	}
	return s
}

func (m *model) keyLine() (l line) {
	if m.typing != nil {
		return text("enter done  esc give up")
	}
	for _, b := range m.bindings() {
		if b.label != "" && (b.label != moreLabel || !m.atEnd()) {
			l = append(l, span{b.label + "  ", plain})
		}
	}
	return l
}
