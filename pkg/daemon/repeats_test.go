// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

func denial(sandbox, path string, n uint64) *event.Event {
	return &event.Event{Kind: event.KindFile, Sandbox: sandbox, PID: 9, Path: path, Count: n, Time: time.Now()}
}

func TestRepeats(t *testing.T) {
	var got []event.Event
	r := newRepeats(event.NewShare(), func(e *event.Event) { got = append(got, *e) })
	for _, e := range []*event.Event{denial("a", "/x", 1), denial("a", "/x", 4), denial("a", "/x", 0), denial("a", "/y", 1), denial("b", "/x", 1)} {
		r.take(e)
	}
	if len(got) != 3 || got[0].Count != 1 || got[1].Path != "/y" || got[2].Sandbox != "b" {
		t.Fatalf("the first of each is told at once: %+v", got)
	}
	r.flush(time.Now().Add(-time.Minute), "")
	if len(got) != 3 {
		t.Fatalf("told before the window is over: %+v", got)
	}
	r.flush(time.Now(), "b")
	if len(got) != 3 {
		t.Fatalf("b had no repeats: %+v", got)
	}
	r.flush(time.Now(), "a")
	if len(got) != 4 || got[3].Count != 5 || got[3].Path != "/x" || got[3].End.Before(got[3].Time) {
		t.Fatalf("the repeats are one event: %+v", got)
	}
	r.take(denial("a", "/x", 1))
	if len(got) != 5 {
		t.Errorf("a new window begins with an event: %+v", got)
	}
}

// What drafts are made of is told once for all repeats, with their number, while
// others are taken; a sum of what is beyond the share is of many destinations.
func TestRepeatsAreDraftedOnce(t *testing.T) {
	var counts []uint64
	r := newRepeats(&event.Share{AtOnce: 1, PerSecond: 1e-9}, func(*event.Event) {})
	then := func(e *event.Event) {
		counts = append(counts, e.Count)
		r.take(denial("another", "/x", 1)) // no lock is held
	}
	for range 1000 {
		r.takeFor(denial("a", "/x", 1), then)
	}
	for i := range 10 {
		r.takeFor(denial("a", fmt.Sprint(i), 1), then) // beyond the share
	}
	if !slices.Equal(counts, []uint64{1}) {
		t.Errorf("%v", counts)
	}
	r.flush(time.Now(), "")
	if !slices.Equal(counts, []uint64{1, 999}) {
		t.Errorf("%v", counts)
	}
}

// However denials come and windows end, their number is told in full.
func TestRepeatsKeepCount(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var told uint64
	r := newRepeats(&event.Share{AtOnce: 900, PerSecond: 100}, func(e *event.Event) { told += max(e.Count, 1) })
	var taken uint64
	for range 50000 {
		e := denial(fmt.Sprint(rnd.IntN(3)), fmt.Sprint(rnd.IntN(10000)), uint64(rnd.IntN(4)))
		taken += max(e.Count, 1)
		if rnd.IntN(3) == 0 {
			r.each(e)
		} else {
			r.take(e)
		}
		if rnd.IntN(500) == 0 {
			r.flush(time.Now(), []string{"", "0", "1"}[rnd.IntN(3)])
		}
		if len(r.of) > maxRepeats {
			t.Fatalf("%d are folded at once", len(r.of))
		}
	}
	r.flush(time.Now(), "")
	if told != taken {
		t.Errorf("told %d of %d", told, taken)
	}
}

// A flood of denials that are all different is told up to the sandbox's share,
// then by number; nobody else's are.
func TestBeyondTheShare(t *testing.T) {
	var got []event.Event
	r := newRepeats(&event.Share{AtOnce: 10, PerSecond: 1e-9}, func(e *event.Event) { got = append(got, *e) })
	for i := range 1000 {
		e := denial("a", fmt.Sprint(i), 1)
		e.Verdict, e.ReasonCode = event.Denied, []string{"files", "read-only"}[i%2]
		r.take(e)
	}
	b := denial("b", "/x", 1)
	b.Verdict = event.Denied
	r.take(b)
	for i := range 30 {
		r.each(&event.Event{Kind: event.KindExec, Sandbox: "a", Verdict: event.Observed, Exe: fmt.Sprint(i), Time: time.Now()})
	}
	if len(got) != 21 || got[9].Path != "9" || got[10].Sandbox != "b" || got[20].Kind != event.KindExec {
		t.Fatalf("%d told at once: %+v", len(got), got)
	}
	r.flush(time.Now(), "")
	sums := map[string]uint64{}
	for _, e := range got[21:] {
		if !strings.Contains(e.Detail, "used up its share") {
			t.Errorf("%+v does not say what it is", e)
		}
		sums[e.Kind.String()+e.ReasonCode] += e.Count
	}
	if len(got) != 24 || sums["filefiles"] != 495 || sums["fileread-only"] != 495 || sums["exec"] != 20 {
		t.Errorf("%v in %+v", sums, got[21:])
	}
}
