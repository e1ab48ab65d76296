// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
)

// The options by which the kernel programs tell what an accepted connection, or
// the number of a datagram, was meant for (RF_SOL, RF_SO_ASKED, RF_SO_RELAYED
// and struct rf_asked of bpf/ringfence.h; a test compares them). A connection
// that the programs did not send here has no such option, and a kernel without
// them knows no such level.
const (
	solRingfence = 0x5246
	soAsked      = 1
	soRelayed    = 1 << 30 // with the rest of a number
	askedSize    = 32
)

// origin is where a connection comes from and what it was meant for.
type origin struct {
	dst    netip.AddrPort
	client uint32 // tag of the process, see client.go
}

// origin of a connection: it was meant for its own local address where the
// kernel steers, for what its client asked for where it redirects. ok is false
// for one that did not come through the fence of this sandbox.
func (sb *sandbox) origin(c *net.TCPConn) (o origin, ok bool) {
	if sb.cfg.Redirected {
		return asked(c, sb.cfg.ID)
	}
	la, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return origin{}, false
	}
	return origin{unmapped(la.AddrPort()), client(c)}, true
}

// stranger resets a connection that did not come through the fence: of whoever
// else lives in the namespace, or one whose entry the kernel had no room for.
func (sb *sandbox) stranger(c *net.TCPConn) {
	defer reset(c)
	t := sb.g.rec.reserve(sb.cfg.ID)
	if t == nil {
		return
	}
	ev := sb.event(event.KindNetwork, "gateway")
	ev.Verdict, ev.Activity, ev.ReasonCode = event.Denied, "open", codeNotRedirected
	ev.Reason = "a connection to the gateway's own listener that no hook of this sandbox sent there"
	if a := c.RemoteAddr(); a != nil {
		ev.SrcAddr = a.String()
	}
	if a := c.LocalAddr(); a != nil {
		ev.DstAddr = a.String()
	}
	t.postFolded(ev)
}

// asked reads what the client asked for, if the programs of that sandbox sent
// it.
func asked(c *net.TCPConn, sandbox uint32) (o origin, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return origin{}, false
	}
	return askedBy(raw, soAsked, sandbox)
}

// askedBy reads an option of a socket.
func askedBy(raw syscall.RawConn, option uint32, sandbox uint32) (o origin, ok bool) {
	var b [askedSize]byte
	size := uint32(len(b))
	errno := unix.ENOPROTOOPT
	err := raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, solRingfence, uintptr(option),
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err != nil || errno != 0 || size != askedSize {
		return origin{}, false
	}
	return decodeAsked(b, sandbox)
}

// decodeAsked reads struct rf_asked: address, who asked, sandbox, port, port of
// the listener.
func decodeAsked(b [askedSize]byte, sandbox uint32) (o origin, ok bool) {
	port := binary.NativeEndian.Uint16(b[28:])
	if sandbox == 0 || binary.NativeEndian.Uint32(b[24:]) != sandbox || port == 0 {
		return origin{}, false
	}
	o.dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[:16])).Unmap(), port)
	o.client = uint32(binary.NativeEndian.Uint64(b[16:]) >> 32)
	return o, true
}
