// SPDX-License-Identifier: Apache-2.0

package top

import (
	"slices"

	tea "charm.land/bubbletea/v2"
)

// binding is what a key does in one place. The footer shows those with a label,
// the help shows all.
type binding struct {
	keys  []string
	label string
	help  string
	do    func(m *model) tea.Cmd
}

// moreLabel is shown while a page goes on below the screen.
const moreLabel = "space more"

// act makes a binding's function of one that asks for nothing.
func act(do func(m *model)) func(m *model) tea.Cmd {
	return func(m *model) tea.Cmd { do(m); return nil }
}

func always() []binding {
	return []binding{
		{[]string{"?"}, "? help", "show all keys", act(func(m *model) { m.show(&help{}) })},
		{[]string{"q", "ctrl+c"}, "q quit", "quit", func(*model) tea.Cmd { return tea.Quit }},
	}
}

func inList() []binding {
	to := func(i int) func(m *model) tea.Cmd { return act(func(m *model) { m.tab = i }) }
	by := func(n int) func(m *model) tea.Cmd { return act(func(m *model) { m.move(n) }) }
	turn := func(n int) func(m *model) tea.Cmd {
		return act(func(m *model) { m.tab = (m.tab + n + len(tabs)) % len(tabs) })
	}
	return []binding{
		{[]string{"1"}, "", "sandboxes", to(tabBoxes)},
		{[]string{"2"}, "", "events", to(tabEvents)},
		{[]string{"3"}, "", "approvals", to(tabApprovals)},
		{[]string{"4"}, "", "drafts: what was refused because no rule is about it", to(tabDrafts)},
		{[]string{"tab", "right", "l"}, "", "the next list", turn(1)},
		{[]string{"shift+tab", "left", "h"}, "", "the list before", turn(-1)},
		{[]string{"up", "k"}, "", "one row up", by(-1)},
		{[]string{"down", "j"}, "", "one row down", by(1)},
		{[]string{"pgup", "ctrl+b"}, "", "a screen up", act(func(m *model) { m.move(-m.tableHeight()) })},
		{[]string{"pgdown", "ctrl+f"}, "", "a screen down", act(func(m *model) { m.move(m.tableHeight()) })},
		{[]string{"home", "g"}, "", "the first row", by(-1 << 30)},
		{[]string{"end", "G"}, "", "the last row", by(1 << 30)},
		{[]string{"enter"}, "enter open", "everything about the selected row", (*model).openRow},
		{[]string{"/"}, "/ filter", "only rows that hold a text", (*model).typeFilter},
		{[]string{"esc"}, "", "all rows again", act(func(m *model) { m.lists[m.tab].filter, m.sight, m.order = "", seeDecided, 0 })},
	}
}

// ofTab are the keys of one list.
var ofTab = [tabCount]func() []binding{
	tabBoxes: func() []binding {
		return []binding{{[]string{"s"}, "s sort", "sandboxes: the oldest first, or who was denied or spent most", act(func(m *model) { m.order = (m.order + 1) % len(orders) })}}
	},
	tabEvents: func() []binding {
		return []binding{{[]string{"v"}, "v which", "events: what was decided, only what was refused, or everything", act(func(m *model) { m.sight = (m.sight + 1) % sights })}}
	},
	tabApprovals: votes,
	tabDrafts: func() []binding {
		return []binding{{[]string{"a", "P"}, "a rule", "drafts: make a rule of it, after a look at what would be written", (*model).propose}}
	},
}

// votes are the keys of a request.
func votes() []binding {
	return []binding{
		{[]string{"a"}, "a approve", "approvals: approve, after a look at what exactly", act((*model).confirm)},
		{[]string{"d"}, "d deny", "approvals: deny at once", (*model).deny},
		{[]string{"D"}, "", "approvals: deny, with a comment", (*model).denyWhy},
		{[]string{"P"}, "P rule", "approvals: make a rule of it that stays, after a look at what would be written", (*model).propose},
	}
}

func inPage() []binding {
	by := func(n int) func(m *model) tea.Cmd { return act(func(m *model) { m.scrollBy(n) }) }
	return []binding{
		{[]string{"up", "k"}, "", "one line up", by(-1)},
		{[]string{"down", "j"}, "", "one line down", by(1)},
		{[]string{"pgup", "b", "ctrl+b"}, "", "a screen up", act(func(m *model) { m.scrollBy(-m.bodyHeight()) })},
		{[]string{"pgdown", "space", " ", "ctrl+f"}, moreLabel, "a screen down", act(func(m *model) { m.scrollBy(m.bodyHeight()) })},
		{[]string{"home", "g"}, "", "the beginning", by(-1 << 30)},
		{[]string{"end", "G"}, "", "the end", by(1 << 30)},
		{[]string{"esc", "n"}, "esc back", "back to the list", act((*model).close)},
	}
}

// bindings are those of where the user is; the first that has a key counts.
func (m *model) bindings() []binding {
	if m.page != nil {
		return slices.Concat(m.page.keys(), inPage(), always())
	}
	return slices.Concat(ofTab[m.tab](), inList(), always())
}

// key does what a key means where the user is. Where the screen is too small to
// say what that is, it can only quit.
func (m *model) key(k tea.KeyPressMsg) tea.Cmd {
	name := k.String()
	if m.small() {
		if name == "q" || name == "ctrl+c" {
			return tea.Quit
		}
		return nil
	}
	if m.typing != nil {
		m.notice = notice{}
		over, cmd := m.typing.key(k)
		if over {
			m.typing = nil
		}
		return cmd
	}
	for _, b := range m.bindings() {
		if slices.Contains(b.keys, name) {
			m.notice = notice{}
			return b.do(m)
		}
	}
	return nil
}

func (m *model) openRow() tea.Cmd {
	l := &m.lists[m.tab]
	if l.sel == "" {
		return nil
	}
	p := tabs[m.tab].open(m, l.sel)
	m.show(p)
	if l, ok := p.(loader); ok {
		return l.load(m)
	}
	return nil
}

func (m *model) typeFilter() tea.Cmd {
	l := &m.lists[m.tab]
	m.typing = &input{label: "only rows with", value: l.filter, done: func(v string) tea.Cmd {
		l.filter = v
		m.find(m.tab)
		return nil
	}}
	return nil
}

func (m *model) scrollBy(n int) {
	last := max(0, len(m.page.body(m, m.width))-m.bodyHeight())
	m.scroll = max(0, min(m.scroll+n, last))
	if p, ok := m.page.(interface{ reads() *reading }); ok && m.scroll == last {
		p.reads().read = true
	}
}
