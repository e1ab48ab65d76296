// SPDX-License-Identifier: Apache-2.0

// Package show writes to an operator's terminal what others chose: tables,
// JSON and the output of sandboxes, with nothing in it that a terminal obeys.
package show

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// maxSGR is the longest colour sequence that is believed.
const maxSGR = 32

// Filter passes text on to a terminal and makes everything else visible: what
// is not a printable character, a newline, a tab, a carriage return, a
// backspace, a bell, a colour (CSI ... m) or "erase to end of line" (CSI K)
// appears escaped as in a Go string. Close writes what was held back of an
// unfinished character or sequence.
type Filter struct {
	w    io.Writer
	held []byte // the beginning of a rune or of an escape sequence
	out  bytes.Buffer
}

// NewFilter returns a filter before w.
func NewFilter(w io.Writer) *Filter { return &Filter{w: w} }

// Write never reports fewer bytes than len(p) without an error.
func (f *Filter) Write(p []byte) (int, error) {
	in := append(f.held, p...)
	f.held = nil
	for len(in) > 0 {
		n := f.step(in, false)
		if n == 0 {
			f.held = append([]byte(nil), in...)
			break
		}
		in = in[n:]
	}
	return len(p), f.flush()
}

// Close writes what is held back. It does not close the writer behind.
func (f *Filter) Close() error {
	in := f.held
	f.held = nil
	for len(in) > 0 {
		in = in[f.step(in, true):]
	}
	return f.flush()
}

func (f *Filter) flush() error {
	if f.out.Len() == 0 {
		return nil
	}
	_, err := f.w.Write(f.out.Bytes())
	f.out.Reset()
	return err
}

// step writes the first unit of in and returns its length; 0 means that more
// input is needed, which never happens with last.
func (f *Filter) step(in []byte, last bool) int {
	switch c := in[0]; {
	case c == '\n' || c == '\t' || c == '\r' || c == '\b' || c == '\a':
		f.out.WriteByte(c)
		return 1
	case c == 0x1b:
		n, ok := harmless(in)
		if n == 0 && !last {
			return 0
		}
		if ok {
			f.out.Write(in[:n])
			return n
		}
		f.out.WriteString(`\x1b`)
		return 1
	case c < 0x20 || c == 0x7f:
		fmt.Fprintf(&f.out, `\x%02x`, c)
		return 1
	case !utf8.FullRune(in) && !last:
		return 0
	}
	r, n := utf8.DecodeRune(in)
	switch {
	case r == utf8.RuneError && n == 1:
		fmt.Fprintf(&f.out, `\x%02x`, in[0])
	case unicode.IsPrint(r):
		f.out.Write(in[:n])
	default:
		q := strconv.QuoteRuneToASCII(r)
		f.out.WriteString(q[1 : len(q)-1])
	}
	return n
}

// harmless recognises CSI sequences that only colour text or erase the rest
// of a line. It returns 0 when in may be the beginning of one.
func harmless(in []byte) (n int, ok bool) {
	if len(in) == 1 {
		return 0, false
	}
	if in[1] != '[' {
		return 1, false
	}
	for i := 2; i < len(in); i++ {
		switch c := in[i]; {
		case c >= '0' && c <= '9' || c == ';' || c == ':':
			if i >= maxSGR {
				return 1, false
			}
		case c == 'm' || c == 'K':
			return i + 1, true
		default:
			return 1, false
		}
	}
	return 0, false
}
