// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/ringfence/ringfence/pkg/api"
)

// The screen is drawn again so often, from what is there.
const redraw = 500 * time.Millisecond

// Below this size there is no room to say what a key would do.
const (
	minWidth  = 50
	minHeight = 12
)

// model is the view: what of the state is looked at, and what is typed.
type model struct {
	ctx   context.Context
	node  Node
	st    *state
	now   func() time.Time
	host  string
	color bool

	width, height int
	snap          snapshot
	opened        time.Time // when the view was

	tab    int
	lists  [tabCount]list
	order  int    // the sandboxes: what stands first
	sight  int    // the events: what of them is shown
	page   page   // over the list, nil if none
	scroll int    // of the page
	typing *input // a line that is being typed, nil if none
	notice notice
}

// list is where the user is in one of the lists.
type list struct {
	sel    string // the row's key, "" if none
	index  int    // where it was last
	top    int    // first row shown
	gone   int    // for so many drawings: what was selected is no longer there, and nothing else has been chosen
	filter string
}

// notice is a word at the bottom of the screen, until the next key.
type notice struct {
	text string
	bad  bool
}

type (
	tickMsg  struct{}
	votedMsg struct {
		id   string
		sent api.VoteRequest
		got  api.Approval
		err  error
	}
	pageMsg func() // fills in what a page asked for
)

func tick() tea.Cmd { return tea.Tick(redraw, func(time.Time) tea.Msg { return tickMsg{} }) }

func (m *model) Init() tea.Cmd { m.refresh(); return tick() }

func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.refresh()
	case tickMsg:
		m.lists[tabApprovals].gone = max(0, m.lists[tabApprovals].gone-1)
		m.refresh()
		return m, tea.Batch(tick(), m.reload())
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case tea.PasteMsg: // is text where text is typed, and never keys
		if m.typing != nil && !m.small() {
			m.typing.add(msg.Content)
		}
	case votedMsg:
		m.voted(&msg)
	case writtenMsg:
		m.written(&msg)
	case pageMsg:
		msg()
	}
	return m, nil
}

// reload is what the page asks for by itself, once it was on the screen.
func (m *model) reload() tea.Cmd {
	switch p := m.page.(type) {
	case *sandbox:
		return p.again(m)
	case *confirmation:
		p.drawn = p.drawn || !m.small()
	case *proposal:
		p.drawn = p.drawn || !m.small()
	}
	return nil
}

func (m *model) small() bool { return m.width < minWidth || m.height < minHeight }

// refresh takes what the streams have brought, and finds the selected rows again.
func (m *model) refresh() {
	before := m.snap
	m.snap = m.st.snapshot(m.now())
	if a := m.snap.over; a.ID != before.over.ID || a.State != before.over.State {
		m.notice = notice{text: "request " + safe(a.ID+" is "+a.State+": "+a.Kind+" "+a.Target, 300)}
	}
	if before.starts > 0 && m.snap.starts != before.starts {
		m.notice = notice{text: "connected again: the daemon was restarted at " + clock(m.snap.status.Started)}
	}
	for i := range tabs {
		m.find(i)
	}
	if c, ok := m.page.(*confirmation); ok {
		m.recheck(c)
	}
}

// hold is for how many drawings nothing takes the place of a selected request
// that is over: what is typed was meant for what was there.
const hold = 4

// find puts a list's selection where the selected row is now.
func (m *model) find(tab int) {
	l := &m.lists[tab]
	rows := tabs[tab].rows(m)
	if tab == tabEvents && l.index == 0 { // the newest row stays the chosen one
		l.sel = ""
	}
	for i := range rows {
		if rows[i].key == l.sel {
			l.index = i
			return
		}
	}
	if l.sel != "" {
		l.sel = ""
		if tab == tabApprovals {
			l.gone = hold
		}
	}
	l.index = max(0, min(l.index, len(rows)-1))
	if l.gone == 0 && len(rows) > 0 {
		l.sel = rows[l.index].key
	}
}

// move selects another row.
func (m *model) move(by int) {
	l, rows := &m.lists[m.tab], tabs[m.tab].rows(m)
	if len(rows) == 0 {
		return
	}
	if l.gone > 0 { // the first key chooses what is where it was
		by = 0
	}
	l.gone = 0
	l.index = max(0, min(l.index+by, len(rows)-1))
	l.sel = rows[l.index].key
}

// selected is the request that is chosen, if one is.
func (m *model) selected() (api.Approval, bool) {
	if c, ok := m.page.(*request); ok {
		return m.request(c.id)
	}
	if m.tab != tabApprovals {
		return api.Approval{}, false
	}
	return m.request(m.lists[tabApprovals].sel)
}

func (m *model) request(id string) (api.Approval, bool) {
	for _, a := range m.snap.asks {
		if a.ID == id && id != "" {
			return a, true
		}
	}
	return api.Approval{}, false
}

func (m *model) show(p page) {
	m.page, m.scroll = p, 0
}

func (m *model) close() {
	m.page, m.scroll = nil, 0
	m.st.watch("")
}

func clock(t time.Time) string { return t.Local().Format("15:04:05") }
