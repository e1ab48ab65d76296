// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Listeners are the sockets through which everything of one sandbox reaches
// the gateway. The keeper opens them inside the sandbox's network namespace
// and keeps these copies while the sandbox lives.
type Listeners struct {
	TCP4, TCP6       *os.File
	DNSTCP4, DNSTCP6 *os.File
	DNSUDP4, DNSUDP6 *os.File
	// Those of datagrams other than DNS are nil in a namespace that is not ours.
	UDP4, UDP6     *os.File
	Reply4, Reply6 *os.File // raw: answers to datagrams, see openReply
	// There each destination of a socket has one of these (kernel.Listening),
	// first those of IPv4; none before Linux 5.19.
	Datagrams []*os.File
}

// Files returns the descriptors in the order of wire.SandboxAdd.
func (l *Listeners) Files() []*os.File {
	out := []*os.File{l.TCP4, l.TCP6, l.DNSTCP4, l.DNSTCP6, l.DNSUDP4, l.DNSUDP6}
	if l.UDP4 == nil {
		return append(out, l.Datagrams...)
	}
	return append(out, l.UDP4, l.UDP6, l.Reply4, l.Reply6)
}

// ListenersFrom is the inverse of Files; ok is false for another number.
func ListenersFrom(f []*os.File) (*Listeners, bool) {
	const redirected, relaying = wire.RedirectedListeners, wire.RedirectedListeners + wire.DatagramListeners
	if len(f) != wire.Listeners && len(f) != redirected && len(f) != relaying {
		return nil, false
	}
	l := &Listeners{TCP4: f[0], TCP6: f[1], DNSTCP4: f[2], DNSTCP6: f[3], DNSUDP4: f[4], DNSUDP6: f[5]}
	if len(f) == wire.Listeners {
		l.UDP4, l.UDP6, l.Reply4, l.Reply6 = f[6], f[7], f[8], f[9]
	} else {
		l.Datagrams = slices.Clone(f[redirected:])
	}
	return l, true
}

// cookies names the sockets beyond descriptors (SO_COOKIE, Linux 4.12): no
// other socket gets the same one until the machine restarts.
func (l *Listeners) cookies() ([]uint64, error) {
	var out []uint64
	for _, f := range l.Files() {
		rc, err := f.SyscallConn()
		if err != nil {
			return nil, fmt.Errorf("listener: %w", err)
		}
		var c uint64
		var cerr error
		if err := rc.Control(func(fd uintptr) { c, cerr = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE) }); err != nil {
			return nil, fmt.Errorf("listener: %w", err)
		}
		if cerr != nil {
			return nil, fmt.Errorf("listener: SO_COOKIE: %w", cerr)
		}
		out = append(out, c)
	}
	return out, nil
}

// are says whether these are the very sockets with the given cookies. What is
// no socket is none of them.
func (l *Listeners) are(want []uint64) bool {
	have, err := l.cookies()
	return err == nil && len(want) > 0 && slices.Equal(have, want)
}

// Close closes the keeper's copies.
func (l *Listeners) Close() {
	for _, f := range l.Files() {
		if f != nil {
			f.Close()
		}
	}
}

// setUpNetwork prepares a namespace that has nothing but lo: every address is
// local to it, so that sk_lookup can steer every flow to the gateway, and the
// preferred source is an address that is not loopback (glibc's AI_ADDRCONFIG
// wants one).
func setUpNetwork(ns *os.File) error {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in the sandbox's namespace: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByIndex(1)
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	own := OwnAddr.AsSlice()
	if err := h.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: own, Mask: net.CIDRMask(32, 32)}}); err != nil {
		return fmt.Errorf("address of lo: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	routes := []netlink.Route{
		{Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Src: own},
		{Dst: &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}},
	}
	for i := range routes {
		r := &routes[i]
		r.LinkIndex, r.Type, r.Table, r.Scope = lo.Attrs().Index, unix.RTN_LOCAL, unix.RT_TABLE_MAIN, netlink.SCOPE_HOST
		if err := h.RouteAdd(r); err != nil {
			return fmt.Errorf("local route %v: %w", r.Dst, err)
		}
	}
	return nil
}

// openListeners opens the gateway's sockets inside ns.
func openListeners(ctx context.Context, ns *os.File) (*Listeners, error) {
	l := &Listeners{}
	err := inNetwork(ns, func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // MPTCP sockets cannot enter a SOCKMAP
		tcp := func(network, addr string) *os.File {
			if err != nil {
				return nil
			}
			var f *os.File
			f, err = listenTCP(ctx, &lc, network, addr)
			return f
		}
		l.TCP4, l.TCP6 = tcp("tcp4", "127.0.0.1:0"), tcp("tcp6", "[::1]:0")
		l.DNSTCP4, l.DNSTCP6 = tcp("tcp4", "0.0.0.0:53"), tcp("tcp6", "[::]:53")
		if err != nil {
			return err
		}
		for _, u := range []struct {
			f             **os.File
			network, addr string
		}{{&l.DNSUDP4, "udp4", "0.0.0.0:53"}, {&l.DNSUDP6, "udp6", "[::]:53"}, {&l.UDP4, "udp4", "127.0.0.1:0"}, {&l.UDP6, "udp6", "[::1]:0"}} {
			if *u.f, err = listenUDP(u.network, u.addr); err != nil {
				return err
			}
		}
		if l.Reply4, err = openReply(unix.AF_INET); err != nil {
			return err
		}
		l.Reply6, err = openReply(unix.AF_INET6)
		return err
	})
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open the gateway's listeners: %w", err)
	}
	return l, nil
}

// openForeign has the gateway's listeners opened in a namespace that is not
// ours and says where they are.
func (m *Manager) openForeign(ctx context.Context, ns *os.File) (*Listeners, kernel.Listening, error) {
	if m.o.Foreign == nil {
		return nil, kernel.Listening{}, errors.New("nothing can be adopted here")
	}
	l, err := m.o.Foreign.Open(ctx, ns)
	if err != nil {
		return nil, kernel.Listening{}, err
	}
	where, err := l.listening()
	if err != nil {
		l.Close()
		return nil, kernel.Listening{}, err
	}
	return l, where, nil
}

// ListenForeign opens the gateway's listeners on the loopback of a namespace
// that is not ours. They belong to the cgroup of the calling process. Without
// IPv6 loopback those for it are of IPv4, and nobody is sent to them.
func ListenForeign(ctx context.Context, ns *os.File) (*Listeners, error) {
	l := &Listeners{}
	err := inNetwork(ns, func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		six, addr := "6", "[::1]:0"
		if c, err := net.ListenPacket("udp6", addr); err == nil {
			c.Close()
		} else {
			six, addr = "4", "127.0.0.1:0"
		}
		for _, o := range []struct {
			to            **os.File
			network, addr string
		}{{&l.TCP4, "tcp4", "127.0.0.1:0"}, {&l.TCP6, "tcp" + six, addr}, {&l.DNSTCP4, "tcp4", "127.0.0.1:0"}, {&l.DNSTCP6, "tcp" + six, addr}} {
			if *o.to, err = listenTCP(ctx, &lc, o.network, o.addr); err != nil {
				return err
			}
		}
		if l.DNSUDP4, err = listenUDP("udp4", "127.0.0.1:0"); err != nil {
			return err
		}
		if l.DNSUDP6, err = listenUDP("udp"+six, addr); err != nil {
			return err
		}
		return l.openDatagrams("udp"+six, addr)
	})
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open the gateway's listeners on the namespace's loopback: %w", err)
	}
	return l, nil
}

// Half of the listeners of datagrams are for each IP version.
var _ [2 * kernel.Relays]struct{} = [wire.DatagramListeners]struct{}{}

// openDatagrams opens the listeners of datagrams, where the kernel tells of each
// one what it is for (SO_RCVMARK, Linux 5.19). Without it only questions to the
// resolver are sent here, and nothing tells who asked.
func (l *Listeners) openDatagrams(network6, addr6 string) error {
	for _, f := range []*os.File{l.DNSUDP4, l.DNSUDP6} {
		err := receiveMarks(f)
		if errors.Is(err, unix.ENOPROTOOPT) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	for i := range wire.DatagramListeners {
		network, addr := "udp4", "127.0.0.1:0"
		if i >= kernel.Relays {
			network, addr = network6, addr6
		}
		f, err := listenUDP(network, addr)
		if err != nil {
			return err
		}
		l.Datagrams = append(l.Datagrams, f)
		if err := receiveMarks(f); err != nil {
			return err
		}
	}
	return nil
}

// listening says where listeners of ListenForeign are.
func (l *Listeners) listening() (out kernel.Listening, err error) {
	out.Sockets = l.Files()
	ports := []*uint16{&out.TCP4, &out.TCP6, &out.DNSTCP4, &out.DNSTCP6, &out.DNSUDP4, &out.DNSUDP6}
	six := []bool{false, true, false, true, false, true}
	for i := range l.Datagrams {
		four := i < kernel.Relays
		six = append(six, !four)
		if four {
			ports = append(ports, &out.UDP4[i])
		} else {
			ports = append(ports, &out.UDP6[i-kernel.Relays])
		}
	}
	for i, to := range ports {
		fd := rawFD(out.Sockets[i])
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE) // Linux 5.14
		if err != nil {
			return out, fmt.Errorf("namespace of a listener: %w", err)
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return out, fmt.Errorf("port of a listener: %w", err)
		}
		out.Netns = cookie
		switch a := sa.(type) {
		case *unix.SockaddrInet4:
			if !six[i] {
				*to = uint16(a.Port)
			}
		case *unix.SockaddrInet6:
			*to = uint16(a.Port)
		}
	}
	return out, nil
}

func listenTCP(ctx context.Context, lc *net.ListenConfig, network, addr string) (*os.File, error) {
	ln, err := lc.Listen(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	return ln.(*net.TCPListener).File()
}

// openReply opens the raw socket through which answers to datagrams go. They
// must come from the very address and port that were asked, and a UDP socket
// can be bound to those only while nobody in the sandbox holds the port: an NTP
// or IKE client often sends from the port it sends to. A raw socket of
// IPPROTO_RAW takes whole packets and receives none (raw(7)); the namespace has
// nothing but lo, so they reach nobody but the sandbox.
func openReply(family int) (*os.File, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("raw socket for answers to datagrams (needs CAP_NET_RAW): %w", err)
	}
	return os.NewFile(uintptr(fd), "reply"), nil
}

// listenUDP opens a UDP socket without SO_REUSEADDR, with which a process of
// the sandbox could share the port.
func listenUDP(network, addr string) (*os.File, error) {
	a, err := net.ResolveUDPAddr(network, addr)
	if err != nil {
		return nil, err
	}
	c, err := net.ListenUDP(network, a)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.File()
}

// inNetwork runs fn on a thread that is in the network namespace ns. The
// thread ends with it if it cannot return home.
func inNetwork(ns *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", syscall.Gettid()))
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("setns: %w", err)
			return
		}
		err = fn()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// rawFD is f.Fd() without its side effect: that would make the socket, which
// the gateway shares, blocking. -1 for a closed file.
func rawFD(f *os.File) int {
	fd := -1
	if rc, err := f.SyscallConn(); err == nil {
		_ = rc.Control(func(p uintptr) { fd = int(p) }) // a closed file leaves -1
	}
	return fd
}
