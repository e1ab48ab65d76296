// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/test/env"
)

// holdLock connects and sends memory that it never gives (userfaultfd(2)): the
// kernel has the socket's lock until the process ends.
func (a attempt) holdLock() result {
	const page = 4096
	uffd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return fail("userfaultfd", errno)
	}
	memory, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fail("mmap", err)
	}
	api, register := make([]byte, 24), make([]byte, 32)
	binary.NativeEndian.PutUint64(api, 0xaa) // UFFD_API
	binary.NativeEndian.PutUint64(register, uint64(uintptr(unsafe.Pointer(&memory[0]))))
	binary.NativeEndian.PutUint64(register[8:], page)
	binary.NativeEndian.PutUint64(register[16:], 1) // UFFDIO_REGISTER_MODE_MISSING
	for _, call := range []struct {
		name string
		what uintptr
		arg  []byte
	}{{"UFFDIO_API", 0xc018aa3f, api}, {"UFFDIO_REGISTER", 0xc020aa00, register}} {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uffd, call.what, uintptr(unsafe.Pointer(&call.arg[0]))); errno != 0 {
			return fail(call.name, errno)
		}
	}
	if r := a.keep(unix.SOCK_STREAM); r.Errno != 0 {
		return r
	}
	go func() { _, _ = unix.Write(kept[a.N], memory) }()
	time.Sleep(200 * time.Millisecond) // until it is in the kernel
	return result{}
}

// A process that keeps the lock of its socket delays nobody for good: the rest is
// told, other sandboxes' flows end, and its own do when it lets go.
func TestEndDeniedWhoseLockIsHeld(t *testing.T) {
	r := newRig(t, 0)
	fill(t, r.fence, testPolicy, "203.0.113.0/24")
	holder := r.ns.spawn(t, r.cgroup)
	if res := holder.try(attempt{Op: "hold-lock", Addr: "203.0.113.5:443"}); res.Errno != 0 {
		env.Lack(t, false, "userfaultfd: "+res.Step+": "+res.Errno.Error())
	}
	ns := int(r.ns.file.Fd())
	if err := r.box.SetState(State{Sandbox: testSandbox, Policy: testPolicy + 1, Generation: 4}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, _, err := r.box.EndDenied(ns); ended <- err }()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrSocketHeld) {
			t.Fatalf("%v", err)
		}
	case <-time.After(env.Wait(30 * time.Second)):
		t.Fatal("it does not come back")
	}
	if !r.box.held.Load() {
		t.Error("nothing is left behind")
	}
	if _, _, err := r.box.EndDenied(ns); !errors.Is(err, ErrSocketHeld) {
		t.Errorf("again, while it is held: %v", err)
	}
	if env.Linux(6, 9) { // before, the machine has one lock for it
		other := new(atomic.Bool)
		if _, err := destroyFlows(ns, other, func(Flow) bool { return false }); err != nil || other.Load() {
			t.Errorf("another turn: %v", err)
		}
	}
	holder.end()
	for end := time.Now().Add(env.Wait(30 * time.Second)); r.box.held.Load(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is held still")
		}
	}
	if _, _, err := r.box.EndDenied(ns); err != nil {
		t.Errorf("once it has let go: %v", err)
	}
}
