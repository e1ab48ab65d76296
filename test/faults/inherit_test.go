// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/node"
)

// hold makes every open of a directory wait until the returned function is
// called: fanotify(7) asks nobody.
func hold(t *testing.T, dir string) (letGo func()) {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if errors.Is(err, unix.ENOSYS) {
		env.Lack(t, true, "fanotify (CONFIG_FANOTIFY)")
	}
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "fanotify")
	t.Cleanup(func() { f.Close() })
	err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM|unix.FAN_ONDIR, unix.AT_FDCWD, dir)
	if errors.Is(err, unix.EINVAL) {
		env.Lack(t, true, "permissions of fanotify (CONFIG_FANOTIFY_ACCESS_PERMISSIONS)")
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

// One sandbox ended while no daemon ran, and its workspace takes as long as it
// likes to be handed back: the daemon that starts takes over the others, serves
// and launches, and says of that one what it is.
func TestAnEndedSandboxDelaysNobody(t *testing.T) {
	w := newWorld(t)
	n := node.Start(t, w.options())
	ws := map[string]string{}
	for _, name := range []string{"one", "slow", "two"} {
		ws[name] = n.Workspace(t)
		if r := n.CLIIn(t, ws[name], "run", "--detach", "--name", name, "--profile", "coding", "--", "sh", "-c", until(name, 0)); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	one, two, slow := n.Sandbox(t, "one"), n.Sandbox(t, "two"), n.Sandbox(t, "slow")
	held := filepath.Join(ws["slow"], "held")
	if err := os.Mkdir(held, 0o777); err != nil {
		t.Fatal(err)
	}
	n.KillDaemon(t)
	release(t, ws["slow"], "slow")
	eventually(t, "the slow one ends without a keeper", func() bool { return len(cgroupProcs(t, n, "slow")) == 0 })
	letGo := hold(t, held)

	n.StartDaemon(t)
	checkAdopted(t, n, "one", one.ID, one.PID)
	checkAdopted(t, n, "two", two.ID, two.PID)
	if s := n.Sandbox(t, "slow"); s.State != api.StateStopping || s.Enforcement != api.Degraded || s.PID != 0 {
		t.Errorf("ps says of the one that is put away: %+v", s)
	}
	if pins, err := filepath.Glob(filepath.Join(n.RunDir, "bpf", "*", "links", "refused")); err != nil || len(pins) != 1 {
		t.Errorf("the recorder of refused calls: %v, %v", pins, err)
	}
	if r := n.CLIIn(t, n.Workspace(t), "run", "--name", "new", "--", "true"); r.Code != 0 {
		t.Errorf("a launch meanwhile: %d %s", r.Code, r.Stderr)
	}
	if r := n.CLI(t, "stop", "slow"); r.Code == 0 {
		t.Error("what has ended was stopped")
	}
	letGo()
	n.WaitEvent(t, "the end of the slow one", func(e *event.Event) bool { return e.Kind == event.KindSandboxStop && e.Sandbox == slow.ID })
	eventually(t, "its directory is gone", func() bool {
		_, err := os.Stat(filepath.Join(n.RunDir, "sandboxes", slow.ID))
		return errors.Is(err, os.ErrNotExist)
	})
	for _, name := range []string{"one", "two"} {
		release(t, ws[name], name)
	}
}

// sizeOf is that of the files in a directory.
func sizeOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// A daemon that is told to stop everything before it could take over what the
// one before it left removes none of it: the fence of what it does not know yet
// would be gone, and the processes not.
func TestADaemonThatEndsEarlyRemovesNothing(t *testing.T) {
	w := newWorld(t)
	n := node.Start(t, w.options())
	l := startLoad(t, n, "agent", append(w.allowed(), w.denied()...)...)
	l.more(t, nil, 3, "echo")
	before, gateway := n.Sandbox(t, "agent"), must(n.Gateway(t))
	n.KillDaemon(t)
	if err := syscall.Kill(gateway.PID, syscall.SIGSTOP); err != nil { // it answers nothing
		t.Fatal(err)
	}
	logged := sizeOf(t, filepath.Join(n.StateDir, "events"))
	n.Launch(t)
	eventually(t, "the new daemon records its start", func() bool { return sizeOf(t, filepath.Join(n.StateDir, "events")) > logged })
	n.StopDaemon(t, syscall.SIGINT)
	if !alive(before.PID) {
		t.Error("the sandbox was ended")
	}
	l.tried(t, l.counts(t), 10, "literal", "port", "v6")
	w.nothingPassed(t, l)
	if err := syscall.Kill(gateway.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	n.StartDaemon(t)
	checkAdopted(t, n, "agent", before.ID, before.PID)
	l.more(t, l.counts(t), 3, "echo")
	l.tried(t, l.counts(t), 3, deniedKinds...)
	w.nothingPassed(t, l)
}
