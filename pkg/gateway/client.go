// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/binary"
	"net"

	"golang.org/x/sys/unix"
)

// Which process of a sandbox is at the other end the kernel tells as the mark of
// the connection, or of the datagram (bpf/client.h). It is a number that the
// keeper alone can read: it stands in Event.PID until the keeper has put the
// process in its place. In a namespace that is not ours marks are somebody
// else's: there it comes with what the client asked for (asked.go). Only a
// datagram has one even there, which it gets when the kernel has done with
// marks: a question to the resolver the tag, others their number (redirected.go).

// client is the tag of the process that made a connection; 0: not known.
func client(c *net.TCPConn) (tag uint32) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { // of a closed connection it stays unknown
		if m, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); err == nil {
			tag = uint32(m)
		}
	})
	return tag
}

// clientOf reads the tag of the process that sent a datagram; 0: not known.
func clientOf(m *unix.SocketControlMessage) (tag uint32, ok bool) {
	if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SO_MARK || len(m.Data) < 4 {
		return 0, false
	}
	return binary.NativeEndian.Uint32(m.Data), true
}

// senderOf finds it among the control messages of a datagram.
func senderOf(oob []byte) uint32 {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range msgs {
		if tag, ok := clientOf(&msgs[i]); ok {
			return tag
		}
	}
	return 0
}
