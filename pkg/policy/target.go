// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Target is what an egress rule speaks of: either Host or Prefix, with a port.
type Target struct {
	Host   HostPattern
	Prefix netip.Prefix
	Port   uint16 // 0 = none given
	Proto  Proto  // 0 = none given: an allow means TCP, a deny both
}

// String is the target as written in documents.
func (t Target) String() string {
	s := t.Host.String()
	if t.Prefix.IsValid() {
		s = t.Prefix.String()
		if t.Prefix.IsSingleIP() {
			s = t.Prefix.Addr().String()
		}
		if t.Prefix.Addr().Is6() && t.Port != 0 {
			s = "[" + s + "]"
		}
	}
	if t.Port != 0 {
		s += ":" + strconv.Itoa(int(t.Port))
	}
	if t.Proto != 0 {
		s += "/" + t.Proto.String()
	}
	return s
}

// ParseTarget reads the target of an egress rule: "host", "host:port", an
// address or prefix with or without a port ("10.0.0.0/8:443",
// "[2001:db8::/32]:443", "2001:db8::/32"). A port may have a protocol behind
// it: "host:123/udp". Port and protocol are 0 when none is given; whether one
// is needed is the caller's business.
func ParseTarget(s string) (Target, error) {
	if rest, p := CutProto(s); p != 0 {
		return protoTarget(s, rest, p)
	}
	return parseTarget(s)
}

// CutProto takes the protocol off the end of a target; it is 0 when there is
// none.
func CutProto(s string) (rest string, p Proto) {
	for _, p := range []Proto{TCP, UDP} {
		if rest, ok := strings.CutSuffix(s, "/"+p.String()); ok {
			return rest, p
		}
	}
	return s, 0
}

// protoTarget reads a target that ends with a protocol. Datagrams to port 53
// end at the sandbox's own resolver, whatever a rule says.
func protoTarget(s, rest string, p Proto) (Target, error) {
	t, err := parseTarget(rest)
	switch {
	case err != nil:
		return Target{}, err
	case t.Port == 0:
		return Target{}, fmt.Errorf("%s: a protocol stands behind a port, as in %q", quote(s), Target{Host: t.Host, Prefix: t.Prefix, Port: 443, Proto: p})
	case p == UDP && t.Port == 53:
		return Target{}, fmt.Errorf("%s: DNS is answered by Ringfence, and no rule relays UDP to port 53", quote(s))
	}
	t.Proto = p
	return t, nil
}

func parseTarget(s string) (Target, error) {
	switch {
	case s == "":
		return Target{}, fmt.Errorf("the target is empty")
	case strings.Contains(s, "://"):
		return Target{}, fmt.Errorf(`%s: a target is HOST:PORT, without scheme and path`, quote(s))
	case strings.ContainsAny(s, " \t\r\n@?#\\%"):
		return Target{}, fmt.Errorf("%s: a target is HOST:PORT", quote(s))
	}
	if rest, ok := strings.CutPrefix(s, "["); ok {
		body, port, ok := strings.Cut(rest, "]")
		if !ok {
			return Target{}, fmt.Errorf(`%s: "[" without "]"`, quote(s))
		}
		var t Target
		var err error
		if t.Prefix, err = parsePrefix(body); err != nil {
			return Target{}, err
		}
		if t.Prefix.Addr().Is4() {
			return Target{}, fmt.Errorf("%s: brackets are for IPv6", quote(s))
		}
		if port == "" {
			return t, nil
		}
		if !strings.HasPrefix(port, ":") {
			return Target{}, fmt.Errorf(`%s: expected ":PORT" after "]"`, quote(s))
		}
		t.Port, err = parsePort(port[1:])
		return t, err
	}
	if strings.Count(s, ":") > 1 { // bare IPv6
		p, err := parsePrefix(s)
		return Target{Prefix: p}, err
	}
	host, port, hasPort := strings.Cut(s, ":")
	var t Target
	var err error
	if hasPort {
		if t.Port, err = parsePort(port); err != nil {
			return Target{}, fmt.Errorf("%s: %w", quote(s), err)
		}
	}
	if looksLikeIPv4(host) {
		t.Prefix, err = parsePrefix(host)
		return t, err
	}
	if strings.Contains(host, "/") {
		return Target{}, fmt.Errorf("%s: a target is HOST:PORT, without a path; limit paths with http: {paths: [...]}", quote(s))
	}
	t.Host, err = ParseHostPattern(host)
	return t, err
}

// looksLikeIPv4 reports whether s is a dotted quad with or without a length.
// Other spellings of addresses are left to the host parser, which refuses them.
func looksLikeIPv4(s string) bool {
	a, _, _ := strings.Cut(s, "/")
	return strings.Count(a, ".") == 3 && strings.Trim(a, "0123456789.") == "" || strings.Contains(s, "/") && strings.Trim(s, "0123456789./") == ""
}

func parsePrefix(s string) (netip.Prefix, error) {
	var p netip.Prefix
	if strings.Contains(s, "/") {
		var err error
		if p, err = netip.ParsePrefix(s); err != nil {
			return p, fmt.Errorf("%s is not an address prefix such as 10.0.0.0/8", quote(s))
		}
	} else {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return p, fmt.Errorf("%s is not an address", quote(s))
		}
		if a.Zone() != "" {
			return p, fmt.Errorf("%s: zones are not supported", quote(s))
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has bits below its length; did you mean %q?", quote(s), p.Masked())
	}
	for _, h := range hiding {
		if h.Overlaps(p) && p.Bits() >= h.Bits() {
			return netip.Prefix{}, fmt.Errorf("%s hides an IPv4 address and is judged as that: write the IPv4 form", quote(s))
		}
	}
	return p, nil
}

func parsePort(s string) (uint16, error) {
	if s == "*" || s == "0" {
		return 0, fmt.Errorf("port %s: name one port from 1 to 65535", quote(s))
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' || s[0] == '+' {
		return 0, fmt.Errorf("port %s is not a number from 1 to 65535 (one port to a rule, with /udp behind it for UDP)", quote(s))
	}
	return uint16(n), nil
}
