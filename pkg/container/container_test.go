// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	one   = "3f2a9c0d41e7b8a65544332211009988776655443322110099887766554433aa"
	other = "3f2a9c0d41e7ffff5544332211009988776655443322110099887766554433bb"
)

func hierarchy(dirs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for _, d := range dirs {
		m[d+"/cgroup.procs"] = &fstest.MapFile{}
	}
	return m
}

func TestFind(t *testing.T) {
	for _, path := range []string{
		"system.slice/docker-" + one + ".scope",
		"docker/" + one,
		"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12ab.slice/cri-containerd-" + one + ".scope",
		"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod12ab.slice/crio-" + one + ".scope",
		"kubepods/burstable/pod12ab-34/" + one,
		"machine.slice/libpod-" + one + ".scope",
		"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + one + ".scope",
		"libpod_parent/libpod-" + one,
		"system.slice/nerdctl-" + one + ".scope",
		"default/" + one,
	} {
		// Neighbours, what the container made below, and a monitor of it.
		fs := hierarchy(path, path+"/container", "system.slice/docker-"+strings.Repeat("b", 64)+".scope", "machine.slice/libpod-conmon-"+one+".scope", "init.scope")
		for _, id := range []string{one, one[:12], one[:40]} {
			if got, err := Find(fs, id); err != nil || got != path {
				t.Errorf("Find(%.12s) = %q, %v; want %q", id, got, err, path)
			}
		}
	}
	if got, err := Find(hierarchy("lxc.payload.web", "lxc.monitor.web"), "web"); err != nil || got != "lxc.payload.web" {
		t.Errorf("LXC: %q, %v", got, err)
	}
}

func TestFindRefuses(t *testing.T) {
	fs := hierarchy("system.slice/docker-"+one+".scope", "docker/"+other, "work/"+one)
	for name, id := range map[string]string{
		"several": one[:12], "too short": one[:11], "none": strings.Repeat("c", 64), "empty": "", "a path": "../" + one[:20], "a pattern": "*" + one[:20],
	} {
		if got, err := Find(fs, id); err == nil {
			t.Errorf("%s: Find(%q) = %q", name, id, got)
		}
	}
	for id, want := range map[string]string{one[:11]: "at least 12 digits of the id, or LXC's whole name", one[:3]: "at least 12 digits", strings.Repeat("c", 12): "looked for the names of"} {
		if _, err := Find(fs, id); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("Find(%q): %v", id, err)
		}
	}
	if _, err := Find(hierarchy("work/"+one), one); !errors.Is(err, ErrNotFound) {
		t.Errorf("a directory that no runtime made: %v", err)
	}
}
