// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// forgedAttempts write their own headers.
func forgedAttempts() []*Attempt {
	add := func(name, errno, socket, control string, run func(packet []byte, to netip.Addr) error) *Attempt {
		return &Attempt{Name: name, Class: "udp", Expect: errnos(errno), Params: []string{"port", "addr"}, Layer: "seccomp", As: asRoot, Event: "refusal", Trace: socket, Control: control,
			run: func(p params) error {
				d := p.dest(literal4)
				return run(datagram(d), d.Addr())
			}}
	}
	return []*Attempt{
		add("raw-send", "EPERM", "family=2 type=3 protocol=255", "sends a packet with a forged source", func(packet []byte, to netip.Addr) error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: to.As4()})
		}),
		add("packet-send", "EAFNOSUPPORT", "family=17 type=2 protocol=8", "puts a packet on the loopback interface", func(packet []byte, _ netip.Addr) error {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(swap(unix.ETH_P_IP)))
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			lo, err := net.InterfaceByName("lo")
			if err != nil {
				return err
			}
			return unix.Sendto(fd, packet, 0, &unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_IP), Ifindex: lo.Index, Halen: 6})
		}),
	}
}

// datagram is an IPv4 packet with a UDP datagram that holds the proof. It comes
// from nowhere: a source of this host would be dropped on its way in.
func datagram(to netip.AddrPort) []byte {
	b := make([]byte, 28, 64)
	b = append(b, proof...)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], []byte{192, 0, 2, 9})
	copy(b[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[20:], 9)
	binary.BigEndian.PutUint16(b[22:], to.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20)) // no UDP checksum: RFC 768 makes it optional
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	return b
}
