// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// line-up of calls that wait, in a bubble whose time passes when all sleep.
type lineup struct {
	tab   *Table
	spec  Spec
	start time.Time

	mu  sync.Mutex
	log []string
}

// send lets a call of an owner wait, and says when it was through or why not.
func (l *lineup) send(ctx context.Context, owner, what string, spec Spec) {
	go func() {
		var h Hold
		c := one(l.tab, "q", spec, Split{}, 0)
		c.Owner = owner
		ref, err := l.tab.Wait(ctx, c, &h)
		l.mu.Lock()
		defer l.mu.Unlock()
		at := time.Since(l.start)
		switch {
		case err != nil:
			l.log = append(l.log, fmt.Sprintf("%s gone %v", what, at))
		case ref.Kind != None:
			l.log = append(l.log, fmt.Sprintf("%s %v %v", what, ref.Kind, at))
		default:
			l.log = append(l.log, fmt.Sprintf("%s %v", what, at))
		}
	}()
	synctest.Wait()
}

func (l *lineup) want(t *testing.T, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if got, want := strings.Join(l.log, "; "), strings.Join(want, "; "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func inBubble(t *testing.T, o Options, f func(t *testing.T, l *lineup)) {
	synctest.Test(t, func(t *testing.T) {
		f(t, &lineup{tab: New(o), start: time.Now(), spec: Spec{Requests: 1, RequestsWindow: 10 * time.Second, Queue: time.Minute}})
	})
}

func TestOwnersTakeTurns(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, l *lineup) {
		for _, what := range []string{"a1", "a2", "a3", "a4", "b1", "b2", "c1"} {
			l.send(t.Context(), what[:1], what, l.spec)
		}
		time.Sleep(time.Hour)
		l.want(t, "a1 0s", "a2 10s", "b1 20s", "c1 30s", "a3 40s", "b2 50s", "a4 1m0s")
	})
}

func TestNobodyOvertakesWhoWaits(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, l *lineup) {
		l.spec.Concurrency = 1
		var h Hold
		if ref := l.tab.Take(one(l.tab, "q", l.spec, Split{}, 0), &h); ref.Kind != None {
			t.Fatal(ref)
		}
		time.Sleep(20 * time.Second)
		l.send(t.Context(), "a", "a", l.spec)
		h.Settle(l.tab, 0) // a has room, and has not come to take it
		var g Hold
		if ref := l.tab.Take(one(l.tab, "q", l.spec, Split{}, 0), &g); ref.Kind != Queue || ref.Patience != time.Minute {
			t.Errorf("a call came before one that waited: %+v", ref)
		}
		late := one(l.tab, "q", l.spec, Split{}, 0)
		late.Owner = "b"
		if ref := l.tab.attempt(late, &g, &waiter{owner: "b", wake: make(chan struct{}, 1)}); ref.Kind != Queue || ref.Patience != time.Minute {
			t.Errorf("one that may wait came before one that waited: %+v", ref)
		}
		synctest.Wait()
		l.want(t, "a 20s")
	})
}

func TestWaitIsBounded(t *testing.T) {
	inBubble(t, Options{Queue: 5, OwnerQueue: 3}, func(t *testing.T, l *lineup) {
		for i := range 5 {
			l.send(t.Context(), "a", fmt.Sprint("a", i), l.spec)
		}
		l.want(t, "a0 0s", "a4 queue 0s")
		short := l.spec
		short.Queue = 9 * time.Second
		l.send(t.Context(), "c", "short", short)
		l.want(t, "a0 0s", "a4 queue 0s", "short requests 0s")
		for i := range 3 {
			l.send(t.Context(), fmt.Sprint("b", i), fmt.Sprint("b", i), l.spec)
		}
		l.want(t, "a0 0s", "a4 queue 0s", "short requests 0s", "b2 queue 0s")
		time.Sleep(time.Hour)
		if n := l.tab.Rule(name("q")).Waiting(); n != 0 {
			t.Errorf("%d wait on", n)
		}
	})
}

func TestPatienceEnds(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, l *lineup) {
		l.spec.Queue = 25 * time.Second
		for i := range 6 {
			l.send(t.Context(), "a", fmt.Sprint(i), l.spec)
		}
		time.Sleep(time.Hour)
		// At 20s the fourth is the first in line, and knows that 30s is too late.
		l.want(t, "0 0s", "1 10s", "2 20s", "3 requests 20s", "4 requests 20s", "5 requests 20s")
	})
	inBubble(t, Options{}, func(t *testing.T, l *lineup) {
		busy := Spec{Concurrency: 1, Queue: 25 * time.Second}
		var h Hold
		l.tab.Take(one(l.tab, "q", busy, Split{}, 0), &h)
		l.send(t.Context(), "a", "a", busy)
		time.Sleep(5 * time.Second)
		l.send(t.Context(), "b", "b", busy)
		time.Sleep(time.Hour)
		l.want(t, "a concurrency 25s", "b concurrency 30s")
	})
}

func TestWhoLeavesMakesRoom(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, l *lineup) {
		ctx, cancel := context.WithCancel(t.Context())
		l.send(t.Context(), "a", "a1", l.spec)
		l.send(ctx, "a", "a2", l.spec)
		l.send(ctx, "b", "b1", l.spec)
		l.send(t.Context(), "b", "b2", l.spec)
		l.send(t.Context(), "c", "c1", l.spec)
		time.Sleep(5 * time.Second)
		cancel()
		synctest.Wait()
		l.mu.Lock()
		if len(l.log) != 3 || !strings.Contains(l.log[1], "gone 5s") || !strings.Contains(l.log[2], "gone 5s") {
			t.Errorf("%v", l.log)
		}
		l.log = l.log[:0]
		l.mu.Unlock()
		time.Sleep(time.Hour)
		l.want(t, "b2 10s", "c1 20s")
		if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestRejectBeatsQueue: where one rule without room lets nobody wait, a call
// does not wait for the other.
func TestRejectBeatsQueue(t *testing.T) {
	for _, first := range []string{"q", "hard"} {
		rejectBeatsQueue(t, first)
	}
}

func rejectBeatsQueue(t *testing.T, first string) {
	inBubble(t, Options{}, func(t *testing.T, l *lineup) {
		l.tab.Rule(name(first))
		call := func() *Call {
			return &Call{Claims: []Claim{
				{Rule: l.tab.Rule(name("q")), Spec: l.spec},
				{Rule: l.tab.Rule(name("hard")), Spec: Spec{Requests: 1, RequestsWindow: 5 * time.Second}},
			}}
		}
		var h Hold
		if ref, err := l.tab.Wait(t.Context(), call(), &h); ref.Kind != None || err != nil {
			t.Fatal(ref, err)
		}
		ref, err := l.tab.Wait(t.Context(), call(), &h)
		if ref.Kind != Requests || ref.Patience != 0 || ref.Wait != 5*time.Second || err != nil || time.Since(l.start) != 0 {
			t.Errorf("%+v, %v", ref, err)
		}
		time.Sleep(5 * time.Second)
		if ref, err := l.tab.Wait(t.Context(), call(), &h); ref.Kind != None || err != nil || time.Since(l.start) != 10*time.Second {
			t.Errorf("%+v, %v", ref, err)
		}
	})
}

// TestOnesOwnLimitHoldsNobodyElse: who waits for a bucket of its own does not
// stand before others at one that is shared.
func TestOnesOwnLimitHoldsNobodyElse(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, l *lineup) {
		call := func(owner string) *Call {
			return &Call{Owner: owner, Claims: []Claim{
				{Rule: l.tab.Rule(name("q")), Spec: Spec{Requests: 2, RequestsWindow: 2 * time.Second, Queue: 10 * time.Minute}},
				{Rule: l.tab.Rule(name("own")), Spec: Spec{Requests: 1, RequestsWindow: time.Minute, Queue: 10 * time.Minute}, Split: Split{Who: owner}},
			}}
		}
		var at sync.Map
		for _, owner := range []string{"a", "a", "a", "b", "c", "d"} {
			go func() {
				var h Hold
				if ref, err := l.tab.Wait(t.Context(), call(owner), &h); ref.Kind != None || err != nil {
					t.Error(ref, err)
				}
				n, _ := at.LoadOrStore(owner, new(atomic.Int64))
				n.(*atomic.Int64).Store(int64(time.Since(l.start)))
			}()
			synctest.Wait()
		}
		time.Sleep(10 * time.Second)
		for owner, want := range map[string]time.Duration{"a": 0, "b": 0, "c": time.Second, "d": 2 * time.Second} {
			n, ok := at.Load(owner)
			if !ok || time.Duration(n.(*atomic.Int64).Load()) != want {
				t.Errorf("%s: %v", owner, n)
			}
		}
		time.Sleep(time.Hour)
		if n, _ := at.Load("a"); time.Duration(n.(*atomic.Int64).Load()) != 2*time.Minute {
			t.Errorf("a: %v", n)
		}
	})
}

// TestManyWait: whatever comes, goes and gives up, the rates hold, nobody is
// forgotten and nothing stays.
func TestManyWait(t *testing.T) {
	for seed := range uint64(15) {
		inBubble(t, Options{Queue: 40, OwnerQueue: 20}, func(t *testing.T, l *lineup) {
			rng := rand.New(rand.NewPCG(seed, 4))
			s := sums{n: 20, per: int64(10 * time.Second)}
			var mu sync.Mutex
			var running, ended atomic.Int64
			const calls = 120
			for i := range calls {
				owner := fmt.Sprint(rng.IntN(5))
				life, patience := time.Duration(rng.IntN(3000))*time.Millisecond, time.Duration(1+rng.IntN(20_000))*time.Millisecond
				ctx, cancel := context.WithCancel(t.Context())
				if rng.IntN(4) == 0 {
					time.AfterFunc(time.Duration(rng.IntN(8000))*time.Millisecond, cancel)
				}
				go func() {
					defer cancel()
					defer ended.Add(1)
					var h Hold
					c := &Call{Owner: owner, Claims: []Claim{
						{Rule: l.tab.Rule(name("c")), Spec: Spec{Concurrency: 4, Queue: patience}},
						{Rule: l.tab.Rule(name("own")), Spec: Spec{Requests: 10, RequestsWindow: 5 * time.Second, Queue: patience}, Split: Split{Who: owner}},
						{Rule: l.tab.Rule(name("q")), Spec: Spec{Requests: 20, RequestsWindow: 10 * time.Second, Queue: patience}},
					}}
					began := time.Now()
					ref, err := l.tab.Wait(ctx, c, &h)
					if waited := time.Since(began); waited > patience {
						t.Errorf("waited %v of %v", waited, patience)
					}
					if ref.Kind != None || err != nil {
						return
					}
					if n := running.Add(1); n > 4 {
						t.Errorf("%d run", n)
					}
					mu.Lock()
					now := int64(time.Since(l.start))
					if !s.room(now, 1) {
						t.Errorf("call %d is more than the rate", i)
					}
					s.put(now, 1)
					mu.Unlock()
					time.Sleep(life)
					running.Add(-1)
					h.Settle(l.tab, 0)
				}()
				if rng.IntN(3) == 0 {
					time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
				}
			}
			time.Sleep(time.Hour)
			if n := ended.Load(); n != calls {
				t.Errorf("seed %d: %d of %d ended", seed, n, calls)
			}
			for _, r := range l.tab.rules {
				for _, b := range r.buckets {
					if b.open != 0 || b.queue != nil {
						t.Errorf("seed %d: %+v stays", seed, b)
					}
				}
			}
			// With room again nobody is refused because somebody might wait.
			var h Hold
			if ref := l.tab.Take(one(l.tab, "c", Spec{Concurrency: 1}, Split{}, 0), &h); ref.Kind != None {
				t.Errorf("seed %d: %+v", seed, ref)
			}
		})
	}
}
