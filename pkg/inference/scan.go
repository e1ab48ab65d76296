// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of one request body. They are far above what the official clients
// send and keep the tape of a hostile one small.
const (
	maxDepth = 128
	maxNodes = 1 << 19
	maxKeys  = 1 << 16 // in one object
)

type kind uint8

const (
	kindNull kind = iota
	kindFalse
	kindTrue
	kindNumber
	kindString
	kindArray
	kindObject
)

// node is one JSON value on the tape. Offsets are into the source. Children
// follow their parent; next is the index after the last descendant, so a
// container is walked without touching its grandchildren.
type node struct {
	start, end       uint32 // the value, quotes and brackets included
	keyStart, keyEnd uint32 // the member's key without quotes; equal for elements
	next             uint32
	kind             kind
	escaped          bool // a string with backslashes
	keyEscaped       bool
}

// tape is one parsed document. nodes[0] is the root.
type tape struct {
	src   []byte
	nodes []node
	// variant is the first member met that is called as one that was looked up,
	// but in other letters; 0: none was. See called.
	variant uint32
	// variantOf is the name of which it is one; "": its key without letter case.
	variantOf string
	// estimate is requestTokens, and 1; 0: nobody has counted yet.
	estimate uint64
	// textLen and most are counted with it: the bytes of text that is no media, and more
	// tokens than the request can be.
	textLen, most uint64
}

// syntaxError says where and why a body was refused.
type syntaxError struct {
	offset int
	msg    string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.msg, e.offset) }

var errTooMany = errors.New("it holds too many values")

// parse reads src as one strict RFC 8259 document: valid UTF-8, no duplicate
// keys in any object, bounded depth and number of values. nodes is reused; room
// is asked before the tape grows by n values (nil: there is always room), and
// when it says no the error is errBusy.
func parse(src []byte, nodes []node, room func(n int) bool) (tape, error) {
	t := tape{src: src, nodes: nodes[:0]}
	if uint64(len(src)) > 1<<31 {
		return t, &syntaxError{0, "too long"}
	}
	if !utf8.Valid(src) {
		return t, &syntaxError{invalidAt(src), "invalid UTF-8"}
	}
	p := parser{t: &t, room: room}
	pos, err := p.value(p.space(0), 0)
	if err != nil {
		return t, err
	}
	if pos = p.space(pos); pos != len(src) {
		return t, &syntaxError{pos, "data after the document"}
	}
	return t, nil
}

func invalidAt(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return len(b)
}

type parser struct {
	t    *tape
	room func(n int) bool
}

// grow makes room for more nodes.
func (p *parser) grow() error {
	n := max(64, cap(p.t.nodes))
	if p.room != nil && !p.room(n) {
		return errBusy
	}
	p.t.nodes = slices.Grow(p.t.nodes, n)
	return nil
}

func (p *parser) space(i int) int {
	for i < len(p.t.src) {
		switch p.t.src[i] {
		case ' ', '\t', '\r', '\n':
			i++
		default:
			return i
		}
	}
	return i
}

// value parses one value at i and returns the offset after it.
func (p *parser) value(i, depth int) (int, error) {
	if depth > maxDepth {
		return i, &syntaxError{i, fmt.Sprintf("nested deeper than %d", maxDepth)}
	}
	if len(p.t.nodes) >= maxNodes {
		return i, &syntaxError{i, errTooMany.Error()}
	}
	if i >= len(p.t.src) {
		return i, &syntaxError{i, "unexpected end"}
	}
	if len(p.t.nodes) == cap(p.t.nodes) {
		if err := p.grow(); err != nil {
			return i, err
		}
	}
	at := len(p.t.nodes)
	p.t.nodes = append(p.t.nodes, node{start: uint32(i)})
	n := node{start: uint32(i)}
	var err error
	end := i
	switch c := p.t.src[i]; {
	case c == '{':
		n.kind = kindObject
		end, err = p.object(i, at, depth)
	case c == '[':
		n.kind = kindArray
		end, err = p.array(i, depth)
	case c == '"':
		n.kind = kindString
		end, n.escaped, err = p.str(i)
	case c == '-' || c >= '0' && c <= '9':
		n.kind = kindNumber
		end, err = p.number(i)
	case c == 'n':
		n.kind = kindNull
		end, err = p.word(i, "null")
	case c == 't':
		n.kind = kindTrue
		end, err = p.word(i, "true")
	case c == 'f':
		n.kind = kindFalse
		end, err = p.word(i, "false")
	default:
		err = &syntaxError{i, "unexpected character"}
	}
	if err != nil {
		return i, err
	}
	n.end = uint32(end)
	n.next = uint32(len(p.t.nodes))
	p.t.nodes[at] = n
	return end, nil
}

func (p *parser) word(i int, w string) (int, error) {
	if !bytes.HasPrefix(p.t.src[i:], []byte(w)) {
		return i, &syntaxError{i, "unexpected word"}
	}
	return i + len(w), nil
}

func (p *parser) number(i int) (int, error) {
	s, start := p.t.src, i
	digits := func() bool {
		from := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return i > from
	}
	if s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == '0' {
		i++
	} else if !digits() {
		return i, &syntaxError{start, "malformed number"}
	}
	if i < len(s) && s[i] == '.' {
		i++
		if !digits() {
			return i, &syntaxError{start, "malformed number"}
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !digits() {
			return i, &syntaxError{start, "malformed number"}
		}
	}
	return i, nil
}

// str parses a string at i, quotes included.
func (p *parser) str(i int) (end int, escaped bool, err error) {
	s, start := p.t.src, i
	for i++; i < len(s); {
		switch c := s[i]; {
		case c == '"':
			return i + 1, escaped, nil
		case c < 0x20:
			return i, escaped, &syntaxError{i, "control character in a string"}
		case c == '\\':
			escaped = true
			n := escapeLen(s[i:])
			if n == 0 {
				return i, escaped, &syntaxError{i, "malformed escape"}
			}
			i += n
		default:
			i++
		}
	}
	return i, escaped, &syntaxError{start, "string without an end"}
}

// escapeLen is the length of the escape sequence b starts with, 0 if malformed.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func (p *parser) array(i, depth int) (int, error) {
	s := p.t.src
	if i = p.space(i + 1); i < len(s) && s[i] == ']' {
		return i + 1, nil
	}
	for {
		var err error
		if i, err = p.value(p.space(i), depth+1); err != nil {
			return i, err
		}
		if i = p.space(i); i >= len(s) {
			return i, &syntaxError{i, "array without an end"}
		}
		switch s[i] {
		case ',':
			i++
		case ']':
			return i + 1, nil
		default:
			return i, &syntaxError{i, "expected , or ] in an array"}
		}
	}
}

func (p *parser) object(i, at, depth int) (int, error) {
	s := p.t.src
	if i = p.space(i + 1); i < len(s) && s[i] == '}' {
		return i + 1, nil
	}
	seen := keySet{t: p.t}
	for {
		if i = p.space(i); i >= len(s) || s[i] != '"' {
			return i, &syntaxError{i, "expected a key"}
		}
		keyEnd, escaped, err := p.str(i)
		if err != nil {
			return i, err
		}
		child := len(p.t.nodes)
		colon := p.space(keyEnd)
		if colon >= len(s) || s[colon] != ':' {
			return colon, &syntaxError{colon, "expected :"}
		}
		end, err := p.value(p.space(colon+1), depth+1)
		if err != nil {
			return i, err
		}
		n := &p.t.nodes[child]
		n.keyStart, n.keyEnd, n.keyEscaped = uint32(i+1), uint32(keyEnd-1), escaped
		if err := seen.add(uint32(at), uint32(child)); err != nil {
			return i, err
		}
		if i = p.space(end); i >= len(s) {
			return i, &syntaxError{i, "object without an end"}
		}
		switch s[i] {
		case ',':
			i++
		case '}':
			return i + 1, nil
		default:
			return i, &syntaxError{i, "expected , or } in an object"}
		}
	}
}

// keySet finds duplicate keys of one object: by comparison while it is small,
// with a map when it grows.
type keySet struct {
	t     *tape
	n     int
	names map[string]struct{}
}

const smallObject = 12

func (k *keySet) add(obj, child uint32) error {
	t := k.t
	if k.n++; k.n > maxKeys {
		return &syntaxError{int(t.nodes[child].keyStart), errTooMany.Error()}
	}
	if k.names == nil && k.n <= smallObject {
		for i := obj + 1; i < child; i = t.nodes[i].next {
			if t.sameKey(i, child) {
				return t.duplicate(child)
			}
		}
		return nil
	}
	if k.names == nil {
		k.names = make(map[string]struct{}, 4*smallObject)
		for i := obj + 1; i < child; i = t.nodes[i].next {
			k.names[t.key(i)] = struct{}{}
		}
	}
	name := t.key(child)
	if _, ok := k.names[name]; ok {
		return t.duplicate(child)
	}
	k.names[name] = struct{}{}
	return nil
}

func (t *tape) duplicate(child uint32) error {
	return &syntaxError{int(t.nodes[child].keyStart), "duplicate key " + quote(t.key(child))}
}

func (t *tape) sameKey(a, b uint32) bool {
	x, y := &t.nodes[a], &t.nodes[b]
	if !x.keyEscaped && !y.keyEscaped {
		return bytes.Equal(t.src[x.keyStart:x.keyEnd], t.src[y.keyStart:y.keyEnd])
	}
	return t.key(a) == t.key(b)
}

// key returns the decoded key of member i.
func (t *tape) key(i uint32) string {
	n := &t.nodes[i]
	if !n.keyEscaped {
		return string(t.src[n.keyStart:n.keyEnd])
	}
	return unescape(t.src[n.keyStart-1 : n.keyEnd+1])
}

// folded returns the key of member i with letter case removed, as servers that
// ignore case compare it: a variant must never be overlooked. The result may
// alias the source.
func (t *tape) folded(i uint32) []byte {
	n := &t.nodes[i]
	raw := t.src[n.keyStart:n.keyEnd]
	if !n.keyEscaped {
		plain := true
		for _, c := range raw {
			if c >= 'A' && c <= 'Z' || c >= 0x80 {
				plain = false
				break
			}
		}
		if plain {
			return raw
		}
	}
	return []byte(strings.Map(foldRune, t.key(i)))
}

// foldRune maps the letters that Unicode's simple folding takes for ASCII ones,
// the long s and the Kelvin sign among them, to the lower case ASCII letter.
func foldRune(r rune) rune {
	switch {
	case r >= 'A' && r <= 'Z':
		return r + 'a' - 'A'
	case r == '\u017f':
		return 's'
	case r == '\u212a':
		return 'k'
	}
	return r
}

// called says whether member i, whose folded key is low, is called by one of the
// names (ASCII, lower case), in any letter case. One in other letters is noted as
// a variant: readers differ about which member it is, or whether it is one, so
// what it says cannot be judged.
func (t *tape) called(i uint32, low []byte, names ...string) bool {
	if !has(names, low) {
		return false
	}
	t.exact(i, low)
	return true
}

// exact notes member i as a variant unless its key is low to the letter. An escaped
// spelling is what it decodes to.
func (t *tape) exact(i uint32, low []byte) {
	n := &t.nodes[i]
	same := bytes.Equal(t.src[n.keyStart:n.keyEnd], low)
	if n.keyEscaped {
		same = t.key(i) == string(low)
	}
	if !same && t.variant == 0 {
		t.variant = i
	}
}

// text returns the decoded string value of i, and whether i is a string.
func (t *tape) text(i uint32) (string, bool) {
	n := &t.nodes[i]
	if n.kind != kindString {
		return "", false
	}
	if !n.escaped {
		return string(t.src[n.start+1 : n.end-1]), true
	}
	return unescape(t.src[n.start:n.end]), true
}

// children calls f for each member or element of i until it returns false.
func (t *tape) children(i uint32, f func(child uint32) bool) {
	n := &t.nodes[i]
	if n.kind != kindObject && n.kind != kindArray {
		return
	}
	for c := i + 1; c < n.next; c = t.nodes[c].next {
		if !f(c) {
			return
		}
	}
}

// member finds the member of object i called name. Every member is looked at: a
// variant in other letters is noted wherever it stands.
func (t *tape) member(i uint32, name string) (uint32, bool) {
	var at uint32
	if t.nodes[i].kind != kindObject {
		return 0, false
	}
	t.children(i, func(c uint32) bool {
		if t.called(c, t.folded(c), name) {
			at = c
		}
		return true
	})
	return at, at != 0
}

// unescape decodes a JSON string literal that was already checked. A lone
// surrogate becomes U+FFFD.
func unescape(quoted []byte) string {
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return "\uFFFD"
	}
	return s
}
