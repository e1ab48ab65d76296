// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

var namespaceFlags = []struct {
	name string
	flag uintptr
	user bool // possible without root
}{
	{"user", unix.CLONE_NEWUSER, true},
	{"net", unix.CLONE_NEWNET, false},
	{"mount", unix.CLONE_NEWNS, false},
	{"pid", unix.CLONE_NEWPID, false},
	{"ipc", unix.CLONE_NEWIPC, false},
	{"uts", unix.CLONE_NEWUTS, false},
	{"cgroup", unix.CLONE_NEWCGROUP, false},
	{"time", unix.CLONE_NEWTIME, false},
}

func namespaceAttempts() []*Attempt {
	var out []*Attempt
	add := func(name, control string, expect Expect, run func(p params) error) *Attempt {
		a := &Attempt{Name: "ns-" + name, Class: "namespaces", Expect: expect, Layer: "seccomp", As: asRoot, Control: control, run: run}
		out = append(out, a)
		return a
	}
	for _, n := range namespaceFlags {
		a := add("unshare-"+n.name, "gets a new "+n.name+" namespace", errnos("EPERM"), func(params) error {
			if n.flag == unix.CLONE_NEWPID { // such a process cannot start threads, which a Go program needs
				cmd := exec.Command("/bin/true")
				cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: n.flag}
				return cmd.Run()
			}
			return child(&syscall.SysProcAttr{Unshareflags: n.flag})
		})
		if n.user {
			a.As, a.Needs = asUser, []string{"userns"}
		}
		if n.flag == unix.CLONE_NEWTIME {
			continue // clone has no room for it: the bit is a signal number there
		}
		a = add("clone-"+n.name, "starts a child in a new "+n.name+" namespace", errnos("EPERM"), func(params) error {
			return child(&syscall.SysProcAttr{Cloneflags: n.flag})
		})
		if n.user {
			a.As, a.Needs = asUser, []string{"userns"}
		}
	}
	add("clone-high-bits", "with garbage in the upper half of the flags", errnos("EPERM"), func(params) error {
		return forked(func() (uintptr, error) { return rawClone(unix.CLONE_NEWUTS | garbage) })
	})
	add("clone3-user", "starts a child in a new user namespace with clone3", errnos("ENOSYS"), func(params) error {
		return forked(func() (uintptr, error) { return rawClone3(unix.CLONE_NEWUSER) })
	}).Needs = []string{"userns"}
	add("clone3-net", "starts a child in a new network namespace with clone3", errnos("ENOSYS"), func(params) error {
		return forked(func() (uintptr, error) { return rawClone3(unix.CLONE_NEWNET) })
	})
	setns := func(name, kind, control string, expect Expect) *Attempt {
		a := add("setns-"+name, control, expect, func(p params) error {
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", p.int("hostpid", 1), kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Setns(fd, 0)
		})
		a.Params = []string{"hostpid"}
		return a
	}
	there := errnos("EPERM", "EACCES", "ENOENT")
	setns("net", "net", "joins the network of a host process", there)
	setns("uts", "uts", "joins the host name of a host process", there)
	setns("ipc", "ipc", "joins the shared memory of a host process", there)
	setns("cgroup", "cgroup", "joins the cgroup view of a host process", there)
	a := add("setns-pidfd", "joins the network of a host process by its pidfd", errnos("EPERM", "ESRCH"), func(p params) error {
		fd, err := unix.PidfdOpen(p.int("hostpid", 1), 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Setns(fd, unix.CLONE_NEWNET)
	})
	a.Params = []string{"hostpid"}
	return out
}

// child starts this program again with process attributes and nothing to do.
func child(attr *syscall.SysProcAttr) error {
	cmd := exec.Command("/proc/self/exe", "--helper", "true")
	cmd.SysProcAttr = attr
	return cmd.Run()
}

// forked waits for a child that a raw clone made.
func forked(clone func() (uintptr, error)) error {
	pid, err := clone()
	if err != nil {
		return err
	}
	_, err = unix.Wait4(int(pid), nil, unix.WALL, nil)
	return err
}
