// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Destinations of the operations: all of them in the stage's namespace.
var (
	tcp4, tcp6, tcpMapped = at("127.0.0.1", tcpPort), at("::1", tcpPort), at("::ffff:127.0.0.1", tcpPort)
	udp4, udp6, udpMapped = at("127.0.0.1", udpPort), at("::1", udpPort), at("::ffff:127.0.0.1", udpPort)
	elsewhere             = at("127.0.0.9", udpPort)
	none4, none6          = at("127.0.0.1", 0), at("::1", 0) // where there are no ports

	// One for each operation that serves: a port is busy for a while after.
	serveQueue, serve4 = at("127.0.0.1", servePort), at("127.0.0.1", servePort+1)
	serve6, serveEarly = at("::1", servePort+2), at("127.0.0.1", servePort+3)
)

func operations() []operation {
	return slices.Concat(tcpOperations(), udpOperations(), rawOperations(), otherFamilies(),
		unixOperations(), ringOperations(), serverOperations(), memberOperations())
}

func tcpOperations() []operation {
	connect := func(family, proto int, addr string) func(*scene) error {
		return func(*scene) error { return newSock(family, unix.SOCK_STREAM, proto).connect(addr).read().done() }
	}
	fastopen := func(family, proto int, addr string) func(*scene) error {
		return func(*scene) error {
			s := newSock(family, unix.SOCK_STREAM, proto).sendto(addr, unix.MSG_FASTOPEN)
			if proto == protoMPTCP && errors.Is(s.err, unix.EOPNOTSUPP) { // Linux 6.1 knows no such flag there
				s.err = lacking("fast open", s.err)
			}
			return s.read().done()
		}
	}
	late := func(family int, addr string) func(*scene) error {
		return func(*scene) error {
			s := newSock(family, unix.SOCK_STREAM, 0)
			return s.set(unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1).connect(addr).write().read().done()
		}
	}
	return []operation{
		{name: "tcp4 connect", run: connect(unix.AF_INET, 0, tcp4)},
		{name: "tcp6 connect", run: connect(unix.AF_INET6, 0, tcp6)},
		{name: "tcp6 connect, v4-mapped", run: connect(unix.AF_INET6, 0, tcpMapped)},
		{name: "tcp4 sendto MSG_FASTOPEN", run: fastopen(unix.AF_INET, 0, tcp4)},
		{name: "tcp6 sendto MSG_FASTOPEN", run: fastopen(unix.AF_INET6, 0, tcp6)},
		{name: "tcp6 sendto MSG_FASTOPEN, v4-mapped", run: fastopen(unix.AF_INET6, 0, tcpMapped)},
		{name: "tcp4 TCP_FASTOPEN_CONNECT, write", run: late(unix.AF_INET, tcp4)},
		{name: "tcp6 TCP_FASTOPEN_CONNECT, write", run: late(unix.AF_INET6, tcp6)},
		{name: "mptcp4 connect", run: connect(unix.AF_INET, protoMPTCP, tcp4)},
		{name: "mptcp6 connect", run: connect(unix.AF_INET6, protoMPTCP, tcp6)},
		{name: "mptcp6 connect, v4-mapped", run: connect(unix.AF_INET6, protoMPTCP, tcpMapped)},
		{name: "mptcp4 sendto MSG_FASTOPEN", run: fastopen(unix.AF_INET, protoMPTCP, tcp4)},
		{name: "sctp4 socket", run: func(*scene) error { return newSock(unix.AF_INET, unix.SOCK_STREAM, protoSCTP).done() }},
	}
}

func udpOperations() []operation {
	connected := func(family, proto int, addr string) func(*scene) error {
		return func(*scene) error { return newSock(family, unix.SOCK_DGRAM, proto).connect(addr).write().done() }
	}
	to := func(family, proto int, addr string) func(*scene) error {
		return func(*scene) error { return newSock(family, unix.SOCK_DGRAM, proto).sendto(addr, 0).done() }
	}
	as := func(family int, said uint16) func(*scene) error {
		return func(*scene) error { return newSock(family, unix.SOCK_DGRAM, 0).sendtoAs(said, udp4).done() }
	}
	return []operation{
		{name: "udp4 connect, send", run: connected(unix.AF_INET, 0, udp4)},
		{name: "udp6 connect, send", run: connected(unix.AF_INET6, 0, udp6)},
		{name: "udp6 connect, send, v4-mapped", run: connected(unix.AF_INET6, 0, udpMapped)},
		{name: "udp4 sendto", run: to(unix.AF_INET, 0, udp4)},
		{name: "udp6 sendto", run: to(unix.AF_INET6, 0, udp6)},
		{name: "udp6 sendto, v4-mapped", run: to(unix.AF_INET6, 0, udpMapped)},
		{name: "udp6 sendto, AF_INET address", run: as(unix.AF_INET6, unix.AF_INET)},
		{name: "udp4 sendto, AF_UNSPEC address", run: as(unix.AF_INET, unix.AF_UNSPEC)},
		{name: "udp4 connect, sendto elsewhere", run: func(*scene) error {
			return newSock(unix.AF_INET, unix.SOCK_DGRAM, 0).connect(udp4).sendto(elsewhere, 0).done()
		}},
		{name: "udplite4 sendto", run: to(unix.AF_INET, protoUDPLite, udp4)},
		{name: "udplite4 connect, send", run: connected(unix.AF_INET, protoUDPLite, udp4)},
		{name: "udplite6 sendto", run: to(unix.AF_INET6, protoUDPLite, udp6)},
	}
}

// echo is an ICMP or ICMPv6 echo request: nothing else leaves a ping socket.
func echo(s *sock, typ byte, addr string) *sock {
	sa, _ := sockaddr(addr)
	return s.do("sendto", func() error { return unix.Sendto(s.fd, []byte{typ, 0, 0, 0, 0, 1, 0, 1}, 0, sa) })
}

func rawOperations() []operation {
	const echo4, echo6 = 8, 128
	raw := func(typ int) *sock { return newSock(unix.AF_INET, typ, unix.IPPROTO_ICMP) }
	raw6 := func(typ int) *sock { return newSock(unix.AF_INET6, typ, unix.IPPROTO_ICMPV6) }
	written := func(s *sock, typ byte) *sock {
		return s.do("write", func() error { _, err := unix.Write(s.fd, []byte{typ, 0, 0, 0, 0, 1, 0, 1}); return err })
	}
	return []operation{
		{name: "raw4 icmp sendto", run: func(*scene) error { return echo(raw(unix.SOCK_RAW), echo4, none4).done() }},
		{name: "raw4 icmp connect, send", run: func(*scene) error { return written(raw(unix.SOCK_RAW).connect(none4), echo4).done() }},
		{name: "raw6 icmp sendto", run: func(*scene) error { return echo(raw6(unix.SOCK_RAW), echo6, none6).done() }},
		{name: "raw6 icmp connect, send", run: func(*scene) error { return written(raw6(unix.SOCK_RAW).connect(none6), echo6).done() }},
		{name: "ping4 sendto", run: func(*scene) error { return echo(raw(unix.SOCK_DGRAM), echo4, none4).done() }},
		{name: "ping4 connect, send", run: func(*scene) error { return written(raw(unix.SOCK_DGRAM).connect(none4), echo4).done() }},
		{name: "ping6 sendto", run: func(*scene) error { return echo(raw6(unix.SOCK_DGRAM), echo6, none6).done() }},
		{name: "ping6 connect, send", run: func(*scene) error { return written(raw6(unix.SOCK_DGRAM).connect(none6), echo6).done() }},
		{name: "raw4 own header (IPPROTO_RAW) sendto", run: func(*scene) error {
			s, sa := newSock(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW), &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
			udp := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1, 0, 9, 0, 9, 0, 8, 0, 0}
			return s.do("sendto", func() error { return unix.Sendto(s.fd, udp, 0, sa) }).done()
		}},
	}
}

func otherFamilies() []operation {
	return []operation{
		{name: "packet sendto", run: func(*scene) error {
			lo := &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: 1, Halen: 6} // ETH_P_IP in network order
			return newSock(unix.AF_PACKET, unix.SOCK_DGRAM, 0).sendtoSA(lo, 0).done()
		}},
		{name: "xdp socket", run: func(*scene) error { return newSock(unix.AF_XDP, unix.SOCK_RAW, 0).done() }},
		{name: "netlink sendto", run: func(*scene) error {
			s := newSock(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
			noop := unix.NlMsghdr{Len: unix.SizeofNlMsghdr, Type: unix.NLMSG_NOOP}
			msg := unsafe.Slice((*byte)(unsafe.Pointer(&noop)), unix.SizeofNlMsghdr)
			kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
			return s.do("sendto", func() error { return unix.Sendto(s.fd, msg, 0, kernel) }).done()
		}},
		{name: "alg bind", run: func(*scene) error {
			s := newSock(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
			hash := &unix.SockaddrALG{Type: "hash", Name: "sha256"}
			return s.do("bind", func() error { return unix.Bind(s.fd, hash) }).done()
		}},
		// A virtual machine's host is outside our namespaces: only the loopback.
		{name: "vsock bind", run: func(*scene) error {
			return vsockBind(newSock(unix.AF_VSOCK, unix.SOCK_STREAM, 0), unix.VMADDR_CID_ANY).done()
		}},
		{name: "vsock connect over loopback", run: func(*scene) error {
			s := newSock(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
			if vsockBind(s, unix.VMADDR_CID_LOCAL); errors.Is(s.err, unix.EADDRNOTAVAIL) {
				return lacking("vsock loopback", s.err)
			}
			here, err := unix.Getsockname(s.listen().fd)
			if err != nil {
				return step("getsockname", err)
			}
			return errors.Join(newSock(unix.AF_VSOCK, unix.SOCK_STREAM, 0).connectTo(here).done(), s.done())
		}},
	}
}

func vsockBind(s *sock, cid uint32) *sock {
	return s.do("bind", func() error { return unix.Bind(s.fd, &unix.SockaddrVM{CID: cid, Port: unix.VMADDR_PORT_ANY}) })
}

func unixOperations() []operation {
	path := func(name string) func(*scene) unix.Sockaddr {
		return func(s *scene) unix.Sockaddr { return unixAddr(filepath.Join(s.Dir, name)) }
	}
	abstract := func(name string) func(*scene) unix.Sockaddr {
		return func(*scene) unix.Sockaddr { return unixAddr(name) }
	}
	connect := func(typ int, to func(*scene) unix.Sockaddr) func(*scene) error {
		return func(s *scene) error { return newSock(unix.AF_UNIX, typ, 0).connectTo(to(s)).write().done() }
	}
	send := func(to func(*scene) unix.Sockaddr) func(*scene) error {
		return func(s *scene) error { return newSock(unix.AF_UNIX, unix.SOCK_DGRAM, 0).sendtoSA(to(s), 0).done() }
	}
	return []operation{
		{name: "unix stream connect, path", run: connect(unix.SOCK_STREAM, path("stream"))},
		{name: "unix stream connect, abstract", run: connect(unix.SOCK_STREAM, abstract(abstractStream))},
		{name: "unix dgram connect, send, path", run: connect(unix.SOCK_DGRAM, path("dgram"))},
		{name: "unix dgram sendto, path", run: send(path("dgram"))},
		{name: "unix dgram sendto, abstract", run: send(abstract(abstractDgram))},
		{name: "unix socketpair, write", run: func(*scene) error {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return step("socketpair", err)
			}
			return errors.Join((&sock{fd: pair[0]}).write().done(), (&sock{fd: pair[1]}).read().done())
		}},
	}
}

func ringOperations() []operation {
	ip := [4]byte{127, 0, 0, 1}
	with := func(flags uint32, run func(*ioRing) error) func(*scene) error {
		return func(*scene) error {
			r, err := openRing(flags)
			if err != nil {
				return err
			}
			defer r.close()
			return run(r)
		}
	}
	connect := func(r *ioRing) error {
		s := newSock(unix.AF_INET, unix.SOCK_STREAM, 0)
		addr, n := r.inet4(ip, tcpPort)
		return s.do("connect", func() error {
			_, err := r.do(entry{op: opConnect, fd: s.fd, off: uint64(n), addr: addr})
			return err
		}).read().done()
	}
	return []operation{
		{name: "io_uring CONNECT", run: with(0, connect)},
		{name: "io_uring CONNECT, SQPOLL", run: with(setupSQPoll, connect)},
		{name: "io_uring SOCKET", run: with(0, func(r *ioRing) error {
			fd, err := r.do(entry{op: opSocket, fd: unix.AF_INET, off: unix.SOCK_DGRAM})
			if errors.Is(err, unix.EINVAL) {
				return lacking("IORING_OP_SOCKET", err)
			} else if err != nil {
				return step("IORING_OP_SOCKET", err)
			}
			return unix.Close(fd)
		})},
		{name: "io_uring SENDMSG", run: with(0, func(r *ioRing) error {
			s, msg := newSock(unix.AF_INET, unix.SOCK_DGRAM, 0), r.message(ip, udpPort)
			return s.do("sendmsg", func() error {
				_, err := r.do(entry{op: opSendmsg, fd: s.fd, addr: msg, len: 1})
				return err
			}).done()
		})},
	}
}

func serverOperations() []operation {
	tcp := func(family int) *sock { return newSock(family, unix.SOCK_STREAM, 0) }
	return []operation{
		{name: "tcp4 bind, connect", run: func(*scene) error { return tcp(unix.AF_INET).bind(none4).connect(tcp4).read().done() }},
		{name: "tcp4 bind, listen", run: func(*scene) error { return tcp(unix.AF_INET).bind(none4).listen().done() }},
		{name: "tcp6 bind, listen", run: func(*scene) error { return tcp(unix.AF_INET6).bind(none6).listen().done() }},
		{name: "tcp4 listen, port chosen by the kernel", run: func(*scene) error { return tcp(unix.AF_INET).listen().done() }},
		{name: "tcp6 listen, port chosen by the kernel", run: func(*scene) error { return tcp(unix.AF_INET6).listen().done() }},
		{name: "udp4 bind", run: func(*scene) error { return newSock(unix.AF_INET, unix.SOCK_DGRAM, 0).bind(none4).done() }},
		{name: "tcp4 listen, a client connects", client: serveQueue, run: func(*scene) error {
			return tcp(unix.AF_INET).bind(serveQueue).listen().awaits().done()
		}},
		{name: "tcp4 accept, reply", client: serve4, run: func(*scene) error {
			return tcp(unix.AF_INET).bind(serve4).listen().answer().done()
		}},
		{name: "tcp6 accept, reply", client: serve6, run: func(*scene) error {
			return tcp(unix.AF_INET6).bind(serve6).listen().answer().done()
		}},
	}
}

// memberOperations are about whose cgroup counts: that of the process which
// made the socket, at that time.
func memberOperations() []operation {
	udp := func() *sock { return newSock(unix.AF_INET, unix.SOCK_DGRAM, 0) }
	return append(passedOperations(), []operation{
		{name: "tcp4 socket from before joining, connect", outside: true, run: func(sc *scene) error {
			s := newSock(unix.AF_INET, unix.SOCK_STREAM, 0)
			return s.do("join", func() error { return sc.join() }).connect(tcp4).read().done()
		}},
		{name: "udp4 socket from before joining, connect, sendto", outside: true, run: func(sc *scene) error {
			s := udp()
			return use(s.do("join", func() error { return sc.join() }))
		}},
		{name: "udp4 socket taken along out of the cgroup", run: func(sc *scene) error {
			s := udp()
			return use(s.do("leave", func() error { return sc.join("..") }))
		}},
		{name: "tcp4 listener from before joining, accept, reply", outside: true, client: serveEarly, run: func(sc *scene) error {
			s := newSock(unix.AF_INET, unix.SOCK_STREAM, 0).bind(serveEarly)
			return s.do("join", func() error { return sc.join() }).listen().answer().done()
		}},
		{name: "udp4 in a cgroup below", run: inCgroupBelow(func() error { return use(udp()) })},
		{name: "tcp4 connect in a cgroup below", run: inCgroupBelow(func() error {
			return newSock(unix.AF_INET, unix.SOCK_STREAM, 0).connect(tcp4).read().done()
		})},
		{name: "udp4 in a new network namespace", run: func(*scene) error {
			f, err := makeNamespace()
			if err == nil {
				err = routeAll()
			}
			if err != nil {
				return step("make namespace", err)
			}
			defer f.Close()
			return udp().connect(elsewhere).write().done()
		}},
	}...)
}

// use sends with a UDP socket in both ways.
func use(s *sock) error { return s.connect(udp4).write().sendto(elsewhere, 0).done() }

func passedOperations() []operation {
	return []operation{
		{name: "udp4 socket from outside by SCM_RIGHTS", outside: true, run: func(sc *scene) error {
			s := newSock(unix.AF_UNIX, unix.SOCK_STREAM, 0).connectTo(unixAddr(filepath.Join(sc.Dir, "pass")))
			var got int
			s.do("join", func() error { return sc.join() })
			s.do("receive", func() (err error) { got, err = receiveDescriptor(s.fd); return err })
			if err := s.done(); err != nil {
				return err
			}
			return use(&sock{fd: got})
		}},
		{name: "udp4 socket from outside by pidfd_getfd", run: func(sc *scene) error {
			pidfd, err := unix.PidfdOpen(os.Getppid(), 0)
			if err != nil {
				return lacking("pidfd_open", err)
			}
			fd, err := unix.PidfdGetfd(pidfd, sc.FD, 0)
			if errors.Is(err, unix.ENOSYS) {
				return lacking("pidfd_getfd", err)
			} else if err != nil {
				return step("pidfd_getfd", err)
			}
			return use(&sock{fd: fd})
		}},
	}
}

// inCgroupBelow makes a cgroup in the process's own for as long as run lasts.
func inCgroupBelow(run func() error) func(*scene) error {
	return func(sc *scene) error {
		below := filepath.Join(sc.Cgroup, "below")
		if err := os.Mkdir(below, 0o755); err != nil { //nolint:gosec // a cgroup
			return step("make a cgroup", err)
		}
		err := sc.join("below")
		if err == nil {
			err = run()
		}
		return errors.Join(err, sc.join(), os.Remove(below))
	}
}

func receiveDescriptor(fd int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, errors.Join(errors.New("no descriptor came"), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}
