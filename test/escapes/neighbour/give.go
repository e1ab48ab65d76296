// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// private is what the giver keeps in its home, where no other sandbox looks.
const private = "private"

// give serves one question after the other: a line that names a thing, answered
// by its descriptor. The giver keeps none.
//
//	tcp HOST:PORT   a TCP socket that it connected itself
//	socket, udp     an unconnected one
//	home, proc      the directories $HOME and /proc/self, opened
//	netns, pidfd    its network namespace, itself
//	file            a file of its home, opened for reading
func give(path string) error {
	if err := os.WriteFile(filepath.Join(os.Getenv("HOME"), private), []byte("the giver's\n"), 0o600); err != nil {
		return err
	}
	l, err := listen(path)
	if err != nil {
		return err
	}
	for {
		c, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return err
		}
		if err := answer(c); err != nil {
			fmt.Fprintln(os.Stderr, "give:", err)
		}
		unix.Close(c)
	}
}

func answer(c int) error {
	b := make([]byte, 512)
	n, err := unix.Read(c, b)
	if err != nil {
		return err
	}
	fd, err := thing(string(b[:n]))
	if err != nil {
		return unix.Sendmsg(c, []byte("cannot: "+err.Error()), nil, nil, unix.MSG_NOSIGNAL)
	}
	defer unix.Close(fd)
	return unix.Sendmsg(c, []byte("here"), unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
}

func thing(what string) (int, error) {
	kind, arg, _ := strings.Cut(what, " ")
	switch kind {
	case "tcp":
		return dial(arg)
	case "socket":
		return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	case "udp":
		return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	case "home":
		return unix.Open(os.Getenv("HOME"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	case "proc":
		return unix.Open("/proc/self", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	case "netns":
		return unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	case "pidfd":
		return unix.PidfdOpen(os.Getpid(), 0)
	case "file":
		return unix.Open(filepath.Join(os.Getenv("HOME"), private), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	return 0, fmt.Errorf("no %q", what)
}

// dial connects a plain blocking socket.
func dial(where string) (int, error) {
	host, port, err := net.SplitHostPort(where)
	if err != nil {
		return 0, err
	}
	if _, err := netip.ParseAddr(host); err != nil {
		addrs, err := net.LookupHost(host)
		if err != nil {
			return 0, err
		}
		host = addrs[0]
	}
	d, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, inet(d)); err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("connect %s: %w", d, err)
	}
	return fd, nil
}

func inet(d netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(d.Port()), Addr: d.Addr().As4()}
}

// take asks a giver and uses what it gets.
func take(path, what, do, arg string) error {
	c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(c)
	if err := unix.Connect(c, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, err := unix.Write(c, []byte(what)); err != nil {
		return err
	}
	text, fds, err := receive(c)
	if err != nil {
		return err
	}
	if len(fds) != 1 {
		return fmt.Errorf("got %d descriptors: %s", len(fds), text)
	}
	return use(fds[0], do, arg)
}

// proof is what listeners of the world outside look for.
const proof = "escaped\n"

// use does something with a descriptor that was passed.
func use(fd int, do, arg string) error {
	switch do {
	case "talk": // says something and hears it again
		return echoed(fd, arg)
	case "wait": // until a file is there; then talks
		for waitFor(arg) != nil {
		}
		return echoed(fd, "after")
	case "connect":
		d, err := netip.ParseAddrPort(arg)
		if err != nil {
			return err
		}
		return proven(fd, unix.Connect(fd, inet(d)))
	case "connect-later": // "FILE ADDR:PORT", when the file is there
		file, addr, _ := strings.Cut(arg, " ")
		for waitFor(file) != nil {
		}
		return use(fd, "connect", addr)
	case "send":
		d, err := netip.ParseAddrPort(arg)
		if err != nil {
			return err
		}
		return unix.Sendto(fd, []byte(proof), 0, inet(d))
	case "open": // a path below it
		return opened(unix.Openat(fd, arg, unix.O_RDONLY|unix.O_CLOEXEC, 0))
	case "chdir": // into it, then a relative path
		if err := unix.Fchdir(fd); err != nil {
			return err
		}
		return opened(unix.Open(arg, unix.O_RDONLY|unix.O_CLOEXEC, 0))
	case "reopen": // by its name in /proc
		return opened(unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR|unix.O_CLOEXEC, 0))
	case "read":
		b := make([]byte, 1)
		_, err := unix.Read(fd, b)
		return err
	case "setns":
		return unix.Setns(fd, 0)
	case "signal":
		return unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)
	case "getfd":
		return opened(unix.PidfdGetfd(fd, 0, 0))
	}
	return fmt.Errorf("do %q?", do)
}

func waitFor(file string) error {
	_, err := os.Stat(file)
	if err != nil {
		_, _ = unix.Poll(nil, 20)
	}
	return err
}

func opened(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func proven(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Send(fd, []byte(proof), unix.MSG_NOSIGNAL)
}

func echoed(fd int, text string) error {
	if err := unix.Send(fd, []byte(text), unix.MSG_NOSIGNAL); err != nil {
		return err
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 3000); err != nil || n == 0 {
		return errors.Join(errors.New("no answer"), err)
	}
	b := make([]byte, 512)
	n, err := unix.Read(fd, b)
	if err != nil {
		return err
	}
	if string(b[:n]) != text {
		return fmt.Errorf("answered %q", b[:n])
	}
	return nil
}
