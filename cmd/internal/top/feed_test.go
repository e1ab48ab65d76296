// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

// fed runs what follows in a bubble of its own time, with a feed.
func fed(t *testing.T, do func(t *testing.T, n *node, u *user)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		m := &model{ctx: t.Context(), node: n, st: newState(), now: time.Now, host: "node7", width: 80, height: 24, opened: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); (&feed{node: n, st: m.st, since: m.opened}).run(ctx) }()
		do(t, n, &user{t, m, n})
		cancel()
		<-ended
	})
}

func (n *node) times(what string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, w := range n.asked {
		if w == what {
			count++
		}
	}
	return count
}

// TestAsksSeldom: what has a stream is not asked for, the rest not more often
// than every other second, and what was refused hardly at all: that is recorded.
func TestAsksSeldom(t *testing.T) {
	fed(t, func(t *testing.T, n *node, _ *user) {
		time.Sleep(time.Minute)
		synctest.Wait()
		for what, most := range map[string]int{"status": 31, "sandboxes": 31, "events": 1, "watch": 1, "approvals": 4, "policy": 0, "drafts": 7} {
			if got := n.times(what); got > most || most > 0 && got == 0 {
				t.Errorf("%s: asked %d times in a minute", what, got)
			}
		}
		n.set(func() { n.asked, n.down = nil, api.Errorf(api.CodeDenied, "no longer yours") })
		close(n.cut)
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, what := range []string{"status", "events", "approvals"} {
			if got := n.times(what); got == 0 || got > 5 {
				t.Errorf("%s: asked %d times in a minute after it was refused", what, got)
			}
		}
	})
}

// TestReconnects: a daemon that goes away is said, what was known stays, and when
// it is back nothing is counted twice.
func TestReconnects(t *testing.T) {
	fed(t, func(t *testing.T, n *node, u *user) {
		n.add(t, event.Event{Kind: event.KindFile, Path: "/one", Time: time.Now()})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		u.tick()
		u.sees("enforced", "b0a1c2d3")
		n.set(func() {
			n.down = &api.UnreachableError{Socket: "/some/where/ringfence.sock", Err: syscall.ECONNREFUSED}
		})
		close(n.cut)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		u.tick()
		u.sees("NOT CONNECTED", "node: lost at", "connection refused", "b0a1c2d3", "3 Approvals 1")
		n.add(t, event.Event{Kind: event.KindFile, Path: "/two", Time: time.Now()})
		n.set(func() {
			n.down, n.cut, n.status.Started = nil, make(chan struct{}), time.Now()
			n.asks = nil
		})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		u.tick()
		u.sees("connected again: the daemon was restarted at", "enforced", "3 Approvals 0")
		u.types("2")
		u.lacks("lost at", "NOT CONNECTED")
		u.sees("/one", "/two", "denied 2")
	})
}

// TestOneStreamDown: what works goes on, and what does not is said.
func TestOneStreamDown(t *testing.T) {
	fed(t, func(t *testing.T, n *node, u *user) {
		time.Sleep(3 * time.Second)
		a := pay()
		a.ID = "00000000000000cc"
		n.more <- a
		synctest.Wait()
		u.tick()
		u.sees("3 Approvals 2")
		close(n.cut) // and what is begun again ends at once
		time.Sleep(5 * time.Second)
		synctest.Wait()
		u.tick()
		u.sees("events: lost at", "the daemon ended the stream", "enforced")
		n.set(func() { n.cut = make(chan struct{}) })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		u.tick()
		u.lacks("lost at")
	})
}

// TestEndsWithContext: nothing is left running (the bubble would not end), and
// what was cut off by the end is no failure to show.
func TestEndsWithContext(t *testing.T) {
	var last [links]error
	fed(t, func(_ *testing.T, _ *node, u *user) {
		time.Sleep(time.Second)
		last = u.st.snapshot(time.Now()).down
	})
	if i := slices.IndexFunc(last[:], func(err error) bool { return err != nil }); i >= 0 {
		t.Errorf("%s: %v", linkNames[i], strings.TrimSpace(last[i].Error()))
	}
}
