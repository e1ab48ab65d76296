// SPDX-License-Identifier: Apache-2.0

// Package upstream is how the gateway reaches the world: it resolves a name on
// the host's side, refuses every address that is not plainly public unless a
// rule admits it, and dials exactly the addresses it judged. There is no
// second resolution between the judgement and the connection, so a name server
// that changes its answer (rebinding) gains nothing.
package upstream

import "net/netip"

// Class names a range of addresses that a name of the public Internet has no
// business resolving to. The empty class is a public address.
type Class string

// Classes, as they appear in reason codes ("private-address" and so on).
const (
	Public     Class = ""
	Invalid    Class = "invalid"
	Loopback   Class = "loopback"
	Private    Class = "private"
	LinkLocal  Class = "link-local"
	Metadata   Class = "metadata"
	SharedNAT  Class = "cgnat"
	Multicast  Class = "multicast"
	Reserved   Class = "reserved"
	Virtual    Class = "virtual"     // 198.18.0.0/15: our own virtual addresses
	Translated Class = "translation" // a tunnel or translation form that hides an IPv4 address we cannot read
	Host       Class = "host"        // an address of this node itself
)

// entry is one row of the special-purpose table.
type entry struct {
	prefix netip.Prefix
	class  Class
}

// VirtualPrefix holds the addresses that stand for names inside sandboxes.
var VirtualPrefix = netip.MustParsePrefix("198.18.0.0/15")

// special is searched in order: the first prefix that holds the address names
// its class. Sources: the IANA special-purpose registries for IPv4 and IPv6,
// RFC 6890 and its updates, and the documentation of the clouds for metadata.
var special = []entry{
	{netip.MustParsePrefix("169.254.169.254/32"), Metadata}, // AWS, GCP, Azure, OpenStack ...
	{netip.MustParsePrefix("169.254.170.2/32"), Metadata},   // AWS ECS credentials
	{netip.MustParsePrefix("169.254.170.23/32"), Metadata},  // AWS EKS pod identity
	{netip.MustParsePrefix("100.100.100.200/32"), Metadata}, // Alibaba
	{netip.MustParsePrefix("168.63.129.16/32"), Metadata},   // Azure wire server
	{netip.MustParsePrefix("192.0.0.192/32"), Metadata},     // Oracle
	{netip.MustParsePrefix("fd00:ec2::/32"), Metadata},      // AWS over IPv6 (254, 23, 123 ...)
	{netip.MustParsePrefix("fd20:ce::254/128"), Metadata},   // GCP over IPv6
	{VirtualPrefix, Virtual},
	{netip.MustParsePrefix("0.0.0.0/8"), Reserved},
	{netip.MustParsePrefix("10.0.0.0/8"), Private},
	{netip.MustParsePrefix("100.64.0.0/10"), SharedNAT},
	{netip.MustParsePrefix("127.0.0.0/8"), Loopback},
	{netip.MustParsePrefix("169.254.0.0/16"), LinkLocal},
	{netip.MustParsePrefix("172.16.0.0/12"), Private},
	{netip.MustParsePrefix("192.0.0.0/24"), Reserved},
	{netip.MustParsePrefix("192.0.2.0/24"), Reserved},
	{netip.MustParsePrefix("192.88.99.0/24"), Reserved},
	{netip.MustParsePrefix("192.168.0.0/16"), Private},
	{netip.MustParsePrefix("198.51.100.0/24"), Reserved},
	{netip.MustParsePrefix("203.0.113.0/24"), Reserved},
	{netip.MustParsePrefix("224.0.0.0/4"), Multicast},
	{netip.MustParsePrefix("240.0.0.0/4"), Reserved},
	{netip.MustParsePrefix("::1/128"), Loopback},
	{netip.MustParsePrefix("::/128"), Reserved},
	{netip.MustParsePrefix("64:ff9b:1::/48"), Translated}, // local-use NAT64: the place of the IPv4 address is unknown
	{netip.MustParsePrefix("100::/64"), Reserved},
	{netip.MustParsePrefix("100:0:0:1::/64"), Reserved},
	{netip.MustParsePrefix("2001::/32"), Translated}, // Teredo
	{netip.MustParsePrefix("2001::/23"), Reserved},
	{netip.MustParsePrefix("2001:db8::/32"), Reserved},
	{netip.MustParsePrefix("3fff::/20"), Reserved},
	{netip.MustParsePrefix("5f00::/16"), Reserved},
	{netip.MustParsePrefix("fc00::/7"), Private},
	{netip.MustParsePrefix("fe80::/10"), LinkLocal},
	{netip.MustParsePrefix("fec0::/10"), Private}, // site-local, deprecated
	{netip.MustParsePrefix("ff00::/8"), Multicast},
}

// unicast6 is the only part of IPv6 that is handed out (RFC 4291, section 4);
// NAT64's well-known prefix lies outside and is judged by what it hides.
var unicast6 = netip.MustParsePrefix("2000::/3")

// Judged returns the address that a is decided as: the IPv4 address that an
// IPv4-mapped, IPv4-compatible, IPv4-translated, NAT64 or 6to4 form hides, or
// a itself without its zone.
func Judged(a netip.Addr) netip.Addr {
	a = a.WithZone("").Unmap()
	if !a.Is6() {
		return a
	}
	b := a.As16()
	v4 := func(at int) netip.Addr { return netip.AddrFrom4([4]byte(b[at : at+4])) }
	zero := func(from, to int) bool {
		for _, x := range b[from:to] {
			if x != 0 {
				return false
			}
		}
		return true
	}
	switch {
	case b[0] == 0x20 && b[1] == 0x02: // 6to4, RFC 3056
		return v4(2)
	case b[0] == 0 && b[1] == 0x64 && b[2] == 0xff && b[3] == 0x9b && zero(4, 12): // NAT64, RFC 6052
		return v4(12)
	case zero(0, 8) && b[8] == 0xff && b[9] == 0xff && zero(10, 12): // IPv4-translated, RFC 2765
		return v4(12)
	case zero(0, 12) && !zero(12, 14): // IPv4-compatible, RFC 4291; ::1 and :: are not
		return v4(12)
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214
		return v4(12)
	}
	return a
}

// Classify tells which class a, read through its disguises, belongs to.
func Classify(a netip.Addr) Class {
	a = Judged(a)
	if !a.IsValid() {
		return Invalid
	}
	for _, e := range special {
		if e.prefix.Contains(a) {
			return e.class
		}
	}
	if a.Is6() && !unicast6.Contains(a) {
		return Reserved
	}
	return Public
}

// Admits tells whether prefixes, named by a rule, open the way to an address
// of a class that is closed by itself. Multicast and our own virtual addresses
// are never opened; a metadata address only when the rule names exactly that
// address, so that "everything in 169.254/16" does not mean it.
func Admits(prefixes []netip.Prefix, a netip.Addr) bool {
	a = Judged(a)
	class := Classify(a)
	if class == Multicast || class == Virtual || class == Invalid || a.IsUnspecified() {
		return false
	}
	for _, p := range prefixes {
		if p.Contains(a) && (class != Metadata || p.IsSingleIP()) {
			return true
		}
	}
	return false
}
