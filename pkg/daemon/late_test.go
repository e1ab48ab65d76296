// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

func TestDenialsOfASandboxThatHasJustEnded(t *testing.T) {
	const gone = 1 << 30 // above every pid_max
	end := time.Now()
	var l lateInits
	l.ended(gone, "0000002a", end)
	l.ended(os.Getpid(), "0000002b", end)
	for _, c := range []struct {
		name string
		pid  int
		at   time.Time
		want string
		lost bool
	}{
		{"before the end", gone, end.Add(-time.Second), "0000002a", false},
		{"at the end", gone, end, "0000002a", false},
		{"the number was given to another process", os.Getpid(), end.Add(time.Second), "", false},
		{"long before: an earlier process of this number", gone, end.Add(-time.Hour), "", true},
		{"a domain that the reader does not know", 0, end, "", true},
		{"a program below init that is gone", gone + 1, end, "", true},
		{"a program of the machine", os.Getppid(), end, "", false},
	} {
		if got, lost := l.find(&event.Event{PID: uint32(c.pid), Time: c.at}); got != c.want || lost != c.lost {
			t.Errorf("%s: %q, %v", c.name, got, lost)
		}
	}
	l.ended(gone+2, "0000002c", end.Add(2*lateFor))
	if len(l.of) != 1 {
		t.Errorf("%d are kept", len(l.of))
	}
}

func TestLostDenialsAreToldTogether(t *testing.T) {
	var l lostDenials
	var told []uint64
	post := func(e *event.Event) {
		if e.Kind != event.KindLoss || e.Source != "keeper" {
			t.Errorf("%+v", e)
		}
		told = append(told, e.Lost)
	}
	now := time.Now()
	for i := range 10 {
		l.add(now.Add(time.Duration(i)*time.Second), 2, post)
	}
	l.add(now.Add(lostEvery), 1, post)
	l.add(now.Add(lostEvery), 1, post)
	l.flush(now, post)
	l.flush(now, post)
	if len(told) != 3 || told[0] != 2 || told[1] != 19 || told[2] != 1 {
		t.Errorf("%v", told)
	}
}
