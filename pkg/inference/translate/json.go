// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of one document. They are far above what the official clients send.
const (
	maxDepth = 128
	maxNodes = 1 << 19
	maxBytes = 1 << 30
)

type kind uint8

const (
	kindNone kind = iota // absent
	kindNull
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// node is one JSON value. Offsets are into the source; children follow their
// parent, and next is the index after the last descendant.
type node struct {
	start, end       uint32
	keyStart, keyEnd uint32 // the member's key without its quotes
	next             uint32
	kind             kind
	escaped          bool // a string with backslashes
	keyEscaped       bool
}

// document is one parsed JSON text. It keeps its memory between parses.
type document struct {
	src   []byte
	nodes []node
	twins bool // a key may be there twice
}

// syntaxError says where a text stops being JSON that is taken.
type syntaxError struct {
	at  int
	why string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.why, e.at) }

// parse reads src as one RFC 8259 document: valid UTF-8, bounded depth and
// number of values, no key twice in an object unless twins says so. The
// document refers to src.
func (d *document) parse(src []byte) (val, error) {
	d.src, d.nodes = src, d.nodes[:0]
	if len(src) > maxBytes {
		return val{}, &syntaxError{0, "too long"}
	}
	if !utf8.Valid(src) {
		return val{}, &syntaxError{0, "invalid UTF-8"}
	}
	if cap(d.nodes) == 0 {
		d.nodes = make([]node, 0, len(src)/16+8)
	}
	i, err := d.value(d.space(0), 0, 0, 0)
	if err != nil {
		return val{}, err
	}
	if i = d.space(i); i != len(src) {
		return val{}, &syntaxError{i, "more after the document"}
	}
	return val{d, 0}, nil
}

func (d *document) space(i int) int {
	for i < len(d.src) {
		switch d.src[i] {
		case ' ', '\t', '\r', '\n':
			i++
		default:
			return i
		}
	}
	return i
}

// value parses the value at i and returns the offset after it.
func (d *document) value(i, depth int, keyStart, keyEnd uint32) (int, error) {
	switch {
	case depth > maxDepth:
		return i, &syntaxError{i, "nested deeper than " + strconv.Itoa(maxDepth)}
	case len(d.nodes) >= maxNodes:
		return i, &syntaxError{i, "too many values"}
	case i >= len(d.src):
		return i, &syntaxError{i, "unexpected end"}
	}
	at := len(d.nodes)
	d.nodes = append(d.nodes, node{start: uint32(i), keyStart: keyStart, keyEnd: keyEnd})
	var (
		k       kind
		end     int
		escaped bool
		err     error
	)
	switch c := d.src[i]; {
	case c == '{':
		k = kindObject
		end, err = d.object(i+1, depth)
	case c == '[':
		k = kindArray
		end, err = d.array(i+1, depth)
	case c == '"':
		k = kindString
		end, escaped, err = d.str(i)
	case c == '-' || c >= '0' && c <= '9':
		k = kindNumber
		end, err = d.number(i)
	default:
		k, end, err = d.word(i)
	}
	if err != nil {
		return end, err
	}
	n := &d.nodes[at]
	n.end, n.next, n.kind, n.escaped = uint32(end), uint32(len(d.nodes)), k, escaped
	return end, nil
}

func (d *document) word(i int) (kind, int, error) {
	for _, w := range [...]struct {
		text string
		kind kind
	}{{"true", kindBool}, {"false", kindBool}, {"null", kindNull}} {
		if bytes.HasPrefix(d.src[i:], []byte(w.text)) {
			return w.kind, i + len(w.text), nil
		}
	}
	return kindNone, i, &syntaxError{i, "not a value"}
}

func (d *document) array(i, depth int) (int, error) {
	if i = d.space(i); i < len(d.src) && d.src[i] == ']' {
		return i + 1, nil
	}
	for {
		var err error
		if i, err = d.value(d.space(i), depth+1, 0, 0); err != nil {
			return i, err
		}
		if i = d.space(i); i >= len(d.src) {
			return i, &syntaxError{i, "unexpected end"}
		}
		switch d.src[i] {
		case ',':
			i++
		case ']':
			return i + 1, nil
		default:
			return i, &syntaxError{i, "expected ',' or ']'"}
		}
	}
}

func (d *document) object(i, depth int) (int, error) {
	if i = d.space(i); i < len(d.src) && d.src[i] == '}' {
		return i + 1, nil
	}
	parent := len(d.nodes) - 1
	var keys map[string]struct{} // of an object with many members
	for count := 0; ; count++ {
		if i = d.space(i); i >= len(d.src) || d.src[i] != '"' {
			return i, &syntaxError{i, "expected a key"}
		}
		end, escaped, err := d.str(i)
		if err != nil {
			return end, err
		}
		at := len(d.nodes)
		keyStart, keyEnd := uint32(i+1), uint32(end-1)
		if i = d.space(end); i >= len(d.src) || d.src[i] != ':' {
			return i, &syntaxError{i, "expected ':'"}
		}
		if i, err = d.value(d.space(i+1), depth+1, keyStart, keyEnd); err != nil {
			return i, err
		}
		d.nodes[at].keyEscaped = escaped
		if count == 16 && !d.twins {
			keys = d.keysBefore(parent, at)
		}
		if !d.twins && d.twice(parent, at, keys) {
			return i, &syntaxError{int(keyStart) - 1, "a key is there twice"}
		}
		if i = d.space(i); i >= len(d.src) {
			return i, &syntaxError{i, "unexpected end"}
		}
		switch d.src[i] {
		case ',':
			i++
		case '}':
			return i + 1, nil
		default:
			return i, &syntaxError{i, "expected ',' or '}'"}
		}
	}
}

func (d *document) keysBefore(parent, at int) map[string]struct{} {
	keys := make(map[string]struct{}, 64)
	for i := parent + 1; i < at; i = int(d.nodes[i].next) {
		keys[string(val{d, int32(i)}.key())] = struct{}{}
	}
	return keys
}

// twice says whether the member at has the key of one before it in its object.
func (d *document) twice(parent, at int, keys map[string]struct{}) bool {
	if keys != nil {
		key := val{d, int32(at)}.key()
		if _, ok := keys[string(key)]; ok {
			return true
		}
		keys[string(key)] = struct{}{}
		return false
	}
	n := &d.nodes[at]
	raw := d.src[n.keyStart:n.keyEnd]
	for i := parent + 1; i < at; i = int(d.nodes[i].next) {
		m := &d.nodes[i]
		if m.keyEscaped || n.keyEscaped {
			if bytes.Equal(val{d, int32(i)}.key(), val{d, int32(at)}.key()) {
				return true
			}
		} else if string(d.src[m.keyStart:m.keyEnd]) == string(raw) {
			return true
		}
	}
	return false
}

// str returns the offset after the string at i and whether it has escapes.
func (d *document) str(i int) (int, bool, error) {
	escaped := false
	for i++; i < len(d.src); i++ {
		switch c := d.src[i]; {
		case c == '"':
			return i + 1, escaped, nil
		case c < 0x20:
			return i, escaped, &syntaxError{i, "control character in a string"}
		case c == '\\':
			escaped = true
			if i++; i >= len(d.src) {
				continue
			}
			switch d.src[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(d.src, i+1); !ok {
					return i, escaped, &syntaxError{i, "bad \\u escape"}
				}
				i += 4
			default:
				return i, escaped, &syntaxError{i, "bad escape"}
			}
		}
	}
	return i, escaped, &syntaxError{i, "string without an end"}
}

func (d *document) number(i int) (int, error) {
	s, start := d.src, i
	digits := func() bool {
		n := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return i > n
	}
	if s[i] == '-' {
		i++
	}
	first := i
	if !digits() || s[first] == '0' && i > first+1 {
		return start, &syntaxError{start, "bad number"}
	}
	if i < len(s) && s[i] == '.' {
		if i++; !digits() {
			return start, &syntaxError{start, "bad number"}
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !digits() {
			return start, &syntaxError{start, "bad number"}
		}
	}
	return i, nil
}

func hex4(s []byte, i int) (rune, bool) {
	if i+4 > len(s) {
		return 0, false
	}
	var r rune
	for _, c := range s[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape appends the text of a string, whose escapes are valid, without its quotes.
func unescape(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			j := bytes.IndexByte(s[i:], '\\')
			if j < 0 {
				return append(dst, s[i:]...)
			}
			dst = append(dst, s[i:i+j]...)
			i += j
			continue
		}
		c := s[i+1]
		i += 2
		switch c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := hex4(s, i)
			i += 4
			if utf16.IsSurrogate(r) {
				var second rune
				if i+6 <= len(s) && s[i] == '\\' && s[i+1] == 'u' {
					second, _ = hex4(s, i+2)
				}
				if r = utf16.DecodeRune(r, second); r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
