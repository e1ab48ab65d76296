// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// lateFor is how long denials of an ended sandbox still find it: audit records
// take a moment, and their reader may be restarting.
const lateFor = time.Minute

// lateInits remembers the init processes of sandboxes that have just ended.
// The zero value is ready.
type lateInits struct {
	mu sync.Mutex
	of map[int]lateInit
}

type lateInit struct {
	sandbox string
	ended   time.Time
}

func (l *lateInits) ended(pid int, sandbox string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[int]lateInit{}
	}
	for p, i := range l.of {
		if now.Sub(i.ended) > lateFor {
			delete(l.of, p)
		}
	}
	if pid > 0 {
		l.of[pid] = lateInit{sandbox, now}
	}
}

// find returns the sandbox of a denial that no living one has, "" if it is not
// known. A number that a process got after the sandbox's end is another
// process: the denial must have happened before. lost says that the denial may
// be one of ours all the same.
func (l *lateInits) find(e *event.Event) (sandbox string, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := l.of[int(e.PID)]; ok && !e.Time.After(i.ended) && e.Time.After(i.ended.Add(-lateFor)) {
		return i.sandbox, false
	}
	if e.PID == 0 {
		return "", true
	}
	_, err := os.Stat(fmt.Sprintf("/proc/%d", e.PID))
	return "", err != nil // a living one of the machine is not ours
}

// lostEvery is how often lost denials are told.
const lostEvery = 10 * time.Second

// lostDenials counts denials that found no sandbox. The zero value is ready.
type lostDenials struct {
	mu   sync.Mutex
	n    uint64
	told time.Time
}

// add counts n more, and posts one record for all of them from time to time.
func (l *lostDenials) add(now time.Time, n uint64, post func(*event.Event)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n += n
	if now.Sub(l.told) >= lostEvery {
		l.flushLocked(now, post)
	}
}

// flush tells what was counted since the last record.
func (l *lostDenials) flush(now time.Time, post func(*event.Event)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushLocked(now, post)
}

func (l *lostDenials) flushLocked(now time.Time, post func(*event.Event)) {
	if l.n == 0 {
		return
	}
	post(&event.Event{Kind: event.KindLoss, Time: now.UTC(), Source: "keeper", Verdict: event.Observed, Layer: "landlock",
		Activity: "unknown-domain", Lost: l.n,
		Reason: "file denials of processes that nobody can name any more; they may be of sandboxes or of other programs that use Landlock"})
	l.n, l.told = 0, now
}

// tell posts what was counted from time to time until ctx ends.
func (l *lostDenials) tell(ctx context.Context, post func(*event.Event)) {
	tick := time.NewTicker(lostEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.flush(time.Now(), post)
		case <-ctx.Done():
			l.flush(time.Now(), post)
			return
		}
	}
}
