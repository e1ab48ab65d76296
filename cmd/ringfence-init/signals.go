// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The main goroutine runs on the process's first thread and on no other.
func init() { runtime.LockOSThread() }

// parkFirstThread runs f while the first thread sleeps. Go blocks signals on a
// thread that starts a process or another thread; that must not be the first.
func parkFirstThread(f func() int) int {
	done := make(chan int)
	go func() { done <- f() }()
	return <-done
}

// defaultSignals gives every signal its default action. Nobody but the kernel
// can end the first process of a namespace by a signal that it has no handler
// for, not even by one whose default is to end (pid_namespaces(7)); Go's
// handlers would end it. The one that Go interrupts its own threads with is
// among them: goroutines here give way by themselves.
//
// The protection holds only while the first thread blocks no signal: the kernel
// asks that one alone whether it ignores a signal, a blocked signal counts as
// one that it does not ignore, and then any other thread is found to end the
// process by it (sig_ignored and complete_signal of kernel/signal.c). A handler
// blocks signals while it runs; so there is none at all, and parkFirstThread
// does the rest.
//
// Nothing is handed down ignored either, neither what the keeper was started
// with nor libc's two internal signals, which glibc's posix_spawn leaves so.
func defaultSignals() {
	var deflt [4]uint64 // struct sigaction of the kernel, all zero: SIG_DFL
	for s := unix.Signal(1); s <= 64; s++ {
		if s == unix.SIGKILL || s == unix.SIGSTOP {
			continue
		}
		// Cannot fail: the signals exist and may be set.
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&deflt)), 0, 8, 0, 0)
	}
}
