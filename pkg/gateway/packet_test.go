// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// slowSum is RFC 1071 word by word.
func slowSum(parts ...[]byte) uint16 {
	var s uint32
	all := bytes.Join(parts, nil)
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	for ; len(all) > 0; all = all[2:] {
		s += uint32(binary.BigEndian.Uint16(all))
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func pseudo(from, to netip.Addr, length int, proto byte) []byte {
	b := append(from.AsSlice(), to.AsSlice()...)
	return append(binary.BigEndian.AppendUint32(b, uint32(length)), 0, 0, 0, proto)
}

func TestDatagramPackets(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ from, to string }{{"198.18.1.9:123", "198.18.0.1:123"}, {"[2001:db8::9]:443", "[::1]:40000"}} {
		from, to := netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to)
		for _, size := range []int{0, 1, 2, 7, 8, 9, 1200, 1471, 65488} {
			b := make([]byte, headroom+size)
			for i := range b {
				b[i] = byte(rng.Uint32()) // what was there before must not matter
			}
			payload := bytes.Clone(b[headroom:])
			p := datagram(b, from, to)
			udp := p[header4:]
			if from.Addr().Is4() {
				if p[0] != 0x45 || p[9] != protoUDP || !bytes.Equal(p[12:16], from.Addr().AsSlice()) || !bytes.Equal(p[16:20], to.Addr().AsSlice()) {
					t.Fatalf("%s, %d bytes: IPv4 header % x", c.from, size, p[:header4])
				}
				if p[6] != 0 || p[7] != 0 {
					t.Errorf("%d bytes: fragment fields % x", size, p[6:8])
				}
			} else {
				udp = p[header6:]
				if p[0] != 0x60 || p[6] != protoUDP || !bytes.Equal(p[8:24], from.Addr().AsSlice()) || !bytes.Equal(p[24:40], to.Addr().AsSlice()) ||
					int(binary.BigEndian.Uint16(p[4:])) != len(udp) {
					t.Fatalf("%s, %d bytes: IPv6 header % x", c.from, size, p[:header6])
				}
				if s := slowSum(pseudo(from.Addr(), to.Addr(), len(udp), protoUDP), udp); s != 0 {
					t.Errorf("%d bytes: the checksum is off by %#x", size, s)
				}
			}
			if binary.BigEndian.Uint16(udp) != from.Port() || binary.BigEndian.Uint16(udp[2:]) != to.Port() || int(binary.BigEndian.Uint16(udp[4:])) != len(udp) {
				t.Errorf("%s, %d bytes: UDP header % x", c.from, size, udp[:headerUDP])
			}
			if !bytes.Equal(udp[headerUDP:], payload) {
				t.Errorf("%s, %d bytes: the payload has changed", c.from, size)
			}
		}
	}
}

func TestDatagramsLongerThanAPacket(t *testing.T) {
	client4, dst4 := netip.MustParseAddrPort("198.18.0.1:1"), netip.MustParseAddrPort("198.18.1.1:2")
	client6, dst6 := netip.MustParseAddrPort("[::1]:1"), netip.MustParseAddrPort("[2001:db8::1]:2")
	for _, c := range []struct {
		client, dst netip.AddrPort
		size        int
		fits        bool
	}{{client4, dst4, 65507, true}, {client4, dst4, 65508, false}, {client6, dst6, 65488, true}, {client6, dst6, 65489, false}} {
		if p := datagram(make([]byte, headroom+c.size), c.dst, c.client); (p != nil) != c.fits {
			t.Errorf("%d bytes from %s: packet %v", c.size, c.dst, p != nil)
		}
	}
}

func TestUnreachablePackets(t *testing.T) {
	client, dst := netip.MustParseAddrPort("198.18.0.1:40000"), netip.MustParseAddrPort("198.18.1.9:123")
	p := unreachablePacket(portClosed, client, dst)
	icmp := p[header4:]
	if p[9] != protoICMP4 || !bytes.Equal(p[12:16], dst.Addr().AsSlice()) || icmp[0] != 3 || icmp[1] != 3 || slowSum(icmp) != 0 {
		t.Errorf("% x", p)
	}
	if q := icmp[8:]; !bytes.Equal(q[12:16], client.Addr().AsSlice()) || !bytes.Equal(q[16:20], dst.Addr().AsSlice()) ||
		binary.BigEndian.Uint16(q[header4:]) != client.Port() || binary.BigEndian.Uint16(q[header4+2:]) != dst.Port() {
		t.Errorf("quoted % x", q)
	}
	if p := unreachablePacket(refusedHere, client, dst); p[header4+1] != 13 {
		t.Errorf("code %d", p[header4+1])
	}
	client, dst = netip.MustParseAddrPort("[::1]:40000"), netip.MustParseAddrPort("[2001:db8::9]:123")
	p = unreachablePacket(portClosed, client, dst)
	icmp = p[header6:]
	if p[6] != protoICMP6 || icmp[0] != 1 || icmp[1] != 4 || slowSum(pseudo(dst.Addr(), client.Addr(), len(icmp), protoICMP6), icmp) != 0 {
		t.Errorf("% x", p)
	}
	if p := unreachablePacket(refusedHere, client, dst); p[header6+1] != 1 {
		t.Errorf("code %d", p[header6+1])
	}
}

func FuzzChecksum(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a)%2 == 1 {
			a = append(a, 0) // a part in front ends at a word
		}
		if got, want := checksum(sum(0, a), b), slowSum(a, b); got != want && (got^0xffff)%0xffff != (want^0xffff)%0xffff {
			t.Fatalf("%#x, word by word %#x", got, want)
		}
	})
}
