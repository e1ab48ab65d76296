// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

var denied = attempt{Op: "tcp", Addr: "203.0.113.5:443"}

// A keeper that dies leaves denials in place, and the next one takes over: the
// links, the state, the steering, and the records of the time between.
func TestAdopt(t *testing.T) {
	needRoot(t)
	for _, reload := range []bool{false, true} {
		name := map[bool]string{false: "same programs", true: "other programs"}[reload]
		t.Run(name, func(t *testing.T) {
			pin, cgroup, ns := t.TempDir(), newCgroup(t), newNamespace(t)
			f := openFence(t, pin)
			st := State{Sandbox: testSandbox, Policy: testPolicy, Generation: 1, Flags: FlagLoopback}
			box, err := f.AttachSandbox(cgroup, st)
			if err != nil {
				t.Fatal(err)
			}
			fd, _ := ns.listen(t, "tcp4", "198.18.0.1:0", "first")
			if err := box.Steer(int(ns.file.Fd()), SteerListeners{TCP4: fd}); err != nil {
				t.Fatal(err)
			}
			if err := f.PutNames(testPolicy, []NameEntry{{Addr: virtualRange.Addr().Next().Next(), Port: 443, Proto: ProtoTCP, Rule: 1}}); err != nil {
				t.Fatal(err)
			}
			allowed := attempt{Op: "tcp", Addr: "198.18.0.2:443"}
			in := ns.spawn(t, cgroup)
			if err := errors.Join(box.Close(), f.Close()); err != nil {
				t.Fatal(err)
			}

			if got := in.try(denied); got.Errno != errnoFor(unix.EACCES) {
				t.Errorf("denied while the keeper is away: %+v", got)
			}
			if got := in.try(allowed); got.Reply != "first 198.18.0.2:443" {
				t.Errorf("allowed while the keeper is away: %+v", got)
			}

			if reload {
				dropPrograms(t, f)
			}
			f = openFence(t, pin)
			defer func() {
				if err := f.Remove(); err != nil {
					t.Error(err)
				}
			}()
			ids, err := f.Pinned()
			if err != nil || len(ids) != 1 || ids[0] != testSandbox {
				t.Fatalf("Pinned = %v, %v", ids, err)
			}
			if box, err = f.TakeOverSandbox(cgroup, testSandbox); err != nil {
				t.Fatal(err)
			}
			if box.State() != st {
				t.Errorf("adopted state %+v", box.State())
			}
			if err := box.Attested(); err != nil {
				t.Error(err)
			}
			recs := collect(t, f)
			find(t, recs, "denial from before the adoption", func(v *Verdict) bool { return !v.Allowed && v.Generation == 1 })
			st.Generation = 2
			if err := box.SetState(st); err != nil {
				t.Fatal(err)
			}
			fd, _ = ns.listen(t, "tcp4", "198.18.0.1:0", "second")
			if err := box.Steer(-1, SteerListeners{TCP4: fd}); err != nil {
				t.Fatal(err)
			}
			if got := in.try(allowed); got.Reply != "second 198.18.0.2:443" {
				t.Errorf("steered after adoption: %+v", got)
			}
			in.try(denied)
			find(t, recs, "denial after the adoption", func(v *Verdict) bool { return !v.Allowed && v.Generation == 2 })
			in.end()
			if err := detachSoon(box); err != nil {
				t.Error(err)
			}
		})
	}
}

// dropPrograms unpins the programs, so that the next Open loads others, as
// after an upgrade.
func dropPrograms(t *testing.T, f *Fence) {
	t.Helper()
	dirs, err := os.ReadDir(filepath.Join(f.dir, "progs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if err := os.RemoveAll(filepath.Join(f.dir, "progs", d.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAdoptRefuses(t *testing.T) {
	f := newFence(t)
	cgroup, other := newCgroup(t), newCgroup(t)
	box, err := f.AttachSandbox(cgroup, State{Sandbox: testSandbox, Policy: testPolicy})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.TakeOverSandbox(cgroup, testSandbox+1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unknown id: %v", err)
	}
	if _, err := f.TakeOverSandbox(other, testSandbox); err == nil {
		t.Error("adopted with another cgroup")
	}
	if err := f.Forget(testSandbox); !errors.Is(err, ErrPopulated) {
		t.Errorf("forgot a living cgroup: %v", err)
	}
	// The same path, but another cgroup: its links are gone.
	if err := errors.Join(os.Remove(cgroup), os.Mkdir(cgroup, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.TakeOverSandbox(cgroup, testSandbox); err == nil {
		t.Error("adopted a recreated cgroup")
	}
	if err := box.Attested(); err == nil {
		t.Error("attested a removed cgroup")
	}
	if err := box.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Forget(testSandbox); err != nil {
		t.Error(err)
	}
	if ids, err := f.Pinned(); err != nil || len(ids) != 0 {
		t.Errorf("Pinned = %v, %v", ids, err)
	}
}

func TestAttachRefuses(t *testing.T) {
	f := newFence(t)
	ns, busy, free := newNamespace(t), newCgroup(t), newCgroup(t)
	c := ns.spawn(t, busy)
	ok := State{Sandbox: testSandbox, Policy: testPolicy}
	if _, err := f.AttachSandbox(busy, ok); !errors.Is(err, ErrPopulated) {
		t.Errorf("populated cgroup: %v", err)
	}
	c.end()
	for name, st := range map[string]State{"no id": {Policy: 1}, "no policy": {Sandbox: 1}} {
		if _, err := f.AttachSandbox(free, st); err == nil {
			t.Errorf("%s: attached", name)
		}
	}
	if _, err := f.AttachSandbox(t.TempDir(), ok); err == nil {
		t.Error("attached to a directory that is no cgroup")
	}
	if ids, err := f.Pinned(); err != nil || len(ids) != 0 {
		t.Errorf("refused attachments left pins %v, %v", ids, err)
	}
	box, err := f.AttachSandbox(free, ok)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.AttachSandbox(free, ok); !errors.Is(err, ErrExists) {
		t.Errorf("second attach: %v", err)
	}
	c = ns.spawn(t, free)
	if err := box.Detach(); !errors.Is(err, ErrPopulated) {
		t.Errorf("detached a populated cgroup: %v", err)
	}
	if got := c.try(denied); got.Errno != errnoFor(unix.EACCES) {
		t.Errorf("after the refused detach: %+v", got)
	}
	c.end()
	if err := detachSoon(box); err != nil {
		t.Error(err)
	}
}

// detachSoon allows an ended process the moment it takes to leave its cgroup.
func detachSoon(box *Sandbox) error {
	var err error
	for range 500 {
		if err = box.Detach(); !errors.Is(err, ErrPopulated) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// TestNothingLeft starts and stops sandboxes and counts what the kernel holds.
func TestNothingLeft(t *testing.T) {
	f := newFence(t)
	ns := newNamespace(t)
	fd, _ := ns.listen(t, "tcp4", "198.18.0.1:0", "gateway")
	before, linksBefore, fdsBefore := usage(t, f), countLinks(t, f, ns), countFDs(t)
	for i := range 30 {
		id := uint32(100 + i)
		cgroup := newCgroup(t)
		box, err := f.AttachSandbox(cgroup, State{Sandbox: id, Policy: id})
		if err != nil {
			t.Fatal(err)
		}
		if err := box.Steer(int(ns.file.Fd()), SteerListeners{TCP4: fd}); err != nil {
			t.Fatal(err)
		}
		if err := f.PutNames(id, []NameEntry{{Addr: virtualRange.Addr(), Port: 1, Proto: ProtoTCP}}); err != nil {
			t.Fatal(err)
		}
		if err := detachSoon(box); err != nil {
			t.Fatal(err)
		}
		if err := f.DropPolicy(id); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(cgroup); err != nil {
			t.Fatal(err)
		}
	}
	if after := usage(t, f); after != before {
		t.Errorf("map entries: %+v before, %+v after", before, after)
	}
	if n := countFDs(t); n != fdsBefore {
		t.Errorf("descriptors: %d before, %d after", fdsBefore, n)
	}
	// The kernel frees detached links after a grace period.
	for range 100 {
		if countLinks(t, f, ns) <= linksBefore {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("links: %d before, %d after", linksBefore, countLinks(t, f, ns))
}

func TestRemoveLeavesNoMount(t *testing.T) {
	needRoot(t)
	pin := t.TempDir()
	f := openFence(t, pin)
	if on, err := onBPFFS(pin); err != nil || !on {
		t.Fatalf("not mounted: %v", err)
	}
	if err := os.Mkdir(filepath.Join(pin, layoutPrefix+"0"), 0o700); err != nil {
		t.Fatal(err)
	}
	stale, err := f.Stale()
	if err != nil || len(stale) != 1 {
		t.Fatalf("Stale = %v, %v", stale, err)
	}
	for _, bad := range []string{"x", filepath.Base(f.dir), layoutPrefix + "/../../x"} {
		if err := f.RemoveStale(bad); err == nil {
			t.Errorf("removed %q", bad)
		}
	}
	if err := f.RemoveStale(stale[0]); err != nil {
		t.Error(err)
	}
	if err := f.Remove(); err != nil {
		t.Error(err)
	}
	if on, err := onBPFFS(pin); err != nil || on {
		t.Errorf("still mounted: %v", err)
	}
}

func usage(t *testing.T, f *Fence) Usage {
	t.Helper()
	u, err := f.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// countLinks counts the links that run this fence's programs or sit on the
// namespace; others on this machine come and go as they like.
func countLinks(t *testing.T, f *Fence, ns *namespace) int {
	t.Helper()
	ours := make(map[ebpf.ProgramID]bool)
	for _, p := range f.progs {
		id, err := programID(p)
		if err != nil {
			t.Fatal(err)
		}
		ours[id] = true
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	it := new(link.Iterator)
	defer it.Close()
	n := 0
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			continue
		}
		if in := info.NetNs(); ours[info.Program] || in != nil && uint64(in.NetnsInode) == st.Ino {
			n++
		}
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

func countFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
