// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
)

const (
	dnsConnIdle      = 30 * time.Second
	dnsConnQuestions = 1000 // over one TCP connection
)

// askForDestination makes the kernel tell, with every datagram, the address it
// was sent to: replies must come from there, and the socket is bound to the
// wildcard.
func askForDestination(c *net.UDPConn) error {
	err4 := ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst, true)
	err6 := ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst, true)
	if err6 == nil {
		err6 = freebind6(c)
	}
	if err4 != nil && err6 != nil {
		return fmt.Errorf("gateway: destination addresses of DNS datagrams: %w", err4)
	}
	return nil
}

// freebind6 lets replies over IPv6 come from an address that is local by route
// only: IPv6, unlike IPv4, wants it on an interface (datagram.c, Linux 4.15).
func freebind6(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
	}); err != nil {
		return err
	}
	return serr
}

// replyFrom reads the destination of a datagram and makes the control message
// that sends the reply from there.
func replyFrom(oob []byte) (dst netip.Addr, reply []byte) {
	var cm4 ipv4.ControlMessage
	if cm4.Parse(oob) == nil && cm4.Dst != nil {
		dst, _ = netip.AddrFromSlice(cm4.Dst)
		return dst.Unmap(), (&ipv4.ControlMessage{Src: cm4.Dst}).Marshal()
	}
	var cm6 ipv6.ControlMessage
	if cm6.Parse(oob) == nil && cm6.Dst != nil {
		dst, _ = netip.AddrFromSlice(cm6.Dst)
		return dst, (&ipv6.ControlMessage{Src: cm6.Dst}).Marshal()
	}
	return netip.Addr{}, nil
}

// serveDNSPackets answers datagrams until c is closed. Over the bound of
// questions under way, a question is answered SERVFAIL at once: a resolver asks
// again.
func (sb *sandbox) serveDNSPackets(c *net.UDPConn) {
	oob := make([]byte, 256)
	for {
		buf := make([]byte, maxQuery+1)
		n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if noMore(err) || sb.ctx.Err() != nil {
				return
			}
			time.Sleep(time.Millisecond) // an ICMP error of an earlier reply, or no memory
			continue
		}
		dst, reply := replyFrom(oob[:oobn])
		raw := buf[:n]
		by := asker{"udp", from.String(), netip.AddrPortFrom(dst, 53).String(), senderOf(oob[:oobn])}
		select {
		case sb.dns <- struct{}{}:
		default:
			sb.tooManyQuestions()
			if n >= 12 && raw[2]&0x80 == 0 {
				_, _, _ = c.WriteMsgUDPAddrPort(packHeader(raw, dns.RcodeServerFailure), reply, from)
			}
			continue
		}
		sb.wg.Add(1)
		go func() {
			defer sb.wg.Done()
			defer func() { <-sb.dns }()
			if out := sb.answerDNS(sb.ctx, raw, by); out != nil {
				_, _, _ = c.WriteMsgUDPAddrPort(out, reply, from)
			}
		}()
	}
}

func (sb *sandbox) tooManyQuestions() {
	t := sb.g.rec.reserve(sb.cfg.ID)
	if t == nil {
		return
	}
	ev := sb.event(event.KindDNS, "dns")
	ev.Activity, ev.Proto, ev.RCode = "query", "udp", "SERVFAIL"
	ev.ReasonCode, ev.Reason = codeBusy, "the sandbox asks more questions at once than it may"
	t.postFolded(ev)
}

// serveDNSConn answers questions over a TCP connection that it owns.
func (sb *sandbox) serveDNSConn(c *net.TCPConn) {
	from, ok := sb.origin(c)
	if !ok {
		sb.stranger(c)
		return
	}
	ticket := sb.g.rec.reserve(sb.cfg.ID)
	if ticket == nil {
		reset(c)
		return
	}
	defer ticket.release()
	f := newFlow(sb, c, from, ticket)
	defer f.cancel()
	if code, ok := sb.track(f); !ok {
		f.refuse(code, "the sandbox or the node has as many connections as it may")
		return
	}
	defer sb.untrack(f)
	f.dnsOverTCP()
}

// dnsOverTCP reads length-prefixed questions (RFC 7766) one after the other.
func (f *flow) dnsOverTCP() {
	c, sb := f.conn.TCPConn, f.sb
	defer c.Close()
	by := asker{"tcp", c.RemoteAddr().String(), f.dst.String(), f.client}
	var head [2]byte
	for range dnsConnQuestions {
		_ = c.SetDeadline(time.Now().Add(dnsConnIdle))
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[:]))
		raw := make([]byte, min(n, maxQuery+1))
		if _, err := io.ReadFull(c, raw); err != nil {
			return
		}
		select {
		case sb.dns <- struct{}{}:
		case <-sb.ctx.Done():
			return
		}
		out := sb.answerDNS(sb.ctx, raw, by)
		<-sb.dns
		if out == nil || n > maxQuery {
			return
		}
		msg := binary.BigEndian.AppendUint16(make([]byte, 0, len(out)+2), uint16(len(out)))
		if _, err := c.Write(append(msg, out...)); err != nil {
			return
		}
	}
}
