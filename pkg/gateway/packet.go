// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// What the relay of datagrams puts on the wire of a sandbox's namespace: whole
// IP packets, because an answer must come from the address and port that were
// asked. The kernel fills in length, identification and checksum of an IPv4
// header (raw(7)).

const (
	header4   = 20
	header6   = 40
	headerUDP = 8
	headroom  = header6 + headerUDP // in front of a payload, for either version

	maxPacket4 = 65535 // total length is 16 bits
	maxPacket6 = 65536 // MTU of lo; a larger one would be fragmented

	protoICMP4 = 1
	protoUDP   = 17
	protoICMP6 = 58
	packetTTL  = 64
)

// unreachable is why a datagram goes nowhere: the ICMP code that tells the
// program which error it gets.
type unreachable uint8

const (
	// refusedHere: EHOSTUNREACH over IPv4, EACCES over IPv6 (icmp_err_convert,
	// tab_unreach of Linux): communication administratively prohibited.
	refusedHere unreachable = iota
	// portClosed: ECONNREFUSED.
	portClosed
)

// datagram makes the packet that carries b[headroom:] from one address to
// another, in place, and returns its part of b. nil means that it is longer
// than a packet can be. Both addresses are of one version.
func datagram(b []byte, from, to netip.AddrPort) []byte {
	length := len(b) - header6
	if from.Addr().Is4() {
		pkt := b[headroom-header4-headerUDP:]
		if len(pkt) > maxPacket4 {
			return nil
		}
		putHeader4(pkt, protoUDP, from.Addr(), to.Addr())
		putUDP(pkt[header4:], from.Port(), to.Port(), length) // no checksum: RFC 768 lets IPv4 do without, and nothing but lo is on the way
		return pkt
	}
	if len(b) > maxPacket6 {
		return nil
	}
	putHeader6(b, protoUDP, length, from.Addr(), to.Addr())
	putUDP(b[header6:], from.Port(), to.Port(), length)
	sum := checksum(pseudo6(from.Addr(), to.Addr(), length, protoUDP), b[header6:])
	if sum == 0 {
		sum = 0xffff // RFC 8200, section 8.1
	}
	binary.BigEndian.PutUint16(b[header6+6:], sum)
	return b
}

// unreachablePacket is the ICMP message to a client whose datagram to dst goes
// nowhere. It quotes the beginning of that datagram, by which the kernel finds
// the socket (RFC 792, RFC 4443).
func unreachablePacket(why unreachable, client, dst netip.AddrPort) []byte {
	if client.Addr().Is4() {
		b := make([]byte, header4+8+header4+headerUDP)
		putHeader4(b, protoICMP4, dst.Addr(), client.Addr())
		icmp := b[header4:]
		icmp[0], icmp[1] = 3, map[unreachable]byte{refusedHere: 13, portClosed: 3}[why]
		quoted := icmp[8:]
		putHeader4(quoted, protoUDP, client.Addr(), dst.Addr())
		binary.BigEndian.PutUint16(quoted[2:], header4+headerUDP)
		putUDP(quoted[header4:], client.Port(), dst.Port(), headerUDP)
		binary.BigEndian.PutUint16(icmp[2:], checksum(0, icmp))
		return b
	}
	const length = 8 + header6 + headerUDP
	b := make([]byte, header6+length)
	putHeader6(b, protoICMP6, length, dst.Addr(), client.Addr())
	icmp := b[header6:]
	icmp[0], icmp[1] = 1, map[unreachable]byte{refusedHere: 1, portClosed: 4}[why]
	quoted := icmp[8:]
	putHeader6(quoted, protoUDP, headerUDP, client.Addr(), dst.Addr())
	putUDP(quoted[header6:], client.Port(), dst.Port(), headerUDP)
	binary.BigEndian.PutUint16(icmp[2:], checksum(pseudo6(dst.Addr(), client.Addr(), length, protoICMP6), icmp))
	return b
}

func putHeader4(b []byte, proto byte, from, to netip.Addr) {
	clear(b[:header4])
	b[0], b[8], b[9] = 0x45, packetTTL, proto
	src, dst := from.As4(), to.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
}

func putHeader6(b []byte, proto byte, length int, from, to netip.Addr) {
	clear(b[:header6])
	b[0], b[6], b[7] = 0x60, proto, packetTTL
	binary.BigEndian.PutUint16(b[4:], uint16(length))
	src, dst := from.As16(), to.As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
}

// putUDP writes the header without a checksum; length counts it and the payload.
func putUDP(b []byte, from, to uint16, length int) {
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], uint16(length))
	binary.BigEndian.PutUint16(b[6:], 0)
}

// pseudo6 sums the pseudo-header of RFC 8200, section 8.1.
func pseudo6(from, to netip.Addr, length int, proto byte) uint64 {
	var b [40]byte
	src, dst := from.As16(), to.As16()
	copy(b[:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint32(b[32:], uint32(length))
	b[39] = proto
	return sum(0, b[:])
}

// checksum is the Internet checksum (RFC 1071) of b on top of a sum.
func checksum(start uint64, b []byte) uint16 {
	s := sum(start, b)
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return ^uint16(s>>16 + s&0xffff)
}

// sum adds up b in ones' complement, eight bytes at a time.
func sum(s uint64, b []byte) uint64 {
	var carry uint64
	for ; len(b) >= 8; b = b[8:] {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
	}
	var tail [8]byte
	copy(tail[:], b)
	s, carry = bits.Add64(s, binary.BigEndian.Uint64(tail[:]), carry)
	s, carry = bits.Add64(s, 0, carry)
	return s + carry
}
