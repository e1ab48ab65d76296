// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
)

func TestACgroupThatCannotBeAskedIsNotEmpty(t *testing.T) {
	dir := t.TempDir() // no cgroup
	if busy, err := populated(dir); err == nil {
		t.Errorf("populated: %v without an error", busy)
	}
	if err := endProcesses(dir, time.Millisecond); err == nil {
		t.Error("its processes ended")
	}
	if busy, err := populated(filepath.Join(dir, "gone")); busy || err != nil {
		t.Errorf("a cgroup that is gone: %v, %v", busy, err)
	}
}

func TestProcessesThatStayAreAnError(t *testing.T) {
	dir := t.TempDir() // as a cgroup with a process in uninterruptible sleep
	if err := os.WriteFile(filepath.Join(dir, "cgroup.events"), []byte("populated 1\nfrozen 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := endProcesses(dir, 20*time.Millisecond); !errors.Is(err, ErrProcesses) {
		t.Errorf("error %v", err)
	}
}

func TestProcessesOfACgroupEnd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: cgroups")
	}
	root, err := kernel.CgroupRoot()
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp(root, "rf-test-")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Cleanup(func() {
		if err := RemoveCgroup(dir); err != nil {
			t.Error(err)
		}
	})
	c := exec.Command("sleep", "1000")
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go c.Wait() //nolint:errcheck // it was killed
	if err := endProcesses(dir, 10*time.Second); err != nil {
		t.Error(err)
	}
}

// While a process may live, a leftover keeps its fence, its uid, its record and
// its workspace, and somebody is told.
func TestALeftoverThatDoesNotEndKeepsEverything(t *testing.T) {
	b := newBench(t, "")
	b.patience = 20 * time.Millisecond
	cgroup, dir := t.TempDir(), b.directory(t, "00000007")
	s := b.leftover(Leftover{dir: dir, Record: Record{ID: "00000007", Number: 7, Cgroup: cgroup, OwnUID: true, UID: 1 << 30,
		Scope: "org:o/team:t/agent:a/sandbox:00000007", Started: true, Handback: true, Workspace: "/nowhere"}})
	if err := b.discard(s); err == nil {
		t.Fatal("no error")
	}
	told := b.log.of(event.KindTamper)
	if len(told) != 1 || told[0].Severity != event.SeverityCritical {
		t.Errorf("events: %+v", told)
	}
	if len(b.log.of(event.KindWorkspace))+len(b.log.of(event.KindSandboxStop)) != 0 {
		t.Error("its workspace was handed back, or its end recorded")
	}
	if len(b.fence.forgotten) != 0 || gone(dir) {
		t.Error("its fence or its record was removed")
	}
	if uid, err := b.o.UIDs.Take(1 << 30); err == nil {
		uid.Release()
		t.Error("its uid is free")
	}
	if !b.owned(7) {
		t.Error("its number is free")
	}
	if err := b.StopAll(0); !errors.Is(err, ErrProcesses) {
		t.Errorf("the daemon may remove everything: %v", err)
	}
}

func TestALaunchThatFailedAfterGoIsAborted(t *testing.T) {
	conn, peer, err := confine.Pair()
	if err != nil {
		t.Fatal(err)
	}
	peer.Close()
	l := &launch{founding: founding{s: &Sandbox{control: newControl(conn)}}}
	if err := l.start(t.Context()); err == nil || !l.released {
		t.Errorf("error %v, released %v", err, l.released)
	}
}

func TestAFailedLaunchHasItsEndInTheLog(t *testing.T) {
	b := newBench(t, "")
	s := b.leftover(Leftover{Record: Record{ID: "00000007", Number: 7, Created: time.Now()}})
	l := &launch{founding: founding{m: b.Manager, s: s}}
	gone, cancel := context.WithCancel(t.Context())
	cancel() // the client went away
	if err := l.record(gone); err == nil {
		t.Fatal("recorded with a context that has ended")
	}
	why := &LaunchError{Code: 127, Step: "start", Err: errors.New("no such command")}
	if err := l.failed(why); !errors.Is(err, why) {
		t.Error(err)
	}
	ends := b.log.of(event.KindSandboxStop)
	if len(ends) != 1 || ends[0].Status != 127 || !strings.Contains(ends[0].Reason, "no such command") {
		t.Errorf("ends: %+v", ends)
	}
}

func TestTheAnswerOfInitIsNotAwaitedForAClientThatWent(t *testing.T) {
	conn, peer, err := confine.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := newControl(conn).expect(ctx, confine.FrameReady, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestExecNumbersAreNotThoseOfTheLastKeeper(t *testing.T) {
	a, b, c := newControl(nil).nextSeq, newControl(nil).nextSeq, newControl(nil).nextSeq
	if a == b && b == c {
		t.Errorf("three keepers begin at %d", a)
	}
	ctl := newControl(nil)
	ctl.nextSeq = 1<<32 - 2
	ctl.waiting[1<<32-1] = make(chan *confine.Message)
	if n := ctl.freshLocked(); n != 1 {
		t.Errorf("number %d, want 1: 0 means none, and the one before is taken", n)
	}
}

func TestTheReaderOfRecordsWaitsForNobody(t *testing.T) {
	b := newBench(t, "")
	s := b.leftover(Leftover{Record: Record{ID: "00000007"}})
	var err error
	if s.names, err = OpenNames(filepath.Join(t.TempDir(), "names")); err != nil {
		t.Fatal(err)
	}
	defer s.names.Close()
	addr, _, err := s.names.Allocate("x.example")
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock() // a policy is put into force
	defer s.mu.Unlock()
	s.names.mu.Lock() // the journal is written
	defer s.names.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.CountDenial(2)
		_ = s.View()
		if got := s.Name(addr); got != "x.example" {
			t.Errorf("name %q", got)
		}
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("it waits")
	}
	if n := s.Denials(); n != 2 {
		t.Errorf("%d denials", n)
	}
}
