// SPDX-License-Identifier: Apache-2.0

package main

import (
	"golang.org/x/sys/unix"
)

// escapeKey is the System V key of the world outside, where none is given.
const escapeKey = 0x45534341

func ipcAttempts() []*Attempt {
	var out []*Attempt
	add := func(name, layer, control string, expect Expect, run func(p params) error) *Attempt {
		a := &Attempt{Name: "ipc-" + name, Class: "ipc", Expect: expect, Layer: layer, Control: control, run: run}
		out = append(out, a)
		return a
	}
	add("sysv-shm", "ipcns", "finds another program's shared memory", errnos("ENOENT"), func(p params) error { return sys(unix.SYS_SHMGET, uintptr(p.int("key", escapeKey)), 0, 0) })
	add("sysv-msg", "ipcns", "finds another program's message queue", errnos("ENOENT"), func(p params) error { return sys(unix.SYS_MSGGET, uintptr(p.int("key", escapeKey)), 0) })
	add("sysv-sem", "ipcns", "finds another program's semaphores", errnos("ENOENT"), func(p params) error { return sys(unix.SYS_SEMGET, uintptr(p.int("key", escapeKey)), 0, 0) })
	for _, a := range out {
		a.Params = []string{"key"}
	}
	a := add("mqueue", "ipcns", "finds another program's POSIX queue", errnos("ENOENT"), func(p params) error {
		fd, err := sysr(unix.SYS_MQ_OPEN, cstring(p.get("mq", "escape-queue")), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0)
		if err != nil {
			return err
		}
		return unix.Close(int(fd))
	})
	a.Params = []string{"mq"}
	denied := errnos("EPERM")
	add("key-add", "seccomp", "adds a key to the user's keyring", denied, func(params) error {
		id, err := unix.AddKey("user", "escape", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
		if err != nil {
			return err
		}
		_, err = unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0)
		return err
	})
	add("key-session", "seccomp", "finds the session keyring", denied, func(params) error {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)
		return err
	})
	add("key-join", "seccomp", "joins a session by name", denied, func(params) error {
		_, err := unix.KeyctlJoinSessionKeyring("escape")
		return err
	})
	add("key-request", "seccomp", "asks for a key, which may run a program on the host", denied, func(params) error {
		return reach(unix.SYS_REQUEST_KEY, []unix.Errno{unix.ENOKEY, unix.EFAULT}, cstring("user"), cstring("escape-none"), 0, 0)
	})
	add("io-uring-setup", "seccomp", "makes a ring", denied, func(params) error {
		fd, err := sysr(unix.SYS_IO_URING_SETUP, 1, block(make([]byte, 120)))
		if err != nil {
			return err
		}
		return unix.Close(int(fd))
	})
	add("io-uring-enter", "seccomp", "submits to a ring", denied, func(params) error {
		return reach(unix.SYS_IO_URING_ENTER, []unix.Errno{unix.EBADF, unix.EINVAL, unix.EOPNOTSUPP}, bad, 0, 0, 0, 0, 0)
	})
	add("io-uring-register", "seccomp", "registers with a ring", denied, func(params) error {
		return reach(unix.SYS_IO_URING_REGISTER, []unix.Errno{unix.EBADF, unix.EINVAL, unix.EOPNOTSUPP}, bad, 0, 0, 0)
	})
	add("userfaultfd", "seccomp", "handles page faults itself", denied, func(params) error {
		fd, err := sysr(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1 /* UFFD_USER_MODE_ONLY */)
		if err != nil {
			return err
		}
		return unix.Close(int(fd))
	})
	return out
}
