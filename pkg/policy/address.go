// SPDX-License-Identifier: Apache-2.0

package policy

import "net/netip"

// virtualRange is where Ringfence's virtual addresses live. No rule opens a
// literal address in it.
var virtualRange = netip.MustParsePrefix("198.18.0.0/15")

// hiding are the IPv6 ranges whose addresses stand for an IPv4 address:
// mapped (RFC 4291), NAT64 (RFC 6052) and 6to4 (RFC 3056).
var (
	mappedRange = netip.MustParsePrefix("::ffff:0:0/96")
	nat64Range  = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour   = netip.MustParsePrefix("2002::/16")
	hiding      = []netip.Prefix{mappedRange, nat64Range, sixToFour}
)

// special are the ranges that no broad rule reaches: an allow opens an address
// here only when its prefix lies wholly inside the range, or by resolvesTo.
// Of ranges within each other the narrower stands first. Sources: the IANA special-purpose address registries (RFC 6890 and updates).
var special = []struct {
	prefix netip.Prefix
	name   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared (carrier NAT)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"), "cloud metadata"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local (cloud metadata)"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignments"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking (Ringfence's virtual addresses)"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/96"), "unspecified, loopback and IPv4-compatible"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64"},
	{netip.MustParsePrefix("100::/64"), "discard"},
	{netip.MustParsePrefix("2001::/23"), "protocol assignments (Teredo)"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing"},
	{netip.MustParsePrefix("fc00::/7"), "private (unique local)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	// What of IPv6 is handed out is 2000::/3 (RFC 4291, section 4).
	{netip.MustParsePrefix("::/3"), notUnicast},
	{netip.MustParsePrefix("4000::/2"), notUnicast},
	{netip.MustParsePrefix("8000::/1"), notUnicast},
}

const notUnicast = "outside of global unicast"

// SpecialPurpose names the special-purpose range an address (as policy judges
// it, see [JudgedAddr]) lies in; ok is false for an ordinary public address.
// The gateway refuses to dial such an address unless resolvesTo or an address
// rule admits it.
func SpecialPurpose(a netip.Addr) (name string, ok bool) {
	a = JudgedAddr(a)
	if i := specialOf(netip.PrefixFrom(a, a.BitLen())); i >= 0 {
		return special[i].name, true
	}
	return "", false
}

// specialOf is the index of the special range that holds all of p, -1 if none.
func specialOf(p netip.Prefix) int {
	for i := range special {
		if s := &special[i]; s.prefix.Bits() <= p.Bits() && s.prefix.Contains(p.Addr()) {
			return i
		}
	}
	return -1
}

// JudgedAddr is the address that policy decides on: the IPv4 address hidden in
// an IPv4-mapped, NAT64 or 6to4 one, otherwise a without its zone.
func JudgedAddr(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	a = a.WithZone("")
	switch b := a.As16(); {
	case a.Is4In6():
		return a.Unmap()
	case nat64Range.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}
