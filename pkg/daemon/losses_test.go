// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
)

// told is a log of gap events.
type told struct {
	events []string
	err    error
}

func (l *told) append(e *event.Event) error {
	if l.err != nil {
		return l.err
	}
	if _, err := e.AppendOCSF(nil, event.Node{UID: "n"}); err != nil || e.Kind != event.KindLoss {
		return fmt.Errorf("%+v: %w", e, err)
	}
	l.events = append(l.events, fmt.Sprintf("%s %s %d", e.Object, e.ReasonCode, e.Lost))
	return nil
}

func (l *told) take(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(l.events, want) {
		t.Errorf("told %q, want %q", l.events, want)
	}
	l.events = nil
}

func rings(kept, full, throttled uint64) []kernel.RingCounters {
	return []kernel.RingCounters{{Ring: kernel.RingDenials, Kept: kept, Full: full, Throttled: throttled}, {Ring: kernel.RingFlows}}
}

func TestEachLossIsToldOnce(t *testing.T) {
	log, path := &told{}, filepath.Join(t.TempDir(), lossFile)
	open := func() *losses { return openLosses(path, slog.New(slog.DiscardHandler), log.append) }
	const one, two = 7, 8
	tell := func(l *losses, number uint32, r []kernel.RingCounters) error {
		_, err := l.tell(number, func() *event.Event { return &event.Event{Kind: event.KindLoss, Time: time.Now(), Source: "kernel"} }, r)
		return err
	}
	check := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	}
	l := open()
	check(tell(l, one, rings(5, 0, 0)))
	log.take(t)
	check(tell(l, one, rings(5, 7, 3)), tell(l, one, rings(6, 7, 3)), tell(l, two, rings(6, 1, 0)), l.save())
	log.take(t, "denials ring full 7", "denials ring throttled 3", "denials ring full 1")
	l = open() // a restart
	check(tell(l, one, rings(6, 7, 3)))
	log.take(t)
	check(tell(l, one, rings(6, 9, 3)))
	log.take(t, "denials ring full 2")

	log.err = errors.New("the disk is full")
	if err := tell(l, one, rings(6, 20, 3)); !errors.Is(err, log.err) {
		t.Error(err)
	}
	log.err = nil
	check(tell(l, one, rings(6, 20, 3)), l.save())
	log.take(t, "denials ring full 11") // not lost because the log could not take it
	l.forget(two)                       // it ended, and what it lost stays told

	check(l.leave(2, rings(100, 23, 3))) // their last word: two more than were told
	log.take(t, "denials ring full 2")
	l = open()
	check(tell(l, one, rings(1, 1, 0))) // the counters of the next layout
	log.take(t, "denials ring full 1")

	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(tell(open(), one, rings(1, 1, 0)))
	log.take(t, "denials ring full 1") // twice rather than never
}

// What a killed daemon had taken from the rings and nobody knows to be in the
// log.
func TestRecordsOfAKilledDaemon(t *testing.T) {
	for name, tt := range map[string]struct {
		known              bool
		taken, kept, found uint64
		want               []string
	}{
		"everything was written":               {true, 100, 100, 0, nil},
		"the rest is in the rings":             {true, 100, 130, 30, nil},
		"some are neither":                     {true, 100, 130, 10, []string{"keeper keeper-killed 20"}},
		"nothing was noted by the one before":  {false, 0, 130, 10, nil},
		"killed before it noted anything":      {true, 0, 130, 10, []string{"keeper keeper-killed 120"}},
		"more than was kept, by another clock": {true, 100, 90, 10, nil},
	} {
		log := &told{}
		l := openUnwritten(filepath.Join(t.TempDir(), takenFile), slog.New(slog.DiscardHandler), log.append)
		l.known, l.note.Taken = tt.known, tt.taken
		for range 2 {
			if err := l.tell(tt.kept, tt.found); err != nil {
				t.Error(err)
			}
		}
		if !slices.Equal(log.events, tt.want) {
			t.Errorf("%s: told %q, want %q", name, log.events, tt.want)
		}
	}
}

// A record counts as written when it had time to be.
func TestWhatIsSettled(t *testing.T) {
	l := openUnwritten(filepath.Join(t.TempDir(), takenFile), slog.New(slog.DiscardHandler), nil)
	now := time.Now()
	for _, step := range []struct {
		after       time.Duration
		taken, want uint64
	}{
		{0, 10, 0}, {5 * time.Second, 20, 0}, {5 * time.Second, 30, 10}, {5 * time.Second, 40, 20}, {time.Hour, 50, 40}, {time.Second, 60, 40}, {settleTime, 60, 60},
	} {
		now = now.Add(step.after)
		l.note.Taken = l.settled(now, step.taken)
		if l.note.Taken != step.want {
			t.Errorf("after %s more, %d were taken and %d are settled, not %d", step.after, step.taken, l.note.Taken, step.want)
		}
	}
}
