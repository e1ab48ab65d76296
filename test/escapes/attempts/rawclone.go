// SPDX-License-Identifier: Apache-2.0

package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The children of these calls leave at once with a raw exit: a forked Go
// program must not do anything else. SIGCHLD-less: they are waited for with
// __WALL.

//go:norace
func rawClone(flags uintptr) (uintptr, error) {
	pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e == 0 && pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	if e != 0 {
		return 0, e
	}
	return pid, nil
}

//go:norace
func rawClone3(flags uint64) (uintptr, error) {
	args := [11]uint64{flags, 0, 0, 0, uint64(unix.SIGCHLD)}
	pid, _, e := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if e == 0 && pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	if e != 0 {
		return 0, e
	}
	return pid, nil
}
