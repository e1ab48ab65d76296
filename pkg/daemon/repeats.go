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

// repeats folds denials of the kernel: the first of its kind is an event at
// once, what follows within the window becomes one event with a count.
type repeats struct {
	post func(*event.Event)

	mu sync.Mutex // guards what follows
	of map[repeatKey]*repeat
}

// repeatKey is what makes two denials alike.
type repeatKey struct {
	kind           event.Kind
	sandbox        string
	pid, status    uint32
	activity       string
	what, dst      string
	proto, code    string
	object, socket string
}

type repeat struct {
	since time.Time // of the event that was posted
	n     uint64    // repeats of it
	first time.Time // of the repeats
	last  event.Event
}

func newRepeats(post func(*event.Event)) *repeats {
	return &repeats{post: post, of: map[repeatKey]*repeat{}}
}

// take posts e, or counts it as a repeat.
func (r *repeats) take(e *event.Event) {
	k := repeatKey{kind: e.Kind, sandbox: e.Sandbox, pid: e.PID, status: e.Status, activity: e.Activity, what: e.Path,
		dst: e.DstAddr, proto: e.Proto, code: e.ReasonCode, object: e.Object, socket: e.SocketInfo}
	r.mu.Lock()
	have := r.of[k]
	if have == nil && len(r.of) < maxRepeats {
		r.of[k] = &repeat{since: time.Now()}
	}
	if have != nil {
		if have.n == 0 {
			have.first = e.Time
		}
		have.n += max(e.Count, 1)
		have.last = *e
	}
	r.mu.Unlock()
	if have == nil {
		r.post(e)
	}
}

// flush tells the repeats of denials that began before t; of all sandboxes if
// sandbox is "".
func (r *repeats) flush(t time.Time, sandbox string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, have := range r.of {
		if have.since.After(t) || (sandbox != "" && k.sandbox != sandbox) {
			continue
		}
		delete(r.of, k)
		if have.n > 0 {
			e := have.last
			e.Time, e.End, e.Count = have.first, e.Time, have.n
			r.post(&e)
		}
	}
}

// run flushes until ctx ends, then everything.
func (r *repeats) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			r.flush(now.Add(-repeatWindow), "")
		case <-ctx.Done():
			r.flush(time.Now(), "")
			return
		}
	}
}
