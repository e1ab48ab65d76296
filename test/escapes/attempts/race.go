// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// flipper is memory that two threads share without agreement, which is the
// point: one writes addresses, the other hands them to the kernel.
type flipper struct {
	word *[2]uint64
	done atomic.Bool
	wait sync.WaitGroup
}

func newFlipper(a, b unix.RawSockaddrInet4) *flipper {
	f := &flipper{word: new([2]uint64)}
	first, second := *(*[2]uint64)(unsafe.Pointer(&a)), *(*[2]uint64)(unsafe.Pointer(&b))
	*f.word = first
	f.wait.Go(func() {
		for !f.done.Load() {
			atomic.StoreUint64(&f.word[0], second[0])
			atomic.StoreUint64(&f.word[0], first[0])
		}
	})
	return f
}

func (f *flipper) stop() {
	f.done.Store(true)
	f.wait.Wait()
}

func (f *flipper) addr() *unix.RawSockaddrAny { return (*unix.RawSockaddrAny)(unsafe.Pointer(f.word)) }

// rawConnect passes 16 bytes of an address as they are.
func rawConnect(fd int, sa *unix.RawSockaddrAny) error {
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(sa)), unix.SizeofSockaddrInet4)
	if e != 0 {
		return e
	}
	return nil
}
