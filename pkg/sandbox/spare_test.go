// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// spare makes a spare and returns its number and its init.
func (l *live) spareMade() (uint32, Process) {
	l.tb.Helper()
	l.o.Spare = true
	l.Spare()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare == nil {
		l.tb.Fatal("no spare was made")
	}
	return l.spare.s.Record.Number, l.spare.s.Record.Init
}

func TestALaunchUsesTheSpare(t *testing.T) {
	l := newLive(t, Attestation{}, "")
	number, init := l.spareMade()
	if len(l.List()) != 0 || l.log.count() != 0 {
		t.Fatal("the spare is known before anybody asked for it")
	}
	s := l.idle()
	if s.Record.Number != number || s.Record.Init != init {
		t.Errorf("sandbox %d with init %v was launched, the spare was %d with %v", s.Record.Number, s.Record.Init, number, init)
	}
	if st, err := s.fence.Enforced(); err != nil || st != s.kernelState() {
		t.Errorf("the kernel judges on %+v (%v), wanted %+v", st, err, s.kernelState())
	}
	l.until("another spare", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.spare != nil && l.spare.s.Record.Number != number
	})
	if again := l.idle(); again.Record.Number == number {
		t.Error("one spare served two launches")
	}
}

// Until a request comes the programs of a spare have nothing to allow by.
func TestASpareDeniesEverything(t *testing.T) {
	l := newLive(t, Attestation{}, "")
	l.spareMade()
	st, err := l.spare.s.fence.Enforced()
	if err != nil || st.Sandbox != 0 || st.Policy != 0 || st.Flags != 0 {
		t.Errorf("the spare is judged on %+v (%v)", st, err)
	}
}

func TestASpareThatEndedIsReplaced(t *testing.T) {
	l := newLive(t, Attestation{}, "")
	number, init := l.spareMade()
	if err := syscall.Kill(init.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.until("its init is gone", func() bool { return !init.Alive() })
	if s := l.idle(); s.Record.Number == number {
		t.Error("a dead spare was used")
	}
	if dir := filepath.Join(l.base, cgroupPrefix+IDOf(number)); exists(dir) {
		t.Error("its cgroup is left")
	}
}

// Root's user namespace must own the others: the spare does not serve it.
func TestRootInsideDoesNotUseTheSpare(t *testing.T) {
	l := newLive(t, Attestation{}, "")
	number, _ := l.spareMade()
	r := l.request("sleep", "100000")
	r.RootInside = true
	s, err := l.Launch(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	if s.Record.Number == number {
		t.Error("the spare was used")
	}
}

// What a spare has is taken back with the launch that used it, and with the
// manager.
func TestNothingOfASpareIsLeft(t *testing.T) {
	for name, end := range map[string]func(l *live){
		"a launch that fails": func(l *live) {
			r := l.request("sleep", "100000")
			r.Dir = "/there/is/none"
			if _, err := l.Launch(context.Background(), r); err == nil {
				l.tb.Error("an impossible launch succeeded")
			}
			l.Close() // and the next spare
		},
		"the manager closes": func(l *live) { l.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLive(t, Attestation{}, "")
			number, init := l.spareMade()
			end(l)
			if init.Alive() {
				t.Error("its init lives")
			}
			for _, dir := range []string{filepath.Join(l.base, cgroupPrefix+IDOf(number)), filepath.Join(l.o.Dir, IDOf(number))} {
				if exists(dir) {
					t.Error("left:", dir)
				}
			}
			if pins, err := l.fence.Pinned(); err != nil || len(pins) != 0 {
				t.Error("pinned:", pins, err)
			}
			if l.owned(number) {
				t.Error("its number is taken")
			}
		})
	}
}

// A keeper that was killed with a spare leaves an init that ends by itself; the
// next one removes the rest.
func TestTheNextKeeperRemovesTheSpare(t *testing.T) {
	l := newLive(t, Attestation{}, "")
	number, init := l.spareMade()
	l.mu.Lock()
	spare := l.spare
	l.spare = nil
	delete(l.reserved, number)
	l.mu.Unlock()
	l.wg.Done()
	spare.init.Conn.Close() // as the kernel does at the end of a keeper
	spare.close()
	if err := spare.s.fence.Close(); err != nil {
		t.Fatal(err)
	}
	spare.s.listeners.Close()
	l.until("its init ends", func() bool { return !init.Alive() })
	left, err := l.Leftovers()
	if err != nil {
		t.Fatal(err)
	}
	for _, lo := range left {
		if lo.Lives() {
			t.Error("it counts as a living sandbox")
		}
		if err := l.PutAway(lo); err != nil {
			t.Error(err)
		}
	}
	l.Severed()
	if err := l.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(l.base, cgroupPrefix+IDOf(number))); err == nil {
		t.Error("its cgroup is left")
	}
	if pins, err := l.fence.Pinned(); err != nil || len(pins) != 0 {
		t.Error("pinned:", pins, err)
	}
	if n := l.log.count(); n != 0 {
		t.Errorf("%d events tell of a sandbox that nobody asked for", n)
	}
}

// A spare holds a copy of the host's mounts: not for long.
func TestASpareIsRenewed(t *testing.T) {
	l := newLive(t, Attestation{}, "")
	number, init := l.spareMade()
	l.renewSpare(l.spare)
	if init.Alive() || l.owned(number) {
		t.Error("the old one is there")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare == nil || l.spare.s.Record.Number == number {
		t.Error("no new one was made")
	}
}
