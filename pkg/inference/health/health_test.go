// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

// stage is a table with a clock that the test moves.
type stage struct {
	*Table
	mu sync.Mutex
	at time.Time
}

func newStage() *stage {
	s := &stage{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s.Table = New(func() time.Time { s.mu.Lock(); defer s.mu.Unlock(); return s.at })
	return s
}

func (s *stage) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = s.at.Add(d)
}

func (s *stage) call(t *testing.T, at Place, o Outcome) {
	t.Helper()
	p, until, ok := s.Begin(at, "a")
	if !ok {
		t.Fatalf("%v does not pass until %v", at, until)
	}
	p.Done(o, 0, "test")
}

var here = Place{"p", "m", "k"}

func TestFailuresInARowOpenAndProbesClose(t *testing.T) {
	s := newStage()
	for range InRow {
		s.call(t, here, Failed)
	}
	if _, until, ok := s.Begin(here, "a"); ok || until.Sub(s.at) != FirstPause {
		t.Fatal("it still passes, or for another time", until.Sub(s.at))
	}
	if other := (Place{"p", "n", "k"}); !s.Ready(other, "a") {
		t.Error("another model of the provider is closed with it")
	}
	s.pass(FirstPause)
	probe, _, ok := s.Begin(here, "a")
	if _, _, second := s.Begin(here, "a"); !ok || second {
		t.Fatal("half-open does not let exactly one pass")
	}
	probe.Done(Failed, 0, "again")
	if _, until, ok := s.Begin(here, "a"); ok || until.Sub(s.at) != 2*FirstPause {
		t.Fatal("the second pause is not twice the first", until.Sub(s.at))
	}
	s.pass(2 * FirstPause)
	for range ToClose {
		s.call(t, here, Succeeded)
	}
	if l, _ := s.Look(here); l.State != Closed {
		t.Errorf("%+v", l)
	}
	for range InRow - 1 {
		s.call(t, here, Failed)
	}
	if !s.Ready(here, "a") {
		t.Error("what was before it closed counts on")
	}
}

func TestHalfOfManyOpen(t *testing.T) {
	s := newStage()
	for i := range Enough {
		s.call(t, here, []Outcome{Succeeded, Failed}[i%2])
	}
	if !s.Ready(here, "a") {
		t.Fatal("half is not more than half")
	}
	s.call(t, here, Failed)
	if s.Ready(here, "a") {
		t.Error("more than half of eleven failed, and it passes")
	}
}

func TestWhatSaysNothingChangesNothing(t *testing.T) {
	s := newStage()
	for range 100 {
		s.call(t, here, Unknown)
	}
	if l, _ := s.Look(here); l.State != Closed || l.Running != 0 {
		t.Errorf("%+v", l)
	}
}

func TestARefusedKeyIsSetAsideForAllModels(t *testing.T) {
	s := newStage()
	s.call(t, here, KeyRefused)
	if other := (Place{"p", "n", "k"}); s.Ready(here, "a") || s.Ready(other, "a") {
		t.Error("the key is used on")
	}
	if other := (Place{"p", "m", "l"}); !s.Ready(other, "a") {
		t.Error("another key is set aside with it")
	}
	s.pass(KeyPause)
	s.call(t, Place{"p", "n", "k"}, Succeeded)
	if !s.Ready(here, "a") {
		t.Error("a key that was accepted again is not used")
	}
}

func TestALimitLastsAsLongAsAsked(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{0: LimitPause, 7 * time.Second: 7 * time.Second, time.Hour: LongestAsked, -time.Second: LimitPause} {
		s := newStage()
		p, _, _ := s.Begin(here, "a")
		p.Done(Limited, asked, "429")
		if _, until, ok := s.Begin(here, "a"); ok || until.Sub(s.at) != want {
			t.Errorf("asked %v: %v, %v", asked, until.Sub(s.at), ok)
		}
	}
}

// TestBreakerInvariants drives random calls and times against what must always hold.
func TestBreakerInvariants(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newStage()
		var running []*Pass
		for step := range 400 {
			at := Place{"p", []string{"m", "n"}[r.IntN(2)], []string{"k", "l"}[r.IntN(2)]}
			switch r.IntN(4) {
			case 0, 1:
				ready := s.Ready(at, "a")
				p, until, ok := s.Begin(at, "a")
				if ok != ready {
					t.Fatalf("seed %d step %d: ready %v, begin %v", seed, step, ready, ok)
				}
				if !ok && (!until.After(s.at) || until.Sub(s.at) > LongestAsked) {
					t.Fatalf("seed %d step %d: closed until %v", seed, step, until.Sub(s.at))
				}
				if ok {
					running = append(running, p)
				}
			case 2:
				if n := len(running); n > 0 {
					i := r.IntN(n)
					running[i].Done(Outcome(r.IntN(5)), time.Duration(r.IntN(900))*time.Second, "")
					running = append(running[:i], running[i+1:]...)
				}
			default:
				s.pass(time.Duration(r.IntN(20)-1) * time.Second) // backwards, too
			}
			total := 0
			for _, l := range s.All() {
				total += l.Running
			}
			if total != len(running) {
				t.Fatalf("seed %d step %d: %d run, %d counted", seed, step, len(running), total)
			}
		}
		for _, p := range running {
			p.Done(Unknown, 0, "")
		}
		s.pass(LongestAsked)
		for range 3 { // whatever was: with time and success everything is closed again
			for _, m := range []string{"m", "n"} {
				for _, k := range []string{"k", "l"} {
					s.call(t, Place{"p", m, k}, Succeeded)
				}
			}
		}
		for _, l := range s.All() {
			if l.State != Closed {
				t.Fatalf("seed %d: %+v", seed, l)
			}
		}
	}
}

func TestManyNamesAreBounded(t *testing.T) {
	s := newStage()
	s.call(t, here, KeyRefused)
	for i := range 3 * maxPlaces {
		s.pass(time.Millisecond)
		s.call(t, Place{"q", fmt.Sprint(i), "k"}, Succeeded)
	}
	if n := len(s.All()); n > maxPlaces {
		t.Errorf("%d places", n)
	}
	if s.Ready(here, "a") {
		t.Error("a key that was set aside was forgotten for names that an agent made up")
	}
}

func TestRetriesAreAShareOfTheCalls(t *testing.T) {
	var r Retries
	granted := 0
	for range 100 {
		if r.Extra("p", "") {
			granted++
		}
	}
	if granted != retryMost {
		t.Errorf("%d at once", granted)
	}
	for range 100 {
		r.First("p", "")
		if r.Extra("p", "") {
			granted++
		}
	}
	if granted < 28 || granted > 30 {
		t.Errorf("%d in all", granted)
	}
	if !r.Extra("q", "") {
		t.Error("another provider has none")
	}
}

// What one agent makes fail is set aside for that agent, and for everybody once it
// fails for a second one.
func TestFailuresOfOneCallerAreItsOwn(t *testing.T) {
	s := newStage()
	for range InRow {
		s.call(t, here, Failed)
	}
	if _, _, ok := s.Begin(here, "a"); ok || s.Ready(here, "a") {
		t.Fatal("the one whose calls failed passes on")
	}
	b, _, ok := s.Begin(here, "b")
	if !ok || !s.Ready(here, "b") {
		t.Fatal("another one does not pass")
	}
	b.Done(Succeeded, 0, "")
	if l, _ := s.Look(here); l.State != Open {
		t.Errorf("a success of somebody else closed it: %+v", l)
	}
	b, _, _ = s.Begin(here, "b")
	b.Done(Failed, 0, "it fails for b, too")
	for _, who := range []string{"a", "b", "c"} {
		if _, _, ok := s.Begin(here, who); ok {
			t.Errorf("%s passes", who)
		}
	}
	s.pass(LongestAsked + time.Second)
	for range ToClose {
		s.call(t, here, Succeeded)
	}
	if !s.Ready(here, "c") {
		t.Error("it stays closed to others")
	}
}

func TestOneAgentDoesNotUseUpTheRetriesOfAll(t *testing.T) {
	var r Retries
	n := 0
	for range 100 {
		if r.Extra("p", "a") {
			n++
		}
	}
	if n != retryOwn || !r.Extra("p", "b") {
		t.Errorf("%d, and nothing is left for another", n)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		h    map[string]string
		want time.Duration
	}{
		{nil, 0},
		{map[string]string{"Retry-After": "7"}, 7 * time.Second},
		{map[string]string{"Retry-After": "1.5"}, 1500 * time.Millisecond},
		{map[string]string{"Retry-After": "Fri, 02 Jan 2026 03:05:05 GMT"}, time.Minute},
		{map[string]string{"Retry-After": "Fri, 02 Jan 2026 03:03:05 GMT"}, 0},
		{map[string]string{"Retry-After": "soon", "Retry-After-Ms": "250"}, 250 * time.Millisecond},
		{map[string]string{"X-Ms-Retry-After-Ms": "90"}, 90 * time.Millisecond},
		{map[string]string{"Retry-After": "-3"}, 0},
		{map[string]string{"Retry-After": "NaN"}, 0},
		{map[string]string{"Retry-After": "1e300"}, 0},
		{map[string]string{"X-Ratelimit-Reset": "12"}, 12 * time.Second},
		{map[string]string{"X-Ratelimit-Reset": "1767323055"}, 10 * time.Second},
		{map[string]string{"X-Ratelimit-Reset-Requests": "6m0s", "X-Ratelimit-Reset-Tokens": "120ms"}, 120 * time.Millisecond},
		{map[string]string{"Anthropic-Ratelimit-Requests-Reset": "2026-01-02T03:04:35Z"}, 30 * time.Second},
		{map[string]string{"Retry-After": "2", "X-Ratelimit-Reset": "900"}, 2 * time.Second},
	} {
		h := http.Header{}
		for k, v := range c.h {
			h.Set(k, v)
		}
		if got := RetryAfter(h, now); got != c.want {
			t.Errorf("%v: %v, want %v", c.h, got, c.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, v := range []string{"7", "1.5", "6m0s", "Fri, 02 Jan 2026 03:05:05 GMT", "1767323055", "2026-01-02T03:04:35Z"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		for _, row := range waitHeaders {
			h := http.Header{}
			h[row.names[0]] = []string{v}
			if d := RetryAfter(h, time.Unix(1767323045, 0)); d < 0 {
				t.Errorf("%s: %s: %v", row.names[0], v, d)
			}
		}
	})
}

func TestAProbeThatNeverEndsKeepsNobodyAway(t *testing.T) {
	for _, o := range []Outcome{Limited, KeyRefused} {
		s := newStage()
		s.call(t, here, o)
		s.pass(LongestAsked)
		held, _, ok := s.Begin(here, "a")
		if _, _, second := s.Begin(here, "a"); !ok || second {
			t.Fatal("half-open does not let exactly one pass")
		}
		s.pass(ProbeTime)
		if !s.Ready(here, "a") {
			t.Error("a call that is never over keeps others away")
		}
		s.call(t, here, Succeeded)
		s.call(t, here, Succeeded)
		held.Done(Unknown, 0, "")
		if l, _ := s.Look(here); l.State != Closed {
			t.Errorf("%+v", l)
		}
	}
}
