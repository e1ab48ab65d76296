// SPDX-License-Identifier: Apache-2.0

package inference

import "bytes"

// Where no provider said how many tokens a text is, it is counted by kinds of
// characters. A real tokenizer was tried and left out: the vocabulary of one
// family of models (o200k_base) makes the program 12 MB larger, takes 13 MB of
// memory once loaded and 0.15 µs for each byte, and is another family's estimate
// all the same. These weights cost a nanosecond for each byte and no memory, do not
// depend on how the text is cut, and were fitted to o200k_base on prose of nine
// languages, source code, JSON, base64, hexadecimal and tables of numbers: within
// 0.8 and 1.65 times its count for each (see the tests), where four bytes for a
// token are 0.4 times for base64.

// milli are the thousandths of a token that a byte is counted as: the first byte of
// a character stands for all of it.
type milli uint16

const (
	milliLower   milli = 280
	milliUpper   milli = 1000
	milliDigit   milli = 660
	milliSpace   milli = 20
	milliControl milli = 280 // line ends and tabs
	milliMark    milli = 570 // other ASCII
	milliTwo     milli = 400 // accents, Greek, Cyrillic, Hebrew, Arabic
	milliThree   milli = 700 // most other scripts
	milliFour    milli = 2100
)

// weights is read only.
var weights = func() (w [256]milli) {
	for c := range w {
		switch {
		case c < ' ' || c == 0x7f:
			w[c] = milliControl
		case c == ' ':
			w[c] = milliSpace
		case c >= 'a' && c <= 'z':
			w[c] = milliLower
		case c >= 'A' && c <= 'Z':
			w[c] = milliUpper
		case c >= '0' && c <= '9':
			w[c] = milliDigit
		case c < 0x80:
			w[c] = milliMark
		case c < 0xc0: // a byte within a character
		case c < 0xe0:
			w[c] = milliTwo
		case c < 0xf0:
			w[c] = milliThree
		default:
			w[c] = milliFour
		}
	}
	return w
}()

// counter counts the tokens of text that passes, as it stands in JSON strings. The
// zero value is ready; it never holds any text.
type counter struct {
	milli  uint64
	escape uint8 // bytes of an escape sequence that are still to come
}

func (c *counter) add(b []byte) {
	n := c.milli
	for i := 0; i < len(b); i++ {
		v := b[i]
		switch {
		case c.escape == 1: // the letter after the backslash
			if c.escape = 0; v == 'u' {
				c.escape, n = 5, n+uint64(milliThree)
			} else {
				n += uint64(milliControl)
			}
		case c.escape > 1: // a hexadecimal digit
			if c.escape--; c.escape == 1 {
				c.escape = 0
			}
		case v == '\\':
			c.escape = 1
		default:
			n += uint64(weights[v])
		}
	}
	c.milli = n
}

// end ends one string.
func (c *counter) end() { c.escape = 0 }

func (c *counter) tokens() uint64 { return (c.milli + 999) / 1000 }

// textTokens counts text as it is.
func textTokens(s string) uint64 {
	var c counter
	for i := range len(s) {
		c.milli += uint64(weights[s[i]])
	}
	return c.tokens()
}

// Media in a request: a picture is at most about this many tokens with each of the
// providers, a document about one for so many bytes of its base64 form.
const (
	pictureTokens = 1600
	documentBytes = 16
)

// requestTokens estimates the input from the text of the request, and from the
// number of pictures and the size of documents in it. Prompts and inputs that are
// tokens already, lists of numbers, count as they are. It is counted once.
func requestTokens(t *tape) uint64 {
	if t.estimate == 0 {
		t.estimate = t.countTokens() + 1
	}
	return t.estimate - 1
}

// requestMost is more tokens than the request can be, whatever its text and whichever
// tokenizer: each has at least one byte, of texts, of the names of members (schemas
// of tools), and of numbers; media count four times their estimate.
func requestMost(t *tape) uint64 {
	requestTokens(t)
	return t.most
}

// textBytes are those of the request's texts.
func (t *tape) textBytes() int {
	requestTokens(t)
	return int(t.textLen)
}

func (t *tape) countTokens() uint64 {
	var text counter
	var media, ready uint64
	var kind []byte // the last type of media that was named
	for i := range t.nodes {
		v := &t.nodes[i]
		t.most += uint64(v.keyEnd - v.keyStart)
		if v.kind != kindString {
			if v.kind != kindArray && v.kind != kindObject {
				t.most += uint64(v.end - v.start)
			}
			if v.kind == kindNumber && v.keyStart == v.keyEnd {
				ready++
			}
			continue
		}
		s, key := t.src[v.start+1:v.end-1], string(t.src[v.keyStart:v.keyEnd])
		switch {
		case key == "media_type" || key == "mimeType" || key == "mime_type":
			kind = s
		case bytes.HasPrefix(s, []byte("data:")) && bytes.Contains(s[:min(len(s), 128)], []byte(";base64,")):
			media += mediaTokens(s[len("data:"):], len(s))
			continue
		case (key == "data" || key == "file_data") && len(kind) > 0 && !bytes.HasPrefix(kind, []byte("text/")):
			media += mediaTokens(kind, len(s))
			continue
		}
		text.add(s)
		text.end()
		t.textLen += uint64(len(s))
	}
	t.most += t.textLen + 4*media
	return text.tokens() + media + ready
}

func mediaTokens(kind []byte, size int) uint64 {
	if bytes.HasPrefix(kind, []byte("image/")) {
		return pictureTokens
	}
	return uint64(size)/documentBytes + 1
}
