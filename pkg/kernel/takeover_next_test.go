// SPDX-License-Identifier: Apache-2.0

//go:build ringfence_next

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// These tests are built as the layout after the present one, and take over
// from the present one: its objects, attached and pinned as its keeper does.

// guardedName is a row of the guard.
var guardedName = bpf.FenceRfEntryKey{Sandbox: testSandbox, Name: [64]uint8{'x'}}

// presentTree fences a cgroup as a keeper of the present layout.
func presentTree(t *testing.T, pin, cgroup string, ns *namespace, listener int) (dir string) {
	t.Helper()
	dir = filepath.Join(pin, layoutPrefix+"3")
	box := filepath.Join(dir, "sandbox", strconv.Itoa(testSandbox))
	if err := errors.Join(ensureBPFFS(pin), os.MkdirAll(box, 0o700), os.MkdirAll(filepath.Join(dir, "maps"), 0o700)); err != nil {
		t.Fatal(err)
	}
	spec, err := ebpf.LoadCollectionSpec("../../bpf/fence_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	if haveRetval() {
		if err := spec.Variables[bpf.FenceVarRfHaveRetval].Set(byte(1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range hooks {
		if !hasHook(h) {
			delete(spec.Programs, h.prog)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	for name, m := range coll.Maps {
		if filepath.Ext(name) == "" {
			if err := m.Pin(filepath.Join(dir, "maps", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cg, err := openCgroup(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer cg.close()
	for _, h := range hooks {
		if coll.Programs[h.prog] == nil {
			continue
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: h.attach, Program: coll.Programs[h.prog]})
		if err == nil {
			err = errors.Join(l.Pin(filepath.Join(box, h.name)), l.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// 198.18.0.2:443 by name, 203.0.113.7:80 by address.
	name := []byte{testPolicy, 0, 0, 0, 198, 18, 0, 2, 0xbb, 0x01, 6, 0}
	cidr := append([]byte{64 + 128, 0, 0, 0, testPolicy, 0, 0, 0, 6, 0, 80, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 7)
	if err := errors.Join(
		coll.Maps["rates"].Put(uint32(testSandbox), make([]byte, 4*40)),
		coll.Maps["reads"].Put([]byte{testSandbox, 0, 0, 0, byte(RingDenials), 0, 0, 0}, uint64(0)),
		coll.Maps["members"].Put(cg.id, uint32(testSandbox)),
		coll.Maps["names"].Put(name, []byte{9, 0, 0, 0}),
		coll.Maps["cidrs"].Put(cidr, []byte{8, 0, 0, 0, 1, 0, 0, 0}),
		coll.Maps["guards"].Put(uint32(testSandbox), []byte{testPolicy, 0, 0, 0, 5, 0, 0, 0, byte(FlagLoopback), 0, 0, 0, 7, 0, 0, 0}),
		coll.Maps["entries"].Put(guardedName, uint32(WayAny)),
		coll.Maps["state"].Update(cg.id, []byte{testSandbox, 0, 0, 0, testPolicy, 0, 0, 0, 5, 0, 0, 0, byte(FlagLoopback), 0, 0, 0}, ebpf.UpdateExist),
	); err != nil {
		t.Fatal(err)
	}
	steer, err := bpf.LoadSteer()
	if err != nil {
		t.Fatal(err)
	}
	shelf, err := newShelf()
	if err != nil {
		t.Fatal(err)
	}
	old := &Sandbox{id: testSandbox, dir: box, fence: &Fence{steer: steer, shelf: shelf}}
	if err := old.Steer(int(ns.file.Fd()), SteerListeners{TCP4: listener}); err != nil {
		t.Fatal(err)
	}
	if err := shelf.close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func hasHook(h hookInfo) bool {
	if !h.optional {
		return true
	}
	p, err := loadSmallest(ebpf.CGroupSockAddr, h.attach, nil)
	if err != nil {
		return false
	}
	p.Close()
	return true
}

type moved struct {
	pin, cgroup, dir string
	ns               *namespace
	in               *child
}

var byName, byAddress = attempt{Op: "tcp", Addr: "198.18.0.2:443"}, attempt{Op: "tcp", Addr: "203.0.113.7:80"}

func newMoved(t *testing.T) *moved {
	t.Helper()
	needRoot(t)
	m := &moved{pin: t.TempDir(), cgroup: newCgroup(t), ns: newNamespace(t)}
	fd, _ := m.ns.listen(t, "tcp4", "198.18.0.1:0", "first")
	m.dir = presentTree(t, m.pin, m.cgroup, m.ns, fd)
	m.in = m.ns.spawn(t, m.cgroup)
	m.check(t, "behind the former programs")
	return m
}

func (m *moved) check(t *testing.T, when string) {
	t.Helper()
	if got := m.in.try(denied); got.Errno != errnoFor(unix.EACCES) {
		t.Errorf("%s, denied: %+v", when, got)
	}
	for _, a := range []attempt{byName, byAddress} {
		if got := m.in.try(a); got.Reply != "first "+a.Addr {
			t.Errorf("%s, allowed %s: %+v", when, a.Addr, got)
		}
	}
}

// attached counts the programs of one hook on the cgroup.
func (m *moved) attached(t *testing.T) int {
	t.Helper()
	r, err := link.QueryPrograms(link.QueryOptions{Target: m.cgroupFD(t), Attach: ebpf.AttachCGroupInet4Connect})
	if err != nil {
		t.Fatal(err)
	}
	return len(r.Programs)
}

func (m *moved) cgroupFD(t *testing.T) int {
	t.Helper()
	f, err := os.Open(m.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

func (m *moved) end(t *testing.T, box *Sandbox) {
	t.Helper()
	m.in.end()
	if err := detachSoon(box); err != nil {
		t.Error(err)
	}
}

// open is the fence that the test ends with.
func (m *moved) open(t *testing.T) *Fence {
	t.Helper()
	f := openFence(t, m.pin)
	t.Cleanup(func() { // after the reading of records has ended
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestTakeOver(t *testing.T) {
	m := newMoved(t)
	f := m.open(t)
	m.check(t, "before it is adopted")
	if ids, err := f.Pinned(); err != nil || len(ids) != 1 || ids[0] != testSandbox {
		t.Errorf("Pinned = %v, %v", ids, err)
	}
	if _, err := f.LeaveFormer(func(Record) {}); err == nil {
		t.Error("the former programs were left while a sandbox is behind them")
	}
	if _, err := f.TakeOverSandbox(newCgroup(t), testSandbox); err == nil {
		t.Error("another cgroup was adopted in its place")
	}
	m.check(t, "after refused adoptions")
	never := m.neverWithout(t)
	box, err := f.TakeOverSandbox(m.cgroup, testSandbox)
	if err != nil {
		t.Fatal(err)
	}
	want := State{Sandbox: testSandbox, Policy: testPolicy, Generation: 5, Flags: FlagLoopback}
	if got, err := box.Enforced(); err != nil || got != want || box.State() != want {
		t.Errorf("state %+v, %v", got, err)
	}
	if err := box.Attested(); err != nil {
		t.Error(err)
	}
	var guard bpf.FenceRfGuard
	var ways uint32
	err = errors.Join(f.maps.Guards.Lookup(uint32(testSandbox), &guard), f.maps.Entries.Lookup(guardedName, &ways))
	if err != nil || guard.Policy != testPolicy || guard.Dev != 7 || Way(ways) != WayAny {
		t.Errorf("what the guard judges on: %+v, %d, %v", guard, ways, err)
	}
	recs := collect(t, f)
	m.check(t, "behind ours")
	find(t, recs, "a record of our programs", func(v *Verdict) bool { return !v.Allowed && v.Generation == 5 })

	var before int
	end, err := f.LeaveFormer(func(r Record) {
		if v, ok := r.(*Verdict); ok && !v.Allowed && v.Sandbox == testSandbox && v.Dst.String() == denied.Addr && v.Hook == HookConnect4 {
			before++
		}
	})
	if err != nil || end.Layout != 3 || before < 3 || end.Unread > 0 {
		t.Errorf("left %+v with %d denials in its rings, %v", end, before, err)
	}
	if len(end.Counters) == 0 || end.Counters[0].Kept < 3 {
		t.Errorf("the last counters are %+v", end.Counters)
	}
	if _, err := os.Stat(m.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the former tree: %v", err)
	}
	eventuallyOne(t, m)
	never()
	m.check(t, "after the former ones went")
	fd, _ := m.ns.listen(t, "tcp4", "198.18.0.1:0", "second")
	if err := box.Steer(-1, SteerListeners{TCP4: fd}); err != nil {
		t.Fatal(err)
	}
	if got := m.in.try(byName); got.Reply != "second "+byName.Addr {
		t.Errorf("steered anew: %+v", got)
	}
	// Our state counts now, and not the former one.
	want.Policy++
	if err := box.SetState(want); err != nil {
		t.Fatal(err)
	}
	if got := m.in.try(byName); got.Errno != errnoFor(unix.EACCES) {
		t.Errorf("under a policy without entries: %+v", got)
	}
	m.end(t, box)
}

// neverWithout watches how many programs judge connections until the returned
// function is called: never none. That it is two for a moment is shown where a
// keeper dies in that moment.
func (m *moved) neverWithout(t *testing.T) (end func()) {
	t.Helper()
	fd := m.cgroupFD(t)
	stop, done := make(chan struct{}), make(chan struct{})
	looks, seen := 0, map[int]int{}
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			r, err := link.QueryPrograms(link.QueryOptions{Target: fd, Attach: ebpf.AttachCGroupInet4Connect})
			looks++
			if errors.Is(err, unix.ENOSPC) { // one more since they were counted
				seen[2]++
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			seen[len(r.Programs)]++
		}
	}()
	return func() {
		t.Helper()
		close(stop)
		<-done
		if seen[0] > 0 || seen[1] == 0 {
			t.Errorf("in %d looks at connect4: how often so many programs: %v", looks, seen)
		}
		t.Logf("%d looks at connect4: how often so many programs: %v", looks, seen)
	}
}

// eventuallyOne: the kernel detaches a link some time after its last pin.
func eventuallyOne(t *testing.T, m *moved) {
	t.Helper()
	for range 200 {
		if m.attached(t) == 1 {
			return
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 10e6}, nil)
	}
	t.Errorf("%d programs at connect4", m.attached(t))
}

// A keeper that dies in the middle of taking over leaves a sandbox that is
// fenced, and that the next one takes over.
func TestTakeOverIsInterrupted(t *testing.T) {
	for name, stop := range map[string]func(*Sandbox) error{
		"with our programs beside, before the former ones go": func(s *Sandbox) error {
			st, err := s.fence.former.state(s.cg.id)
			return errors.Join(err, os.Mkdir(s.dir, 0o700), s.join(st))
		},
		"after the first of ours": func(s *Sandbox) error {
			l, err := link.AttachCgroup(link.CgroupOptions{Path: s.cg.path(), Attach: hooks[0].attach, Program: s.fence.progs[hooks[0].hook]})
			if err != nil {
				return err
			}
			return errors.Join(os.Mkdir(s.dir, 0o700), l.Pin(filepath.Join(s.dir, hooks[0].name)))
		},
		"while the former ones go": func(s *Sandbox) error {
			st, err := s.fence.former.state(s.cg.id)
			o := s.fence.former
			return errors.Join(err, os.Mkdir(s.dir, 0o700), s.join(st), os.MkdirAll(filepath.Join(o.dir, "left"), 0o700),
				os.Rename(o.sandboxDir(s.id), o.leftDir(s.id)), os.Remove(filepath.Join(o.leftDir(s.id), hooks[1].name)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMoved(t)
			f := openFence(t, m.pin)
			s, err := f.newSandbox(m.cgroup, testSandbox)
			if err != nil {
				t.Fatal(err)
			}
			if err := stop(s); err != nil {
				t.Fatal(err)
			}
			if n := m.attached(t); name == "with our programs beside, before the former ones go" && n != 2 {
				t.Errorf("%d programs judge connections, not both", n)
			}
			if err := errors.Join(s.Close(), f.Close()); err != nil {
				t.Fatal(err)
			}
			if got := m.in.try(denied); got.Errno != errnoFor(unix.EACCES) && got.Errno != errnoFor(unix.EPERM) {
				t.Errorf("denied, after the keeper died: %+v", got)
			}
			f = m.open(t)
			box, err := f.TakeOverSandbox(m.cgroup, testSandbox)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.LeaveFormer(func(Record) {}); err != nil {
				t.Error(err)
			}
			if err := box.Attested(); err != nil {
				t.Error(err)
			}
			eventuallyOne(t, m)
			m.check(t, "behind ours")
			m.end(t, box)
		})
	}
}

// What was adopted while it ran is not taken over: it stays behind the former
// programs, which deny everything once it is shut, and whose tables are copied
// once and not over what is in force by then.
func TestAdoptedStayBehindTheFormer(t *testing.T) {
	m := newMoved(t)
	box := filepath.Join(m.dir, "sandbox", strconv.Itoa(testSandbox))
	if err := os.Link(filepath.Join(box, "connect4"), filepath.Join(box, marks[0].name)); err != nil { // redirection's pin
		t.Fatal(err)
	}
	// Where its keeper's gateway listened: a stranger may have the ports by now.
	sent, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 24, ValueSize: 12, MaxEntries: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer sent.Close()
	if err := errors.Join(sent.Put(make([]byte, 24), make([]byte, 12)), sent.Pin(filepath.Join(m.dir, "maps", bpf.RedirectMapRedirects))); err != nil {
		t.Fatal(err)
	}
	f := openFence(t, m.pin)
	if _, err := f.TakeOverRunning(m.cgroup, testSandbox); err == nil {
		t.Error("it was taken over")
	}
	m.check(t, "before it is shut")
	if err := f.Shut(testSandbox, inodeOf(t, m.cgroupFD(t))); err != nil {
		t.Error(err)
	}
	shut := func(when string) {
		for _, a := range []attempt{denied, byName, byAddress} {
			if got := m.in.try(a); got.Errno != errnoFor(unix.EACCES) {
				t.Errorf("%s, %s: %+v", when, a.Addr, got)
			}
		}
	}
	if key, err := sent.NextKeyBytes(nil); err != nil || key != nil {
		t.Errorf("it is still sent to listeners: %x, %v", key, err)
	}
	if _, err := f.LeaveFormer(func(Record) {}); !errors.Is(err, ErrForeignKept) {
		t.Errorf("LeaveFormer: %v", err)
	}
	shut("after the upgrade")
	if err := errors.Join(f.DropPolicy(testPolicy), f.Close()); err != nil {
		t.Fatal(err)
	}
	f = m.open(t)
	if tables, err := f.Tables(); err != nil || len(tables) > 0 {
		t.Errorf("after another start there are tables %v, %v", tables, err)
	}
	shut("after another start")
	if err := f.Forget(testSandbox); !errors.Is(err, ErrPopulated) {
		t.Errorf("Forget while the cgroup is there: %v", err)
	}
	m.in.end()
	if err := f.Abandon(testSandbox); err != nil {
		t.Error(err)
	}
	if end, err := f.LeaveFormer(func(Record) {}); err != nil || end.Layout != 3 {
		t.Errorf("left %+v, %v", end, err)
	}
}
