// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

const (
	// repeatWindow is how long repeats of a denial are counted before they are
	// told.
	repeatWindow = 5 * time.Second
	maxRepeats   = 8192 // different denials that are folded at once
)

// repeats folds what the kernel tells: the first denial of its kind is an event
// at once, what follows within the window becomes one event with a count. What
// is beyond a sandbox's share of the log is counted by kind and reason.
type repeats struct {
	post  func(*event.Event)
	share *event.Share

	mu sync.Mutex // guards what follows
	of map[repeatKey]*repeat
}

// repeatKey is what makes two denials alike. Beyond the share only kind,
// sandbox and code count.
type repeatKey struct {
	kind           event.Kind
	sandbox        string
	pid, status    uint32
	activity       string
	what, dst      string
	proto, code    string
	object, socket string
	beyond         bool
}

type repeat struct {
	since time.Time // of the event that was posted, or of the first beyond the share
	n     uint64    // repeats of it
	first time.Time // of the repeats
	last  event.Event
	then  func(*event.Event)
}

func newRepeats(share *event.Share, post func(*event.Event)) *repeats {
	return &repeats{post: post, share: share, of: map[repeatKey]*repeat{}}
}

// take posts a denial, or counts it as a repeat.
func (r *repeats) take(e *event.Event) { r.takeFor(e, nil) }

// takeFor is take; then, if any, is given what is posted of it, but no sum of what
// is beyond the share.
func (r *repeats) takeFor(e *event.Event, then func(*event.Event)) {
	r.put(e, then, repeatKey{kind: e.Kind, sandbox: e.Sandbox, pid: e.PID, status: e.Status, activity: e.Activity, what: e.Path,
		dst: e.DstAddr, proto: e.Proto, code: e.ReasonCode, object: e.Object, socket: e.SocketInfo})
}

// each posts an event that is never alike another one, within the share.
func (r *repeats) each(e *event.Event) { r.put(e, nil, repeatKey{}) }

func (r *repeats) put(e *event.Event, then func(*event.Event), alike repeatKey) {
	now := time.Now()
	r.mu.Lock()
	if have := r.of[alike]; have != nil {
		have.add(e)
		r.mu.Unlock()
		return
	}
	one := r.share.Take(e, now)
	switch {
	case !one:
		k := repeatKey{kind: e.Kind, sandbox: e.Sandbox, code: e.ReasonCode, beyond: true}
		if r.of[k] == nil {
			r.of[k] = &repeat{since: now}
		}
		r.of[k].add(e)
	case alike != repeatKey{} && len(r.of) < maxRepeats:
		r.of[alike] = &repeat{since: now, then: then}
	}
	r.mu.Unlock()
	if one {
		r.post(e)
	}
	if one && then != nil {
		then(e)
	}
}

func (r *repeat) add(e *event.Event) {
	if r.n == 0 {
		r.first = e.Time
	}
	r.n += max(e.Count, 1)
	r.last = *e
}

// flush tells the repeats of denials that began before t; of all sandboxes if
// sandbox is "".
func (r *repeats) flush(t time.Time, sandbox string) {
	for _, f := range r.flushed(t, sandbox) {
		f.then(&f.last)
	}
}

// flushed posts the repeats, and returns those that somebody is given.
func (r *repeats) flushed(t time.Time, sandbox string) (out []*repeat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, have := range r.of {
		if have.since.After(t) || (sandbox != "" && k.sandbox != sandbox) {
			continue
		}
		delete(r.of, k)
		if have.n > 0 {
			e := &have.last
			e.Time, e.End, e.Count = have.first, e.Time, have.n
			if k.beyond {
				r.share.Beyond(e)
			}
			r.post(e)
			if have.then != nil {
				out = append(out, have)
			}
		}
	}
	return out
}

// run flushes until ctx ends, then everything.
func (r *repeats) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			r.flush(now.Add(-repeatWindow), "")
			r.share.Prune(now)
		case <-ctx.Done():
			r.flush(time.Now(), "")
			return
		}
	}
}
