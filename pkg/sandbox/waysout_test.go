// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// mayDoOf is what a look finds of what processes may do.
func mayDoOf(t *testing.T, cgroup string, b bounds, pids ...int) (at Sighting) {
	t.Helper()
	m, err := newMayDo(cgroup, b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.all(pids); err != nil {
		t.Fatal(err)
	}
	m.into(&at, Sighting{})
	return at
}

// The kernel's own word on who may leave, against ours.
func TestWaysOut(t *testing.T) {
	root, err := kernel.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	const uid = 65534
	base := filepath.Join(root, fmt.Sprintf("ringfence-ways-%d", os.Getpid()))
	service, beside := filepath.Join(base, "service"), filepath.Join(base, "beside")
	for _, dir := range []string{base, service, beside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = RemoveCgroup(dir) })
	}
	dir, err := os.Open(service)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	in := func(script string, uid uint32) *exec.Cmd {
		cmd := exec.Command("sh", "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd
	}
	for _, c := range []struct {
		name string
		set  func() error
		want bool
	}{
		{"all is root's", func() error { return nil }, false},
		{"the new place alone is its own", func() error { return os.Chown(filepath.Join(beside, "cgroup.procs"), uid, uid) }, false},
		{"what is above both too", func() error { return os.Chown(filepath.Join(base, "cgroup.procs"), uid, uid) }, true},
		{"its group's", func() error { return os.Chown(filepath.Join(base, "cgroup.procs"), 0, uid) }, false},
		{"its group's and writable", func() error { return os.Chmod(filepath.Join(base, "cgroup.procs"), 0o664) }, true},
		{"everybody's but its group's", func() error { return os.Chmod(filepath.Join(base, "cgroup.procs"), 0o646) }, false},
		{"everybody's", func() error {
			return errors.Join(os.Chown(filepath.Join(base, "cgroup.procs"), 0, 0), os.Chmod(filepath.Join(base, "cgroup.procs"), 0o646))
		}, true},
	} {
		if err := c.set(); err != nil {
			t.Fatal(err)
		}
		left := in("echo $$ >"+beside+"/cgroup.procs", uid).Run() == nil
		if left != c.want {
			t.Errorf("%s: the kernel lets it leave: %t", c.name, left)
		}
		stays := in("exec sleep 1000", uid)
		if err := stays.Start(); err != nil {
			t.Fatal(err)
		}
		got := mayDoOf(t, service, newBounds(), stays.Process.Pid).Ways
		if (len(got) > 0) != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if c.want && len(got) == 1 && !strings.Contains(got[0], "cgroup.procs of "+strings.TrimPrefix(base, root)+"/ ") {
			t.Errorf("%s: %s", c.name, got[0])
		}
		_ = stays.Process.Kill()
		_ = stays.Wait()
	}
	if got := mayDoOf(t, service, newBounds(), 1<<30).Ways; len(got) > 0 {
		t.Errorf("a process that has ended: %v", got)
	}
}

func TestWritableMounts(t *testing.T) {
	const tail = " shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	for line, want := range map[string][]string{
		"35 25 0:30 / /sys/fs/cgroup rw,nosuid" + tail:         {"/"},
		"35 25 0:30 /kubepods/pod1/c /sys/fs/cgroup rw" + tail: {"/kubepods/pod1/c"},
		"35 25 0:30 / /sys/fs/cgroup ro,nosuid" + tail:         nil,
		"35 25 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup ro\n": nil,
		"35 25 0:30 / /sys/fs/cgroup rw - cgroup cgroup rw\n":  nil,
		`35 25 0:30 /a\040b /sys/fs/cgroup rw` + tail:          {"/"},
		"35 25 0:30 /../.. /sys/fs/cgroup rw" + tail:           {"/"},
		"35 25 0:30 /\n": nil,
		"":               nil,
		"1 2 0:3 / / rw - ext4 /dev/a rw\n35 25 0:30 /x /c rw - cgroup2 none rw\n": {"/x"},
	} {
		if got := writableMounts(line, "cgroup2"); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func FuzzWritableMounts(f *testing.F) {
	f.Add("35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got := writableMounts(text, "cgroup2"); len(got) > strings.Count(text, "cgroup2") {
			t.Errorf("%q: %q", text, got)
		}
	})
}
