// SPDX-License-Identifier: Apache-2.0

// Package self closes the calling process in: its identity and capabilities,
// its files, its system calls. Each function is one wall and leaves the others
// alone; ringfence-init puts up all of them, and the tests that ask what each
// wall stops by itself put up one.
package self

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LoadFilter reads a struct sock_filter array from fd, which it closes, and
// installs it on every thread. Without privileges no_new_privs must be set.
func LoadFilter(fd int) error {
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
