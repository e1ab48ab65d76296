// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// workload appends until the file system stops working and returns what was
// acknowledged: the unique argument of each event.
func workload(t *testing.T, o Options) (acked []string, failed int) {
	t.Helper()
	o.Node, o.RetryDelay = testNode, time.Hour
	l, err := Open(o)
	if err != nil {
		if !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		return nil, 0
	}
	for i := range 16 {
		var evs []*event.Event
		for j := range 1 + i%3 {
			e := denial(i)
			e.Detail = fmt.Sprintf("unique-%d-%d", i, j)
			evs = append(evs, e)
		}
		if _, err := l.Append(context.Background(), evs...); err != nil {
			failed += len(evs)
			continue
		}
		for _, e := range evs {
			acked = append(acked, e.Detail)
		}
	}
	l.Close()
	return acked, failed
}

// checkImage opens what a crash left, and demands that everything acknowledged
// is there once, in order, that the log goes on, and that it verifies.
func checkImage(t *testing.T, m *memFS, acked []string, retained bool) {
	t.Helper()
	l, err := Open(Options{FS: m, Node: testNode, SegmentBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(context.Background(), denial(99)); err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, r := range readAll(t, l, Query{}) {
		e, err := event.ParseOCSF(r.Line)
		if err != nil {
			t.Fatal(err)
		}
		if retained && i == 0 { // the oldest may be gone
			for k := range acked {
				if acked[k] == e.Detail {
					i = k
				}
			}
		}
		if i < len(acked) && acked[i] == e.Detail {
			i++
		}
	}
	if i != len(acked) {
		t.Errorf("%d of %d acknowledged records are there; the next is %s", i, len(acked), acked[i])
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := verify(m, nil); err != nil || r.State != Consistent || r.Torn != 0 {
		t.Errorf("%s %v", r.String(), err)
	}
}

func TestCrashAtEveryOperation(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"segments", Options{SegmentBytes: 8 << 10}},
		{"segments and retention", Options{SegmentBytes: 8 << 10, MaxBytes: 20 << 10}},
	} {
		t.Run(c.name, func(t *testing.T) {
			clean := newMemFS()
			c.o.FS = clean
			all, _ := workload(t, c.o)
			if len(all) != 31 || clean.ops < 40 {
				t.Fatalf("%d records, %d operations", len(all), clean.ops)
			}
			for at := 1; at <= clean.ops; at++ {
				m := newMemFS()
				m.crashAt = at
				c.o.FS = m
				acked, _ := workload(t, c.o)
				for name, image := range m.images(uint64(at)) {
					t.Run(fmt.Sprintf("%d/%s", at, name), func(t *testing.T) {
						checkImage(t, image, acked, c.o.MaxBytes > 0)
					})
				}
			}
		})
	}
}

// A crash during recovery must not lose anything either.
func TestCrashDuringRecovery(t *testing.T) {
	m := newMemFS()
	m.crashAt = 25
	acked, _ := workload(t, Options{FS: m, SegmentBytes: 8 << 10})
	for seed := range uint64(2) {
		for name, broken := range m.images(seed) {
			for at := 1; at <= 10; at++ {
				again := broken.image(broken.names, func(n *inode) []byte { return n.data })
				again.crashAt = at
				more, _ := workload(t, Options{FS: again, SegmentBytes: 8 << 10})
				for last, image := range again.images(seed) {
					t.Run(fmt.Sprintf("%s/%d/%s", name, at, last), func(t *testing.T) {
						checkImage(t, image, append(acked[:len(acked):len(acked)], more...), false)
					})
				}
			}
		}
	}
}

// One failing operation anywhere: what fails is counted, a loss record says so,
// the rest is there, and the chain holds.
func TestErrorAtEveryOperation(t *testing.T) {
	for at := 1; at <= 48; at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			m := newMemFS()
			m.failAt = at
			acked, failed := workload(t, Options{FS: m, SegmentBytes: 8 << 10})
			m.failAt = 0
			var lost uint64
			l, err := Open(Options{FS: m, Node: testNode})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range readAll(t, l, Query{}) {
				e, err := event.ParseOCSF(r.Line)
				if err != nil {
					t.Fatal(err)
				}
				lost += e.Lost
			}
			l.Close()
			if lost != uint64(failed) || len(acked)+failed != 31 {
				t.Errorf("%d acknowledged, %d failed, loss records say %d", len(acked), failed, lost)
			}
			for name, image := range m.images(uint64(at)) {
				t.Run(name, func(t *testing.T) { checkImage(t, image, acked, false) })
			}
		})
	}
}

// A failed batch is cut; a crash right after that must not bring it back under
// sequences that were used again.
func TestErrorThenCrash(t *testing.T) {
	for _, size := range []int64{4 << 10, 7 << 10} { // with the second, the batch after the failed one needs a new segment
		for at := 1; at <= 16; at++ {
			for more := 1; more <= 7; more++ {
				m := newMemFS()
				m.failAt, m.crashAt = at, at+more
				acked, _ := workload(t, Options{FS: m, SegmentBytes: size})
				for name, image := range m.images(uint64(at)) {
					t.Run(fmt.Sprintf("%d/%d+%d/%s", size, at, more, name), func(t *testing.T) { checkImage(t, image, acked, false) })
				}
			}
		}
	}
}

func TestFullDisk(t *testing.T) {
	m := newMemFS()
	m.space = 16 << 10
	l := openLog(t, Options{FS: m, SegmentBytes: 1 << 20, RetryDelay: time.Millisecond})
	var ok, full int
	for i := range 30 {
		if _, err := l.Append(context.Background(), denial(i)); err == nil {
			ok++
		} else if errors.Is(err, ErrFull) {
			full++
		} else {
			t.Fatal(err)
		}
		l.Post(denial(i))
	}
	if ok == 0 || full == 0 {
		t.Fatalf("%d written, %d refused", ok, full)
	}
	waitFor(t, func() bool { return l.Stats().Waiting == 0 })
	m.mu.Lock()
	m.space = m.used() // now not even a loss record fits
	m.mu.Unlock()
	if _, err := l.Append(context.Background(), denial(0)); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if s := l.Stats(); !s.Full || s.Unsaid == 0 {
		t.Errorf("%+v", s)
	}
	dropped := l.Stats().Dropped["disk-full"]

	m.mu.Lock()
	m.space = 0
	m.mu.Unlock()
	waitFor(t, func() bool { return l.Stats().Unsaid == 0 }) // by itself, without another event
	var lost uint64
	for _, r := range readAll(t, l, Query{}) {
		if e, _ := event.ParseOCSF(r.Line); e.Kind == event.KindLoss && e.ReasonCode == "disk-full" {
			lost += e.Lost
		}
	}
	s := l.Stats()
	if lost != dropped || s.Full || s.Produced != 61 || s.Produced != s.Delivered+total(s) {
		t.Errorf("lost %d, dropped %d, %+v", lost, dropped, s)
	}
	mustAppend(t, l, denial(1))
	l.Close()
	if r, err := verify(m, nil); err != nil || r.State != Consistent {
		t.Errorf("%s %v", r.String(), err)
	}
}

// The best-effort part of a batch must not cost the strict part its place.
func TestFullDiskPrefersStrict(t *testing.T) {
	m := newMemFS()
	m.space = 12 << 10
	l := openLog(t, Options{FS: m, PostDelay: time.Hour, Queue: 1000})
	for i := range 400 {
		e := denial(i)
		e.Verdict = event.Allowed
		l.Post(e)
	}
	if _, err := l.Append(context.Background(), denial(1)); err != nil {
		t.Fatalf("the strict record was refused: %v", err)
	}
	if s := l.Stats(); s.Delivered != 1 || s.Dropped["disk-full"] != 400 {
		t.Errorf("%+v", s)
	}
}

func TestBusy(t *testing.T) {
	m := newMemFS()
	l := openLog(t, Options{FS: m, Pending: 4})
	m.mu.Lock() // the disk hangs
	results := make(chan error, 20)
	for i := range 20 {
		go func() {
			_, err := l.Append(context.Background(), denial(i))
			results <- err
		}()
	}
	waitFor(t, func() bool { return l.Stats().Produced == 20 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Append(ctx, denial(1)); !errors.Is(err, context.Canceled) && !errors.Is(err, ErrBusy) {
		t.Errorf("cancelled: %v", err)
	}
	m.mu.Unlock()
	busy := 0
	for range 20 {
		if err := <-results; errors.Is(err, ErrBusy) {
			busy++
		} else if err != nil {
			t.Error(err)
		}
	}
	l.Close()
	s := l.Stats()
	if busy == 0 || s.Dropped["busy"] < uint64(busy) || s.Produced != s.Delivered+total(s) {
		t.Errorf("%d busy, %+v", busy, s)
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for range 5000 {
		if cond() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("it did not happen")
}
