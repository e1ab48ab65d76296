// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

// HTTPMatch is the condition of a rule on an HTTP request: the method is one
// of Methods (none = every method) and the path matches one of Paths (none =
// every path). Both lists are sorted and without repeats.
//
// A path pattern starts with "/". "*" is any run of characters within one
// segment, "**" as the last segment is the path before it and everything
// below: "/v1/**" matches /v1, /v1/ and /v1/a/b. Case matters. Patterns are
// compared with the path after decoding escapes of unreserved characters.
type HTTPMatch struct {
	Methods []string
	Paths   []string
}

// String is the condition for people: "GET,HEAD /repos/**".
func (h *HTTPMatch) String() string {
	return strings.TrimSpace(strings.Join(h.Methods, ",") + " " + strings.Join(h.Paths, ","))
}

func (h *HTTPMatch) equal(g *HTTPMatch) bool {
	return slices.Equal(h.Methods, g.Methods) && slices.Equal(h.Paths, g.Paths)
}

// truth is the result of a condition.
type truth uint8

const (
	condError truth = iota // the condition cannot be decided
	condFalse
	condTrue
)

// match decides the condition. canonical is false when the path is one that
// servers read in different ways; a condition on paths then is an error.
func (h *HTTPMatch) match(method, path string, canonical bool) truth {
	if len(h.Methods) > 0 {
		if method == "" {
			return condError
		}
		if !slices.Contains(h.Methods, method) {
			return condFalse
		}
	}
	if len(h.Paths) == 0 {
		return condTrue
	}
	if !canonical {
		return condError
	}
	for _, p := range h.Paths {
		if matchPath(p, path) {
			return condTrue
		}
	}
	return condFalse
}

// canonicalPath strips the query and decodes escapes of unreserved characters.
// ok is false when the rest is ambiguous: not starting with "/", empty inner
// segments, dot segments, an escaped "/", "\", "%" or ";", control characters, a raw
// backslash, a broken escape. It allocates only when something is escaped.
func canonicalPath(path string) (p string, ok bool) {
	for i := 0; i < len(path); i++ {
		if path[i] == '?' || path[i] == '#' {
			path = path[:i]
			break
		}
	}
	if path == "" || path[0] != '/' {
		return path, false
	}
	if strings.IndexByte(path, '%') >= 0 {
		if path, ok = decodeUnreserved(path); !ok {
			return path, false
		}
	}
	start := 1
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			if c := path[i]; c == '\\' || c <= ' ' || c >= 0x7f {
				return path, false
			}
			continue
		}
		seg := path[start:i]
		if seg == "" && i < len(path) {
			return path, false // "//"
		}
		// "/a;x/../b" and "/..;x/" are read as dot segments by some servers.
		if j := strings.IndexByte(seg, ';'); j >= 0 {
			seg = seg[:j]
		}
		if seg == "." || seg == ".." {
			return path, false
		}
		start = i + 1
	}
	return path, true
}

func decodeUnreserved(path string) (string, bool) {
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c != '%' {
			b.WriteByte(c)
			continue
		}
		if i+2 >= len(path) {
			return path, false
		}
		hi, lo := unhexDigit(path[i+1]), unhexDigit(path[i+2])
		if hi < 0 || lo < 0 {
			return path, false
		}
		switch d := byte(hi<<4 | lo); {
		case d == '/' || d == '\\' || d == '%' || d == ';' || d < 0x20 || d == 0x7f:
			return path, false
		case d >= 'a' && d <= 'z' || d >= 'A' && d <= 'Z' || d >= '0' && d <= '9' || strings.IndexByte("-._~", d) >= 0:
			b.WriteByte(d)
		default: // keep it escaped, in one spelling
			b.WriteByte('%')
			b.WriteByte("0123456789ABCDEF"[hi])
			b.WriteByte("0123456789ABCDEF"[lo])
		}
		i += 2
	}
	return b.String(), true
}

// matchPath matches a canonical path. Patterns were checked by parsePath.
func matchPath(pattern, path string) bool {
	if base, deep := strings.CutSuffix(pattern, "/**"); deep {
		if strings.IndexByte(base, '*') < 0 {
			return strings.HasPrefix(path, base) && (len(path) == len(base) || path[len(base)] == '/')
		}
		// Either all of path, or one of its prefixes that ends at a "/".
		if globMatch(base, path) {
			return true
		}
		for i := 0; i < len(path); i++ {
			if path[i] == '/' && globMatch(base, path[:i]) {
				return true
			}
		}
		return false
	}
	return globMatch(pattern, path)
}

// globMatch matches "*" within a segment, in time O(len(p) * len(s)).
func globMatch(p, s string) bool {
	pi, si, star, mark := 0, 0, -1, 0
	for si < len(s) {
		switch {
		case pi < len(p) && p[pi] == '*':
			star, mark = pi, si
			pi++
		case pi < len(p) && p[pi] == s[si]:
			pi++
			si++
		case star >= 0 && s[mark] != '/':
			mark++
			pi, si = star+1, mark
		default:
			return false
		}
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}

// parsePath checks a path pattern and gives its canonical form.
func parsePath(s string) (string, error) {
	switch {
	case s == "":
		return "", fmt.Errorf("the path is empty")
	case s[0] != '/':
		return "", fmt.Errorf(`path %s must start with "/"`, quote(s))
	case strings.ContainsAny(s, "?#"):
		return "", fmt.Errorf("path %s: queries are not matched; leave out what follows the path", quote(s))
	}
	body := strings.TrimSuffix(s, "/**")
	if strings.Contains(body, "**") {
		return "", fmt.Errorf(`path %s: "**" may only be the last segment`, quote(s))
	}
	if body != "" {
		c, ok := canonicalPath(body)
		if !ok {
			return "", fmt.Errorf("path %s is not in normal form (no dot segments, no //, no escaped / or \\)", quote(s))
		}
		return c + s[len(body):], nil
	}
	return s, nil
}

func parseMethod(s string) (string, error) {
	if s == "" || len(s) > 32 {
		return "", fmt.Errorf("method %s is not an HTTP method", quote(s))
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= 'A' && c <= 'Z' || c == '-') {
			if up := strings.ToUpper(s); up != s {
				return "", fmt.Errorf("method %s: methods are upper case; did you mean %q?", quote(s), up)
			}
			return "", fmt.Errorf("method %s is not an HTTP method", quote(s))
		}
	}
	return s, nil
}

// ExactPath is the pattern of one request target alone; ok is false when no
// pattern is: for a path that servers read in different ways, and one with "*".
func ExactPath(target string) (pattern string, ok bool) {
	path, ok := canonicalPath(target)
	return path, ok && !strings.Contains(path, "*")
}
