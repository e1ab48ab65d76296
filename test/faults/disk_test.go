// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// smallState puts the state directory on a file system of its own.
func smallState(t *testing.T, n *node.Node, size string) {
	t.Helper()
	if err := os.MkdirAll(n.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", n.StateDir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Fatal(err)
	}
	// Runs before the harness looks for what is left: it must stop the daemon
	// first.
	t.Cleanup(func() {
		n.StopDaemon(t, syscall.SIGINT)
		if err := unix.Unmount(n.StateDir, 0); err != nil {
			t.Error(err)
		}
		n.StartDaemon(t) // the harness stops one
	})
}

// fill takes all space that is left, to the last byte.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil && !errors.Is(err, io.ErrShortWrite) {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	}
}

// ids are the records that the log has acknowledged so far.
func ids(t *testing.T, n *node.Node) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, e := range n.Events(t) {
		out[e.ID] = true
	}
	return out
}

func TestAFullDiskUnderTheEventLog(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	o.NoStart = true
	o.Config += "audit: {segmentBytes: 1048576, maxBytes: 67108864}\n"
	n := node.Start(t, o)
	smallState(t, n, "8m")
	n.StartDaemon(t)
	l := startLoad(t, n, "agent", append(w.allowed(), w.denied()...)...)
	l.more(t, nil, 3, "echo", "web", "llm")
	ws := n.Workspace(t)
	before := ids(t, n)
	for range 3 {
		free := fill(t, n.StateDir)
		l.tried(t, l.counts(t), 10, "literal", "port", "post")
		// The last page of the log has room left, for some more records.
		eventually(t, "a run finds no room for its record", func() bool { return n.CLIIn(t, ws, "run", "-q", "--", "sh", "-c", "true").Code == 125 })
		r := n.CLIIn(t, ws, "run", "--", "sh", "-c", "touch ran")
		if r.Code != 125 || !strings.Contains(r.Stderr, "space") {
			t.Errorf("a run without room for its record: exit %d: %s", r.Code, r.Stderr)
		}
		if _, err := os.Stat(filepath.Join(ws, "ran")); err == nil {
			t.Error("it ran")
		}
		if r := n.CLI(t, "allow", "evil.example:443", "--always", "--scope", "org:local"); r.Code == 0 {
			t.Errorf("a rule was acknowledged that cannot be stored: %s", r.Stdout)
		}
		if r := n.CLI(t, "doctor"); !strings.Contains(r.Stdout+r.Stderr, "space") {
			t.Errorf("doctor does not say that the disk is full: %s%s", r.Stdout, r.Stderr)
		}
		w.nothingPassed(t, l)
		free()
		eventually(t, "runs work again", func() bool { return n.CLIIn(t, ws, "run", "-q", "--", "true").Code == 0 })
		l.more(t, l.counts(t), 3, "echo", "web", "llm")
		now := ids(t, n)
		for id := range before {
			if !now[id] {
				t.Fatalf("the acknowledged record %s is lost", id)
			}
		}
		before = now
		if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
			t.Fatalf("audit verify: %s%s", v.Stdout, v.Stderr)
		}
	}
	w.nothingPassed(t, l)
	n.WaitEvent(t, "a record of what was lost", func(e *event.Event) bool { return e.Kind == event.KindLoss && e.Lost > 0 })
	eventually(t, "every event is accounted for", func() bool {
		m := n.Metrics(t)
		dropped := 0.0
		for name, v := range m {
			if strings.HasPrefix(name, "ringfence_events_dropped_total") {
				dropped += v
			}
		}
		return m["ringfence_events_produced_total"] == m["ringfence_events_delivered_total"]+m["ringfence_events_waiting"]+dropped && dropped > 0
	})
	for name, v := range n.Metrics(t) {
		if strings.HasPrefix(name, "ringfence_events_") {
			t.Logf("%s %.0f", name, v)
		}
	}
}

// A keeper that starts on a full disk enforces, and says so.
func TestAKeeperThatComesBackToAFullDisk(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	o.NoStart = true
	n := node.Start(t, o)
	smallState(t, n, "8m")
	n.StartDaemon(t)
	l := startLoad(t, n, "agent", append(w.allowed(), w.denied()...)...)
	l.more(t, nil, 3, "echo", "web", "llm")
	s := n.Sandbox(t, "agent")
	n.KillDaemon(t)
	free := fill(t, n.StateDir)
	l.tried(t, l.counts(t), 10, "literal", "port")
	w.nothingPassed(t, l)
	began := time.Now()
	n.StartDaemon(t)
	t.Logf("up after %s", time.Since(began).Round(time.Millisecond))
	checkAdopted(t, n, "agent", s.ID, s.PID)
	if r := n.CLIIn(t, n.Workspace(t), "run", "--", "true"); r.Code != 125 {
		t.Errorf("a run without room for its record: exit %d: %s", r.Code, r.Stderr)
	}
	free()
	l.more(t, l.counts(t), 3, "echo", "web", "llm")
	l.tried(t, l.counts(t), 3, deniedKinds...)
	w.nothingPassed(t, l)
	eventually(t, "runs work again", func() bool {
		return n.CLIIn(t, n.Dir, "run", "-q", "--workspace", n.Workspace(t), "--", "true").Code == 0
	})
	if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
		t.Errorf("audit verify: %s%s", v.Stdout, v.Stderr)
	}
}
