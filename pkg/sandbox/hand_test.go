// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// returns fails the test if fn does not return: it would wait for days.
func returns(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { fn(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not come back", what)
	}
}

// lingering is a connected socket whose last close waits for days: it has data
// for somebody who does not read.
func lingering(t *testing.T) (fd int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: ln.Addr().(*net.TCPAddr).Port}
	if err := unix.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 1<<16); err == nil; {
		_, err = unix.Write(fd, buf)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1000000}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func handOf(t *testing.T, places chan struct{}) *hand {
	t.Helper()
	h, err := newHand(places)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The keeper's copy is the last one when the process has closed its own, and
// the socket waits for somebody who does not read.
func TestHandClosesSocketThatLingers(t *testing.T) {
	fd := lingering(t)
	places := make(chan struct{}, 1)
	h := handOf(t, places)
	returns(t, "closing the last descriptor", func() {
		if err := h.run(func() { unix.Close(fd) }); err != nil {
			t.Error(err)
		}
	})
	h.close()
	returns(t, "the thread", func() { places <- struct{}{} })
}

// Nothing wakes a thread that waits for a lock: it is left behind, once.
func TestHandThatHangs(t *testing.T) {
	places, wait := make(chan struct{}, 1), make(chan struct{})
	h := handOf(t, places)
	if err := h.run(func() { <-wait }); !errors.Is(err, errHangs) {
		t.Errorf("it came back: %v", err)
	}
	h.close()
	if !h.hangs() {
		t.Error("it does not hang")
	}
	if _, err := newHand(places); err == nil {
		t.Error("control: there is a place for another one")
	}
	close(wait)
	returns(t, "the thread", func() { places <- struct{}{} })
	if h.hangs() {
		t.Error("it hangs still")
	}
}

// A process that keeps the lock of its socket: it sends what it never gives
// (userfaultfd(2)). The look ends, and says where.
func TestLookAtSocketWhoseLockIsHeld(t *testing.T) {
	pid := python(t, `
import ctypes, mmap, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.syscall(323, 0o2000000) # userfaultfd of x86-64
memory = mmap.mmap(-1, 4096)
where = ctypes.addressof(ctypes.c_char.from_buffer(memory))
api, register = bytearray(struct.pack("QQQ", 0xAA, 0, 0)), bytearray(struct.pack("QQQQ", where, 4096, 1, 0))
def ioctl(what, arg): return libc.ioctl(fd, ctypes.c_ulong(what), (ctypes.c_char * len(arg)).from_buffer(arg))
if fd < 0 or ioctl(0xC018AA3F, api) or ioctl(0xC020AA00, register):
    print("missing: userfaultfd of this kernel, or system call 323 is another one", flush=True)
    sys.exit()
ln = socket.create_server(("127.0.0.1", 0))
s = socket.create_connection(ln.getsockname())
libc.send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
threading.Thread(target=libc.send, args=(s.fileno(), where, 4096, 0)).start()
time.sleep(0.5)
print("ready", flush=True)
time.sleep(1000)
`)
	places := make(chan struct{}, 1)
	l := &looseLook{pids: []int{pid}, hand: handOf(t, places), held: new(atomic.Bool), bounds: newBounds(), seen: map[uint64]bool{}}
	returns(t, "the look", func() {
		if done, err := l.all(l.pids); done != 0 || err != nil {
			t.Errorf("%d done, %v", done, err)
		}
	})
	if !l.hung || len(l.found) == 0 || !strings.Contains(l.found[len(l.found)-1].Why, "does not end") || !strings.Contains(l.why(0), "waits in the kernel") {
		t.Errorf("hung %t, found %v", l.hung, l.found)
	}
	l.hand.close()
	s := &Sandbox{hung: l.hand}
	if _, err := s.newHand(); err == nil {
		t.Error("the next look begins")
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	returns(t, "the thread", func() { places <- struct{}{} })
	if l.hand.hangs() {
		t.Error("it hangs still")
	}
}
