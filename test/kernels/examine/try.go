// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerPidFD asks a socket for its peer's pidfd.
func peerPidFD() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	fd, err := unix.GetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// idmap makes a file system of that kind, or takes the root, and mounts it with
// other owners.
func idmap(kind string) error {
	dir, err := os.MkdirTemp("/var/tmp", "examine")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	options := ""
	if kind == "overlay" {
		for _, d := range []string{"upper", "work", "merged"} {
			if err := os.Mkdir(dir+"/"+d, 0o755); err != nil {
				return err
			}
		}
		options = fmt.Sprintf("lowerdir=/usr/share,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	}
	target := dir
	if kind == "overlay" {
		target = dir + "/merged"
	}
	if kind != "ext4" {
		if err := unix.Mount(kind, target, kind, 0, options); err != nil {
			return err
		}
		defer unix.Unmount(target, unix.MNT_DETACH)
	}
	return mapped(target)
}

// mapped clones a mount and gives the clone the owners of a user namespace.
func mapped(dir string) error {
	child := exec.Command("sleep", "60")
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
	}
	if err := child.Start(); err != nil {
		return err
	}
	defer func() { _ = errors.Join(child.Process.Kill(), child.Wait()) }()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Process.Pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
}
