// SPDX-License-Identifier: Apache-2.0

package event

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestShare(t *testing.T) {
	s := &Share{AtOnce: 3, PerSecond: 2}
	now := time.Unix(1000, 0)
	denied, seen := &Event{Kind: KindFile, Sandbox: "a", Verdict: Denied}, &Event{Kind: KindExec, Sandbox: "a", Verdict: Observed}
	take := func(e *Event) (n int) {
		for s.Take(e, now) {
			n++
		}
		return n
	}
	if n := take(denied); n != 3 {
		t.Errorf("%d at once", n)
	}
	if n := take(seen); n != 3 {
		t.Errorf("%d that are no denials", n)
	}
	if n := take(&Event{Kind: KindFile, Sandbox: "b", Verdict: Denied}); n != 3 {
		t.Errorf("%d of another sandbox", n)
	}
	now = now.Add(time.Second)
	if n := take(denied); n != 2 {
		t.Errorf("%d came back in a second", n)
	}
	s.Prune(now)
	if len(s.of) != 3 {
		t.Errorf("%d left, all of which were in use", len(s.of))
	}
	now = now.Add(time.Hour)
	s.Prune(now)
	if len(s.of) != 0 {
		t.Errorf("%d left that are whole", len(s.of))
	}
	if n := take(denied); n != 3 {
		t.Errorf("%d after an hour", n)
	}
	e := *denied
	e.Count = 7
	if s.Beyond(&e); !strings.Contains(e.Detail, "the last of 7") {
		t.Error(e.Detail)
	}
}

// However the clock goes, no more is given than the share holds.
func TestShareIsABound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	s := &Share{AtOnce: 10, PerSecond: 5}
	begin := time.Unix(1000, 0)
	now, latest, given := begin, begin, 0.0
	for range 20000 {
		now = now.Add(time.Duration(rnd.IntN(300)-20) * time.Millisecond)
		if now.After(latest) {
			latest = now
		}
		if s.Take(&Event{Sandbox: "a"}, now) {
			given++
		}
		if rnd.IntN(50) == 0 {
			s.Prune(now)
		}
		if most := 10 + latest.Sub(begin).Seconds()*5; given > most {
			t.Fatalf("%v given of %v", given, most)
		}
	}
}
