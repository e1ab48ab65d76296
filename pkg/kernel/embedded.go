// SPDX-License-Identifier: Apache-2.0

package kernel

import "net/netip"

var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Embedded returns the IPv4 address that an IPv4-mapped (RFC 4291), NAT64
// (RFC 6052, well-known prefix) or 6to4 (RFC 3056) address hides, and any
// other address unchanged. The programs judge by the same rule (judge.h), so
// whoever decides on what the kernel let through must see through it too.
func Embedded(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	b := a.As16()
	switch {
	case a.Is4In6():
		return a.Unmap()
	case nat64.Contains(a.WithZone("")):
		return netip.AddrFrom4([4]byte(b[12:]))
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}
