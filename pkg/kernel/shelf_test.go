// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// detachHook takes the program of one hook off the cgroup, as root can at will.
func detachHook(t *testing.T, s *Sandbox, want Hook) {
	t.Helper()
	for _, h := range s.set {
		if h.hook != want {
			continue
		}
		l, err := s.fence.shelf.link(s.kept(h.name))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := l.(interface{ Detach() error }).Detach(); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no hook %s", want)
}

// However many sandboxes there are, what fences them takes no descriptor but
// the one of the cgroup.
func TestFencesTakeNoDescriptors(t *testing.T) {
	f, ns := newFence(t), newNamespace(t)
	fd, _ := ns.listen(t, "tcp4", "198.18.0.1:0", "gateway")
	const sandboxes = 10
	cgroups := make([]string, sandboxes)
	for i := range cgroups {
		cgroups[i] = newCgroup(t)
	}
	before := countFDs(t)
	for i, cgroup := range cgroups {
		id := uint32(testSandbox + i)
		box, err := f.AttachSandbox(cgroup, State{Sandbox: id, Policy: id})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := box.Detach(); err != nil {
				t.Error(err)
			}
		}()
		if i == 0 { // a namespace takes one
			if err := box.Steer(int(ns.file.Fd()), SteerListeners{TCP4: fd}); err != nil {
				t.Fatal(err)
			}
		}
		if err := box.Attested(); err != nil {
			t.Error(err)
		}
	}
	if n := countFDs(t) - before; n != sandboxes {
		t.Errorf("%d sandboxes take %d descriptors, want one each", sandboxes, n)
	}
}

// What is pinned for the next keeper can be removed or replaced, by somebody
// with root: the fence of a sandbox stands as long as its keeper lives.
func TestFenceOutlivesItsPins(t *testing.T) {
	r := newRig(t, 0)
	refused := func(when string) {
		t.Helper()
		if got := r.in.try(denied); got.Errno != errnoFor(unix.EACCES) {
			t.Errorf("%s: %+v", when, got)
		}
		if err := r.box.Attested(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("with its pins")
	if err := os.RemoveAll(r.box.dir); err != nil {
		t.Fatal(err)
	}
	refused("without its pins")

	// The control: what held it is the shelf, and without that it is seen.
	for _, h := range r.box.set {
		if err := r.fence.shelf.drop(r.box.kept(h.name)); err != nil {
			t.Fatal(err)
		}
	}
	still := true
	for range 250 { // the kernel detaches after a grace period
		if still = r.in.try(denied).Errno == errnoFor(unix.EACCES); !still {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if still {
		t.Error("refused by nothing")
	}
	if err := r.box.Attested(); err == nil || !strings.Contains(err.Error(), "connect4: not attached") {
		t.Errorf("attested what is gone: %v", err)
	}
}

// Another link in the place of a sandbox's own is no link of the sandbox.
func TestReplacedLinkIsSeen(t *testing.T) {
	r := newRig(t, 0)
	other, err := r.fence.AttachSandbox(newCgroup(t), State{Sandbox: testSandbox + 1, Policy: testPolicy})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Detach(); err != nil {
			t.Error(err)
		}
	}()
	h := r.box.set[0]
	theirs, err := r.fence.shelf.link(other.kept(h.name))
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	own := r.box.kept(h.name)
	if err := r.fence.shelf.put(own, theirs); !errors.Is(err, os.ErrExist) {
		t.Errorf("put in a place that is taken: %v", err)
	}
	if err := errors.Join(r.fence.shelf.drop(own), r.fence.shelf.put(own, theirs)); err != nil {
		t.Fatal(err)
	}
	if err := r.box.Attested(); err == nil || !strings.Contains(err.Error(), h.name+": attached to cgroup") {
		t.Errorf("attested with the link of another cgroup: %v", err)
	}
}
