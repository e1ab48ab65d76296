// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cstring copies a string to memory of its own that is never freed, so that
// raw calls, also 32-bit ones, may be given its address: it lies below 4 GiB
// where the architecture has MAP_32BIT.
func cstring(s string) uintptr {
	return block(append([]byte(s), 0))
}

func block(data []byte) uintptr {
	mem, err := unix.Mmap(-1, 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|map32)
	check(err)
	copy(mem, data)
	return uintptr(unsafe.Pointer(&mem[0]))
}

func procFD(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
