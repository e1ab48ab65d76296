// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// receiver is a queue with a clock, and an end that answers as scripted; then it
// takes everything.
type receiver struct {
	*Queue
	now    time.Time
	script []Outcome
	sent   []string // attempts
	told   []string
	pauses []time.Duration
}

func newReceiver(script ...Outcome) *receiver {
	r := &receiver{now: start, script: script}
	r.Queue = NewQueue(Options{Now: func() time.Time { return r.now }, Tell: func(_ bool, text string) { r.told = append(r.told, text) },
		Pause: func(ctx context.Context, d time.Duration) bool {
			r.pauses = append(r.pauses, d)
			r.now = r.now.Add(d)
			return ctx.Err() == nil
		}})
	return r
}

// drain runs until the queue is empty.
func (r *receiver) drain() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx, func(_ context.Context, d *Delivery) Result {
			r.sent = append(r.sent, d.ID)
			out := Delivered
			if len(r.script) > 0 {
				out, r.script = r.script[0], r.script[1:]
			}
			return Result{Outcome: out}
		})
	}()
	for {
		if _, some := r.first(); !some {
			break
		}
		runtime.Gosched()
	}
	cancel()
	<-ended
}

func (r *receiver) add(source string, ids ...string) {
	for _, id := range ids {
		r.Add(Delivery{ID: id, Source: source, Body: []byte("{}")})
	}
}

func TestDeliveriesKeepTheirOrderAndAreTriedAgain(t *testing.T) {
	r := newReceiver(Busy, Unreachable, Late, Untrusted, Failed, Delivered)
	r.add("s", "a", "b", "a")
	r.drain()
	if want := []string{"a", "a", "a", "a", "a", "a", "b"}; !slices.Equal(r.sent, want) {
		t.Errorf("sent %q", r.sent)
	}
	if want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second}; !slices.Equal(r.pauses, want) {
		t.Errorf("paused %v", r.pauses)
	}
	if want := []string{"a webhook was not delivered: the receiver answered that it should be tried again", "webhooks are delivered again"}; !slices.Equal(r.told, want) {
		t.Errorf("told %q", r.told)
	}
}

func TestARefusedDeliveryHoldsNobodyUp(t *testing.T) {
	r := newReceiver(Rejected)
	r.add("s", "a", "b")
	r.drain()
	if want := []string{"a", "b"}; !slices.Equal(r.sent, want) || len(r.pauses) != 0 {
		t.Errorf("sent %q, paused %v", r.sent, r.pauses)
	}
	if len(r.told) != 2 || !strings.Contains(r.told[1], "lost meanwhile: 1") {
		t.Errorf("told %q", r.told)
	}
}

// TestTryingEnds: each delivery is tried once at least, and for an hour at most
// from when it was queued.
func TestTryingEnds(t *testing.T) {
	r := newReceiver(slices.Repeat([]Outcome{Unreachable}, 200)...)
	r.add("s", "a", "b")
	r.drain()
	tried := map[string]int{}
	for _, id := range r.sent {
		tried[id]++
	}
	if tried["a"] < 60 || tried["a"] > 75 || tried["b"] != 1 {
		t.Errorf("%v", tried)
	}
	if slices.Max(r.pauses) != maxPause {
		t.Errorf("the longest pause is %v", slices.Max(r.pauses))
	}
}

func TestQueueIsBoundedForEachSource(t *testing.T) {
	r := newReceiver()
	r.add("quiet", "q1")
	for i := range 10 * MaxQueuedOf {
		r.add("loud", fmt.Sprintf("l%04d", i))
	}
	if r.list[0].ID != "q1" || len(r.list) != MaxQueuedOf+1 || r.list[1].ID != "l0900" {
		t.Errorf("%d are queued, first %s %s", len(r.list), r.list[0].ID, r.list[1].ID)
	}
	for s := range 9 {
		for i := range MaxQueuedOf {
			r.add(fmt.Sprint("loud", s), fmt.Sprintf("m%d%04d", s, i))
		}
	}
	if len(r.list) != MaxQueued {
		t.Errorf("%d are queued", len(r.list))
	}
	r.add("quiet", "q2") // who has the most gives way, its first
	r.add("late", "n1")
	held := func(id string) bool { return slices.ContainsFunc(r.list, func(d Delivery) bool { return d.ID == id }) }
	for id, want := range map[string]bool{"q1": true, "q2": true, "n1": true, "l0900": false, "l0901": true, "m00000": false, "m00001": true, "m10000": false, "m10001": true, "m20000": true} {
		if held(id) != want {
			t.Errorf("%s is queued: %v", id, !want)
		}
	}
	for i := range 2 * MaxQueued {
		r.add(fmt.Sprint("s", i), fmt.Sprint("x", i))
	}
	if len(r.list) != MaxQueued || !held("x1999") {
		t.Errorf("%d are queued, the last: %v", len(r.list), held("x1999"))
	}
	r.Add(Delivery{ID: "big", Source: "quiet", Body: make([]byte, MaxBody+1)})
	if slices.ContainsFunc(r.list, func(d Delivery) bool { return d.ID == "big" }) {
		t.Error("a body beyond the bound is queued")
	}
	r.drain()
	if len(r.told) != 1 || !strings.Contains(r.told[0], "lost meanwhile: ") {
		t.Errorf("told %q", r.told)
	}
}

// TestAddingNeverWaits: also while an attempt hangs.
func TestAddingNeverWaits(t *testing.T) {
	r := newReceiver()
	ctx, cancel := context.WithCancel(context.Background())
	hangs, ended := make(chan struct{}), make(chan struct{})
	r.add("s", "a")
	go func() {
		defer close(ended)
		r.Run(ctx, func(ctx context.Context, _ *Delivery) Result { close(hangs); <-ctx.Done(); return Result{} })
	}()
	<-hangs
	r.add("s", "b", "c")
	cancel()
	<-ended
	if len(r.list) != 3 {
		t.Errorf("%d are queued: what was under way is sent again by the next", len(r.list))
	}
}
