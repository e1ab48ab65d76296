// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/ringfence/ringfence/pkg/confine"
	"golang.org/x/sys/unix"
)

// lock loads the system call filter on every thread and then checks, by asking
// the kernel, that this process has no more rights than the agent may have.
func lock(spec *confine.Spec) error {
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors close-on-exec: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become non-dumpable: %w", err)
	}
	if err := loadFilter(spec.SeccompFD); err != nil {
		return err
	}
	return attest()
}

// loadFilter reads a struct sock_filter array and installs it.
func loadFilter(fd int) error {
	if fd < 0 {
		return errors.New("seccomp: no filter")
	}
	f := os.NewFile(uintptr(fd), "seccomp-filter")
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	size := int(fi.Size())
	const one = int(unsafe.Sizeof(unix.SockFilter{}))
	if size == 0 || size%one != 0 || size/one > 4096 {
		return fmt.Errorf("seccomp: a filter of %d bytes", size)
	}
	prog := make([]unix.SockFilter, size/one)
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&prog[0])), size)
	if n, err := unix.Pread(int(f.Fd()), raw, 0); err != nil || n != size {
		return fmt.Errorf("seccomp: read filter (%d of %d bytes): %w", n, size, errors.Join(err, nil))
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	if e != 0 {
		return fmt.Errorf("seccomp: load filter: %w", e)
	}
	if r != 0 {
		return fmt.Errorf("seccomp: thread %d could not be synchronised", r)
	}
	return nil
}

// attest asks the kernel what is in force, so that Ready is never a hope.
func attest() error {
	var caps [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return fmt.Errorf("attest: capabilities: %w", err)
	}
	for _, c := range caps {
		if c.Effective|c.Permitted|c.Inheritable != 0 {
			return errors.New("attest: capabilities are left")
		}
	}
	for _, want := range []struct {
		what   string
		option int
		value  int
	}{
		{"no_new_privs", unix.PR_GET_NO_NEW_PRIVS, 1},
		{"seccomp mode", unix.PR_GET_SECCOMP, unix.SECCOMP_MODE_FILTER},
		{"dumpable", unix.PR_GET_DUMPABLE, 0},
	} {
		got, err := unix.PrctlRetInt(want.option, 0, 0, 0, 0)
		if err != nil {
			return fmt.Errorf("attest: %s: %w", want.what, err)
		}
		if got != want.value {
			return fmt.Errorf("attest: %s is %d, not %d", want.what, got, want.value)
		}
	}
	return nil
}
