// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/unix"
)

var ignored = make(chan os.Signal, 1)

// catchSignals takes every signal, so that none ends PID 1. Catching instead of
// ignoring lets programs start with default actions.
func catchSignals() {
	signal.Notify(ignored)
	// Go leaves libc's two internal signals alone, and glibc's posix_spawn (so
	// everything that make starts) hands them down ignored: the keeper's way of
	// being started would show in the agent.
	var deflt [4]uint64 // struct sigaction of the kernel, all zero: SIG_DFL
	for _, s := range []uintptr{32, 33} {
		// Cannot fail: the signals exist and may be set. If it does, an ignored
		// signal is all that is handed down.
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, s, uintptr(unsafe.Pointer(&deflt)), 0, 8, 0, 0)
	}
}
