// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const helperEnv = "RINGFENCE_KERNEL_HELPER"

var update = flag.Bool("update", false, "write the golden files")

// TestMain runs as the test, or as the process inside a sandbox: one attempt
// per line on stdin, one result per line on stdout.
func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "" {
		os.Exit(m.Run())
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var a attempt
		if err := in.Decode(&a); err == io.EOF {
			os.Exit(0)
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		out.Encode(a.run())
	}
}

// attempt is one thing a process tries.
type attempt struct {
	Op   string
	Addr string // "ip:port", a path, or "@abstract"
	N    int

	Scene *scene // of a visible operation
}

// result is what came of it.
type result struct {
	Errno unix.Errno
	Step  string // which call failed
	Reply string
	PID   int
	Took  time.Duration
}

func fail(step string, err error) result {
	e, ok := err.(unix.Errno)
	if !ok {
		fmt.Fprintln(os.Stderr, step, err)
		e = unix.EINVAL
	}
	return result{Errno: e, Step: step}
}

// Protocol numbers that package unix lacks or spells otherwise.
const (
	protoUDPLite = 136
	protoMPTCP   = 262
	protoSCTP    = 132
)

func (a attempt) run() result {
	start := time.Now()
	r := a.dispatch()
	r.Took, r.PID = time.Since(start), os.Getpid()
	return r
}

func (a attempt) dispatch() result {
	switch a.Op {
	case "tcp":
		return a.connect(unix.SOCK_STREAM, 0, true)
	case "tcp-held":
		return a.hold(unix.SOCK_STREAM)
	case "udp-held":
		return a.hold(unix.SOCK_DGRAM)
	case "open-tcp":
		return a.keep(unix.SOCK_STREAM)
	case "open-udp":
		return a.keep(unix.SOCK_DGRAM)
	case "open-listener", "open-bound":
		return a.keepListener()
	case "hold-lock":
		return a.holdLock()
	case "echo":
		return a.echo()
	case "await":
		return receive(kept[a.N])
	case "tcp-fastopen":
		return a.sendto(unix.SOCK_STREAM, 0, unix.MSG_FASTOPEN, "")
	case "mptcp":
		return a.connect(unix.SOCK_STREAM, protoMPTCP, false)
	case "sctp":
		return a.connect(unix.SOCK_STREAM, protoSCTP, false)
	case "udplite":
		return a.connect(unix.SOCK_DGRAM, protoUDPLite, false)
	case "ping":
		return a.connect(unix.SOCK_DGRAM, unix.IPPROTO_ICMP, false)
	case "raw":
		return a.sendto(unix.SOCK_RAW, unix.IPPROTO_ICMP, 0, "")
	case "raw-hdrincl":
		return a.sendto(unix.SOCK_RAW, unix.IPPROTO_RAW, 0, "")
	case "udp":
		return a.connect(unix.SOCK_DGRAM, 0, false)
	case "udp-sendto":
		return a.sendto(unix.SOCK_DGRAM, 0, 0, "")
	case "udp-sendto-connected":
		return a.sendto(unix.SOCK_DGRAM, 0, 0, "127.0.0.1:9")
	case "udp-sendto-unspec":
		return a.sendtoUnspec()
	case "udp6-sendto4":
		return a.sendto4on6()
	case "udp-options":
		return a.sendtoOptions()
	case "tcp-bound":
		return a.connectBound()
	case "tcp-loop":
		return a.loopback()
	case "unix":
		return a.unixConnect()
	case "unix-dgram":
		return a.unixSendto()
	case "exec":
		c := exec.Command("/bin/sh", "-c", a.Addr)
		err := c.Run()
		if _, ok := err.(*exec.ExitError); err != nil && !ok {
			return fail("exec", err)
		}
		return result{Reply: fmt.Sprint(c.Process.Pid, " ", c.ProcessState.ExitCode())}
	case "serve":
		return a.serve()
	case "flood-connect":
		return a.flood()
	case "flood-send":
		return a.floodSend()
	case "visible":
		return a.visible()
	}
	if run := relaying[a.Op]; run != nil {
		return run(a)
	}
	if run := redirected[a.Op]; run != nil {
		return run(a)
	}
	if op := guardOps[a.Op]; op != nil {
		return op(a)
	}
	if op := clientOps[a.Op]; op != nil {
		return op(a)
	}
	return fail("unknown op "+a.Op, unix.ENOSYS)
}

func sockaddr(s string) (unix.Sockaddr, int) {
	ap := netip.MustParseAddrPort(s)
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}, unix.AF_INET6
}

// open makes a socket whose blocking calls end after two seconds, so that a
// silent drop shows as EINPROGRESS or EAGAIN instead of hanging the test.
func open(family, typ, proto int) (int, error) {
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, err
	}
	tv := unix.Timeval{Sec: 2}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	return fd, nil
}

func (a attempt) connect(typ, proto int, read bool) result {
	sa, family := sockaddr(a.Addr)
	fd, err := open(family, typ, proto)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil {
		return fail("connect", err)
	}
	if !read {
		return result{}
	}
	return receive(fd)
}

func receive(fd int) result {
	buf := make([]byte, 256)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return fail("read", err)
	}
	return result{Reply: string(buf[:n])}
}

// hold connects and then waits for what ends the flow.
func (a attempt) hold(typ int) result {
	sa, family := sockaddr(a.Addr)
	fd, err := unix.Socket(family, typ, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil {
		return fail("connect", err)
	}
	tv := unix.Timeval{Sec: 5}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	for {
		if r := receive(fd); r.Errno != 0 || r.Reply == "" {
			return r
		}
	}
}

func (a attempt) sendto(typ, proto, flags int, connectFirst string) result {
	sa, family := sockaddr(a.Addr)
	if typ == unix.SOCK_RAW {
		switch s := sa.(type) {
		case *unix.SockaddrInet4:
			s.Port = 0
		case *unix.SockaddrInet6:
			s.Port, proto = 0, unix.IPPROTO_ICMPV6
		}
	}
	fd, err := open(family, typ, proto)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if connectFirst != "" {
		first, _ := sockaddr(connectFirst)
		if err := unix.Connect(fd, first); err != nil {
			return fail("connect", err)
		}
	}
	msg := []byte("hello")
	if proto == unix.IPPROTO_RAW {
		ip := netip.MustParseAddrPort(a.Addr).Addr().As4()
		msg = []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, ip[0], ip[1], ip[2], ip[3], 0, 9, 0, 9, 0, 8, 0, 0}
	}
	if err := unix.Sendto(fd, msg, flags, sa); err != nil {
		return fail("sendto", err)
	}
	if flags&unix.MSG_FASTOPEN != 0 {
		return receive(fd)
	}
	return result{}
}

// sendtoUnspec passes AF_UNSPEC where udp_sendmsg takes it as AF_INET.
func (a attempt) sendtoUnspec() result {
	ap := netip.MustParseAddrPort(a.Addr)
	fd, err := open(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	return rawSendto(fd, unix.AF_UNSPEC, ap)
}

// sendto4on6 passes a sockaddr_in on an AF_INET6 socket.
func (a attempt) sendto4on6() result {
	ap := netip.MustParseAddrPort(a.Addr)
	fd, err := open(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	return rawSendto(fd, unix.AF_INET, ap)
}

// sendtoOptions asks for a loose source route by way of another address.
func (a attempt) sendtoOptions() result {
	fd, err := open(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	opt := string([]byte{131, 7, 4, 127, 0, 0, 9, 0})
	if err := unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, opt); err != nil {
		return fail("setsockopt", err)
	}
	sa, _ := sockaddr(a.Addr)
	if err := unix.Sendto(fd, []byte("hello"), 0, sa); err != nil {
		return fail("sendto", err)
	}
	return result{}
}

// connectBound connects to 0.0.0.0 from a socket bound to Addr: the kernel
// would take the source as the destination.
func (a attempt) connectBound() result {
	ap := netip.MustParseAddrPort(a.Addr)
	fd, err := open(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: ap.Addr().As4()}); err != nil {
		return fail("bind", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(ap.Port())}); err != nil {
		return fail("connect", err)
	}
	return receive(fd)
}

// loopback serves and connects inside the sandbox.
func (a attempt) loopback() result {
	sa, family := sockaddr(a.Addr)
	srv, err := open(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(srv)
	if err := unix.Bind(srv, sa); err != nil {
		return fail("bind", err)
	}
	if err := unix.Listen(srv, 1); err != nil {
		return fail("listen", err)
	}
	c, err := open(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(c)
	if err := unix.Connect(c, sa); err != nil {
		return fail("connect", err)
	}
	n, _, err := unix.Accept(srv)
	if err != nil {
		return fail("accept", err)
	}
	defer unix.Close(n)
	if _, err := unix.Write(n, []byte("own server")); err != nil {
		return fail("write", err)
	}
	return receive(c)
}

// serve accepts one connection and answers it.
func (a attempt) serve() result {
	sa, family := sockaddr(a.Addr)
	srv, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(srv)
	if err := unix.Bind(srv, sa); err != nil {
		return fail("bind", err)
	}
	if err := unix.Listen(srv, 1); err != nil {
		return fail("listen", err)
	}
	n, _, err := unix.Accept(srv)
	if err != nil {
		return fail("accept", err)
	}
	defer unix.Close(n)
	if _, err := unix.Write(n, []byte("served")); err != nil {
		return fail("write", err)
	}
	return result{}
}

func unixAddr(s string) *unix.SockaddrUnix { return &unix.SockaddrUnix{Name: s} }

func (a attempt) unixConnect() result {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, unixAddr(a.Addr)); err != nil {
		return fail("connect", err)
	}
	return result{}
}

func (a attempt) unixSendto() result {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte("x"), 0, unixAddr(a.Addr)); err != nil {
		return fail("sendto", err)
	}
	return result{}
}

// floodSend sends N datagrams over one connected socket.
func (a attempt) floodSend() result {
	sa, family := sockaddr(a.Addr)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil {
		return fail("connect", err)
	}
	sent := 0
	for range a.N {
		if _, err := unix.Write(fd, []byte("x")); err == nil || err == unix.ECONNREFUSED {
			sent++
		}
	}
	return result{Reply: fmt.Sprint(sent)}
}

// flood connects UDP sockets N times and counts the refusals.
func (a attempt) flood() result {
	sa, family := sockaddr(a.Addr)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	denied := 0
	for range a.N {
		if unix.Connect(fd, sa) != nil {
			denied++
		}
	}
	return result{Reply: fmt.Sprint(denied)}
}
