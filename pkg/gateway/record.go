// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// recorder hands events to the keeper in batches. A place in it is reserved
// before the work that the event will tell of begins, so an event is never
// dropped: while the buffer is full, or a sandbox has used up its share, the
// work is refused instead and the refusals are counted and reported as one
// KindLoss event once there is room.
type recorder struct {
	// Immutable after New.
	keeper     Keeper
	capacity   int
	perSandbox int
	window     time.Duration
	share      *event.Share
	metrics    *counters
	log        *slog.Logger
	kick       chan struct{}

	// mu guards what follows.
	mu        sync.Mutex
	used      int // places reserved, queued or folded
	bySandbox map[uint32]int
	queue     []queued
	folds     map[foldKey]*fold
	refused   uint64 // work refused since the last KindLoss event
	inFlight  int    // events being appended
}

type queued struct {
	ev event.Event
	sb uint32
}

// foldKey names what makes two events alike.
type foldKey struct {
	sb                  uint32
	kind                event.Kind
	verdict             event.Verdict
	activity, name, dst string
	port                uint16
	client              uint32 // see client.go
	code, method, rcode string
	url                 string
	beyond              bool // of the sandbox's share: then only sandbox, kind, verdict and code count
}

// fold is a run of alike events. The first one was queued at once; place tells
// whether the repeats hold a place of their own.
type fold struct {
	since time.Time
	place bool
	ev    event.Event
}

const (
	maxFolds    = 8192
	appendBatch = 256
)

func newRecorder(k Keeper, l Limits, m *counters, log *slog.Logger) *recorder {
	return &recorder{keeper: k, capacity: l.Events, perSandbox: max(1, l.Events/8), window: l.FoldWindow, share: l.Share,
		metrics: m, log: log, kick: make(chan struct{}, 1), bySandbox: map[uint32]int{}, folds: map[foldKey]*fold{}}
}

// ticket is a reserved place. Exactly one of post and release takes effect.
type ticket struct {
	r    *recorder
	sb   uint32
	used bool // guarded by r.mu
}

// reserve takes a place for an event of a sandbox; nil when there is none, and
// then the work must be refused.
func (r *recorder) reserve(sb uint32) *ticket {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used >= r.capacity || r.bySandbox[sb] >= r.perSandbox {
		r.refused++
		r.metrics.unrecorded.Inc()
		return nil
	}
	r.used++
	r.bySandbox[sb]++
	return &ticket{r: r, sb: sb}
}

// pending is the number of places taken.
func (r *recorder) pending() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return float64(r.used)
}

func (r *recorder) freeLocked(sb uint32) {
	r.used--
	if r.bySandbox[sb]--; r.bySandbox[sb] <= 0 {
		delete(r.bySandbox, sb)
	}
}

// release gives the place back when nothing has to be recorded.
func (t *ticket) release() {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	if !t.used {
		t.used = true
		t.r.freeLocked(t.sb)
	}
}

// post records ev in the reserved place.
func (t *ticket) post(ev event.Event) { t.put(ev, false) }

// postFolded records ev; repeats of it within the window become one event with
// a count.
func (t *ticket) postFolded(ev event.Event) { t.put(ev, true) }

func (t *ticket) put(ev event.Event, foldable bool) {
	r := t.r
	r.metrics.observe(&ev)
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.used {
		return
	}
	t.used = true
	if foldable && r.foldLocked(t.sb, ev) || r.beyondLocked(t.sb, ev) {
		return
	}
	r.queue = append(r.queue, queued{ev, t.sb})
	r.wake()
}

// foldLocked tells whether ev was taken as a repeat. The first of its kind is
// left to the caller.
func (r *recorder) foldLocked(sb uint32, ev event.Event) bool {
	k := foldKey{sb: sb, kind: ev.Kind, verdict: ev.Verdict, activity: ev.Activity, name: ev.DstName, dst: ev.DstAddr,
		port: ev.DstPort, client: ev.PID, code: ev.ReasonCode, method: ev.Method, rcode: ev.RCode, url: ev.URL}
	f := r.folds[k]
	if f == nil {
		if len(r.folds) < maxFolds {
			r.folds[k] = &fold{since: ev.Time}
		}
		return false
	}
	r.addLocked(f, sb, ev)
	return true
}

// beyondLocked takes ev as one of several that the sandbox's share of the log
// does not let be told one by one. A model call always is: it cost something.
func (r *recorder) beyondLocked(sb uint32, ev event.Event) bool {
	if ev.Kind == event.KindInference || r.share.Take(&ev, time.Now()) {
		return false
	}
	k := foldKey{sb: sb, kind: ev.Kind, verdict: ev.Verdict, code: ev.ReasonCode, beyond: true}
	f := r.folds[k]
	if f == nil {
		f = &fold{since: ev.Time}
		r.folds[k] = f
	}
	r.addLocked(f, sb, ev)
	return true
}

// addLocked counts ev. The first one's place is kept for all of them. What
// several processes did names none.
func (r *recorder) addLocked(f *fold, sb uint32, ev event.Event) {
	if !f.place {
		f.place, f.ev = true, ev
		f.ev.Count = max(ev.Count, 1)
	} else {
		before := f.ev
		f.ev = ev
		if before.PID != ev.PID {
			f.ev.PID = 0
		}
		f.ev.Count, f.ev.Time = before.Count+max(ev.Count, 1), before.Time
		f.ev.BytesIn += before.BytesIn
		f.ev.BytesOut += before.BytesOut
		f.ev.DatagramsIn += before.DatagramsIn
		f.ev.DatagramsOut += before.DatagramsOut
		r.freeLocked(sb)
	}
	f.ev.End = ev.Time
}

// unfold queues the repeats of runs that began before the given time.
func (r *recorder) unfold(before time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, f := range r.folds {
		if f.since.After(before) {
			continue
		}
		r.tellLocked(k, f)
	}
}

func (r *recorder) tellLocked(k foldKey, f *fold) {
	delete(r.folds, k)
	if !f.place {
		return
	}
	if k.beyond {
		r.share.Beyond(&f.ev)
	}
	r.queue = append(r.queue, queued{f.ev, k.sb})
	r.wake()
}

func (r *recorder) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// run appends until ctx ends. A keeper that fails is asked again for as long
// as it takes; meanwhile the buffer fills and new work is refused.
func (r *recorder) run(ctx context.Context) {
	tick := time.NewTicker(max(r.window/4, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			r.unfold(now.Add(-r.window))
			r.share.Prune(now)
			r.wake() // refusals may wait to be told
		case <-r.kick:
			for ctx.Err() == nil && r.appendOnce(ctx) {
			}
		}
	}
}

// appendOnce hands one batch over and tells whether there was one.
func (r *recorder) appendOnce(ctx context.Context) bool {
	batch := r.takeBatch()
	if len(batch) == 0 {
		return false
	}
	evs := make([]event.Event, len(batch))
	for i := range batch {
		evs[i] = batch[i].ev
	}
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := r.keeper.Append(ctx, evs)
		if err == nil {
			break
		}
		if wait == 20*time.Millisecond {
			r.log.Warn("the keeper does not take events; new work is refused once the buffer is full", "err", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight = 0
	for i := range batch {
		if batch[i].ev.Kind != event.KindLoss {
			r.freeLocked(batch[i].sb)
		}
	}
	return true
}

// takeBatch moves events out of the queue, with one that tells of refused work
// if there was some.
func (r *recorder) takeBatch() []queued {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.queue), appendBatch)
	batch := append(make([]queued, 0, n+1), r.queue[:n]...)
	rest := copy(r.queue, r.queue[n:])
	clear(r.queue[rest:])
	r.queue = r.queue[:rest]
	if r.refused > 0 {
		batch = append(batch, queued{ev: event.Event{Kind: event.KindLoss, Time: time.Now().UTC(), Source: "gateway",
			Layer: "gateway", Verdict: event.Denied, Lost: r.refused, ReasonCode: codeEventBuffer,
			Reason: "connections and questions were refused because the event buffer was full; they have no event of their own"}})
		r.refused = 0
	}
	r.inFlight = len(batch)
	return batch
}

// settle hands over what is folded of one sandbox and waits until the queue is
// empty, at most for d: its end is told after what it did.
func (r *recorder) settle(sb uint32, d time.Duration) {
	r.mu.Lock()
	for k, f := range r.folds {
		if k.sb != sb {
			continue
		}
		r.tellLocked(k, f)
	}
	r.mu.Unlock()
	r.drain(d)
}

// flush waits until everything is handed over, at most for d.
func (r *recorder) flush(d time.Duration) {
	r.unfold(time.Now().Add(time.Hour))
	r.drain(d)
}

func (r *recorder) drain(d time.Duration) {
	deadline := time.Now().Add(d)
	for time.Now().Before(deadline) {
		r.mu.Lock()
		left := len(r.queue) + r.inFlight
		r.mu.Unlock()
		if left == 0 {
			return
		}
		r.wake()
		time.Sleep(time.Millisecond)
	}
}
