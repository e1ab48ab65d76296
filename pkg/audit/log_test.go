// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

var testNode = event.Node{UID: "node-1", Hostname: "node.test", Version: "0.0.1"}

func openLog(t *testing.T, o Options) *Log {
	t.Helper()
	if o.Dir == "" && o.FS == nil {
		o.Dir = t.TempDir()
	}
	o.Node = testNode
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func denial(n int) *event.Event {
	return &event.Event{
		Kind: event.KindNetwork, Verdict: event.Denied, Time: time.Now(), Source: "kernel", Activity: "connect", Sandbox: "sb-1",
		Scope: "org:acme/team:red/agent:bot", Proto: "tcp", DstAddr: fmt.Sprintf("192.0.2.%d:443", n%250), Reason: "no rule allows it",
		ReasonCode: "no-rule", Layer: "kernel", PID: uint32(1000 + n), Comm: "curl",
	}
}

func mustAppend(t *testing.T, l *Log, evs ...*event.Event) uint64 {
	t.Helper()
	seq, err := l.Append(context.Background(), evs...)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func readAll(t *testing.T, l *Log, q Query) []Record {
	t.Helper()
	var out []Record
	for r, err := range l.Read(context.Background(), q) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func mustVerify(t *testing.T, dir string) Report {
	t.Helper()
	r, err := Verify(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r.State != Consistent {
		t.Fatalf("the log is not consistent: %s", r.String())
	}
	return r
}

func TestAppendReadGet(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir})
	a, b := denial(1), denial(2)
	if seq := mustAppend(t, l, a, b); seq != 1 {
		t.Fatalf("first sequence %d", seq)
	}
	if a.Sequence != 1 || b.Sequence != 2 || a.ID != l.Chain()+"-1" || a.Logged.IsZero() {
		t.Fatalf("not set on the event: %d %d %q", a.Sequence, b.Sequence, a.ID)
	}
	line, err := l.Get(b.ID)
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.ParseOCSF(line)
	if err != nil || e.ID != b.ID || e.DstAddr != b.DstAddr {
		t.Fatalf("got %+v, %v", e, err)
	}
	if line2, err := l.Get("2"); err != nil || string(line2) != string(line) {
		t.Fatalf("by sequence: %v", err)
	}
	for _, id := range []string{"", "x", "0", "3", l.Chain() + "-3", "0123456789abcdef-1", l.Chain() + "-x"} {
		if _, err := l.Get(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get(%q): %v", id, err)
		}
	}
	if _, err := l.Append(context.Background(), &event.Event{}); !errors.Is(err, event.ErrKind) {
		t.Errorf("invalid kind: %v", err)
	}
	if r := mustVerify(t, dir); r.Records != 2 || r.Head != l.Head() {
		t.Errorf("report %+v", r)
	}
}

func TestReadFilters(t *testing.T) {
	l := openLog(t, Options{SegmentBytes: 4 << 10})
	base := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for i := range 40 {
		e := denial(i)
		e.Time = base.Add(time.Duration(i) * time.Minute)
		if i%2 == 1 {
			e.Verdict = event.Allowed
		}
		if i%4 >= 2 {
			e.Sandbox, e.Scope = "sb-2", `org:acme/team:redder/agent:b"ot`
		}
		mustAppend(t, l, e)
	}
	mustAppend(t, l, &event.Event{Kind: event.KindDaemon, Time: base, Activity: "start", Source: "keeper"})
	for _, c := range []struct {
		name string
		q    Query
		want int
	}{
		{"all", Query{}, 41},
		{"denied: a daemon start with the zero verdict is no denial", Query{DeniedOnly: true}, 20},
		{"sandbox", Query{Sandbox: "sb-2"}, 20},
		{"sandbox and denied", Query{Sandbox: "sb-2", DeniedOnly: true}, 10},
		{"whole scope", Query{Scope: "org:acme"}, 40},
		{"scope is cut at segments", Query{Scope: "org:acme/team:red"}, 20},
		{"scope with a quote", Query{Scope: `org:acme/team:redder/agent:b"ot`}, 20},
		{"since", Query{Since: base.Add(30 * time.Minute)}, 10},
		{"from", Query{FromSeq: 36}, 6},
		{"from beyond", Query{FromSeq: 99}, 0},
		{"match", Query{Match: func(h *event.Header) bool { return h.Sequence%10 == 0 }}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := len(readAll(t, l, c.q)); got != c.want {
				t.Errorf("%d records, want %d", got, c.want)
			}
		})
	}
	if s := l.Stats(); s.Segments < 3 {
		t.Fatalf("only %d segments: the test does not cross segments", s.Segments)
	}
	n := 0
	for range l.Read(context.Background(), Query{}) {
		if n++; n == 3 {
			break
		}
	}
}

func TestSinceSkipsOldSegmentsOnly(t *testing.T) {
	now := time.Now().Add(-10 * time.Hour)
	l := openLog(t, Options{SegmentBytes: 2 << 10, Now: func() time.Time { now = now.Add(time.Minute); return now }})
	for i := range 60 {
		e := denial(i)
		e.Time = time.Time{}
		mustAppend(t, l, e)
	}
	all := readAll(t, l, Query{})
	for _, i := range []int{0, 1, 30, 58, 59} {
		h, err := event.PeekOCSF(all[i].Line)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(readAll(t, l, Query{Since: h.Time})); got != len(all)-i {
			t.Errorf("since record %d: %d records, want %d", i+1, got, len(all)-i)
		}
	}
}

func TestFollow(t *testing.T) {
	l := openLog(t, Options{SegmentBytes: 4 << 10})
	mustAppend(t, l, denial(0))
	got := make(chan uint64, 200)
	ended := make(chan error, 1)
	go func() {
		var last error
		for r, err := range l.Read(context.Background(), Query{Follow: true}) {
			if err != nil {
				last = err
				break
			}
			got <- r.Seq
		}
		ended <- last
	}()
	for i := range 99 {
		mustAppend(t, l, denial(i))
	}
	for i := range 100 {
		if seq := <-got; seq != uint64(i+1) {
			t.Fatalf("record %d came as number %d", seq, i+1)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var err error
	for _, err = range l.Read(ctx, Query{Follow: true, FromSeq: 1000}) {
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled reader: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("a reader that follows must end with the log: %v", err)
	}
}

func TestReopenContinuesTheChain(t *testing.T) {
	dir := t.TempDir()
	var chain string
	for round := range 4 {
		l := openLog(t, Options{Dir: dir, SegmentBytes: 3 << 10})
		if round > 0 && l.Chain() != chain {
			t.Fatal("a new chain was started")
		}
		chain = l.Chain()
		for i := range 5 {
			if seq := mustAppend(t, l, denial(i)); seq != uint64(round*5+i+1) {
				t.Fatalf("sequence %d", seq)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if r := mustVerify(t, dir); r.Records != 20 {
		t.Fatalf("%+v", r)
	}
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir})
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second writer: %v", err)
	}
	l.Close()
	l2, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	l2.Close()
	if _, err := l2.Append(context.Background(), denial(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	l2.Post(denial(1))
	if s := l2.Stats(); s.Dropped["closed"] != 2 || s.Produced != 2 {
		t.Errorf("%+v", s)
	}
}

func TestGroupCommitSharesSyncs(t *testing.T) {
	l := openLog(t, Options{})
	const workers, each = 16, 50
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range each {
				if _, err := l.Append(context.Background(), denial(i), denial(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s := l.Stats()
	if s.Delivered != workers*each*2 || s.Last != s.Delivered {
		t.Fatalf("%+v", s)
	}
	if s.Commits >= workers*each {
		t.Errorf("%d commits for %d appends: nothing was shared", s.Commits, workers*each)
	}
}

// Conservation: produced = delivered + dropped, under load, with a queue that
// overflows, and the loss records on disk add up to what was dropped.
func TestConservationUnderLoad(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir, Queue: 64, SegmentBytes: 256 << 10})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 1500 {
				e := denial(i)
				if i%2 == 0 {
					e.Verdict = event.Allowed
				}
				l.Post(e)
			}
		})
		wg.Go(func() {
			for i := range 40 {
				if _, err := l.Append(context.Background(), denial(w*i)); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				s := l.Stats()
				if sum := s.Delivered + s.Waiting + total(s); sum != s.Produced {
					t.Errorf("produced %d, accounted %d", s.Produced, sum)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := l.Stats()
	if s.Produced != 4*1540 || s.Produced != s.Delivered+total(s) || s.Waiting != 0 || s.Unsaid != 0 {
		t.Fatalf("%+v", s)
	}
	if s.Dropped["queue-full"] == 0 {
		t.Fatal("nothing was dropped: the test shows nothing")
	}
	mustVerify(t, dir)
	l = openLog(t, Options{Dir: dir})
	var delivered, lost uint64
	for _, r := range readAll(t, l, Query{}) {
		e, err := event.ParseOCSF(r.Line)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == event.KindLoss {
			lost += e.Lost
		} else {
			delivered++
		}
	}
	if delivered != s.Delivered || lost != total(s) {
		t.Errorf("on disk %d delivered and %d lost, counted %d and %d", delivered, lost, s.Delivered, total(s))
	}
}

func total(s Stats) (n uint64) {
	for _, v := range s.Dropped {
		n += v
	}
	return n
}

func TestRetentionIsAccountedFor(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir, SegmentBytes: 8 << 10, MaxBytes: 32 << 10})
	for i := range 90 {
		mustAppend(t, l, denial(i))
	}
	early := l.Head()
	for i := range 3 {
		mustAppend(t, l, denial(i))
	}
	l.Close()
	s := l.Stats()
	if s.First <= 1 || s.Bytes > 48<<10 {
		t.Fatalf("nothing was removed: %+v", s)
	}
	r := mustVerify(t, dir)
	if r.Removed != r.First-1 || r.First != s.First {
		t.Errorf("removed %d, first %d", r.Removed, r.First)
	}
	if a, err := VerifyAgainst(dir, early); err != nil || a.Anchored != early.Sequence || a.State != Consistent {
		t.Errorf("anchor: %v %v", a.String(), err)
	}
	if a, _ := VerifyAgainst(dir, Head{Chain: early.Chain, Sequence: 1}); a.State != Incomplete || !strings.Contains(a.Bad.Why, "retention") {
		t.Errorf("anchor before what is kept: %s", a.String())
	}
	l = openLog(t, Options{Dir: dir, SegmentBytes: 8 << 10, MaxBytes: 32 << 10})
	if got := readAll(t, l, Query{}); got[0].Seq != s.First {
		t.Errorf("first record read is %d", got[0].Seq)
	}
}
