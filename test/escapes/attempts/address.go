// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses that controls find on the loopback interface of their namespace.
const (
	literal4 = "203.0.113.7"
	literal6 = "2001:db8::7"
)

// destination is one way to write an address that no policy lists.
type destination struct{ name, addr, why string }

var destinations = []destination{
	{"literal4", literal4, "a literal address"},
	{"literal6", literal6, "a literal IPv6 address"},
	{"public4", "8.8.8.8", "a literal address that nothing else of the gateway closes"},
	{"mapped", "::ffff:" + literal4, "IPv4 in an IPv6 socket"},
	{"nat64", "64:ff9b::cb00:7107", "IPv4 behind the NAT64 prefix"},
	{"6to4", "2002:cb00:7107::1", "IPv4 behind 6to4"},
	{"teredo", "2001:0:cb00:7107::1", "IPv4 behind Teredo"},
	{"metadata4", "169.254.169.254", "the metadata service"},
	{"metadata6", "fd00:ec2::254", "the metadata service over IPv6"},
	{"metadata-alibaba", "100.100.100.200", "a metadata service in CGNAT space"},
	{"metadata-azure", "168.63.129.16", "a metadata service at a public address"},
	{"private10", "10.99.0.1", "a private network"},
	{"private172", "172.16.99.1", "a private network"},
	{"private192", "192.168.99.1", "a private network"},
	{"ula", "fd12:3456::1", "a private IPv6 network"},
	{"site-local", "fec0::1", "an old private IPv6 network"},
	{"class-e", "240.0.0.1", "a reserved address"},
	{"virtual-guess", "198.18.77.77", "a virtual address that belongs to no name"},
	{"virtual-mapped", "::ffff:198.18.77.78", "the same in an IPv6 socket"},
}

// verdictErrnos are what the connect and sendmsg hooks answer (EPERM below Linux 5.18).
var verdictErrnos = errnos("EACCES", "EPERM")

func addressAttempts() []*Attempt {
	var out []*Attempt
	for _, d := range destinations {
		out = append(out, &Attempt{
			Name: "tcp-" + d.name, Class: "tcp", Expect: verdictErrnos, Params: []string{"port", "addr"}, Layer: "bpf-connect", Event: "network", Trace: d.addr,
			Control: "connects to a listener on " + d.why,
			run:     func(p params) error { return connect(p.dest(d.addr), unix.SOCK_STREAM, 0) },
		})
	}
	tcp := func(name, control string, run func(p params) error) {
		out = append(out, &Attempt{Name: name, Class: "tcp", Expect: verdictErrnos, Params: []string{"port", "addr"},
			Layer: "bpf-connect", Event: "network", Trace: literal4, Control: control, run: run})
	}
	tcp("tcp-nonblocking", "connects without blocking", func(p params) error {
		return connect(p.dest(literal4), unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	})
	tcp("tcp-fastopen-sendto", "sends data with the first segment", func(p params) error { return fastOpen(p.dest(literal4), false) })
	tcp("tcp-fastopen-connect", "connects at the first write", func(p params) error { return fastOpen(p.dest(literal4), true) })
	tcp("tcp-bound-source", "connects from a chosen address", func(p params) error { return boundConnect(p.dest(literal4)) })
	tcp("tcp-reconnect", "connects elsewhere after dissolving a loopback connection", func(p params) error { return reconnect(p.dest(literal4)) })
	tcp("tcp-dot", "connects to a name server with TLS", func(p params) error {
		return connect(netip.AddrPortFrom(p.dest(literal4).Addr(), uint16(p.int("dotport", 853))), unix.SOCK_STREAM, 0)
	})
	// Last, for its records use the sandbox's budget up.
	tcp("tcp-race-address", "a second thread rewrites the address during connect", func(p params) error { return raceConnect(p.dest(literal4)) })
	tcp("tcp-io-uring", "connects by a ring", func(p params) error { return ringConnect(p.dest(literal4)) })
	out[len(out)-1].Expect, out[len(out)-1].Layer, out[len(out)-1].Event, out[len(out)-1].Trace = errnos("EPERM"), "seccomp", "refusal", "io_uring_setup"
	out[len(out)-1].Needs = []string{"kernel:IO_URING"}
	out = append(out, &Attempt{Name: "tcp-listeners", Class: "tcp", Expect: errnos("ECONNRESET", "ECONNREFUSED", "none"), Layer: "gateway", Event: "network", Trace: "127.0.0.1",
		Control: "talks to whatever listens on loopback", run: func(params) error { return listeners() }})
	out = append(out,
		&Attempt{Name: "tcp-host-loopback", Class: "tcp", Expect: errnos("ECONNREFUSED", "EACCES"), Params: []string{"port"}, Layer: "netns",
			Control: "connects to a service on 127.0.0.1", run: func(p params) error { return connect(p.dest("127.0.0.1"), unix.SOCK_STREAM, 0) }},
		&Attempt{Name: "tcp-host-loopback6", Class: "tcp", Expect: errnos("ECONNREFUSED", "EACCES"), Params: []string{"port"}, Layer: "netns",
			Control: "connects to a service on ::1", run: func(p params) error { return connect(p.dest("::1"), unix.SOCK_STREAM, 0) }},
		&Attempt{Name: "tcp-unspecified", Class: "tcp", Expect: errnos("ECONNREFUSED", "EACCES"), Params: []string{"port"}, Layer: "netns",
			Control: "0.0.0.0 means this host", run: func(p params) error { return connect(p.dest("0.0.0.0"), unix.SOCK_STREAM, 0) }},
		&Attempt{Name: "tcp-mptcp", Class: "tcp", Expect: errnos("EPROTONOSUPPORT"), Params: []string{"port"}, Layer: "seccomp", Needs: []string{"kernel:MPTCP"},
			Control: "connects with multipath TCP", run: func(p params) error { return connect(p.dest(literal4), unix.SOCK_STREAM, 262) }},
	)
	return out
}

// dest is the destination of a network attempt: addr and port may be given.
func (p params) dest(addr string) netip.AddrPort {
	a, err := netip.ParseAddr(p.get("addr", addr))
	check(err)
	return netip.AddrPortFrom(a, uint16(p.int("port", 80)))
}

func sockaddr(d netip.AddrPort) (int, unix.Sockaddr) {
	if d.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(d.Port()), Addr: d.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(d.Port()), Addr: d.Addr().As16()}
}

const proof = "escaped\n"

// connect connects and writes a line, so that a listener on the host knows.
func connect(d netip.AddrPort, kind, proto int) error {
	family, sa := sockaddr(d)
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return finish(fd, unix.Connect(fd, sa))
}

// finish waits for a connection that connect began and proves it.
func finish(fd int, err error) error {
	if err == unix.EINPROGRESS {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, perr := unix.Poll(fds, 2000); perr != nil || n == 0 {
			return unix.ETIMEDOUT
		}
		code, gerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if gerr != nil {
			return gerr
		}
		err = nil
		if code != 0 {
			err = unix.Errno(code)
		}
	}
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(proof))
	return err
}

func fastOpen(d netip.AddrPort, atWrite bool) error {
	family, sa := sockaddr(d)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !atWrite {
		return unix.Sendto(fd, []byte(proof), unix.MSG_FASTOPEN, sa)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
		return err
	}
	if err := unix.Connect(fd, sa); err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(proof))
	return err
}

func boundConnect(d netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	_, sa := sockaddr(d)
	return finish(fd, unix.Connect(fd, sa))
}

// reconnect gets a connected socket on loopback, dissolves it with AF_UNSPEC
// and uses it for the destination.
func reconnect(d netip.AddrPort) error {
	l, port, err := loopbackListener()
	if err != nil {
		return err
	}
	defer unix.Close(l)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		return err
	}
	if err := rawConnect(fd, &unix.RawSockaddrAny{Addr: unix.RawSockaddr{Family: unix.AF_UNSPEC}}); err != nil {
		return fmt.Errorf("dissolve: %w", err)
	}
	_, sa := sockaddr(d)
	return finish(fd, unix.Connect(fd, sa))
}

func loopbackListener() (fd, port int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, 0, err
	}
	if err = unix.Listen(fd, 4096); err != nil {
		return 0, 0, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, 0, err
	}
	return fd, sa.(*unix.SockaddrInet4).Port, nil
}

// raceConnect lets a second thread flip the address between one that is
// allowed (loopback) and the destination while the first connects. It
// succeeds when a socket's peer is the destination.
func raceConnect(d netip.AddrPort) error {
	l, port, err := loopbackListener()
	if err != nil {
		return err
	}
	defer unix.Close(l)
	if err := unix.SetNonblock(l, true); err != nil {
		return err
	}
	good := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swap(port), Addr: [4]byte{127, 0, 0, 1}}
	evil := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swap(int(d.Port())), Addr: d.Addr().As4()}
	shared := newFlipper(good, evil)
	defer shared.stop()
	last, refusedOnce := error(nil), false
	for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = rawConnect(fd, shared.addr())
		if peer, perr := unix.Getpeername(fd); err == nil && perr == nil {
			if in4, ok := peer.(*unix.SockaddrInet4); ok && in4.Addr == evil.Addr {
				_, err = unix.Write(fd, []byte(proof))
				unix.Close(fd)
				return err
			}
		}
		unix.Close(fd)
		if c, _, aerr := unix.Accept4(l, unix.SOCK_CLOEXEC); aerr == nil { // keep the backlog empty
			unix.Close(c)
		}
		if err == unix.EACCES || err == unix.EPERM {
			last, refusedOnce = err, true
		}
	}
	if refusedOnce {
		return last
	}
	return nothing("never refused and never there")
}

func swap(port int) uint16 { return uint16(port)<<8 | uint16(port)>>8 }

// listeners connects to every TCP port that somebody listens on, but for name
// service: in a sandbox those are the gateway's own, which take only what the
// kernel steers to them.
func listeners() error {
	last := nothing("nobody listens")
	for file, loopback := range map[string]string{"tcp": "127.0.0.1", "tcp6": "::1"} {
		b, err := os.ReadFile("/proc/self/net/" + file)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != "0A" {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err != nil || port == 53 {
				continue
			}
			if last = held(netip.AddrPortFrom(netip.MustParseAddr(loopback), uint16(port))); last == nil {
				return nil
			}
		}
	}
	return last
}

// held connects and succeeds when the other end keeps the connection.
func held(d netip.AddrPort) error {
	family, sa := sockaddr(d)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := finish(fd, unix.Connect(fd, sa)); err != nil {
		return err
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 300); err != nil || n == 0 {
		return err
	}
	var b [1]byte
	n, err := unix.Read(fd, b[:])
	if err == nil && n == 0 {
		return nothing("closed at once")
	}
	return err
}
