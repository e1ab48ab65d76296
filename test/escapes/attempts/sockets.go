// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// socketKind is one socket that no address hook sees, or that forges what the
// hooks look at. need is the kernel option of the control.
type socketKind struct {
	name                  string
	family, kind, proto   int
	errno, layer, control string
	need                  string
}

const (
	sockPacket   = 10
	protoSMC     = 256
	protoUDPLite = 136
	rootOnly     = "root opens it"
)

var socketKinds = []socketKind{
	{"raw-icmp", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, "EPERM", "seccomp", rootOnly, ""},
	{"raw-icmp6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, "EPERM", "seccomp", rootOnly, ""},
	{"raw-tcp", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP, "EPERM", "seccomp", rootOnly, ""},
	{"raw-headers", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW, "EPERM", "seccomp", rootOnly, ""},
	{"raw-cloexec-nonblock", unix.AF_INET, unix.SOCK_RAW | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, unix.IPPROTO_UDP, "EPERM", "seccomp", rootOnly, ""},
	{"inet-sock-packet", unix.AF_INET, sockPacket, 0x300, "EPERM", "seccomp", "AF_INET with SOCK_PACKET becomes a packet socket", ""},
	{"ping", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, "EPROTONOSUPPORT", "seccomp", "opens a ping socket (ping_group_range)", "ping"},
	{"ping6", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, "EPROTONOSUPPORT", "seccomp", "opens a ping socket (ping_group_range)", "ping"},
	{"udplite", unix.AF_INET, unix.SOCK_DGRAM, protoUDPLite, "EPROTONOSUPPORT", "seccomp", "opens UDP-Lite", "kernel:UDPLITE"},
	{"mptcp6", unix.AF_INET6, unix.SOCK_STREAM, 262, "EPROTONOSUPPORT", "seccomp", "opens multipath TCP", "kernel:MPTCP"},
	{"sctp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, "EPROTONOSUPPORT", "seccomp", "opens SCTP", "kernel:SCTP"},
	{"sctp-seqpacket", unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP, "EPERM", "seccomp", "opens SCTP", "kernel:SCTP"},
	{"smc", unix.AF_INET, unix.SOCK_STREAM, protoSMC, "EPROTONOSUPPORT", "seccomp", "opens SMC", "kernel:SMC"},
	{"packet-raw", unix.AF_PACKET, unix.SOCK_RAW, 0x300, "EAFNOSUPPORT", "seccomp", rootOnly, ""},
	{"packet-dgram", unix.AF_PACKET, unix.SOCK_DGRAM, 0x300, "EAFNOSUPPORT", "seccomp", rootOnly, ""},
	{"vsock-stream", unix.AF_VSOCK, unix.SOCK_STREAM, 0, "EAFNOSUPPORT", "seccomp", "talks to the hypervisor", "kernel:VSOCK"},
	{"vsock-seqpacket", unix.AF_VSOCK, unix.SOCK_SEQPACKET, 0, "EAFNOSUPPORT", "seccomp", "talks to the hypervisor", "kernel:VSOCK"},
	{"xdp", unix.AF_XDP, unix.SOCK_RAW, 0, "EAFNOSUPPORT", "seccomp", rootOnly, "kernel:XDP"},
	{"alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0, "EAFNOSUPPORT", "seccomp", "opens the kernel's crypto", "kernel:ALG"},
	{"can", unix.AF_CAN, unix.SOCK_RAW, 1, "EAFNOSUPPORT", "seccomp", "opens CAN", "kernel:CAN"},
	{"tipc", unix.AF_TIPC, unix.SOCK_STREAM, 0, "EAFNOSUPPORT", "seccomp", "opens TIPC", "kernel:TIPC"},
	{"bluetooth", unix.AF_BLUETOOTH, unix.SOCK_RAW, 1, "EAFNOSUPPORT", "seccomp", "opens Bluetooth", "kernel:BLUETOOTH"},
	{"netlink-netfilter", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, "EAFNOSUPPORT", "seccomp", "opens netfilter's control", ""},
	{"netlink-audit", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT, "EAFNOSUPPORT", "seccomp", "opens the audit system's control", "kernel:AUDIT"},
	{"netlink-uevent", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT, "EAFNOSUPPORT", "seccomp", "opens device events", ""},
	{"netlink-xfrm", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM, "EAFNOSUPPORT", "seccomp", "opens IPsec's control", "kernel:XFRM"},
	{"netlink-diag", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG, "EAFNOSUPPORT", "seccomp", "opens socket monitoring", ""},
	{"netlink-generic", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC, "EAFNOSUPPORT", "seccomp", "opens generic netlink", ""},
	{"netlink-dgram-crypto", unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_CRYPTO, "EAFNOSUPPORT", "seccomp", "opens the crypto control", "kernel:CRYPTO_USER"},
}

func socketAttempts() []*Attempt {
	var out []*Attempt
	for _, k := range socketKinds {
		a := &Attempt{Name: "socket-" + k.name, Class: "socket", Expect: errnos(k.errno), Layer: k.layer, Control: k.control, As: asRoot, Trace: fmt.Sprintf("family=%d type=%d protocol=%d", k.family, k.kind&0xf, k.proto),
			run: func(params) error { return open(k.family, k.kind, k.proto) }}
		if k.need != "" {
			a.Needs = []string{k.need}
		}
		out = append(out, a)
	}
	net := func(name, errno, control string, run func(p params) error) {
		out = append(out, &Attempt{Name: name, Class: "network-control", Expect: errnos(errno, "EACCES"), Layer: "capabilities", As: asRoot, Control: control, run: run})
	}
	option := func(level, opt int) func(params) error {
		return func(params) error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.SetsockoptInt(fd, level, opt, 1)
		}
	}
	net("net-mark", "EPERM", "marks packets past routing rules", option(unix.SOL_SOCKET, unix.SO_MARK))
	net("net-transparent", "EPERM", "binds foreign addresses", option(unix.SOL_IP, unix.IP_TRANSPARENT))
	net("net-debug", "EACCES", "switches socket debugging on", option(unix.SOL_SOCKET, unix.SO_DEBUG))
	net("net-buffer-force", "EPERM", "takes buffers beyond the limit", option(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE))
	net("net-low-port", "EACCES", "binds port 1", func(params) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Bind(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
	})
	out[len(out)-1].NotIn = []string{rootInside}
	net("net-interface-flags", "EPERM", "sets interface flags by ioctl", func(params) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_UP)
		return ioctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
	})
	net("net-route-add", "EPERM", "adds a route by netlink", routeAdd)
	net("net-tun", "ENOENT", "opens /dev/net/tun", openOnly("/dev/net/tun", unix.O_RDWR))
	out[len(out)-1].Needs = []string{"file:/dev/net/tun"}
	return out
}

// open makes a socket and closes it.
func open(family, kind, proto int) error {
	fd, err := unix.Socket(family, kind, proto)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// openOnly opens a path without reading or writing.
func openOnly(path string, flags int) func(params) error {
	return func(params) error {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
}
