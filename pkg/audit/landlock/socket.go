// SPDX-License-Identifier: Apache-2.0

//go:build linux

package landlock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Values of linux/audit.h that x/sys does not have.
const (
	auditGet        = 1000
	auditSet        = 1001
	auditNlgrpRead  = 1  // AUDIT_NLGRP_READLOG
	statusEnabled   = 1  // AUDIT_STATUS_ENABLED
	statusBytes     = 44 // struct audit_status up to backlog_wait_time_actual
	receiveBuffer   = 4 << 20
	replyTimeout    = 5 * time.Second
	minStatusAnswer = 8
)

// Errors that callers act on.
var (
	// ErrOff: the audit subsystem is disabled and the caller did not ask to
	// enable it.
	ErrOff = errors.New("landlock: the kernel's audit subsystem is switched off; enable it (auditctl -e 1, or landlockAudit: enable in the daemon's configuration) to see file denials")
	// ErrUnsupported: this kernel or namespace has no audit log to read.
	ErrUnsupported = errors.New("landlock: the audit log is not available")
)

// OpenSocket opens the kernel's audit log for reading and returns the socket,
// which may be handed to another process by descriptor. If audit is switched
// off it is switched on when enable is set, and ErrOff is returned when not.
//
// lock is a file that all daemons of the machine share: the audit state belongs
// to the whole machine. restore, called by the last of them, switches audit off
// again if one of them switched it on, also one that was killed, and nobody
// else has changed the state since. It does not close the socket and may be
// called more than once. Without enable, lock may be empty.
func OpenSocket(enable bool, lock string) (f *os.File, restore func() error, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_AUDIT)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	f = os.NewFile(uintptr(fd), "audit")
	defer func() {
		if err != nil {
			f.Close()
			f = nil
		}
	}()
	// Room for a burst; more than the limit needs CAP_NET_ADMIN, which root has.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // a smaller buffer loses sooner, which Reader counts
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (auditNlgrpRead - 1)}); err != nil {
		return nil, nil, fmt.Errorf("%w: join the audit log (needs CAP_AUDIT_READ and the host's network namespace): %w", ErrUnsupported, err)
	}
	s, err := openState(lock)
	if err != nil {
		return nil, nil, err
	}
	if err := s.enable(enable); err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return f, s.restore, nil
}

func auditEnabled() (uint32, error) {
	reply, err := request(auditGet, nil)
	if err != nil {
		return 0, fmt.Errorf("%w: read the audit state: %w", ErrUnsupported, err)
	}
	if len(reply) < minStatusAnswer {
		return 0, fmt.Errorf("%w: the audit state has %d bytes", ErrUnsupported, len(reply))
	}
	return binary.NativeEndian.Uint32(reply[4:]), nil
}

func setAudit(enabled uint32) error {
	status := make([]byte, statusBytes)
	binary.NativeEndian.PutUint32(status[0:], statusEnabled)
	binary.NativeEndian.PutUint32(status[4:], enabled)
	if _, err := request(auditSet, status); err != nil {
		return fmt.Errorf("landlock: set the audit state to %d: %w", enabled, err)
	}
	return nil
}

// request sends one control message on a socket of its own and returns the
// answer: the payload of a reply of the same type, or nothing for a bare
// acknowledgement.
func request(typ uint16, payload []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(replyTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return nil, err
	}
	flags := uint16(unix.NLM_F_REQUEST)
	if typ != auditGet {
		flags |= unix.NLM_F_ACK
	}
	msg := make([]byte, headerBytes, headerBytes+len(payload))
	binary.NativeEndian.PutUint32(msg[0:], uint32(headerBytes+len(payload)))
	binary.NativeEndian.PutUint16(msg[4:], typ)
	binary.NativeEndian.PutUint16(msg[6:], flags)
	binary.NativeEndian.PutUint32(msg[8:], 1)
	if err := unix.Sendto(fd, append(msg, payload...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for range 16 {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, err
		}
		nl, ok := from.(*unix.SockaddrNetlink)
		if !ok || nl.Pid != 0 || n < headerBytes {
			continue
		}
		body := buf[headerBytes:n]
		switch binary.NativeEndian.Uint16(buf[4:]) {
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return nil, unix.EBADMSG
			}
			if errno := int32(binary.NativeEndian.Uint32(body)); errno != 0 {
				return nil, unix.Errno(-errno)
			}
			return nil, nil
		case typ:
			return body, nil
		}
	}
	return nil, unix.ETIMEDOUT
}
