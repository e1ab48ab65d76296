// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
)

// request is a method and the target of an HTTP request.
type request struct{ method, path string }

// ambiguousPath is a path that servers read in different ways. No condition on
// paths tells two of them apart.
const ambiguousPath = "//"

// requestCells gives one request for each set of requests that the conditions
// tell apart. most bounds the work; ok is false when it does not suffice.
func requestCells(matches []*HTTPMatch, most int) (_ []request, ok bool) {
	var methods, paths []string
	for _, h := range matches {
		methods, paths = append(methods, h.Methods...), append(paths, h.Paths...)
	}
	slices.Sort(methods)
	slices.Sort(paths)
	methods, paths = slices.Compact(methods), slices.Compact(paths)
	other := "GET"
	for _, m := range []string{"POST", "DELETE", "PUT", "HEAD", "PATCH", "OPTIONS", "TRACE", "OTHER"} {
		if slices.Contains(methods, other) {
			other = m
		}
	}
	for slices.Contains(methods, other) {
		other += "-X"
	}
	witnesses, ok := pathCells(paths, most)
	if !ok {
		return nil, false
	}
	var out []request
	for _, m := range append(methods, other) {
		for _, p := range append(witnesses, ambiguousPath) {
			out = append(out, request{m, p})
		}
	}
	return out, true
}

// pathCells gives one canonical path for each set of canonical paths that the
// patterns tell apart: it runs all patterns together as one automaton, which
// reads from every state every byte that could make a difference.
func pathCells(patterns []string, most int) (_ []string, ok bool) {
	w := pathWalk{tokens: pathTokens(patterns)}
	for _, p := range patterns {
		base, deep := strings.CutSuffix(p, "/**")
		w.globs = append(w.globs, glob{base, deep})
	}
	start := w.start()
	type at struct {
		state []byte
		path  string
	}
	queue := []at{{start, ""}}
	seen, cells := map[string]bool{string(start): true}, map[string]bool{}
	var out []string
	for n := 0; len(queue) > 0; n++ {
		if n > most {
			return nil, false
		}
		now := queue[0]
		queue = queue[1:]
		if _, ok := canonicalPath(now.path); ok {
			if key := w.accepted(now.state); !cells[key] {
				cells[key] = true
				out = append(out, now.path)
			}
		}
		for _, token := range w.tokens {
			if next, ok := w.read(now.state, token); ok && !seen[string(next)] {
				seen[string(next)] = true
				queue = append(queue, at{next, now.path + token})
			}
		}
	}
	return out, true
}

// pathTokens are the pieces that canonical paths of interest are made of: the
// bytes of the patterns, one byte that no pattern has and stands for all such,
// and the escapes of which a pattern has a byte.
func pathTokens(patterns []string) []string {
	var used [256]bool
	for _, p := range patterns {
		for i := range len(p) {
			used[p[i]] = used[p[i]] || p[i] != '*'
		}
	}
	out := []string{"/"}
	fresh := false
	for i := range 0x7f - 0x21 {
		c := byte(0x21 + (i+'a'-0x21)%(0x7f-0x21)) // letters first
		_, plain := canonicalPath("/" + string(c) + "a")
		switch {
		case c == '/' || !plain || c == '?' || c == '#':
		case used[c]:
			out = append(out, string(c))
		case !fresh && c != '.' && c != ';':
			fresh = true
			out = append(out, string(c))
		}
	}
	const hex = "0123456789ABCDEF"
	for i := range 256 {
		token := "%" + string(hex[i>>4]) + string(hex[i&15])
		canonical, ok := canonicalPath("/" + token)
		if ok && canonical == "/"+token && (used['%'] || used[token[1]] || used[token[2]]) {
			out = append(out, token)
		}
	}
	return out
}

// glob is a pattern; with deep, what lies below a match of base matches too.
type glob struct {
	base string
	deep bool
}

// pathWalk runs globs side by side. A state has a byte for each place that a
// glob can be at: before each byte of its base, at its end, and below it. The
// last byte of a state is where in a segment the path is.
type pathWalk struct {
	globs  []glob
	tokens []string
}

// Places in a segment that decide whether a path is canonical.
const (
	segBegin = iota
	segDot
	segDots
	segInside
	segNothing // before the first "/"
)

func (w *pathWalk) start() []byte {
	n := 1
	for _, g := range w.globs {
		n += len(g.base) + 2
	}
	s := make([]byte, n)
	at := 0
	for _, g := range w.globs {
		s[at] = 1
		g.skip(s[at:])
		at += len(g.base) + 2
	}
	s[n-1] = segNothing
	return s
}

// skip lets a "*" match nothing.
func (g glob) skip(places []byte) {
	for i := range len(g.base) {
		if places[i] != 0 && g.base[i] == '*' {
			places[i+1] = 1
		}
	}
}

// read is the state after a token; ok is false when no canonical path goes on so.
func (w *pathWalk) read(s []byte, token string) (_ []byte, ok bool) {
	next := slices.Clone(s)
	for i := range len(token) {
		c := token[i]
		last := len(next) - 1
		if next[last], ok = segment(next[last], c); !ok {
			return nil, false
		}
		at := 0
		for _, g := range w.globs {
			g.step(next[at:at+len(g.base)+2], c)
			at += len(g.base) + 2
		}
	}
	return next, true
}

// segment moves the place in a segment over a byte.
func segment(place, c byte) (byte, bool) {
	switch {
	case c == '/':
		return segBegin, place == segInside || place == segNothing
	case place == segNothing || c == ';' && (place == segDot || place == segDots):
		return 0, false
	case c == '.' && place == segBegin:
		return segDot, true
	case c == '.' && place == segDot:
		return segDots, true
	}
	return segInside, true
}

// step moves the places of one glob over a byte.
func (g glob) step(places []byte, c byte) {
	n := len(g.base)
	if g.deep && places[n] != 0 && c == '/' {
		places[n+1] = 1
	}
	places[n] = 0
	for i := n - 1; i >= 0; i-- {
		here := places[i]
		places[i] = 0
		switch {
		case here == 0:
		case g.base[i] == '*' && c != '/':
			places[i] = 1
		case g.base[i] == c && g.base[i] != '*':
			places[i+1] = 1
		}
	}
	g.skip(places)
}

// accepted is the set of globs that match a path that ends here.
func (w *pathWalk) accepted(s []byte) string {
	var out []byte
	at := 0
	for _, g := range w.globs {
		out = append(out, s[at+len(g.base)]|s[at+len(g.base)+1])
		at += len(g.base) + 2
	}
	return string(out)
}
