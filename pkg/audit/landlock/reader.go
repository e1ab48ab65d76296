// SPDX-License-Identifier: Apache-2.0

//go:build linux

package landlock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const headerBytes = 16 // struct nlmsghdr

// Reader reads Landlock records from a socket that OpenSocket made. It needs no
// privileges.
type Reader struct {
	f   *os.File
	buf []byte

	closed    atomic.Bool
	lost      atomic.Uint64
	malformed atomic.Uint64
	others    atomic.Uint64
}

// NewReader takes over f, whatever way it came (a descriptor that was inherited
// may have become a blocking one), and closes it also when it fails.
func NewReader(f *os.File) (*Reader, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("landlock: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("landlock: %w", err)
	}
	return &Reader{f: os.NewFile(uintptr(fd), "audit"), buf: make([]byte, headerBytes+maxRecord+1)}, nil
}

// Close makes a waiting Next return.
func (r *Reader) Close() error {
	r.closed.Store(true)
	return r.f.Close()
}

// Stats of a reader.
type Stats struct {
	Overruns  uint64 // times the kernel found no room in the socket; how many records each time is not known
	Malformed uint64 // Landlock records that did not parse
	Others    uint64 // audit records of others, skipped
}

// Stats returns the counters; it may be called while Next waits.
func (r *Reader) Stats() Stats {
	return Stats{Overruns: r.lost.Load(), Malformed: r.malformed.Load(), Others: r.others.Load()}
}

// Next waits for a Landlock record. Malformed records are counted and skipped.
// It returns the error of ctx when that ends, and an error that matches
// os.ErrClosed after Close. Not for concurrent use.
func (r *Reader) Next(ctx context.Context) (Record, error) {
	stop := context.AfterFunc(ctx, func() { _ = r.f.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			_ = r.f.SetReadDeadline(time.Time{})
		}
	}()
	for {
		if err := ctx.Err(); err != nil {
			return Record{}, err
		}
		typ, payload, err := r.message()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			r.lost.Add(1)
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil && r.closed.Load():
			return Record{}, fmt.Errorf("landlock: %w", os.ErrClosed)
		case err != nil:
			return Record{}, fmt.Errorf("landlock: read the audit log: %w", err)
		case typ != TypeAccess && typ != TypeDomain:
			r.others.Add(1)
			continue
		}
		rec, err := Parse(typ, payload)
		if err != nil {
			r.malformed.Add(1)
			continue
		}
		return rec, nil
	}
}

// message receives one datagram from the kernel; others are skipped. One
// datagram is one record: the length in its header is not trusted.
func (r *Reader) message() (Type, []byte, error) {
	conn, err := r.f.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	for {
		var n int
		var from unix.Sockaddr
		var rerr error
		err := conn.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), r.buf, 0)
			return !errors.Is(rerr, syscall.EAGAIN)
		})
		if err = errors.Join(err, rerr); err != nil {
			return 0, nil, err
		}
		if nl, ok := from.(*unix.SockaddrNetlink); ok && nl.Pid == 0 && n >= headerBytes {
			return Type(binary.NativeEndian.Uint16(r.buf[4:])), r.buf[headerBytes:n], nil
		}
	}
}
