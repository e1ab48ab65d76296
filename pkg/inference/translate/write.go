// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"strconv"
	"unicode/utf8"
)

// writer appends one JSON text. The commas are its own business.
type writer struct{ b []byte }

// comma separates a value from one before it.
func (w *writer) comma() {
	if n := len(w.b); n > 0 {
		switch w.b[n-1] {
		case '{', '[', ':', ' ', '\n':
		default:
			w.b = append(w.b, ',')
		}
	}
}

func (w *writer) open(c byte) {
	w.comma()
	w.b = append(w.b, c)
}

func (w *writer) close(c byte) { w.b = append(w.b, c) }

// key begins a member. Names are ours and need no escapes.
func (w *writer) key(name string) {
	w.comma()
	w.b = append(w.b, '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

// raw appends a value that is JSON already.
func (w *writer) raw(v []byte) {
	w.comma()
	w.b = append(w.b, v...)
}

// lit appends JSON of ours.
func (w *writer) lit(v string) {
	w.comma()
	w.b = append(w.b, v...)
}

func (w *writer) str(s string) {
	w.comma()
	w.b = append(w.b, '"')
	w.b = quote(w.b, s)
	w.b = append(w.b, '"')
}

func (w *writer) int(n int64) {
	w.comma()
	w.b = strconv.AppendInt(w.b, n, 10)
}

func (w *writer) bool(v bool) {
	w.comma()
	w.b = strconv.AppendBool(w.b, v)
}

// member copies a member under another name; an absent value writes nothing.
func (w *writer) member(name string, v val) {
	if v.there() {
		w.key(name)
		w.raw(v.raw())
	}
}

// field writes a member of ours.
func (w *writer) field(name, value string) {
	w.key(name)
	w.str(value)
}

// quote appends s with the escapes of a JSON string; bytes that are no UTF-8
// become U+FFFD.
func quote[T string | []byte](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < 0x20 || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return dst
}
