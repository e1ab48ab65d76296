// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// redirected are the attempts about redirection.
var redirected = map[string]func(attempt) result{
	"gateway":            attempt.playGateway,
	"gateway-end":        attempt.endGateway,
	"usurp":              attempt.usurp,
	"open-raw":           attempt.keepRaw,
	"segment":            attempt.segment,
	"peer":               func(a attempt) result { return a.peer(false) },
	"peer-fastopen":      func(a attempt) result { return a.peer(true) },
	"question":           func(a attempt) result { return a.question(false) },
	"question-connected": func(a attempt) result { return a.question(true) },
	"again":              attempt.again,
	"from":               attempt.from,
	"fenced":             attempt.fenced,
}

// playGateway opens the listeners of one namespace in the cgroup of this
// process and serves them until it ends: a connection hears "gateway" and what
// the kernel says it was meant for, a question its own text.
func (a attempt) playGateway() result {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	var ports, fds []string
	var cookie uint64
	note := func(c syscall.Conn) {
		if raw, err := c.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				fds = append(fds, fmt.Sprint(fd))
				cookie, _ = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
			})
		}
	}
	for i, addr := range []string{"127.0.0.1:0", "[::1]:0", "127.0.0.1:0", "[::1]:0"} {
		l, err := lc.Listen(context.Background(), []string{"tcp4", "tcp6"}[i%2], addr)
		if err != nil {
			return fail("listen", err)
		}
		ports = append(ports, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
		note(l.(*net.TCPListener))
		playing = append(playing, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go answerAsked(c.(*net.TCPConn))
			}
		}()
	}
	for i, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		c, err := net.ListenPacket([]string{"udp4", "udp6"}[i], addr)
		if err != nil {
			return fail("listen", err)
		}
		ports = append(ports, fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port))
		note(c.(*net.UDPConn))
		playing = append(playing, c)
		go func() {
			buf := make([]byte, 512)
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(append([]byte("resolver "), buf[:n]...), from)
			}
		}()
	}
	return result{Reply: fmt.Sprint(cookie) + " " + strings.Join(append(ports, fds...), " ")}
}

// playing are the listeners of a process that plays the gateway.
var playing []io.Closer

// endGateway closes them.
func (a attempt) endGateway() result {
	var errs []error
	for _, l := range playing {
		errs = append(errs, l.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fail("close", err)
	}
	return result{}
}

// usurp serves everybody on a port of both protocols.
func (a attempt) usurp() result {
	l, err := net.Listen("tcp", a.Addr)
	if err != nil {
		return fail("listen", err)
	}
	c, err := net.ListenPacket("udp", a.Addr)
	if err != nil {
		return fail("listen", err)
	}
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_, _ = io.WriteString(c, "stranger")
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 512)
		for _, from, err := c.ReadFrom(buf); err == nil; _, from, err = c.ReadFrom(buf) {
			_, _ = c.WriteTo([]byte("stranger"), from)
		}
	}()
	return result{}
}

// keepRaw opens a raw socket of TCP and keeps it.
func (a attempt) keepRaw() result {
	_, family := sockaddr(a.Addr)
	fd, err := open(family, unix.SOCK_RAW, unix.IPPROTO_TCP)
	if err != nil {
		return fail("socket", err)
	}
	kept[a.N] = fd
	return result{}
}

// segment sends a TCP header with the flags N through the raw socket kept as 0.
func (a attempt) segment() result {
	ap := netip.MustParseAddrPort(a.Addr)
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, 4444)
	binary.BigEndian.PutUint16(h[2:], ap.Port())
	h[12], h[13] = 5<<4, byte(a.N)
	sa, _ := sockaddr(netip.AddrPortFrom(ap.Addr(), 0).String())
	if err := unix.Sendto(kept[0], h, 0, sa); err != nil {
		return fail("send", err)
	}
	return result{}
}

// answerAsked tells a client what it asked for, and resets one that nobody
// knows: with what the gateway sees, and no more.
func answerAsked(c *net.TCPConn) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	var v bpf.RedirectRfAsked
	size := uint32(unsafe.Sizeof(v))
	var errno unix.Errno
	_ = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(bpf.RedirectRfSockoptRF_SOL), uintptr(bpf.RedirectRfSockoptRF_SO_ASKED),
			uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if errno != 0 {
		_ = c.SetLinger(0)
		return
	}
	fmt.Fprintf(c, "gateway %s for %d", netip.AddrPortFrom(netip.AddrFrom16(v.Addr).Unmap(), v.Port), v.Sandbox)
	_, _ = io.Copy(io.Discard, c) // until the client goes
}

// peer connects by TCP and says who the kernel thinks the peer is, and what
// the peer says.
func (a attempt) peer(fastOpen bool) result {
	sa, family := sockaddr(a.Addr)
	fd, err := open(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if fastOpen {
		err = unix.Sendto(fd, []byte("hello"), unix.MSG_FASTOPEN, sa)
	} else {
		err = unix.Connect(fd, sa)
	}
	if err != nil {
		return fail("connect", err)
	}
	r := receive(fd)
	if r.Errno != 0 {
		return r
	}
	r.Reply = peerOf(fd) + " " + r.Reply
	return r
}

func peerOf(fd int) string {
	p, err := unix.Getpeername(fd)
	if err != nil {
		return err.Error()
	}
	return addrOf(p)
}

func addrOf(sa unix.Sockaddr) string {
	switch s := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port)).String()
	}
	return fmt.Sprintf("%T", sa)
}

// question asks by UDP and says from whom the answer came.
func (a attempt) question(connect bool) result {
	sa, family := sockaddr(a.Addr)
	fd, err := open(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if connect {
		if err := unix.Connect(fd, sa); err != nil {
			return fail("connect", err)
		}
		_, err = unix.Write(fd, []byte("q"))
	} else {
		err = unix.Sendto(fd, []byte("q"), 0, sa)
	}
	if err != nil {
		return fail("send", err)
	}
	buf := make([]byte, 256)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return fail("receive", err)
	}
	out := addrOf(from) + " " + string(buf[:n])
	if connect {
		out = peerOf(fd) + " " + out
	}
	return result{Reply: out}
}

// fenced says which sandbox's programs the kept socket N meets, as whoever
// has a descriptor of it can ask.
func (a attempt) fenced() result { return result{Reply: fmt.Sprint(FencedBy(kept[a.N]))} }

// from connects from source port N.
func (a attempt) from() result {
	sa, family := sockaddr(a.Addr)
	fd, err := open(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	linger := unix.Linger{Onoff: 1} // a reset at the end: no TIME_WAIT keeps the port
	if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger)); err != nil {
		return fail("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: a.N, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fail("bind", err)
	}
	if err := unix.Connect(fd, sa); err != nil {
		return fail("connect", err)
	}
	return receive(fd)
}

// again connects to the first address, lets go of it and connects the same
// socket to the second.
func (a attempt) again() result {
	first, second, _ := strings.Cut(a.Addr, " ")
	sa, family := sockaddr(first)
	fd, err := open(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil {
		return fail("connect", err)
	}
	none := [16]byte{} // AF_UNSPEC
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), 16); errno != 0 {
		return fail("let go", errno)
	}
	sa, _ = sockaddr(second)
	if err := unix.Connect(fd, sa); err != nil {
		return fail("connect again", err)
	}
	r := receive(fd)
	r.Reply = peerOf(fd) + " " + r.Reply
	return r
}
