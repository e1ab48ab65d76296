// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const watchedDir = "/run/ringfence-watched/"

// testRefusals watches one directory, and connect beside the hooks.
func testRefusals() *RefusalTable {
	path := func(arg uint8) Call {
		return Call{Errnos: []unix.Errno{unix.EPERM}, Watched: []unix.Errno{unix.ENOENT}, Subject: SubjectPath, Arg: arg}
	}
	return &RefusalTable{
		Calls: map[uint32]Call{
			unix.SYS_OPENAT: path(1), unix.SYS_NEWFSTATAT: path(1),
			unix.SYS_CONNECT: {Errnos: []unix.Errno{unix.EPERM, unix.EACCES, unix.ECONNREFUSED}, Subject: SubjectSockaddr, Arg: 1, Hooks: []Hook{HookConnect4, HookConnect6}},
			unix.SYS_KILL:    {Errnos: []unix.Errno{unix.ESRCH}},
		},
		Others: Call{Errnos: []unix.Errno{unix.EPERM}},
		Watch:  map[string]bool{watchedDir: true, watchedDir + "but-not/": false},
	}
}

func refusingRig(t *testing.T) *rig {
	t.Helper()
	needRoot(t)
	pin := t.TempDir()
	f, err := Open(Options{PinDir: pin, Logger: slog.New(slog.DiscardHandler), Refusals: testRefusals()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Remove(); err != nil {
			t.Errorf("Remove: %v", err)
		}
	})
	if err := f.Refusals(); err != nil {
		lacksTracepoint(t, err)
	}
	r := &rig{T: t, fence: f, ns: newNamespace(t), cgroup: newCgroup(t)}
	if r.box, err = f.AttachSandbox(r.cgroup, State{Sandbox: testSandbox, Policy: testPolicy, Flags: FlagLoopback}); err != nil {
		t.Fatal(err)
	}
	r.in, r.out = r.ns.spawn(t, r.cgroup), r.ns.spawn(t, "")
	t.Cleanup(func() {
		r.in.end()
		if err := detachSoon(r.box); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(pin, filepath.Base(f.dir), "links", "refused")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the tracepoint outlived the last sandbox: %v", err)
		}
	})
	r.recs = collect(t, f)
	return r
}

func (r *rig) refused(what string, ok func(*Refusal) bool) *Refusal {
	r.Helper()
	return find(r.T, r.recs, what, ok)
}

// marker ends what a test looks at: a refusal that is surely recorded.
func (r *rig) marker() {
	r.Helper()
	r.in.try(attempt{Op: "exec", Addr: "kill -9 2147483647"})
	r.refused("marker", func(x *Refusal) bool { return x.Call == unix.SYS_KILL && x.Args[0] == 2147483647 })
}

func TestRefusals(t *testing.T) {
	r := refusingRig(t)
	long := strings.Repeat("a-long-name/", 8)
	if err := r.box.Watch(map[string]bool{watchedDir + "own/": false, watchedDir + "own/guarded": true, watchedDir + "mine/" + long: false,
		watchedDir + "alike/" + long + "x": false, watchedDir + "alike/" + long + "guarded": true}); err != nil {
		t.Fatal(err)
	}
	script := "cat "
	for _, p := range []string{"secret", "but-not/this", "own/file", "own/guarded", "mine/" + long + "file", "alike/" + long + "guarded"} {
		script += watchedDir + p + " "
	}
	r.out.try(attempt{Op: "exec", Addr: "cat " + watchedDir + "from-outside"})
	r.in.try(attempt{Op: "exec", Addr: script + "/run/elsewhere"})
	x := r.refused("a watched path", func(x *Refusal) bool { return string(x.What) == watchedDir+"secret" })
	if x.Call != unix.SYS_OPENAT || x.Errno != unix.ENOENT || x.Sandbox != testSandbox || x.Comm != "cat" || x.Subject != SubjectPath || x.PPID() == 0 {
		t.Errorf("%+v", x)
	}
	r.refused("a path that the sandbox watches", func(x *Refusal) bool { return string(x.What) == watchedDir+"own/guarded" })
	r.refused("one whose name is too long to tell from an exception", func(x *Refusal) bool { return strings.HasPrefix(string(x.What), watchedDir+"alike/") })
	r.marker()
	for _, rec := range r.recs.all() {
		x, ok := rec.(*Refusal)
		if !ok {
			continue
		}
		for _, p := range []string{"but-not", "own/file", "elsewhere", "outside", "mine/"} {
			if strings.Contains(string(x.What), p) {
				t.Errorf("recorded: %s", x.What)
			}
		}
	}
}

// What a hook refused has one record, the hook's; what came past it another.
func TestRefusalsBesideHooks(t *testing.T) {
	r := refusingRig(t)
	if got := r.in.try(attempt{Op: "tcp", Addr: "192.0.2.1:443"}); got.Errno != errnoFor(unix.EACCES) {
		t.Fatalf("%+v", got)
	}
	if got := r.in.try(attempt{Op: "tcp", Addr: "127.0.0.1:9"}); got.Errno != unix.ECONNREFUSED {
		t.Fatalf("%+v", got)
	}
	find(t, r.recs, "the hook's", func(v *Verdict) bool { return !v.Allowed && v.Dst.Port() == 443 })
	x := r.refused("refused by nobody", func(x *Refusal) bool { return x.Call == unix.SYS_CONNECT })
	if x.Errno != unix.ECONNREFUSED || x.Subject != SubjectSockaddr || len(x.What) != 16 || x.What[3] != 9 {
		t.Errorf("%+v", x)
	}
	r.marker()
	n := 0
	for _, rec := range r.recs.all() {
		if x, ok := rec.(*Refusal); ok && x.Call == unix.SYS_CONNECT {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d records of connect", n)
	}
}

// A flood of refused calls is counted to the last one, and takes nothing from
// the ring of verdicts.
func TestRefusalFlood(t *testing.T) {
	r := refusingRig(t)
	before := losses(t, r.fence)
	const n = 3000
	r.in.try(attempt{Op: "exec", Addr: fmt.Sprintf("i=0; while [ $i -lt %d ]; do kill -9 2147483647; i=$((i+1)); done 2>/dev/null", n)})
	r.in.try(attempt{Op: "tcp", Addr: "192.0.2.1:443"})
	find(t, r.recs, "a verdict", func(v *Verdict) bool { return !v.Allowed && v.Dst.Port() == 443 })
	c := losses(t, r.fence)[RingRefusals]
	c.Kept -= before[RingRefusals].Kept
	c.Throttled -= before[RingRefusals].Throttled
	c.Full -= before[RingRefusals].Full
	if c.Produced() < n || c.Throttled == 0 {
		t.Errorf("produced %d of %d: %+v", c.Produced(), n, c)
	}
	var got uint64
	for deadline := time.Now().Add(3 * time.Second); got < c.Kept && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		got = 0
		for _, rec := range r.recs.all() {
			if _, ok := rec.(*Refusal); ok {
				got++
			}
		}
	}
	if got != c.Kept {
		t.Errorf("delivered %d, kept %d", got, c.Kept)
	}
}

// The next keeper finds the tracepoint, and without the wish for it takes it away.
func TestRefusalsOverRestart(t *testing.T) {
	needRoot(t)
	pin, cgroup := t.TempDir(), newCgroup(t)
	open := func(table *RefusalTable) *Fence {
		f, err := Open(Options{PinDir: pin, Logger: slog.New(slog.DiscardHandler), Refusals: table})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := open(testRefusals())
	if err := f.Refusals(); err != nil {
		f.Remove()
		lacksTracepoint(t, err)
	}
	box, err := f.AttachSandbox(cgroup, State{Sandbox: testSandbox, Policy: testPolicy})
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(f.dir, "links", "refused")
	box.Close()
	f.Close()
	if _, err := os.Stat(link); err != nil {
		t.Errorf("nothing is recorded while no keeper runs: %v", err)
	}
	f = open(nil)
	if !errors.Is(f.Refusals(), ErrNotWanted) {
		t.Error(f.Refusals())
	}
	if _, err := os.Stat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not wanted, and there: %v", err)
	}
	f.Close()
	f = open(testRefusals())
	defer f.Remove()
	if box, err = f.TakeOverSandbox(cgroup, testSandbox); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(link); err != nil {
		t.Errorf("not there for an adopted sandbox: %v", err)
	}
	if err := detachSoon(box); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

func TestBadRefusalTable(t *testing.T) {
	for _, e := range []unix.Errno{0, 192, 4000} {
		if _, err := (Call{Errnos: []unix.Errno{e}}).row(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("errno %d", int(e))) {
			t.Errorf("%d: %v", int(e), err)
		}
	}
}
