// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// relaying are the attempts about datagrams to the gateway.
var relaying = map[string]func(attempt) result{
	"gateway-relays":     attempt.playRelays,
	"gateway-late":       attempt.answerLate,
	"gateway-heard":      attempt.countHeard,
	"questions":          attempt.questions,
	"questions-kept":     attempt.questionsKept,
	"question-again":     attempt.questionAgain,
	"question-bound":     attempt.questionBound,
	"question-device":    attempt.questionOnDevice,
	"question-segments":  attempt.questionInSegments,
	"question-corked":    attempt.questionCorked,
	"numbered":           attempt.sendNumbered,
	"question-shared":    attempt.questionShared,
	"question-source":    attempt.questionFromSource,
	"question-port":      attempt.questionFromPort,
	"later-port":         attempt.laterFromPort,
	"silent-port":        attempt.silentFromPort,
	"say":                attempt.say,
	"drop-port":          attempt.dropPort,
	"forge":              attempt.forge,
	"ask-number":         attempt.askNumber,
	"connect-then-sends": attempt.connectThenSend,
}

// playRelays opens the gateway's listeners for datagrams in the cgroup of this
// process and serves them: a datagram hears what the kernel says it was meant
// for, and its own text. Before "silent" it is not asked, and "later" waits.
func (a attempt) playRelays() result {
	var ports, fds []string
	for i := range 2 * Relays {
		c, err := net.ListenUDP([]string{"udp4", "udp6"}[i/Relays], &net.UDPAddr{IP: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}[i/Relays]})
		if err != nil {
			return fail("listen", err)
		}
		raw, err := c.SyscallConn()
		if err != nil {
			return fail("listen", err)
		}
		fd := -1
		_ = raw.Control(func(p uintptr) { fd = int(p) })
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1); err != nil {
			return fail("SO_RCVMARK", err)
		}
		ports, fds = append(ports, fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port)), append(fds, fmt.Sprint(fd))
		playing = append(playing, c)
		go relayAsked(c, fd)
	}
	return result{Reply: strings.Join(append(ports, fds...), " ")}
}

// heard counts the datagrams that came.
var heard atomic.Int64

func (a attempt) countHeard() result { return result{Reply: fmt.Sprint(heard.Load())} }

var late struct {
	sync.Mutex
	answers []func() error
}

func relayAsked(c *net.UDPConn, fd int) {
	buf, oob := make([]byte, 512), make([]byte, 128)
	for {
		n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		heard.Add(1)
		text := string(buf[:n])
		if text == "silent" {
			_, _ = c.WriteToUDPAddrPort([]byte("an answer that nobody asked for"), from)
			continue
		}
		v, errno := askedOf(fd, numberOf(oob[:oobn]))
		answer := func() error {
			_, err := c.WriteToUDPAddrPort(fmt.Appendf(nil, "gateway %s for %d: %s", netip.AddrPortFrom(netip.AddrFrom16(v.Addr).Unmap(), v.Port), v.Sandbox, text), from)
			return err
		}
		switch {
		case errno != 0:
			_, _ = c.WriteToUDPAddrPort([]byte(errno.Error()), from)
		case text == "later":
			late.Lock()
			late.answers = append(late.answers, answer)
			late.Unlock()
		default:
			_ = answer()
		}
	}
}

// answerLate sends the answers that waited, and says what came of the last.
func (a attempt) answerLate() result {
	late.Lock()
	defer late.Unlock()
	var err error
	for _, f := range late.answers {
		err = f()
	}
	n := len(late.answers)
	late.answers = nil
	if errors.Is(err, unix.EPERM) {
		return result{Errno: unix.EPERM, Step: "answer"}
	}
	return result{Reply: fmt.Sprint(n, " ", err)}
}

// numberOf is the mark of a datagram.
func numberOf(oob []byte) uint32 {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return 0
	}
	return binary.NativeEndian.Uint32(msgs[0].Data)
}

// askedOf asks what a number stands for, as the gateway does.
func askedOf(fd int, number uint32) (v bpf.RedirectRfAsked, errno unix.Errno) {
	size := uint32(unsafe.Sizeof(v))
	_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(bpf.RedirectRfSockoptRF_SOL), uintptr(number),
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	return v, errno
}

// onDatagrams lends a datagram socket of the address's family.
func onDatagrams(addr string, do func(fd int, to unix.Sockaddr) result) result {
	sa, family := sockaddr(addr)
	fd, err := open(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	return do(fd, sa)
}

// sendEach sends each address of the list its own text.
func sendEach(fd int, list []string) error {
	for _, to := range list {
		sa, _ := sockaddr(to)
		if err := unix.Sendto(fd, []byte("for "+to), 0, sa); err != nil {
			return err
		}
	}
	return nil
}

// questions sends each address of the list its own text on one socket, and then
// says who answered what.
func (a attempt) questions() result {
	list := strings.Fields(a.Addr)
	return onDatagrams(list[0], func(fd int, _ unix.Sockaddr) result {
		if err := sendEach(fd, list); err != nil {
			return fail("send", err)
		}
		return hear(fd, len(list))
	})
}

// questionsKept connects a socket to the first address, asks each other one, and
// keeps it; it says the number of the descriptor.
func (a attempt) questionsKept() result {
	list := strings.Fields(a.Addr)
	sa, family := sockaddr(list[0])
	fd, err := open(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	kept[0] = fd
	if err := unix.Connect(fd, sa); err != nil {
		return fail("connect", err)
	}
	if err := sendEach(fd, list[1:]); err != nil {
		return fail("send", err)
	}
	return result{Reply: fmt.Sprint(fd)}
}

// questionAgain sends from the kept socket to one more.
func (a attempt) questionAgain() result {
	sa, _ := sockaddr(a.Addr)
	if err := unix.Sendto(kept[0], []byte("q"), 0, sa); err != nil {
		return fail("send", err)
	}
	return result{}
}

// hear says who answered what, one line each.
func hear(fd, n int) result {
	var out []string
	for range n {
		buf := make([]byte, 256)
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return result{Errno: err.(unix.Errno), Step: "receive", Reply: strings.Join(out, "\n")}
		}
		out = append(out, addrOf(from)+" "+string(buf[:n]))
	}
	return result{Reply: strings.Join(out, "\n")}
}

// prepared asks on a socket on which set was called.
func (a attempt) prepared(set func(fd int) error) result {
	return onDatagrams(a.Addr, func(fd int, sa unix.Sockaddr) result {
		if err := set(fd); err != nil {
			return fail("prepare", err)
		}
		if err := unix.Sendto(fd, []byte("q"), 0, sa); err != nil {
			return fail("send", err)
		}
		return hear(fd, 1)
	})
}

func (a attempt) questionBound() result {
	return a.prepared(func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 99, 0, 2}}) })
}

func (a attempt) questionOnDevice() result {
	return a.prepared(func(fd int) error { return unix.BindToDevice(fd, "eth0") })
}

// questionInSegments sends three datagrams in one call (UDP_SEGMENT).
func (a attempt) questionInSegments() result {
	return onDatagrams(a.Addr, func(fd int, sa unix.Sockaddr) result {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 4); err != nil {
			return fail("UDP_SEGMENT", err)
		}
		if err := unix.Sendto(fd, []byte("aaaabbbbcc"), 0, sa); err != nil {
			return fail("send", err)
		}
		return hear(fd, 3)
	})
}

// questionCorked begins a datagram to the first address and ends it with a call
// that names the second.
func (a attempt) questionCorked() result {
	first, second, _ := strings.Cut(a.Addr, " ")
	return onDatagrams(first, func(fd int, sa unix.Sockaddr) result {
		if err := unix.Sendto(fd, []byte("begun "), unix.MSG_MORE, sa); err != nil {
			return fail("send", err)
		}
		sa, _ = sockaddr(second)
		if err := unix.Sendto(fd, []byte("and ended"), 0, sa); err != nil { // goes to the first: the datagram was begun
			return fail("send", err)
		}
		return hear(fd, 1)
	})
}

// sendNumbered gives its datagram the number N by itself, which takes
// CAP_NET_ADMIN.
func (a attempt) sendNumbered() result {
	return a.prepared(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, a.N) })
}

// questionShared shares its port with another socket, as a resolver may.
func (a attempt) questionShared() result {
	other, err := open(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(other)
	bind := func(fd int) error {
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), unix.Bind(fd, &unix.SockaddrInet4{Port: a.N}))
	}
	if err := bind(other); err != nil {
		return fail("prepare", err)
	}
	r := a.prepared(bind)
	if err := unix.SetNonblock(other, true); err != nil {
		return fail("prepare", err)
	}
	if n, _, err := unix.Recvfrom(other, make([]byte, 256), 0); err == nil {
		return result{Errno: unix.EBADMSG, Step: "the other socket", Reply: fmt.Sprint("it got ", n, " bytes")}
	}
	return r
}

// questionFromSource names another source with the datagram.
func (a attempt) questionFromSource() result {
	return onDatagrams(a.Addr, func(fd int, sa unix.Sockaddr) result {
		oob := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte{10, 99, 0, 2}})
		if err := unix.Sendmsg(fd, []byte("q"), oob, sa, 0); err != nil {
			return fail("send", err)
		}
		return hear(fd, 1)
	})
}

// laterFromPort asks from source port N what is answered later.
func (a attempt) laterFromPort() result {
	r := a.keepPort("later")
	time.Sleep(50 * time.Millisecond) // until the gateway has it
	return r
}

// questionFromPort does so and closes the socket.
func (a attempt) questionFromPort() result {
	if r := a.laterFromPort(); r.Errno != 0 {
		return r
	}
	return a.dropPort()
}

// silentFromPort says what the gateway does not ask the kernel about, and keeps
// the socket; without an address it says nothing.
func (a attempt) silentFromPort() result { return a.keepPort("silent") }

func (a attempt) keepPort(text string) result {
	fd, err := open(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	kept[0] = fd // "await" hears it
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: a.N}); err != nil {
		return fail("bind", err)
	}
	if a.Addr == "" {
		return result{}
	}
	sa, _ := sockaddr(a.Addr)
	if err := unix.Sendto(fd, []byte(text), 0, sa); err != nil {
		return fail("send", err)
	}
	return result{}
}

// say writes to the kept socket N and hears the answer.
func (a attempt) say() result {
	if _, err := unix.Write(kept[a.N], []byte("q")); err != nil {
		return fail("write", err)
	}
	return receive(kept[a.N])
}

// dropPort closes the kept socket.
func (a attempt) dropPort() result {
	if err := unix.Close(kept[0]); err != nil {
		return fail("close", err)
	}
	return result{}
}

// forge writes whole UDP packets from the source port N, which is another's,
// to a listener.
func (a attempt) forge() result {
	ap := netip.MustParseAddrPort(a.Addr)
	fd, err := open(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	h := make([]byte, 8, 16)
	binary.BigEndian.PutUint16(h, uint16(a.N))
	binary.BigEndian.PutUint16(h[2:], ap.Port())
	binary.BigEndian.PutUint16(h[4:], 14)
	h = append(h, "forged"...)
	if err := unix.Sendto(fd, h, 0, &unix.SockaddrInet4{Addr: ap.Addr().As4()}); err != nil {
		return fail("send", err)
	}
	return result{}
}

// askNumber asks a kept socket of this process's own what the number N stands for.
func (a attempt) askNumber() result {
	if v, errno := askedOf(kept[0], uint32(a.N)); errno == 0 {
		return result{Reply: fmt.Sprint(v)}
	} else {
		return result{Errno: errno, Step: "getsockopt"}
	}
}

// connectThenSend connects to the first address, sends to each of the others,
// and again over the connection.
func (a attempt) connectThenSend() result {
	list := strings.Fields(a.Addr)
	return onDatagrams(list[0], func(fd int, sa unix.Sockaddr) result {
		if err := unix.Connect(fd, sa); err != nil {
			return fail("connect", err)
		}
		if err := sendEach(fd, list[1:]); err != nil {
			return fail("send", err)
		}
		if _, err := unix.Write(fd, []byte("connected")); err != nil {
			return fail("write", err)
		}
		return hear(fd, 1) // a connected socket hears nobody else
	})
}
