// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

func ioctlIfreq(fd int, request uintptr, ifr *unix.Ifreq) error {
	return sys(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(ifr)))
}

// routeAdd asks for the route 192.0.2.0/24 dev lo and removes it again.
func routeAdd(params) error {
	if err := route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE); err != nil {
		return err
	}
	return route(unix.RTM_DELROUTE, 0)
}

func route(kind uint16, flags uint16) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	le := binary.LittleEndian
	msg := make([]byte, 16)
	msg = append(msg, unix.AF_INET, 24, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_LINK, unix.RTN_UNICAST, 0, 0, 0, 0)
	attr := func(kind uint16, value ...byte) {
		msg = le.AppendUint16(msg, uint16(4+len(value)))
		msg = le.AppendUint16(msg, kind)
		msg = append(msg, value...)
	}
	attr(unix.RTA_DST, 192, 0, 2, 0)
	attr(unix.RTA_OIF, 1, 0, 0, 0)
	le.PutUint32(msg, uint32(len(msg)))
	le.PutUint16(msg[4:], kind)
	le.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	if n < 20 {
		return nothing("short netlink answer")
	}
	if code := int32(le.Uint32(buf[16:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
