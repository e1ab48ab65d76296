// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The relay of datagrams. The kernel steers every datagram that it lets out of
// a sandbox, DNS apart, to one socket per IP version and tells with it where it
// was sent to. Datagrams of one socket of the sandbox to one destination are an
// association (association.go), which is decided and recorded like a
// connection. Answers are whole packets (packet.go) on a raw socket of the
// sandbox's namespace, so that they come from the address and port that was
// asked, for connected sockets and others, whatever port the client itself has.

// clientSide is where the client of an association is.
type clientSide interface {
	// answer passes b[headroom:] on to it, as from the destination. It does not
	// wait; EMSGSIZE is for what is longer than a datagram can be there.
	answer(b []byte, key associationKey) error
	// unreachable tells it that its datagram goes nowhere. That it cannot be
	// told is no more than a lost datagram.
	unreachable(why unreachable, key associationKey)
}

// datagramSockets are those of one IP version.
type datagramSockets struct {
	in  syscall.RawConn // UDP: what the sandbox sends
	out syscall.RawConn // raw: what it gets
}

// maxDatagram is the largest payload UDP has: one byte more would not fit into
// its length field.
const maxDatagram = 65535 - headerUDP

// buffer holds a datagram with room for headers in front of it.
type buffer [headroom + maxDatagram]byte

// packetBuffers are taken when there is something to read: a thousand idle sockets
// hold none.
var packetBuffers = sync.Pool{New: func() any { return new(buffer) }}

// newDatagramSockets asks the kernel for each datagram's destination and for
// the number of those that found no room in the socket.
func newDatagramSockets(in *net.UDPConn, out *net.IPConn) (*datagramSockets, error) {
	s := &datagramSockets{}
	var err error
	if s.in, err = in.SyscallConn(); err != nil {
		return nil, fmt.Errorf("gateway: datagrams: %w", err)
	}
	if s.out, err = out.SyscallConn(); err != nil {
		return nil, fmt.Errorf("gateway: datagrams: %w", err)
	}
	var serr error
	err = s.in.Control(func(fd uintptr) {
		level, option := unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR
		if a, ok := in.LocalAddr().(*net.UDPAddr); ok && a.IP.To4() == nil {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR
		}
		serr = errors.Join(unix.SetsockoptInt(int(fd), level, option, 1), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1))
	})
	if err = errors.Join(err, serr); err != nil {
		return nil, fmt.Errorf("gateway: destinations of datagrams: %w", err)
	}
	return s, nil
}

// arrived is one datagram of a sandbox; payload is part of buf.
type arrived struct {
	buf         *buffer
	payload     []byte
	client, dst netip.AddrPort
	overflow    uint32 // datagrams that found no room so far; it wraps
	mark        uint32 // tag of the process that sent it, see client.go; in a namespace that is not ours see redirected.go
}

// receive waits for a datagram. The caller gives buf back.
func receive(in syscall.RawConn) (arrived, error) {
	var (
		d       arrived
		n, oobn int
		from    unix.Sockaddr
		rerr    error
		oob     [128]byte
	)
	err := in.Read(func(fd uintptr) bool {
		d.buf = packetBuffers.Get().(*buffer)
		n, oobn, _, from, rerr = unix.Recvmsg(int(fd), d.buf[headroom:], oob[:], unix.MSG_DONTWAIT)
		if rerr == nil {
			return true
		}
		packetBuffers.Put(d.buf)
		d.buf = nil
		return !errors.Is(rerr, unix.EAGAIN)
	})
	if err = errors.Join(err, rerr); err != nil {
		return arrived{}, err
	}
	d.payload = d.buf[headroom : headroom+n]
	d.client = addrPort(from)
	d.readControl(oob[:oobn])
	return d, nil
}

// readControl reads the destination, the count of lost datagrams, and the mark
// of this one.
func (d *arrived) readControl(oob []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range msgs {
		m := &msgs[i]
		if tag, ok := clientOf(m); ok {
			d.mark = tag
			continue
		}
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_RXQ_OVFL && len(m.Data) >= 4:
			d.overflow = binary.NativeEndian.Uint32(m.Data)
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_ORIGDSTADDR,
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_ORIGDSTADDR:
			if sa, err := unix.ParseOrigDstAddr(m); err == nil {
				d.dst = addrPort(sa)
			}
		}
	}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// answer implements clientSide.
func (s *datagramSockets) answer(b []byte, key associationKey) error {
	packet := datagram(b, key.dst, key.client)
	if packet == nil {
		return unix.EMSGSIZE
	}
	return s.send(packet, key.client.Addr())
}

// unreachable implements clientSide.
func (s *datagramSockets) unreachable(why unreachable, key associationKey) {
	_ = s.send(unreachablePacket(why, key.client, key.dst), key.client.Addr())
}

// send puts a packet on the sandbox's wire. It does not wait: a datagram that
// finds no room is lost, as on any wire.
func (s *datagramSockets) send(packet []byte, to netip.Addr) error {
	return sendNow(s.out, packet, sockaddr(netip.AddrPortFrom(to, 0)))
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
}

// sendNow sends to a socket's peer (to is nil) or to an address and does not
// wait.
func sendNow(c syscall.RawConn, b []byte, to unix.Sockaddr) error {
	var serr error
	err := c.Write(func(fd uintptr) bool {
		for {
			if _, serr = unix.SendmsgN(int(fd), b, nil, to, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); !errors.Is(serr, unix.EINTR) {
				return true
			}
		}
	})
	return errors.Join(err, serr)
}

// ofClient says whether an address is one that a socket of the sandbox has:
// answers to it stay inside. A program can bind any address, as all of them
// are local there; an answer to such a one would be steered to us again, and
// two destinations could be made to talk to each other. Port 53 is ours.
func ofClient(a netip.AddrPort) bool {
	return (a.Addr().IsLoopback() || a.Addr() == SelfAddr) && a.Port() != 0 && a.Port() != 53
}

// relayDatagrams serves one IP version until its socket is closed.
func (sb *sandbox) relayDatagrams(s *datagramSockets) {
	sb.eachDatagram(s.in, func(d *arrived) { sb.relayDatagram(s, d) })
}

// eachDatagram passes on what arrives at a socket until it is closed, or is read
// no more.
func (sb *sandbox) eachDatagram(in syscall.RawConn, pass func(*arrived)) {
	var overflow uint32
	for {
		d, err := receive(in)
		if err != nil {
			if noMore(err) || sb.ctx.Err() != nil {
				return
			}
			sb.g.metrics.lost(lostReceive, 1)
			time.Sleep(time.Millisecond) // no memory
			continue
		}
		if d.overflow != 0 { // not told before the first loss
			sb.g.metrics.lost(lostOverflow, uint64(d.overflow-overflow))
			overflow = d.overflow
		}
		pass(&d)
		packetBuffers.Put(d.buf)
	}
}

// relayDatagram finds the datagram's association, or makes one.
func (sb *sandbox) relayDatagram(s *datagramSockets, d *arrived) {
	dst := d.dst.Addr()
	if !ofClient(d.client) || !dst.IsValid() || dst.IsLoopback() || dst == SelfAddr || d.dst.Port() == 53 {
		sb.g.metrics.lost(lostStray, 1)
		return
	}
	key := associationKey{client: d.client, dst: d.dst}
	for {
		a := sb.associations.get(key)
		if a == nil {
			if a = sb.associate(s, key, d.mark); a == nil {
				return
			}
		}
		if a.outward(d.payload) {
			return
		}
	}
}
