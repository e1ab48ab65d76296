// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// Addr decides a connection to a literal address on the address rules only.
// The address is judged by [JudgedAddr]. An allow reaches into a
// special-purpose range only when its prefix lies inside that range.
func (v *View) Addr(a netip.Addr, port uint16, proto Proto) Decision {
	if !a.IsValid() {
		return v.s.refuse(CodeBadName, reasonBadName)
	}
	a = JudgedAddr(a)
	f := v.addrFacts(a, port)
	return v.prefixDecision(netip.PrefixFrom(a, a.BitLen()), &f, proto)
}

func (v *View) addrFacts(a netip.Addr, port uint16) facts {
	f := v.facts("", port)
	f.addr = a
	return f
}

// prefixDecision decides every address of p that no longer rule prefix holds.
// Port 0 is a port that no rule names.
func (v *View) prefixDecision(p netip.Prefix, f *facts, proto Proto) Decision {
	if virtualRange.Bits() <= p.Bits() && virtualRange.Contains(p.Addr()) {
		return v.s.refuse(CodeVirtualRange, reasonVirtual)
	}
	var buf [32]hit
	m, left := v.addrRules(v.s.cidrs.match(buf[:0], v, p), p, f, proto, condOpen)
	silent := v.silent(proto)
	if specialOf(p) >= 0 {
		silent = noRule
	}
	d := v.verdict(m, silent)
	for mode := condAsk; left.any && d.Effect != Allow && mode <= condAll; mode++ {
		m, _ = v.addrRules(v.s.cidrs.match(buf[:0], v, p), p, f, proto, mode)
		if next := v.verdict(m, silent); next.Effect > d.Effect || d.Effect == Block {
			d = next
		}
	}
	return d
}

// addrRules keeps the rules of m that cover port and protocol and may reach p,
// and whose conditions hold, or are left open and count in the mode.
func (v *View) addrRules(m []hit, p netip.Prefix, f *facts, proto Proto, mode condMode) (_ []hit, left undecided) {
	within := specialOf(p)
	k := 0
	for _, h := range m {
		r := v.s.rule(h)
		if !r.covers(f.port, proto) {
			continue
		}
		if within >= 0 && r.prefix.Bits() < special[within].prefix.Bits() {
			if r.effect == Allow {
				continue
			}
			h |= r.narrows()
		}
		if r.proto == 0 && proto != TCP {
			h |= r.narrows()
		}
		if r.when != nil {
			var counts bool
			if h, counts = r.conditions(h, f, mode, &left); !counts {
				continue
			}
		}
		m[k] = h
		k++
	}
	return m[:k], left
}

// AddrDenied reports whether an address rule says no, or wants an approval, to an
// address that a name resolved to: the gateway must not dial it, whatever allowed
// the name. With a port the rules for that port count, without one those for any,
// whatever their conditions.
func (v *View) AddrDenied(a netip.Addr, proto Proto, port ...uint16) (Decision, bool) {
	if !a.IsValid() {
		return v.s.refuse(CodeBadName, reasonBadName), true
	}
	a = JudgedAddr(a)
	p := netip.PrefixFrom(a, a.BitLen())
	if virtualRange.Contains(a) {
		return v.s.refuse(CodeVirtualRange, reasonVirtual), true
	}
	var buf [32]hit
	m := v.s.cidrs.match(buf[:0], v, p)
	if len(port) > 0 {
		f := v.addrFacts(a, port[0])
		m, _ = v.addrRules(m, p, &f, proto, condAll)
	} else {
		k := 0
		for _, h := range m {
			if r := v.s.rule(h); r.effect != Allow && r.carries(proto) {
				m[k] = h
				k++
			}
		}
		m = m[:k]
	}
	if d := v.verdict(m, noRule); d.Effect != Allow && d.Rule.Num != 0 {
		return d, true
	}
	return Decision{}, false
}

// CIDREntry is one line of the kernel's table of literal addresses.
type CIDREntry struct {
	Prefix netip.Prefix
	Port   uint16 // 0 = every port that has no group of its own
	Proto  Proto
	Allow  bool // false also for what needs an approval: the kernel opens nothing that is not decided
	Rule   RuleRef
}

// CIDRTable compiles the address rules for the kernel. To decide an address
// (as JudgedAddr gives it) and port, take the longest matching prefix among
// the entries with that port; if none matches, among the entries with port 0;
// if none matches, deny. IPv4 is ::ffff:0:0/96 there, and prefixes of IPv6 that
// hold it count. That equals Addr of the view Ahead for every address, port and
// protocol: nothing that Addr allows at any time is missing, and where no rule has
// a condition nothing else is in it. There are entries for UDP only when some rule
// opens it.
func (v *View) CIDRTable() []CIDREntry {
	out := append(v.cidrTable(TCP), v.cidrTable(UDP)...)
	slices.SortFunc(out, func(a, b CIDREntry) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), a.Prefix.Compare(b.Prefix), cmp.Compare(a.Proto, b.Proto))
	})
	return out
}

func (v *View) cidrTable(proto Proto) []CIDREntry {
	byPort := map[uint16][]netip.Prefix{0: nil}
	allows := map[uint16][]netip.Prefix{}
	for _, g := range v.groups {
		for _, i := range v.s.cidrs.byGroup[g] {
			r := &v.s.rules[i]
			if !r.carries(proto) {
				continue
			}
			byPort[r.port] = append(byPort[r.port], r.prefix)
			if r.grants() {
				allows[r.port] = append(allows[r.port], r.prefix)
			}
		}
	}
	if v.silent(proto) != noRule {
		all := netip.PrefixFrom(netip.IPv6Unspecified(), 0) // IPv4 with it
		byPort[0], allows[0] = append(byPort[0], all), append(allows[0], all)
		allows[0] = append(allows[0], netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	if proto != TCP && len(allows) == 0 {
		return nil
	}
	var out []CIDREntry
	for port, prefixes := range byPort {
		prefixes = slices.Clone(prefixes)
		if port != 0 {
			prefixes = append(prefixes, byPort[0]...)
		}
		for _, a := range append(allows[port][:len(allows[port]):len(allows[port])], allows[0]...) {
			for i := range special {
				if s := special[i].prefix; a.Bits() < s.Bits() && a.Contains(s.Addr()) {
					prefixes = append(prefixes, s)
				}
			}
		}
		for _, a := range prefixes {
			if a.Bits() < virtualRange.Bits() && a.Contains(virtualRange.Addr()) {
				prefixes = append(prefixes, virtualRange)
				break
			}
		}
		out = append(out, v.cidrGroup(port, proto, withIPv4(prefixes))...)
	}
	return out
}

// withIPv4 adds all of IPv4 where a prefix of IPv6 holds the mapped range. The
// kernel's table has one tree for both, with IPv4 as ::ffff:0:0/96, so "::/0"
// would speak for IPv4 too.
func withIPv4(prefixes []netip.Prefix) []netip.Prefix {
	if slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		return p.Bits() < mappedRange.Bits() && p.Addr().Is6() && p.Contains(mappedRange.Addr())
	}) {
		return append(prefixes, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	return prefixes
}

// cidrGroup decides each prefix of one port and protocol, leaving out those that say the
// same as the next shorter one.
func (v *View) cidrGroup(port uint16, proto Proto, prefixes []netip.Prefix) []CIDREntry {
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Addr().Compare(b.Addr()))
	})
	prefixes = slices.Compact(prefixes)
	said := make(map[netip.Prefix]CIDREntry, len(prefixes))
	var out []CIDREntry
	for _, p := range prefixes {
		f := facts{principal: &v.p, ahead: true, port: port} // no expression is asked, so no address is needed
		d := v.prefixDecision(p, &f, proto)
		e := CIDREntry{Prefix: p, Port: port, Proto: proto, Allow: d.Allowed(), Rule: d.Rule}
		said[p] = e
		if outer, ok := enclosing(said, p); ok && outer.Allow == e.Allow && outer.Rule == e.Rule {
			continue
		}
		out = append(out, e)
	}
	return out
}

// enclosing finds the longest prefix of said that strictly holds p.
func enclosing(said map[netip.Prefix]CIDREntry, p netip.Prefix) (CIDREntry, bool) {
	for l := p.Bits() - 1; l >= 0; l-- {
		q, err := p.Addr().Prefix(l)
		if err != nil {
			break
		}
		if e, ok := said[q]; ok {
			return e, true
		}
	}
	return CIDREntry{}, false
}
