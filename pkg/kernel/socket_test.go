// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// sock is a socket whose first error stays: an operation reads as the list of
// its calls.
type sock struct {
	fd  int
	err error
}

// newSock makes a socket that gives up after two seconds. A family, type or
// protocol that is not there is errLacking.
func newSock(family, typ, proto int) *sock {
	fd, err := open(family, typ, proto)
	none := []unix.Errno{unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT, unix.ENOPROTOOPT}
	if ping := typ == unix.SOCK_DGRAM && (proto == unix.IPPROTO_ICMP || proto == unix.IPPROTO_ICMPV6); ping {
		none = append(none, unix.EACCES) // where the setting could not be changed
	}
	var e unix.Errno
	switch {
	case err == nil:
		return &sock{fd: fd}
	case errors.As(err, &e) && slices.Contains(none, e):
		return &sock{fd: -1, err: lacking("socket", err)}
	}
	return &sock{fd: -1, err: step("socket", err)}
}

// do makes a call unless an earlier one failed.
func (s *sock) do(what string, call func() error) *sock {
	if s.err != nil {
		return s
	}
	if err := call(); err != nil {
		s.err = step(what, err)
	}
	return s
}

func (s *sock) connect(addr string) *sock {
	sa, _ := sockaddr(addr)
	return s.connectTo(sa)
}

func (s *sock) connectTo(sa unix.Sockaddr) *sock {
	return s.do("connect", func() error { return unix.Connect(s.fd, sa) })
}

func (s *sock) bind(addr string) *sock {
	sa, _ := sockaddr(addr)
	return s.do("bind", func() error { return unix.Bind(s.fd, sa) })
}

func (s *sock) listen() *sock {
	return s.do("listen", func() error { return unix.Listen(s.fd, 1) })
}

func (s *sock) write() *sock {
	return s.do("write", func() error { _, err := unix.Write(s.fd, []byte("hello")); return err })
}

// read waits for the server's greeting, so that the handshake is over.
func (s *sock) read() *sock {
	return s.do("read", func() error { _, err := unix.Read(s.fd, make([]byte, 64)); return err })
}

func (s *sock) sendto(addr string, flags int) *sock {
	sa, _ := sockaddr(addr)
	return s.sendtoSA(sa, flags)
}

func (s *sock) sendtoSA(sa unix.Sockaddr, flags int) *sock {
	return s.do("sendto", func() error { return unix.Sendto(s.fd, []byte("hello"), flags, sa) })
}

// sendtoAs sends with a sockaddr_in that says another family.
func (s *sock) sendtoAs(family uint16, addr string) *sock {
	return s.do("sendto", func() error {
		if r := rawSendto(s.fd, family, netip.MustParseAddrPort(addr)); r.Errno != 0 {
			return r.Errno
		}
		return nil
	})
}

func (s *sock) set(level, option, value int) *sock {
	return s.do("setsockopt", func() error { return unix.SetsockoptInt(s.fd, level, option, value) })
}

// awaits returns when somebody waits to be accepted.
func (s *sock) awaits() *sock {
	return s.do("poll", func() error {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, 5000)
		if err == nil && n == 0 {
			err = unix.ETIMEDOUT
		}
		return err
	})
}

// answer accepts one connection and writes to it.
func (s *sock) answer() *sock {
	return s.awaits().do("accept", func() error {
		n, _, err := unix.Accept(s.fd)
		if err != nil {
			return err
		}
		_, err = unix.Write(n, []byte("served"))
		return errors.Join(err, unix.Close(n))
	})
}

func (s *sock) done() error {
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
	return s.err
}
