// SPDX-License-Identifier: Apache-2.0

package main

import (
	"golang.org/x/sys/unix"
)

func mountAttempts() []*Attempt {
	var out []*Attempt
	add := func(name, control string, run func(p params) error) *Attempt {
		a := &Attempt{Name: "mount-" + name, Class: "mounts", Expect: errnos("EPERM"), Layer: "seccomp", As: asRoot, Control: control, run: run}
		out = append(out, a)
		return a
	}
	arrives := func(nr uintptr, errs ...unix.Errno) func(params) error {
		return func(params) error {
			return reach(nr, append(errs, unix.EFAULT, unix.EINVAL, unix.EBADF), bad, bad, bad, bad, bad)
		}
	}
	add("tmpfs", "mounts a file system", func(params) error {
		return inTemp(func(dir string) error {
			if err := unix.Mount("escape", dir, "tmpfs", 0, ""); err != nil {
				return err
			}
			return unix.Unmount(dir, unix.MNT_DETACH)
		})
	})
	add("bind", "shows / in another place", func(params) error {
		return inTemp(func(dir string) error {
			if err := unix.Mount("/", dir, "", unix.MS_BIND, ""); err != nil {
				return err
			}
			return unix.Unmount(dir, unix.MNT_DETACH)
		})
	})
	add("proc", "mounts a proc of its own", func(params) error {
		return inTemp(func(dir string) error {
			if err := unix.Mount("proc", dir, "proc", 0, ""); err != nil {
				return err
			}
			return unix.Unmount(dir, unix.MNT_DETACH)
		})
	})
	add("remount", "makes a read-only mount writable", func(params) error {
		return reach(unix.SYS_MOUNT, []unix.Errno{unix.EINVAL, unix.ENOENT}, 0, cstring("/proc/self"), 0, unix.MS_REMOUNT|unix.MS_BIND, 0)
	})
	add("umount", "takes a mount away to see below it", func(params) error {
		return reach(unix.SYS_UMOUNT2, []unix.Errno{unix.EINVAL, unix.ENOENT}, cstring("/proc/self"), unix.MNT_DETACH)
	})
	add("pivot-root", "changes the root mount", func(params) error { // 7.3 looks paths up before it asks for the right
		return reach(unix.SYS_PIVOT_ROOT, []unix.Errno{unix.EINVAL, unix.EBUSY}, cstring("/"), cstring("/"))
	})
	add("chroot", "changes its root", func(params) error { return unix.Chroot("/") })
	add("fsopen", "makes a file system with the new calls", func(params) error {
		fd, err := sysr(unix.SYS_FSOPEN, cstring("tmpfs"), unix.FSOPEN_CLOEXEC)
		if err != nil {
			return err
		}
		return unix.Close(int(fd))
	})
	add("fsconfig", "configures one", arrives(unix.SYS_FSCONFIG, unix.EOPNOTSUPP))
	add("fsmount", "mounts one", arrives(unix.SYS_FSMOUNT))
	add("fspick", "picks a mounted one", arrives(unix.SYS_FSPICK))
	add("open-tree", "clones a part of the tree", func(params) error {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
	add("move-mount", "moves a mount", arrives(unix.SYS_MOVE_MOUNT))
	add("setattr", "changes a mount's attributes", arrives(unix.SYS_MOUNT_SETATTR, unix.E2BIG))
	a := add("list", "lists mounts by number", arrives(458))
	a.Expect, a.Needs = errnos("ENOSYS", "EPERM"), []string{"linux:6.8"}
	a = add("stat", "asks for a mount's secrets by number", arrives(457))
	a.Expect, a.Needs = errnos("ENOSYS", "EPERM"), []string{"linux:6.8"}
	a = add("open-tree-attr", "clones with attributes", arrives(467, unix.E2BIG))
	a.Expect, a.Needs = errnos("ENOSYS", "EPERM"), []string{"linux:6.15"}
	return out
}
