// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawSendto sends with a sockaddr_in whose family field is family, which
// package unix would not let us choose.
func rawSendto(fd int, family uint16, ap netip.AddrPort) result {
	sa := unix.RawSockaddrInet4{Family: family, Addr: ap.Addr().As4()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], ap.Port())
	msg := []byte("hello")
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&msg[0])), uintptr(len(msg)), 0,
		uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	if errno != 0 {
		return fail("sendto", errno)
	}
	return result{}
}
