// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A read or write of a socket that does not block is over in some microseconds.
// Told of each, Go's scheduler takes the processor away from some of them and
// wakes another thread for it, which costs more than they do. So those of a
// small size are made without telling it.

// smallIO is what takes few microseconds to copy.
const smallIO = 32 << 10

// socketRead is read(2) on a socket that does not block.
func socketRead(fd uintptr, p []byte) (int, error) { return socketCall(unix.SYS_READ, fd, p) }

// socketWrite is write(2) on a socket that does not block.
func socketWrite(fd uintptr, p []byte) (int, error) { return socketCall(unix.SYS_WRITE, fd, p) }

func socketCall(call, fd uintptr, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// readSmall is c.Read.
func readSmall(c *net.TCPConn, raw syscall.RawConn, p []byte) (n int, err error) {
	if len(p) == 0 || len(p) > smallIO {
		return c.Read(p)
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, failed = socketRead(fd, p)
		return failed != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, opError(c, "read", err)
	case failed != nil:
		return 0, opError(c, "read", os.NewSyscallError("read", failed))
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// writeSmall is c.Write.
func writeSmall(c *net.TCPConn, raw syscall.RawConn, p []byte) (n int, err error) {
	if len(p) == 0 || len(p) > smallIO {
		return c.Write(p)
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for failed = nil; failed == nil && n < len(p); {
			var m int
			m, failed = socketWrite(fd, p[n:])
			n += m
		}
		return failed != unix.EAGAIN
	})
	switch {
	case err != nil:
		return n, opError(c, "write", err)
	case failed != nil:
		return n, opError(c, "write", os.NewSyscallError("write", failed))
	}
	return n, nil
}

// opError is what the methods of c say; those of its RawConn call what failed
// by another name.
func opError(c *net.TCPConn, op string, err error) error {
	if e, ok := err.(*net.OpError); ok { //nolint:errorlint // it is not wrapped
		err = e.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
