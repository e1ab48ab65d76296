// SPDX-License-Identifier: Apache-2.0

package event

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// jsonBuf appends JSON. It never fails and never reflects: the shape is right
// because the callers pair open and close, which the tests check for every
// kind. Members with an empty value are left out.
type jsonBuf struct{ b []byte }

func (j *jsonBuf) sep() {
	if n := len(j.b); n > 0 {
		switch j.b[n-1] {
		case '{', '[':
		default:
			j.b = append(j.b, ',')
		}
	}
}

// key writes a member name; names are constants of this package and need no escaping.
func (j *jsonBuf) key(k string) {
	j.sep()
	j.b = append(j.b, '"')
	j.b = append(j.b, k...)
	j.b = append(j.b, '"', ':')
}

func (j *jsonBuf) open(k string) {
	j.key(k)
	j.b = append(j.b, '{')
}

func (j *jsonBuf) close() { j.b = append(j.b, '}') }

func (j *jsonBuf) openList(k string) {
	j.key(k)
	j.b = append(j.b, '[')
}

func (j *jsonBuf) openItem() {
	j.sep()
	j.b = append(j.b, '{')
}

func (j *jsonBuf) closeList() { j.b = append(j.b, ']') }

func (j *jsonBuf) str(k, v string) {
	if v != "" {
		j.strAlways(k, v)
	}
}

func (j *jsonBuf) strAlways(k, v string) {
	j.key(k)
	j.b = appendQuoted(j.b, v)
}

func (j *jsonBuf) item(v string) {
	j.sep()
	j.b = appendQuoted(j.b, v)
}

// strNum writes a number as a JSON string, as OCSF wants for uids and codes.
func (j *jsonBuf) strNum(k string, v uint64) {
	j.key(k)
	j.b = append(j.b, '"')
	j.b = strconv.AppendUint(j.b, v, 10)
	j.b = append(j.b, '"')
}

// num leaves out zero; numAlways does not. OCSF integers are signed 64 bit.
func (j *jsonBuf) num(k string, v uint64) {
	if v != 0 {
		j.numAlways(k, v)
	}
}

func (j *jsonBuf) numAlways(k string, v uint64) {
	j.key(k)
	j.b = strconv.AppendUint(j.b, min(v, math.MaxInt64), 10)
}

func (j *jsonBuf) bool(k string, v bool) {
	if v {
		j.key(k)
		j.b = append(j.b, "true"...)
	}
}

// millis writes an OCSF timestamp_t: milliseconds since 1970.
func (j *jsonBuf) millis(k string, t time.Time) {
	if !t.IsZero() {
		j.key(k)
		j.b = strconv.AppendInt(j.b, t.UnixMilli(), 10)
	}
}

// enum writes an id and its sibling caption.
func (j *jsonBuf) enum(idKey string, id uint32, nameKey, name string) {
	j.numAlways(idKey, uint64(id))
	j.strAlways(nameKey, name)
}

const hexDigits = "0123456789abcdef"

// plain marks the ASCII bytes that need no escape in a JSON string.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendQuoted writes s as a JSON string. Besides what JSON demands it escapes
// DEL, the C1 controls, U+2028/2029 and the bidirectional controls, so that a
// log file shown raw on a terminal cannot be made to lie; bytes that are not
// UTF-8 become U+FFFD.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			b = appendEscapedByte(b, c)
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
			i++
			start = i
			continue
		}
		if deceives(r) {
			b = append(b, s[start:i]...)
			b = append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			i += n
			start = i
			continue
		}
		i += n
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func appendEscapedByte(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// deceives says whether a rune (always below U+10000) steers a terminal or
// reorders text instead of showing something.
func deceives(r rune) bool {
	switch {
	case r >= 0x80 && r <= 0x9f:
		return true
	case r == 0x61c, r == 0x200e, r == 0x200f, r == 0x2028, r == 0x2029, r == 0xfeff:
		return true
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return false
}
