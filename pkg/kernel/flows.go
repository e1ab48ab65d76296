// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flow is one socket of a namespace as sock_diag(7) shows it.
type Flow struct {
	Proto    uint8 // ProtoTCP or ProtoUDP
	State    uint8 // TCP_ESTABLISHED = 1 ...; UDP: 1 connected, 7 not
	Src, Dst netip.AddrPort
	Cookie   uint64
	UID      uint32
	Inode    uint32
	Cgroup   uint64 // of the process that made the socket or its listener; 0: not a socket yet
}

// Numbers of linux/sock_diag.h and linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
	attrCgroup       = 21 // INET_DIAG_CGROUP_ID, since 5.8
	noCookie         = ^uint32(0)
)

// tcpConnected are the states of net/tcp_states.h in which a socket has a
// destination and an owner: not LISTEN, CLOSE and (since 6.8) BOUND_INACTIVE,
// which have no destination, and not TIME_WAIT, which has no owner any more.
const tcpConnected = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11

// diagID is struct inet_diag_sockid.
type diagID struct {
	SrcPort, DstPort [2]byte
	Src, Dst         [16]byte
	Interface        uint32
	Cookie           [2]uint32
}

// diagReq is struct inet_diag_req_v2.
type diagReq struct {
	Family, Proto, Ext, Pad uint8
	States                  uint32
	ID                      diagID
}

// diagMsg is struct inet_diag_msg.
type diagMsg struct {
	Family, State, Timer, Retrans uint8
	ID                            diagID
	Expires, RQueue, WQueue       uint32
	UID, Inode                    uint32
}

// diagSock is one socket of a dump.
type diagSock struct {
	diagMsg
	cgroup uint64
}

// destroyFlows ends, in a turn of held, every TCP and UDP flow of the namespace
// for which match returns true, in both IP versions, and returns how many.
// Listeners, sockets in TIME_WAIT and unconnected UDP sockets are not shown to match: destroying
// the last would silently move them to another port, and egress judges their
// packets anyway.
// A flow that ends by itself meanwhile is no error. The clients see
// ECONNABORTED. The error is [ErrNoDestroy] where the kernel has no way to do it;
// on [ErrSocketHeld] the rest is left as it is.
func destroyFlows(netnsFD int, held *atomic.Bool, match func(Flow) bool) (int, error) {
	d, err := newDiagTurn(netnsFD, held)
	if err != nil {
		return 0, fmt.Errorf("destroy flows: %w", err)
	}
	defer d.close()
	var (
		n    int
		errs []error
	)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, proto := range []uint8{ProtoTCP, ProtoUDP} {
			one, err := d.destroy(family, proto, match)
			n += one
			errs = append(errs, err)
			if errors.Is(err, ErrSocketHeld) {
				return n, fmt.Errorf("destroy flows: %w", errors.Join(errs...))
			}
		}
	}
	if err := canDestroy(errors.Join(errs...)); err != nil {
		return n, fmt.Errorf("destroy flows: %w", err)
	}
	return n, nil
}

// destroy ends those of one kind.
func (d *diagTurn) destroy(family, proto uint8, match func(Flow) bool) (n int, err error) {
	msgs, err := within(d, func(q *diag) ([]diagSock, error) { return q.dump(family, proto, connectedStates(proto)) })
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, m := range msgs {
		if !match(m.flow(proto)) {
			continue
		}
		_, err := within(d, func(q *diag) (struct{}, error) { return struct{}{}, q.destroy(m.diagMsg, proto) })
		switch {
		case err == nil:
			n++
		case errors.Is(err, ErrSocketHeld):
			return n, errors.Join(append(errs, err)...)
		case !errors.Is(err, unix.ENOENT):
			errs = append(errs, err)
		}
	}
	return n, errors.Join(errs...)
}

// diag asks one namespace about its sockets, one question at a time.
type diag struct {
	fd  int
	buf []byte // of answers: what changes for many sandboxes asks a thousand questions
}

// newDiag takes a netlink socket over.
func newDiag(fd int) *diag { return &diag{fd: fd, buf: make([]byte, 64<<10)} }

// Close closes the socket.
func (d *diag) Close() { unix.Close(d.fd) }

// openDiag opens a netlink socket in the namespace. The socket stays there;
// the thread comes back, or ends with its goroutine if it cannot.
func openDiag(netnsFD int) (*diag, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		fd, back, err := socketIn(netnsFD)
		if back {
			runtime.UnlockOSThread()
		}
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, r.err
	}
	return newDiag(r.fd), nil
}

// socketIn reports back whether the calling thread is in its own namespace.
func socketIn(netnsFD int) (fd int, back bool, err error) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return -1, true, err
	}
	defer own.Close()
	if err := unix.Setns(netnsFD, unix.CLONE_NEWNET); err != nil {
		return -1, true, fmt.Errorf("enter namespace: %w", err)
	}
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	back = unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil
	return fd, back, err
}

func (m diagSock) flow(proto uint8) Flow {
	return Flow{
		Proto: proto, State: m.State, UID: m.UID, Inode: m.Inode, Cgroup: m.cgroup,
		Src:    m.ID.addrPort(m.Family, m.ID.Src, m.ID.SrcPort),
		Dst:    m.ID.addrPort(m.Family, m.ID.Dst, m.ID.DstPort),
		Cookie: uint64(m.ID.Cookie[1])<<32 | uint64(m.ID.Cookie[0]),
	}
}

func (diagID) addrPort(family uint8, a [16]byte, port [2]byte) netip.AddrPort {
	addr := netip.AddrFrom16(a)
	if family == unix.AF_INET {
		addr = netip.AddrFrom4([4]byte(a[:4]))
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port[:]))
}

// connectedStates are those of connected sockets of a protocol.
func connectedStates(proto uint8) uint32 {
	if proto == ProtoUDP {
		return 1 << 1 // TCP_ESTABLISHED: connected
	}
	return tcpConnected
}

// tcpListen is the state of a listener.
const tcpListen = 1 << 10

// listeners are the TCP ports of a namespace on which somebody of the given
// cgroups listens.
func listeners(netnsFD int, held *atomic.Bool, cgroups map[uint64]bool) (map[uint16]bool, error) {
	d, err := newDiagTurn(netnsFD, held)
	if err != nil {
		return nil, err
	}
	defer d.close()
	out := map[uint16]bool{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		msgs, err := within(d, func(q *diag) ([]diagSock, error) { return q.dump(family, ProtoTCP, tcpListen) })
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			if cgroups[m.cgroup] {
				out[m.flow(ProtoTCP).Src.Port()] = true
			}
		}
	}
	return out, nil
}

// dump lists the sockets of one kind that are in one of the states.
func (d *diag) dump(family, proto uint8, states uint32) ([]diagSock, error) {
	req := diagReq{Family: family, Proto: proto, States: states}
	if err := diagSend(d, sockDiagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, req); err != nil {
		return nil, err
	}
	var out []diagSock
	err := d.receive(func(m diagSock) { out = append(out, m) })
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // udp_diag is not built and nobody can list it
	}
	return out, err
}

func (d *diag) destroy(m diagMsg, proto uint8) error {
	req := diagReq{Family: m.Family, Proto: proto, States: ^uint32(0), ID: m.ID}
	if err := diagSend(d, sockDestroy, unix.NLM_F_REQUEST|unix.NLM_F_ACK, req); err != nil {
		return err
	}
	return d.receive(nil)
}

func diagSend[T any](d *diag, typ, flags uint16, req T) error {
	size := unix.NLMSG_HDRLEN + int(unsafe.Sizeof(req))
	b := make([]byte, size)
	binary.NativeEndian.PutUint32(b[0:], uint32(size))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags)
	copy(b[unix.NLMSG_HDRLEN:], unsafe.Slice((*byte)(unsafe.Pointer(&req)), unsafe.Sizeof(req)))
	return unix.Sendto(d.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive reads one whole answer about IP sockets.
func (d *diag) receive(each func(diagSock)) error {
	return d.messages(func(body []byte) error {
		m, err := load[diagMsg](body)
		if err == nil && each != nil {
			each(diagSock{*m, cgroupAttr(body[unsafe.Sizeof(*m):])})
		}
		return err
	})
}

// messages reads one whole answer: messages up to NLMSG_DONE, or an
// acknowledgement.
func (d *diag) messages(each func(body []byte) error) error {
	for {
		n, _, err := unix.Recvfrom(d.fd, d.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := d.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				return errors.New("netlink: malformed message")
			}
			body := b[unix.NLMSG_HDRLEN:size]
			switch binary.NativeEndian.Uint16(b[4:]) {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR: // both carry 0 or an error
				return netlinkError(body)
			case sockDiagByFamily:
				if err := each(body); err != nil {
					return err
				}
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

// cgroupAttr finds the cgroup among the attributes of a message.
func cgroupAttr(b []byte) uint64 {
	if v := attribute(b, attrCgroup); len(v) >= 8 {
		return binary.NativeEndian.Uint64(v)
	}
	return 0
}

// attribute finds one among the attributes of a message; nil if there is none.
func attribute(b []byte, typ uint16) []byte {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:]) == typ {
			return b[unix.SizeofRtAttr:size]
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}

func netlinkError(body []byte) error {
	if len(body) < 4 {
		return errors.New("netlink: malformed error")
	}
	if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// CanDestroy says whether this kernel can end sockets of others; the error says
// why not.
func CanDestroy() error { return canDestroy(probeSockDestroy()) }

// probeSockDestroy asks to destroy a flow that cannot exist. A kernel that has
// no way to list the protocol answers ENOENT to that too, so it asks first for
// a list of sockets in no state at all.
func probeSockDestroy() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return err
	}
	t := &diagTurn{diag: newDiag(fd), held: new(atomic.Bool)}
	defer t.close()
	_, err = within(t, func(q *diag) (struct{}, error) { return struct{}{}, q.probeDestroy() })
	return err
}

func (d *diag) probeDestroy() error {
	for _, proto := range []uint8{ProtoTCP, ProtoUDP} {
		err := diagSend(d, sockDiagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, diagReq{Family: unix.AF_INET, Proto: proto})
		if err == nil {
			err = d.receive(nil)
		}
		if err != nil {
			return fmt.Errorf("protocol %d cannot be listed: %w", proto, err)
		}
		m := diagMsg{Family: unix.AF_INET}
		m.ID.Cookie = [2]uint32{noCookie, noCookie}
		m.ID.Src, m.ID.Dst = [16]byte{127, 255, 255, 1}, [16]byte{127, 255, 255, 2}
		m.ID.SrcPort, m.ID.DstPort = [2]byte{0, 1}, [2]byte{0, 1}
		if err := d.destroy(m, proto); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("protocol %d: %w", proto, err)
		}
	}
	return nil
}
