// SPDX-License-Identifier: Apache-2.0

package costs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/store"
)

// memLog is an event log in memory: records from first on, those without a line
// are no calls.
type memLog struct {
	mu      sync.Mutex
	chain   string
	first   uint64
	lines   [][]byte
	changed chan struct{}
}

func newMemLog(chain string) *memLog {
	return &memLog{chain: chain, first: 1, changed: make(chan struct{})}
}

func (l *memLog) Chain() string { return l.chain }

func (l *memLog) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first + uint64(len(l.lines)) - 1
}

func (l *memLog) add(lines ...[]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, lines...)
	close(l.changed)
	l.changed = make(chan struct{})
}

// cut removes the oldest records.
func (l *memLog) cut(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first, l.lines = l.first+uint64(n), l.lines[n:]
}

func (l *memLog) Calls(ctx context.Context, from uint64, other func(uint64)) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for next := from; ; {
			l.mu.Lock()
			next = max(next, l.first)
			var line []byte
			more, changed := next < l.first+uint64(len(l.lines)), l.changed
			if more {
				line = l.lines[next-l.first]
			}
			l.mu.Unlock()
			switch {
			case !more:
				select {
				case <-changed:
				case <-ctx.Done():
					yield(Record{}, ctx.Err())
					return
				}
				continue
			case line == nil:
				other(next)
			case !yield(Record{next, line}, nil):
				return
			}
			next++
		}
	}
}

// memStore is a store that fails as it is told.
type memStore struct {
	mu     sync.Mutex
	cursor store.CostCursor
	rows   map[store.CostKey]store.CostSums
	fault  func() fault
	landed chan struct{} // told of each transaction
	dead   bool
}

type fault uint8

const (
	fine      fault = iota
	nothing         // an error, and nothing changed
	unsure          // an error, and everything changed
	dieBefore       // the process ends before the transaction
	dieAfter        // and after it
)

var errDisk = errors.New("the disk")

func newMemStore() *memStore {
	return &memStore{rows: map[store.CostKey]store.CostSums{}, fault: func() fault { return fine }, landed: make(chan struct{}, 1)}
}

func (s *memStore) CostCursor(context.Context) (store.CostCursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return store.CostCursor{}, errDisk
	}
	return s.cursor, nil
}

func (s *memStore) AddCosts(_ context.Context, from, to store.CostCursor, rows []store.Cost) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fault()
	s.dead = s.dead || f == dieBefore
	if s.dead || f == nothing {
		return errDisk
	}
	if s.cursor != from {
		return store.ErrConflict
	}
	s.cursor = to
	for _, r := range rows {
		sums := s.rows[r.CostKey]
		sums.Add(&r.CostSums)
		s.rows[r.CostKey] = sums
	}
	select {
	case s.landed <- struct{}{}:
	default:
	}
	s.dead = s.dead || f == dieAfter
	if f == dieAfter || f == unsure {
		return errDisk
	}
	return nil
}

// upTo waits until the place in the store has come so far, or the store is dead.
func (s *memStore) upTo(t *testing.T, sequence uint64) {
	t.Helper()
	s.until(t, func() bool { return s.cursor.Sequence >= sequence })
}

func (s *memStore) until(t *testing.T, is func() bool) {
	t.Helper()
	for range 20000 {
		s.mu.Lock()
		done := s.dead || is()
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-s.landed:
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatal("it never came to that")
}

func line(t testing.TB, ev event.Event) []byte {
	t.Helper()
	b, err := ev.AppendOCSF(nil, event.Node{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func call(agent, model string, nano uint64, at time.Time) event.Event {
	return event.Event{Kind: event.KindInference, Verdict: event.Allowed, Time: at, Scope: "org:acme/team:red/agent:" + agent + "/sandbox:s1", Provider: "p",
		Model: "alias", ModelServed: model, Status: 200, TokensIn: 10, TokensOut: 3, TokensReasoning: 1, Cost: nano, Price: event.PriceKnown}
}

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// run starts a ledger, and gives what stops it.
func run(s Store, l Log, told *[]string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	led := New(Options{Store: s, Log: l, Every: time.Millisecond, Tell: func(failing bool, text string) {
		if told != nil {
			*told = append(*told, fmt.Sprint(failing, " ", text))
		}
	}})
	done := make(chan struct{})
	go func() { defer close(done); led.Run(ctx) }()
	return func() { cancel(); <-done }
}

func TestWhichCallsCount(t *testing.T) {
	denied := call("a", "m", 1, noon)
	denied.Verdict = event.Denied
	failed := call("a", "m", 0, noon)
	failed.Failed, failed.Price, failed.TokensIn, failed.TokensOut, failed.TokensReasoning = true, "", 0, 0, 0
	unknown := call("a", "m", 0, noon)
	unknown.Price = event.PriceUnknown
	partial := call("a", "m", 5, noon)
	partial.Price, partial.Estimated = event.PricePartial, true
	other := call("a", "m", 1, noon)
	other.Kind = event.KindHTTP
	odd := call("a", "", 2, noon.Add(12*time.Hour))
	odd.Scope = "nonsense"
	l := newMemLog("c")
	l.add(line(t, call("a", "m", 7, noon)), nil, line(t, denied), line(t, failed), line(t, unknown), line(t, partial), line(t, other), []byte("{}"), line(t, odd))
	s := newMemStore()
	stop := run(s, l, nil)
	s.upTo(t, 9)
	stop()
	want := map[store.CostKey]store.CostSums{
		{Day: "2026-11-30", Org: "acme", Team: "red", Agent: "a", Provider: "p", Model: "m"}: {Calls: 4, Failed: 1, Estimated: 1, Unpriced: 2, Nano: 12, TokensIn: 30, TokensOut: 9, Reasoning: 3},
		{Day: "2026-12-01", Provider: "p", Model: "alias"}:                                   {Calls: 1, Nano: 2, TokensIn: 10, TokensOut: 3, Reasoning: 1},
	}
	if !reflect.DeepEqual(s.rows, want) || s.cursor != (store.CostCursor{Chain: "c", Sequence: 9, Missed: 1}) {
		t.Errorf("%+v\n%+v", s.rows, s.cursor)
	}
}

func TestWhatWasRemovedFromTheLogIsMissed(t *testing.T) {
	l, s := newMemLog("c"), newMemStore()
	l.add(line(t, call("a", "m", 1, noon)), nil)
	stop := run(s, l, nil)
	s.upTo(t, 1)
	stop()
	if s.cursor.Sequence != 2 {
		t.Fatalf("the place is written at the end, also after records without a call: %+v", s.cursor)
	}
	l.add(line(t, call("a", "m", 1, noon)), nil, nil, line(t, call("a", "m", 10, noon)))
	l.cut(4)
	stop = run(s, l, nil)
	s.upTo(t, 6)
	stop()
	if s.cursor.Missed != 2 || sum(s.rows) != 11 {
		t.Errorf("%+v %d", s.cursor, sum(s.rows))
	}
}

func TestAnotherLogIsCountedFromItsBeginningAndOneThatWasPutBackFromItsEnd(t *testing.T) {
	s := newMemStore()
	s.cursor = store.CostCursor{Chain: "old", Sequence: 100}
	l := newMemLog("new")
	l.add(line(t, call("a", "m", 1, noon)), line(t, call("a", "m", 2, noon)))
	stop := run(s, l, nil)
	s.until(t, func() bool { return sum(s.rows) == 3 })
	stop()
	if s.cursor != (store.CostCursor{Chain: "new", Sequence: 2}) {
		t.Errorf("%+v", s.cursor)
	}
	s.cursor.Sequence = 50
	stop = run(s, l, nil)
	s.until(t, func() bool { return s.cursor.Sequence == 2 })
	l.add(line(t, call("a", "m", 4, noon)))
	s.until(t, func() bool { return sum(s.rows) == 7 })
	stop()
	if s.cursor.Sequence != 3 || sum(s.rows) != 7 {
		t.Errorf("%+v %d", s.cursor, sum(s.rows))
	}
}

func sum(rows map[store.CostKey]store.CostSums) (n uint64) {
	for _, r := range rows {
		n += r.Nano
	}
	return n
}

func TestFailureIsToldOnceAndItsEnd(t *testing.T) {
	l, s := newMemLog("c"), newMemStore()
	n := 0
	s.fault = func() fault {
		if n++; n < 4 {
			return nothing
		}
		return fine
	}
	var told []string
	stop := run(s, l, &told)
	l.add(line(t, call("a", "m", 1, noon)))
	s.upTo(t, 1)
	stop()
	if len(told) != 2 || !strings.HasPrefix(told[0], "true") || !strings.HasPrefix(told[1], "false") || sum(s.rows) != 1 {
		t.Errorf("%q %d", told, sum(s.rows))
	}
}

func TestAnErrorOfWhatLandedAllTheSameHoldsNothingUp(t *testing.T) {
	l, s := newMemLog("c"), newMemStore()
	first := true
	s.fault = func() fault {
		if first {
			first = false
			return unsure
		}
		return fine
	}
	stop := run(s, l, nil)
	l.add(line(t, call("a", "m", 1, noon)))
	s.upTo(t, 1)
	l.add(line(t, call("a", "m", 2, noon)))
	s.upTo(t, 2)
	stop()
	if sum(s.rows) != 3 {
		t.Error(sum(s.rows))
	}
}

func TestManyRowsWaitForRoom(t *testing.T) {
	l, s := newMemLog("c"), newMemStore()
	for i := range 3*maxRows + 5 {
		l.add(line(t, call("a", fmt.Sprint("m", i), 1, noon)))
	}
	stop := run(s, l, nil)
	s.upTo(t, 3*maxRows+5)
	stop()
	if sum(s.rows) != 3*maxRows+5 || len(s.rows) != 3*maxRows+5 {
		t.Error(sum(s.rows), len(s.rows))
	}
}

// Whatever the store does, and whenever the process ends: each call is in the sums
// once.
func TestNothingTwiceNothingLost(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if seedFlag != 0 {
		seed = seedFlag
	}
	t.Logf("seed %d", seed)
	for round := range uint64(60) {
		rng, rng2 := rand.New(rand.NewPCG(seed, round)), rand.New(rand.NewPCG(seed, round+1000))
		l, s := newMemLog("c"), newMemStore()
		s.fault = func() fault { // called with the lock of the store held
			if f := fault(rng2.IntN(8)); f <= dieAfter {
				return f
			}
			return fine
		}
		want := map[store.CostKey]store.CostSums{}
		for range 6 { // lives of the process
			s.mu.Lock()
			s.dead = false
			s.mu.Unlock()
			stop := run(s, l, nil)
			for range rng.IntN(30) {
				if rng.IntN(3) == 0 {
					l.add(nil)
					continue
				}
				ev := call(fmt.Sprint("a", rng.IntN(3)), fmt.Sprint("m", rng.IntN(3)), uint64(rng.IntN(1000)), noon.Add(time.Duration(rng.IntN(72))*time.Hour))
				k, one := Of(&ev)
				all := want[k]
				all.Add(&one)
				want[k] = all
				l.add(line(t, ev))
			}
			if rng.IntN(2) == 0 {
				s.upTo(t, uint64(rng.IntN(int(l.Last())+1))/2)
			}
			stop()
		}
		s.mu.Lock()
		s.dead, s.fault = false, func() fault { return fine }
		s.mu.Unlock()
		stop := run(s, l, nil)
		if n := lastCall(l); n > 0 {
			s.upTo(t, n)
		}
		stop()
		if !reflect.DeepEqual(s.rows, want) || s.cursor.Missed != 0 {
			t.Fatalf("round %d of seed %d: %+v\nwant %+v\n%+v", round, seed, s.rows, want, s.cursor)
		}
	}
}

// seedFlag replays a run of the test above.
var seedFlag uint64

// lastCall is the sequence of the last record that is a call.
func lastCall(l *memLog) (n uint64) {
	for i, b := range l.lines {
		if b != nil {
			n = l.first + uint64(i)
		}
	}
	return n
}
