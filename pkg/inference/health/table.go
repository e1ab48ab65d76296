// SPDX-License-Identifier: Apache-2.0

// Package health keeps what has been seen of the places that answer model calls:
// whether they work, how fast they are, and how many calls they have now. It does
// no I/O, and its clock is handed in.
//
// Each place is a provider, a model and a key, with a circuit breaker of its own:
// a model that fails does not take its provider's others with it.
//
//	closed     calls pass; five failures in a row, or more than half of the last
//	           twenty with ten seen, open it
//	open       nothing passes until a time: 5 s, twice as long with each failed
//	           probe, five minutes at most; or what the provider asked for, ten
//	           minutes at most
//	half-open  one call passes at a time; two that succeed in a row close it, one
//	           that fails opens it again
//
// Failures of one caller alone set a place aside for that caller only: what it asks
// may be what fails. Who else comes passes, and a failure of its own closes the place
// to everybody.
//
// A key that the provider refuses is set aside for all models (five minutes, then
// it is probed).
package health

import (
	"math"
	"sync"
	"time"
)

// Place is one that answers. The zero Model stands for all models of a key.
type Place struct{ Provider, Model, Key string }

// Constants of the breaker.
const (
	Window       = 20 // outcomes looked back on
	InRow        = 5  // failures in a row that open
	Enough       = 10 // outcomes of which more than half failed open, too
	ToClose      = 2  // successes in a row that close
	FirstPause   = 5 * time.Second
	LongestPause = 5 * time.Minute
	LongestAsked = 10 * time.Minute // of what a provider asks for
	KeyPause     = 5 * time.Minute
	LimitPause   = 5 * time.Second // after a 429 that names no time

	// ProbeTime is how long others wait for a probe. A call lasts as long as who makes
	// it reads it, and nobody may keep a provider from others by that.
	ProbeTime = 30 * time.Second
)

// maxPlaces bounds the table: agents choose the names of models.
const maxPlaces = 4096

// State is a breaker's. The zero value passes calls.
type State uint8

// States of a breaker.
const (
	Closed State = iota
	Open
	HalfOpen
)

// String is the word for people.
func (s State) String() string {
	switch s {
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	}
	return "closed"
}

// Table is safe for concurrent use.
type Table struct {
	now func() time.Time

	mu     sync.Mutex
	places map[Place]*place
}

// New returns an empty table; now tells the time.
func New(now func() time.Time) *Table {
	return &Table{now: now, places: map[Place]*place{}}
}

// place is what is known of one.
type place struct {
	state    State
	until    time.Time // Open: when it may be probed
	pause    time.Duration
	row      int    // failures in a row
	good     int    // successes in a row while half-open
	seen     int    // outcomes in history
	history  uint32 // bit 0 is the newest; 1 = failed
	probing  bool
	probed   time.Time // probing: since then
	running  int
	latency  float64 // seconds to the head of an answer, smoothed; 0 = none seen
	measured time.Time
	used     time.Time
	why      string // of the last failure, for people
	failers  callers
}

// callers are the two that came last, and when.
type callers struct {
	who [2]string
	at  [2]time.Time
}

func (c *callers) note(who string, now time.Time) {
	if c.who[0] != who {
		c.who[1], c.at[1] = c.who[0], c.at[0]
	}
	c.who[0], c.at[0] = who, now
}

// onlyOther says that all of them lately were one, and that this is not that one.
func (c *callers) onlyOther(who string, now time.Time) bool {
	alone := c.at[1].IsZero() || now.Sub(c.at[1]) > LongestAsked
	return alone && !c.at[0].IsZero() && c.who[0] != who
}

// Outcome is how a call went, as far as the place is to blame.
type Outcome uint8

// Outcomes. The zero value says nothing about the place: the client went away, or
// the request itself was at fault.
const (
	Unknown    Outcome = iota
	Succeeded          // it answered
	Failed             // it did not, or with a fault of its own
	Limited            // it asked to wait
	KeyRefused         // it does not accept the key
)

// Pass is the right to one call. It ends with Done.
type Pass struct {
	t     *Table
	at    Place
	who   string
	probe bool
	key   bool // the probe is of the key
	begun time.Time
}

// Begin asks to make a call; who makes it is the agent. ok is false while the place or
// its key is set aside, until is then when it can be asked again.
func (t *Table) Begin(at Place, who string) (p *Pass, until time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	one, key := t.place(at, now), t.places[Place{Provider: at.Provider, Key: at.Key}]
	p = &Pass{t: t, at: at, who: who, begun: now}
	notMine := one.state != Closed && one.failers.onlyOther(who, now)
	for _, b := range []*place{one, key} {
		if b == nil || b == one && notMine {
			continue
		}
		if until, ok = b.admits(now); !ok {
			return nil, until, false
		}
	}
	if one.state == HalfOpen && !notMine {
		one.probing, one.probed, p.probe = true, now, true
	}
	if key != nil && key.state == HalfOpen {
		key.probing, key.probed, p.key = true, now, true
	}
	one.running++
	one.used = now
	return p, time.Time{}, true
}

// admits says whether a call may pass now. A pause that is over makes it half-open.
func (b *place) admits(now time.Time) (until time.Time, ok bool) {
	if b.state == Open {
		if b.until.Sub(now) > LongestAsked { // the clock was set back
			b.until = now.Add(LongestAsked)
		}
		if now.Before(b.until) {
			return b.until, false
		}
		b.state, b.good, b.probing = HalfOpen, 0, false
	}
	if b.probes(now) {
		return now.Add(time.Second), false
	}
	return time.Time{}, true
}

// probes says whether a call is under way that others have to wait for.
func (b *place) probes(now time.Time) bool {
	d := now.Sub(b.probed)
	return b.state == HalfOpen && b.probing && d >= 0 && d < ProbeTime
}

// Head notes that the head of the answer is there.
func (p *Pass) Head() {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	now := p.t.now()
	if b := p.t.places[p.at]; b != nil {
		b.measure(now.Sub(p.begun), now)
	}
}

// measure smooths latencies: what was seen within the last seconds counts most.
func (b *place) measure(d time.Duration, now time.Time) {
	const decay = 10.0 // seconds
	s := max(d.Seconds(), 0)
	if b.latency == 0 {
		b.latency = s
	} else {
		w := math.Exp(-max(now.Sub(b.measured).Seconds(), 0)/decay) * 0.7
		b.latency = b.latency*w + s*(1-w)
	}
	b.measured = now
}

// Done ends the call. asked is how long the provider wants to be left alone, 0 if
// it said nothing; why is for people.
func (p *Pass) Done(o Outcome, asked time.Duration, why string) {
	t := p.t
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	asked = min(max(asked, 0), LongestAsked)
	one := t.place(p.at, now)
	one.running = max(one.running-1, 0)
	if p.probe {
		one.probing = false
	}
	keyPlace := Place{Provider: p.at.Provider, Key: p.at.Key}
	key := t.places[keyPlace]
	if p.key && key != nil {
		key.probing = false
		if o == Succeeded || o == Failed || o == Limited {
			key.close() // the provider took it
		}
	}
	switch o {
	case KeyRefused:
		if key == nil {
			key = t.place(keyPlace, now)
		}
		key.open(now, max(asked, KeyPause), why)
	case Limited:
		if asked == 0 {
			asked = LimitPause
		}
		one.failers.note(p.who, now)
		one.open(now, asked, why)
	case Failed:
		one.failers.note(p.who, now)
		one.fail(now, asked, why)
	case Succeeded:
		one.succeed(p.probe)
	}
}

func (b *place) note(failed bool) {
	b.history <<= 1
	if failed {
		b.history |= 1
	}
	b.history &= 1<<Window - 1
	b.seen = min(b.seen+1, Window)
}

func (b *place) fail(now time.Time, asked time.Duration, why string) {
	b.note(true)
	b.row++
	b.why = why
	failed := 0
	for h := b.history; h != 0; h &= h - 1 {
		failed++
	}
	if b.state == Closed && b.row < InRow && (b.seen < Enough || 2*failed <= b.seen) {
		return
	}
	if b.state == Open {
		return // a call that began before it opened
	}
	b.pause = min(max(2*b.pause, FirstPause), LongestPause)
	b.open(now, max(b.pause, asked), why)
}

func (b *place) open(now time.Time, pause time.Duration, why string) {
	until := now.Add(pause)
	if b.state == Open && until.Before(b.until) {
		until = b.until
	}
	b.state, b.until, b.why = Open, until, why
	b.good, b.probing = 0, false
}

func (b *place) succeed(probe bool) {
	b.note(false)
	b.row = 0
	if b.state == HalfOpen && probe {
		if b.good++; b.good >= ToClose {
			b.close()
		}
	}
}

func (b *place) close() {
	b.state, b.pause, b.row, b.good, b.seen, b.history, b.why = Closed, 0, 0, 0, 0, 0, ""
	b.failers = callers{}
}

// place finds or makes an entry. Where the table is full, one that nobody has used
// for longest and that nothing speaks against makes room; one that is set aside
// goes only when there is no other.
func (t *Table) place(at Place, now time.Time) *place {
	if b := t.places[at]; b != nil {
		return b
	}
	if len(t.places) >= maxPlaces {
		t.evict()
	}
	b := &place{used: now}
	t.places[at] = b
	return b
}

func (t *Table) evict() {
	var worst Place
	var found *place
	for at, b := range t.places {
		if b.running > 0 {
			continue
		}
		if found == nil || (b.state == Closed) && (found.state != Closed) || (b.state == Closed) == (found.state == Closed) && b.used.Before(found.used) {
			worst, found = at, b
		}
	}
	if found != nil {
		delete(t.places, worst)
	}
}

// Look is what is known of a place.
type Look struct {
	Place   Place
	State   State
	Until   time.Time // Open: when it is probed
	Latency time.Duration
	Running int
	Why     string // it was set aside, or failed last
}

// Look tells what is known of a place; ok is false when nothing is.
func (t *Table) Look(at Place) (l Look, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.places[at]
	if b == nil {
		return Look{Place: at}, false
	}
	return b.look(at, t.now()), true
}

// All tells what is known of every place.
func (t *Table) All() []Look {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Look, 0, len(t.places))
	for at, b := range t.places {
		out = append(out, b.look(at, t.now()))
	}
	return out
}

func (b *place) look(at Place, now time.Time) Look {
	l := Look{Place: at, State: b.state, Latency: time.Duration(b.latency * float64(time.Second)), Running: b.running, Why: b.why}
	if b.state == Open {
		l.Until = b.until
		if !now.Before(b.until) {
			l.State = HalfOpen
		}
	}
	return l
}

// Load is how busy and slow a place is: less is better, and one of which nothing is
// known is tried.
func (t *Table) Load(at Place) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.places[at]
	if b == nil {
		return 0
	}
	return b.latency * (1 + float64(b.running))
}

// Ready says whether a call of an agent could begin now.
func (t *Table) Ready(at Place, who string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for i, k := range []Place{at, {Provider: at.Provider, Key: at.Key}} {
		b := t.places[k]
		if b != nil && i == 0 && b.failers.onlyOther(who, now) {
			continue
		}
		if b != nil && (b.state == Open && now.Before(b.until) || b.probes(now)) {
			return false
		}
	}
	return true
}
