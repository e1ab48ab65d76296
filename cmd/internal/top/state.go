// SPDX-License-Identifier: Apache-2.0

package top

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

// How much is kept, whatever a node has and does.
const (
	maxEvents    = 500  // lines of the event log, of each kind of showing them
	maxText      = 700  // bytes of one of them
	maxDenials   = 100  // of the sandbox that is looked at
	maxBoxes     = 2000 // sandboxes listed
	maxTallies   = 4096 // sandboxes counted
	maxApprovals = 1000 // requests
)

// What of the events is shown. Each has its own lines, so that what a sandbox
// does all day does not push out what it was refused.
const (
	seeDecided = iota
	seeDenied
	seeAll
	sights
)

var sightNames = [sights]string{"", "only what was refused", "everything"}

// Records that come for longer than patience without a pause, and are older
// than that, are more than are read: the first of a view are just old.
const (
	pause    = 2 * time.Second
	patience = 5 * time.Second
)

// The streams that feed a state.
const (
	linkNode = iota
	linkEvents
	linkApprovals
	linkDrafts
	links
)

var linkNames = [links]string{"node", "events", "approvals", "drafts"}

// entry is one event as it is shown.
type entry struct {
	seq     uint64
	text    string // safe
	decided bool   // or to be looked at, whatever was decided
	denied  bool
	failed  bool
}

// ask is a request for approval, with when it was last heard of.
type ask struct {
	api.Approval
	heard uint64
}

// state is what is known of the node. Streams write to it as fast as they come,
// the screen reads it when it is drawn. All of it is bounded.
type state struct {
	mu sync.Mutex // guards what follows

	status  api.Status
	boxes   []api.Sandbox
	more    int // sandboxes that are not kept
	down    [links]error
	since   [links]time.Time // of down
	starts  int              // of daemons, seen
	events  [sights][]entry  // oldest first
	lastSeq uint64
	lastAt  time.Time // the newest time of a record
	readAt  time.Time // when the last record came
	burst   time.Time // since when they come without a pause
	total   tally
	rate    rate
	box     map[string]*tally
	watched string  // the sandbox that is looked at
	denials []entry // of it, oldest first
	asks    map[string]ask
	heard   uint64
	over    api.Approval // the last request that ended, for a word about it
	drafts  []api.Draft  // the last first
}

func newState() *state {
	return &state{box: map[string]*tally{}, asks: map[string]ask{}}
}

// snapshot is a copy of what is drawn.
type snapshot struct {
	status  api.Status
	boxes   []api.Sandbox
	more    int
	down    [links]error
	since   [links]time.Time
	starts  int
	events  [sights][]entry // newest first
	behind  time.Duration
	total   tally
	recent  tally // of the last window
	box     map[string]tally
	full    bool    // not every sandbox could be counted
	denials []entry // newest first
	asks    []api.Approval
	over    api.Approval
	drafts  []api.Draft
}

func (s *state) snapshot(now time.Time) snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := snapshot{status: s.status, boxes: s.boxes, more: s.more, down: s.down, since: s.since, starts: s.starts, total: s.total,
		recent: s.rate.last(now), box: make(map[string]tally, len(s.box)), over: s.over, drafts: s.drafts,
		denials: newestFirst(s.denials)}
	for i := range s.events {
		out.events[i] = newestFirst(s.events[i])
	}
	for id, t := range s.box {
		out.box[id] = *t
	}
	out.full = len(s.box) >= maxTallies
	for _, a := range s.asks {
		out.asks = append(out.asks, a.Approval)
	}
	slices.SortFunc(out.asks, byUrgency)
	if now.Sub(s.readAt) < pause && now.Sub(s.burst) > patience {
		out.behind = now.Sub(s.lastAt)
	}
	return out
}

func newestFirst(list []entry) []entry {
	out := slices.Clone(list)
	slices.Reverse(out)
	return out
}

// byUrgency puts what waits first, and of that what expires first.
func byUrgency(a, b api.Approval) int {
	if wa, wb := a.State == "pending", b.State == "pending"; wa != wb {
		if wa {
			return -1
		}
		return 1
	}
	if c := a.Expires.Compare(b.Expires); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

// link says that a stream works, or why it does not.
func (s *state) link(which int, err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.down[which] == nil {
		s.since[which] = now
	}
	s.down[which] = err
}

func (s *state) setNode(st api.Status, boxes []api.Sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !st.Started.Equal(s.status.Started) {
		s.starts++
	}
	alive := map[string]bool{}
	kept := make([]api.Sandbox, 0, len(boxes))
	for i := range boxes {
		if !boxes[i].HasEnded() {
			kept = append(kept, boxes[i])
			alive[boxes[i].ID] = true
		}
	}
	s.status, s.boxes, s.more = st, kept, 0
	if n := len(kept) - maxBoxes; n > 0 {
		s.boxes, s.more = kept[n:], n
	}
	for id := range s.box {
		if !alive[id] && len(s.box) > maxTallies/2 {
			delete(s.box, id)
		}
	}
}

// addEvent takes one line of the log. What was read before, as after the stream
// was begun again, is left out.
func (s *state) addEvent(raw []byte, now time.Time) {
	e, err := event.ParseOCSF(raw)
	if err != nil { // not by us: shown, as `ringfence events` does, and not counted
		s.mu.Lock()
		defer s.mu.Unlock()
		s.keep(entry{text: safe(event.Compact(raw, false), maxText), failed: true, decided: true})
		return
	}
	en := entryOf(&e)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Sequence <= s.lastSeq && !e.Time.After(s.lastAt) {
		return
	}
	if now.Sub(s.readAt) > pause {
		s.burst = now
	}
	s.lastSeq, s.readAt = e.Sequence, now
	if e.Time.After(s.lastAt) {
		s.lastAt = e.Time
	}
	s.keep(en)
	if e.Sandbox == "" {
		return
	}
	s.total.add(&e)
	s.rate.add(&e)
	t := s.box[e.Sandbox]
	if t == nil && len(s.box) < maxTallies {
		t = &tally{}
		s.box[e.Sandbox] = t
	}
	if t != nil {
		t.add(&e)
	}
	if en.denied && e.Sandbox == s.watched {
		s.denials = push(s.denials, en, maxDenials)
	}
}

// keep puts a line where it is to be seen.
func (s *state) keep(e entry) {
	s.events[seeAll] = push(s.events[seeAll], e, maxEvents)
	if e.decided {
		s.events[seeDecided] = push(s.events[seeDecided], e, maxEvents)
	}
	if e.denied {
		s.events[seeDenied] = push(s.events[seeDenied], e, maxEvents)
	}
}

func entryOf(e *event.Event) entry {
	return entry{seq: e.Sequence, text: safe(e.Compact(false), maxText), denied: e.IsDenial(), failed: e.IsFailure(),
		decided: e.Decides() && e.Verdict != event.Observed || e.Kind == event.KindLoss || e.Kind == event.KindTamper || e.Sandbox == ""}
}

// push appends and drops the oldest over limit.
func push(list []entry, e entry, limit int) []entry {
	if len(list) >= limit {
		list = append(list[:0], list[len(list)-limit+1:]...)
	}
	return append(list, e)
}

// watch begins to keep the denials of one sandbox, "" of none.
func (s *state) watch(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched, s.denials = id, nil
}

// setDenials gives the denials that the log had already, oldest first.
func (s *state) setDenials(id string, old []entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != s.watched {
		return
	}
	all := old
	for _, e := range s.denials {
		if len(old) == 0 || e.seq > old[len(old)-1].seq {
			all = append(all, e)
		}
	}
	s.denials = all[max(0, len(all)-maxDenials):]
}

func open(a *api.Approval) bool { return a.State == "pending" || a.State == "approved" }

// setAsk takes a request as it is now.
func (s *state) setAsk(a api.Approval) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard++
	_, had := s.asks[a.ID]
	switch {
	case open(&a) && (had || len(s.asks) < maxApprovals):
		s.asks[a.ID] = ask{a, s.heard}
	case had && !open(&a):
		delete(s.asks, a.ID)
		s.over = a
	}
}

// mark is where setAsks counts from.
func (s *state) mark() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

// setAsks takes the whole list that was asked for after mark: what was heard
// since is newer than the list.
func (s *state) setAsks(mark uint64, list []api.Approval) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]ask, len(list))
	for i := range list {
		if open(&list[i]) && len(next) < maxApprovals {
			next[list[i].ID] = ask{list[i], mark}
		}
	}
	for id, a := range s.asks {
		if a.heard > mark {
			next[id] = a
		}
	}
	s.asks = next
}
