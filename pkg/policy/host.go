// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// HostKind says how a [HostPattern] matches. The zero value matches nothing.
type HostKind uint8

// Host patterns.
const (
	HostNone  HostKind = iota
	HostExact          // "x": only x
	HostStar           // "*.x": exactly one label below x
	HostDeep           // "**.x": x and everything below it; "**" is every name
)

// HostPattern is a set of host names. Name is canonical: lower case A-labels
// without a trailing dot; "" only for "**". Patterns are comparable.
type HostPattern struct {
	Kind HostKind
	Name string
}

// String is the pattern as written in documents.
func (h HostPattern) String() string {
	switch h.Kind {
	case HostExact:
		return h.Name
	case HostStar:
		return "*." + h.Name
	case HostDeep:
		if h.Name == "" {
			return "**"
		}
		return "**." + h.Name
	}
	return ""
}

// Matches reports whether a canonical host name is in the set.
func (h HostPattern) Matches(host string) bool {
	switch h.Kind {
	case HostExact:
		return host == h.Name
	case HostStar:
		i := strings.IndexByte(host, '.')
		return i > 0 && host[i+1:] == h.Name
	case HostDeep:
		return host != "" && (h.Name == "" || host == h.Name || below(host, h.Name))
	}
	return false
}

// below reports whether host is strictly below name.
func below(host, name string) bool {
	n := len(host) - len(name)
	return n > 1 && host[n-1] == '.' && host[n:] == name
}

// Contains reports whether every name of g is in h, by syntax.
func (h HostPattern) Contains(g HostPattern) bool {
	if g.Kind == HostNone || h.Kind == HostNone {
		return false
	}
	if h == g {
		return true
	}
	switch h.Kind {
	case HostStar:
		return g.Kind == HostExact && h.Matches(g.Name)
	case HostDeep:
		return h.Name == "" || g.Name != "" && (g.Name == h.Name || below(g.Name, h.Name))
	}
	return false
}

// Errors of host names.
var (
	errHostEmpty   = errors.New("the host is empty")
	errHostLong    = errors.New("the host is longer than 253 characters")
	errHostLabel   = errors.New("the host has an empty label or one longer than 63 characters")
	errHostSpelled = errors.New("the host is an address in disguise (its last label is a number)")
	errHostUpper   = errors.New("the host has upper-case letters")
	errHostChar    = errors.New("the host has a character that host names cannot have")
	errHostIDN     = errors.New("the host is not a valid internationalised name")
)

// lookupHost is the canonical form of a name as it comes off the wire, and
// whether it is one that can be decided on. Only ASCII; the case is folded and
// one trailing dot removed. It allocates only when the case must be folded.
func lookupHost(host string) (string, bool) {
	if n := len(host) - 1; n >= 0 && host[n] == '.' {
		host = host[:n]
	}
	err := checkASCIIHost(host)
	if err == errHostUpper {
		host = strings.ToLower(host)
		err = checkASCIIHost(host)
	}
	return host, err == nil
}

// CanonicalHost is the form of a host name from the wire that policy decides
// on: lower case, without a trailing dot. ok is false for anything that is not
// a name: empty or overlong labels, other bytes than [a-z0-9_-], and names
// whose last label is a number (127.1, 0x7f000001).
func CanonicalHost(host string) (name string, ok bool) { return lookupHost(host) }

// hostBytes classifies bytes of canonical names: 1 = may be in a label, 2 = a
// digit, 3 = upper case, 4 = a dot, 0 = anything else.
var hostBytes = func() (t [256]byte) {
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = 1, 3
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = 2
	}
	t['-'], t['_'], t['.'] = 1, 1, 4
	return t
}()

func checkASCIIHost(host string) error {
	if host == "" {
		return errHostEmpty
	}
	if len(host) > 253 {
		return errHostLong
	}
	start, digits := 0, true
	for i := 0; i < len(host); i++ {
		switch hostBytes[host[i]] {
		case 1:
			digits = false
		case 2:
		case 3:
			return errHostUpper
		case 4:
			if n := i - start; n == 0 || n > 63 {
				return errHostLabel
			}
			start, digits = i+1, true
		default:
			return errHostChar
		}
	}
	if n := len(host) - start; n == 0 || n > 63 {
		return errHostLabel
	}
	if digits || host[start] == '0' && numericLabel(host[start:]) {
		return errHostSpelled
	}
	return nil
}

// numericLabel follows the "ends in a number" rule of the WHATWG URL standard:
// all digits, or 0x and hexadecimal digits.
func numericLabel(l string) bool {
	digits := true
	for i := 0; i < len(l); i++ {
		if l[i] < '0' || l[i] > '9' {
			digits = false
			break
		}
	}
	if digits {
		return true
	}
	if !strings.HasPrefix(l, "0x") {
		return false
	}
	for i := 2; i < len(l); i++ {
		if unhexDigit(l[i]) < 0 {
			return false
		}
	}
	return true
}

func unhexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

var idnaProfile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckJoiners(true), idna.StrictDomainName(false))

// documentHost is the canonical form of a name in a document, where U-labels
// are welcome.
func documentHost(host string) (string, error) {
	if !utf8.ValidString(host) {
		return "", errHostIDN
	}
	ascii := true
	for i := 0; i < len(host); i++ {
		if host[i] >= 0x80 {
			ascii = false
		}
	}
	if !ascii || strings.Contains(strings.ToLower(host), "xn--") {
		a, err := idnaProfile.ToASCII(host)
		if err != nil {
			return "", errHostIDN
		}
		// A name that does not read back to itself is none that can be asked for.
		if b, err := idnaProfile.ToASCII(a); err != nil || b != a {
			return "", errHostIDN
		}
		host = a
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host, checkASCIIHost(host)
}

// ParseHostPattern reads "x", "*.x", "**.x" or "**".
func ParseHostPattern(s string) (HostPattern, error) {
	kind, name := HostExact, s
	switch {
	case s == "**":
		return HostPattern{Kind: HostDeep}, nil
	case s == "*":
		return HostPattern{}, fmt.Errorf(`%q is not a host pattern: "*.x" is one label below x, "**.x" is x and everything below it, "**" is every name`, s)
	case strings.HasPrefix(s, "**."):
		kind, name = HostDeep, s[3:]
	case strings.HasPrefix(s, "*."):
		kind, name = HostStar, s[2:]
	}
	if strings.Contains(name, "*") {
		return HostPattern{}, fmt.Errorf(`%s: a wildcard is a whole label at the front: "*.x" or "**.x"`, quote(s))
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return HostPattern{}, fmt.Errorf("%s is an address, not a host name", quote(s))
	}
	name, err := documentHost(name)
	if err != nil {
		return HostPattern{}, fmt.Errorf("%s: %w", quote(s), err)
	}
	if name == "localhost" || below(name, "localhost") {
		return HostPattern{}, fmt.Errorf("%s: loopback inside a sandbox is the sandbox's own; give the host's service another name and resolvesTo: [127.0.0.1/32]", quote(s))
	}
	return HostPattern{Kind: kind, Name: name}, nil
}
