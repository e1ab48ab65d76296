// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
)

// verdict looks a table up as the kernel does: the longest prefix among the
// entries of the port, and those of port 0 only if the port has none that
// matches. IPv4 is ::ffff:0:0/96 of one tree.
func verdict(table []kernel.CIDREntry, a netip.Addr, port uint16, proto uint8) bool {
	for _, group := range []uint16{port, 0} {
		best, found := kernel.CIDREntry{}, false
		for _, e := range table {
			if e.Port == group && e.Proto == proto && holdsIn(e.Prefix, a) && (!found || depth(e.Prefix) > depth(best.Prefix)) {
				best, found = e, true
			}
		}
		if found {
			return best.Allow
		}
	}
	return false
}

// depth is the length of a prefix in the kernel's tree.
func depth(p netip.Prefix) int {
	if p.Addr().Is4() {
		return p.Bits() + 96
	}
	return p.Bits()
}

func holdsIn(p netip.Prefix, a netip.Addr) bool {
	if p.Addr().Is6() && a.Unmap().Is4() { // only what holds the mapped range
		return p.Bits() < 96 && p.Contains(netip.MustParseAddr("::fffe:0:0"))
	}
	return p.Contains(a)
}

func upstreams(in ...string) []policy.UpstreamPrefix {
	var out []policy.UpstreamPrefix
	for _, s := range in {
		u := policy.UpstreamPrefix{Proto: policy.TCP}
		p, port := s, ""
		if rest, ok := strings.CutSuffix(s, "/udp"); ok {
			u.Proto, s, p = policy.UDP, rest, rest
		}
		for i := len(s) - 1; i >= 0; i-- {
			if s[i] == '@' {
				p, port = s[:i], s[i+1:]
				break
			}
		}
		u.Prefix = netip.MustParsePrefix(p)
		if port != "" {
			_, _ = fmt.Sscan(port, &u.Port)
		}
		out = append(out, u)
	}
	return out
}

func TestWhatTheGatewayMayDial(t *testing.T) {
	resolvers := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.53:53"), netip.MustParseAddrPort("[fd00::53]:5353")}
	table := gatewayTable(upstreams("10.20.0.0/16@5432", "127.0.0.1/32@8080", "192.168.7.0/24", "fd00:1::/64@443",
		"10.40.0.0/16@123/udp", "9.9.9.0/24@514/udp", "0.0.0.0/0@161/udp", "::/0@162/udp"), []uint16{123}, resolvers)
	for _, c := range []struct {
		addr  string
		proto uint8
		want  bool
	}{
		{"1.1.1.1:443", kernel.ProtoTCP, true},
		{"1.1.1.1:25", kernel.ProtoTCP, true},
		{"[2606:4700::1111]:443", kernel.ProtoTCP, true},
		{"1.1.1.1:443", kernel.ProtoUDP, false}, // no QUIC, no DNS but through the resolvers
		{"1.1.1.1:53", kernel.ProtoUDP, false},
		{"10.0.0.53:53", kernel.ProtoUDP, true},
		{"10.0.0.53:53", kernel.ProtoTCP, true},
		{"10.0.0.53:443", kernel.ProtoTCP, false},
		{"10.0.0.54:53", kernel.ProtoUDP, false},
		{"[fd00::53]:5353", kernel.ProtoUDP, true},
		{"[fd00::53]:53", kernel.ProtoUDP, false},
		{"10.20.3.4:5432", kernel.ProtoTCP, true},
		{"10.20.3.4:5433", kernel.ProtoTCP, false},
		{"10.21.3.4:5432", kernel.ProtoTCP, false},
		{"10.20.3.4:5432", kernel.ProtoUDP, false},
		{"1.1.1.1:123", kernel.ProtoUDP, true}, // names are open there
		{"[2606:4700::1111]:123", kernel.ProtoUDP, true},
		{"10.40.3.4:123", kernel.ProtoUDP, true},
		{"10.41.3.4:123", kernel.ProtoUDP, false},
		{"10.40.3.4:123", kernel.ProtoTCP, false},
		{"169.254.169.254:123", kernel.ProtoUDP, false},
		{"127.0.0.1:123", kernel.ProtoUDP, false},
		{"[::1]:123", kernel.ProtoUDP, false},
		{"9.9.9.9:514", kernel.ProtoUDP, true}, // addresses only
		{"1.1.1.1:514", kernel.ProtoUDP, false},
		{"1.1.1.1:161", kernel.ProtoUDP, true},           // every public address
		{"[2606:4700::1111]:162", kernel.ProtoUDP, true}, // of IPv6 only
		{"1.1.1.1:162", kernel.ProtoUDP, false},
		{"10.40.3.4:161", kernel.ProtoUDP, false},
		{"127.0.0.1:8080", kernel.ProtoUDP, false},
		{"192.168.7.9:123", kernel.ProtoUDP, false},
		{"127.0.0.1:8080", kernel.ProtoTCP, true},
		{"127.0.0.1:8081", kernel.ProtoTCP, false},
		{"127.0.0.2:8080", kernel.ProtoTCP, false},
		{"192.168.7.9:1", kernel.ProtoTCP, true}, // every port, also one that others name
		{"192.168.7.9:5432", kernel.ProtoTCP, true},
		{"192.168.8.9:5432", kernel.ProtoTCP, false},
		{"[fd00:1::9]:443", kernel.ProtoTCP, true},
		{"[fd00:1::9]:80", kernel.ProtoTCP, false},
		{"169.254.169.254:80", kernel.ProtoTCP, false},
		{"[fd00:ec2::254]:80", kernel.ProtoTCP, false},
		{"100.100.100.200:80", kernel.ProtoTCP, false},
		{"168.63.129.16:80", kernel.ProtoTCP, false},
		{"127.0.0.1:22", kernel.ProtoTCP, false},
		{"[::1]:22", kernel.ProtoTCP, false},
		{"0.0.0.0:22", kernel.ProtoTCP, false},
		{"198.18.0.1:80", kernel.ProtoTCP, false},
		{"[fe80::1]:80", kernel.ProtoTCP, false},
		{"224.0.0.1:80", kernel.ProtoTCP, false},
		{"255.255.255.255:80", kernel.ProtoTCP, false},
		{"[64:ff9b::a00:1]:80", kernel.ProtoTCP, false},
		{"[2002:a00:1::]:80", kernel.ProtoTCP, false},
	} {
		ap := netip.MustParseAddrPort(c.addr)
		if got := verdict(table, ap.Addr(), ap.Port(), c.proto); got != c.want {
			t.Errorf("%s proto %d: %v, want %v", c.addr, c.proto, got, c.want)
		}
	}
	if verdict(gatewayTable(nil, nil, nil), netip.MustParseAddr("10.20.3.4"), 5432, kernel.ProtoTCP) {
		t.Error("without documents a private address is open")
	}
}

// For whatever is listed: a closed address is open exactly if a listed range
// that is at least as narrow as the closed one holds it, for that port; a
// public one always is for TCP, and for UDP at the listed ports.
func TestTheTableForAnyListing(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var listed []policy.UpstreamPrefix
		for range rng.IntN(12) {
			in := closed[rng.IntN(16)]
			bits := min(32, in.Bits()+rng.IntN(12))
			listed = append(listed, policy.UpstreamPrefix{Prefix: netip.PrefixFrom(inside(rng, in), bits).Masked(), Port: []uint16{0, 443, 5432}[rng.IntN(3)], Proto: policy.TCP})
			if l := &listed[len(listed)-1]; l.Port != 0 && rng.IntN(3) == 0 {
				l.Proto = policy.UDP
			}
		}
		var datagrams []uint16
		if rng.IntN(2) == 0 {
			datagrams = append(datagrams, 443)
		}
		table := gatewayTable(listed, datagrams, nil)
		for range 400 {
			var a netip.Addr
			switch {
			case len(listed) > 0 && rng.IntN(2) == 0:
				a = inside(rng, listed[rng.IntN(len(listed))].Prefix)
			case rng.IntN(2) == 0:
				a = inside(rng, closed[rng.IntN(16)])
			default:
				a = inside(rng, netip.MustParsePrefix("0.0.0.0/0"))
			}
			port := []uint16{443, 5432, 22}[rng.IntN(3)]
			for _, proto := range []policy.Proto{policy.TCP, policy.UDP} {
				want := proto == policy.TCP || slices.Contains(datagrams, port)
				for _, c := range closed {
					want = want && !c.Contains(a)
				}
				for _, l := range listed {
					want = want || l.Proto == proto && l.Prefix.Contains(a) && (l.Port == 0 || l.Port == port)
				}
				if got := verdict(table, a, port, uint8(proto)); got != want {
					t.Fatalf("seed %d: %s:%d/%s is %v, want %v; listed %v, datagrams %v", seed, a, port, proto, got, want, listed, datagrams)
				}
			}
		}
	}
}

// inside is a random address of an IPv4 prefix.
func inside(rng *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	host := uint32(uint64(rng.Uint32()) & (1<<(32-p.Bits()) - 1))
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|host)
	return netip.AddrFrom4(b)
}
