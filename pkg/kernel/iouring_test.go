// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/io_uring.h, which package unix does not have.
const (
	opSendmsg = 9
	opConnect = 16
	opSocket  = 45 // 5.19

	setupSQPoll = 1 << 1

	enterGetEvents = 1 << 0
	enterWakeup    = 1 << 1

	offSQRing = 0
	offSQEs   = 0x10000000

	featSingleMmap = 1 << 0 // 5.4
)

// ringParams is struct io_uring_params.
type ringParams struct {
	SQEntries, CQEntries, Flags, CPU, Idle, Features, WQ uint32
	_                                                    [3]uint32
	SQ                                                   struct {
		Head, Tail, Mask, Entries, Flags, Dropped, Array, _ uint32
		_                                                   uint64
	}
	CQ struct {
		Head, Tail, Mask, Entries, Overflow, CQEs, Flags, _ uint32
		_                                                   uint64
	}
}

// ioRing submits one operation at a time.
type ioRing struct {
	fd         int
	p          ringParams
	ring, sqes []byte
	data       []byte // what operations point at: the kernel reads it, so it must not move
}

// openRing fails with errLacking where io_uring is missing or switched off.
func openRing(flags uint32) (*ioRing, error) {
	r := &ioRing{p: ringParams{Flags: flags, Idle: 1000}}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&r.p)), 0)
	if errno == unix.ENOSYS || errno == unix.EPERM {
		return nil, lacking("io_uring_setup", errno)
	}
	if errno != 0 {
		return nil, step("io_uring_setup", errno)
	}
	r.fd = int(fd)
	if r.p.Features&featSingleMmap == 0 {
		unix.Close(r.fd)
		return nil, lacking("io_uring features", unix.ENOSYS)
	}
	const rw, shared = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	size := max(r.p.SQ.Array+4*r.p.SQEntries, r.p.CQ.CQEs+16*r.p.CQEntries)
	var err, err2, err3 error
	r.ring, err = unix.Mmap(r.fd, offSQRing, int(size), rw, shared)
	r.sqes, err2 = unix.Mmap(r.fd, offSQEs, int(64*r.p.SQEntries), rw, shared)
	r.data, err3 = unix.Mmap(-1, 0, 4096, rw, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *ioRing) word(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.ring[off])) }

// entry is what the operations here need of struct io_uring_sqe.
type entry struct {
	op   uint8
	fd   int
	off  uint64
	addr unsafe.Pointer
	len  uint32
}

// do submits one entry and waits for its result.
func (r *ioRing) do(e entry) (int, error) {
	tail, head := r.word(r.p.SQ.Tail), r.word(r.p.CQ.Head)
	at := atomic.LoadUint32(tail) & *r.word(r.p.SQ.Mask)
	sqe := r.sqes[64*at : 64*at+64]
	clear(sqe)
	sqe[0] = e.op
	binary.NativeEndian.PutUint32(sqe[4:], uint32(int32(e.fd)))
	binary.NativeEndian.PutUint64(sqe[8:], e.off)
	binary.NativeEndian.PutUint64(sqe[16:], uint64(uintptr(e.addr)))
	binary.NativeEndian.PutUint32(sqe[24:], e.len)
	*r.word(r.p.SQ.Array + 4*at) = at
	atomic.AddUint32(tail, 1)
	for submit := uintptr(1); ; submit = 0 {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, 1, enterGetEvents|enterWakeup, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return -1, step("io_uring_enter", errno)
		}
		if h := atomic.LoadUint32(head); h != atomic.LoadUint32(r.word(r.p.CQ.Tail)) {
			res := int32(*r.word(r.p.CQ.CQEs + 16*(h&*r.word(r.p.CQ.Mask)) + 8))
			atomic.StoreUint32(head, h+1)
			runtime.KeepAlive(r)
			if res < 0 {
				return -1, unix.Errno(-res)
			}
			return int(res), nil
		}
	}
}

// inet4 writes the address where the kernel may read it.
func (r *ioRing) inet4(ip [4]byte, port uint16) (unsafe.Pointer, int) {
	binary.NativeEndian.PutUint16(r.data, unix.AF_INET)
	binary.BigEndian.PutUint16(r.data[2:], port)
	copy(r.data[4:], ip[:])
	return unsafe.Pointer(&r.data[0]), unix.SizeofSockaddrInet4
}

// message writes a struct msghdr to that address with a few bytes in it.
func (r *ioRing) message(ip [4]byte, port uint16) unsafe.Pointer {
	name, n := r.inet4(ip, port)
	iov := (*unix.Iovec)(unsafe.Pointer(&r.data[64]))
	iov.Base, iov.Len = &r.data[256], 5
	msg := (*unix.Msghdr)(unsafe.Pointer(&r.data[128]))
	msg.Name, msg.Namelen, msg.Iov, msg.Iovlen = (*byte)(name), uint32(n), iov, 1
	return unsafe.Pointer(msg)
}

func (r *ioRing) close() {
	unix.Close(r.fd)
	for _, m := range [][]byte{r.ring, r.sqes, r.data} {
		unix.Munmap(m)
	}
}
