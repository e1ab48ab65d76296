// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// The relay of datagrams in a namespace that is not ours. A socket there sends
// what is for one destination to one of our listeners, and each datagram brings
// a number as its mark, which the kernel gave to that socket and destination
// (bpf/relay.h). What a number stands for the kernel tells on the listener.
// Answers go back from the listener to the socket's own address; the programs
// show the socket where they come from, and let none through before the number
// was asked for.

// redirectedSocket is one listener.
type redirectedSocket struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	clients map[netip.AddrPort]*redirectedClient // of its one reader
	ask     func(number uint32) (origin, bool)
}

// redirectedClient is a socket that sends to the listener, as long as its number
// is the same.
type redirectedClient struct {
	number uint32
	meant  origin
	a      *association // nil before the first
}

func newRedirectedSocket(c *net.UDPConn, sandbox uint32) (*redirectedSocket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("gateway: datagrams: %w", err)
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1) }); err != nil || serr != nil {
		return nil, fmt.Errorf("gateway: count of lost datagrams: %w", errors.Join(err, serr))
	}
	return &redirectedSocket{conn: c, raw: raw, clients: map[netip.AddrPort]*redirectedClient{},
		ask: func(number uint32) (origin, bool) { return askedBy(raw, number, sandbox) }}, nil
}

// relayRedirected serves one listener until it is closed, or stopped.
func (sb *sandbox) relayRedirected(s *redirectedSocket) {
	sb.eachDatagram(s.raw, func(d *arrived) { sb.relayNumbered(s, d) })
}

// stop ends reading; answers go on.
func (s *redirectedSocket) stop() { _ = s.conn.SetReadDeadline(past) }

// relayNumbered finds the datagram's association, or makes one.
func (sb *sandbox) relayNumbered(s *redirectedSocket, d *arrived) {
	c, ok := s.client(d.client, d.mark, sb.g.opt.Limits.SandboxDatagrams)
	if !ok {
		sb.g.metrics.lost(lostStray, 1)
		return
	}
	key := associationKey{d.client, c.meant.dst, c.number}
	for {
		if c.a == nil || c.a.isOver() {
			if c.a = sb.associate(s, key, c.meant.client); c.a == nil {
				return
			}
		}
		if c.a.outward(d.payload) {
			return
		}
	}
}

// client is who sends with that number; false when the kernel does not know it.
// What had the address before is ended before the kernel is asked, because from
// then on answers reach who has it now.
func (s *redirectedSocket) client(from netip.AddrPort, number uint32, most int) (*redirectedClient, bool) {
	c := s.clients[from]
	if c != nil && c.number == number {
		return c, true
	}
	if c != nil {
		if c.a != nil {
			c.a.kill(codeReplaced, "another socket of the sandbox has its port now, or it sends elsewhere")
		}
		delete(s.clients, from)
	}
	if number&soRelayed == 0 {
		return nil, false
	}
	meant, ok := s.ask(number)
	if !ok {
		return nil, false
	}
	if len(s.clients) >= 2*most {
		s.forgetSilent()
	}
	c = &redirectedClient{number: number, meant: meant}
	s.clients[from] = c
	return c, true
}

// forgetSilent forgets those that have no association; the kernel tells again
// what their numbers stand for. Who has one is bounded.
func (s *redirectedSocket) forgetSilent() {
	for from, c := range s.clients {
		if c.a == nil || c.a.isOver() {
			delete(s.clients, from)
		}
	}
}

// answer implements clientSide.
func (s *redirectedSocket) answer(b []byte, key associationKey) error {
	return sendNow(s.raw, b[headroom:], sockaddr(key.client))
}

// unreachable implements clientSide. There is no way to tell the client: the
// namespace is not ours, and nothing is put on its wires but answers. What policy
// refuses the hooks have refused before; the rest is in the records.
func (s *redirectedSocket) unreachable(unreachable, associationKey) {}
