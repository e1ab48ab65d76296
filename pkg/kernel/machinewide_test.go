// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/ringfence/ringfence/bpf"
)

// leftBehind are sandboxes that a keeper left: two that live, two that ended
// (of one even the cgroup is gone), and the gateway, whose end or life counts
// for nothing.
type leftBehind struct {
	pin     string
	living  []*child
	cgroups map[uint32]string
}

const (
	leftGateway = 1<<31 + 1
	leftGone    = testSandbox + 3
)

func leaveBehind(t *testing.T) *leftBehind {
	t.Helper()
	needRoot(t)
	l := &leftBehind{pin: t.TempDir(), cgroups: map[uint32]string{}}
	f := l.open(t)
	if err := f.Refusals(); err != nil {
		f.Remove() //nolint:errcheck // the test is over
		lacksTracepoint(t, err)
	}
	ns := newNamespace(t)
	for _, id := range []uint32{testSandbox, testSandbox + 1, testSandbox + 2, leftGone, leftGateway} {
		l.cgroups[id] = newCgroup(t)
		st := State{Sandbox: id, Policy: testPolicy}
		if id == leftGateway {
			st.Flags = FlagGateway
		}
		box, err := f.AttachSandbox(l.cgroups[id], st)
		if err != nil {
			t.Fatal(err)
		}
		if id <= testSandbox+1 {
			l.living = append(l.living, ns.spawn(t, l.cgroups[id]))
		}
		if id != leftGateway { // from then on it starts no program that may gain rights
			guardAnyhow(t, f, box)
		}
		if err := box.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	removeCgroup(t, l.cgroups[leftGone])
	return l
}

func (l *leftBehind) open(t *testing.T) *Fence {
	t.Helper()
	f, err := Open(Options{PinDir: l.pin, Logger: slog.New(slog.DiscardHandler), Refusals: testRefusals()})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// guardAnyhow arms the third lock, or on a kernel without it writes what says
// that it is armed.
func guardAnyhow(t *testing.T, f *Fence, box *Sandbox) {
	t.Helper()
	err := box.Guard(GuardRules{Entries: GitHooks()})
	if _, _, none := f.Guard(); none != nil {
		err = f.maps.Guards.Put(box.ID(), bpf.FenceRfGuard{Policy: testPolicy})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestTheEndOfOneLeavesTheOthersTheirPrograms: what a new keeper puts away
// before it has adopted the others takes the machine-wide programs from none of
// them, and the last one takes them along.
func TestTheEndOfOneLeavesTheOthersTheirPrograms(t *testing.T) {
	l := leaveBehind(t)
	f := l.open(t)
	defer func() {
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
	}()
	guards := len(guardPins(t, f))
	stands := func(when string) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(f.dir, "links", "refused")); err != nil {
			t.Errorf("%s: the recorder of refused calls: %v", when, err)
		}
		if n := len(guardPins(t, f)); n != guards || !f.guard.by[testSandbox+1] {
			t.Errorf("%s: %d programs of the guard, want %d; for %v", when, n, guards, f.guard.by)
		}
	}
	stands("opened")
	gateway := l.adopt(t, f, leftGateway)
	stands("the gateway is adopted")
	if err := l.adopt(t, f, testSandbox+2).Detach(); err != nil {
		t.Fatal(err)
	}
	stands("one is put away")
	if err := f.Forget(leftGone); err != nil {
		t.Fatal(err)
	}
	stands("one is forgotten")
	recs := collect(t, f)
	for i, c := range l.living {
		c.try(attempt{Op: "unix", Addr: "@nobody"})
		find(t, recs, "a refusal", func(x *Refusal) bool { return x.Sandbox == testSandbox+uint32(i) })
	}
	for i, c := range l.living {
		c.end()
		box := l.adopt(t, f, testSandbox+uint32(i))
		if i == 0 {
			stands("the first is adopted")
		}
		if err := detachSoon(box); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(f.dir, "links", "refused")); !errors.Is(err, os.ErrNotExist) || len(guardPins(t, f)) != 0 {
		t.Errorf("they outlived the last sandbox: %v, %v", err, guardPins(t, f))
	}
	if err := gateway.Detach(); err != nil {
		t.Error(err)
	}
}

func (l *leftBehind) adopt(t *testing.T, f *Fence, id uint32) *Sandbox {
	t.Helper()
	box, err := f.TakeOverSandbox(l.cgroups[id], id)
	if err != nil {
		t.Fatal(err)
	}
	return box
}
