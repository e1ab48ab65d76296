// SPDX-License-Identifier: Apache-2.0

// Package http1 reads the heads of HTTP/1.1 messages where they lie, and
// writes them again for the next hop (RFC 9110, RFC 9112). It has no power and
// does no I/O: a buffer in, positions in it out.
//
// It knows the plainest form of a message only. What is legal but rare, what
// is doubtful and what is wrong are all the same to it: [ErrOther], which
// means that somebody more patient has to look. So nothing depends on how this
// package would read a doubtful message, and what it does read, net/http reads
// in the same way, which is fuzzed.
package http1

import (
	"bytes"
	"errors"
)

var (
	// ErrIncomplete means that the end of the head has not come yet.
	ErrIncomplete = errors.New("http1: the head is not complete")
	// ErrOther means that the message is not of the plainest form.
	ErrOther = errors.New("http1: not the plainest form of a message")
)

// byte classes, by bit.
const (
	isToken  = 1 << iota // RFC 9110, section 5.6.2
	isValue              // of a field: visible, SP, HTAB, obs-text
	isPath               // of a path, but "%": what net/url does not escape
	isQuery              // of a query, but "%"
	isDigit              // 0-9
	isHex                // 0-9 a-f A-F
	isLetter             // A-Z a-z
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		b := byte(c)
		switch {
		case '0' <= b && b <= '9':
			t[c] |= isDigit | isHex | isToken | isPath
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z':
			t[c] |= isLetter | isToken | isPath
		}
		if 'a' <= b && b <= 'f' || 'A' <= b && b <= 'F' {
			t[c] |= isHex
		}
		if b == '\t' || b >= ' ' && b != 0x7f {
			t[c] |= isValue
		}
		if b > ' ' && b < 0x7f && b != '#' && b != ';' && b != '%' {
			t[c] |= isQuery
		}
		if bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), b) >= 0 {
			t[c] |= isToken
		}
		if bytes.IndexByte([]byte("-_.~$&+,/:;=@!'()*"), b) >= 0 {
			t[c] |= isPath
		}
	}
	return t
}()

// all tells whether every byte of p is of a class.
func all(p []byte, of uint8) bool {
	for _, c := range p {
		if class[c]&of == 0 {
			return false
		}
	}
	return true
}

// span is a part of a head that is passed on as it is.
type span struct{ from, to int }

// spans are what is passed on of the fields, in their order.
type spans struct {
	n  int
	at [8]span
}

// add tells whether there was room.
func (s *spans) add(from, to int) bool {
	if s.n > 0 && s.at[s.n-1].to == from {
		s.at[s.n-1].to = to
		return true
	}
	if s.n == len(s.at) {
		return false
	}
	s.at[s.n] = span{from, to}
	s.n++
	return true
}

func (s *spans) appendTo(dst, head []byte) []byte {
	for _, p := range s.at[:s.n] {
		dst = append(dst, head[p.from:p.to]...)
	}
	return dst
}

// use is what a field means to whoever passes a message on.
type use uint8

const (
	pass       use = iota
	drop           // is not passed on
	other          // a message with it is not of the plainest form
	length         // Content-Length
	coding         // Transfer-Encoding
	connection     // Connection
	host           // Host
	date           // Date
)

// maxName is longer than every name in the tables.
const maxName = 32

// find looks a field's name up, in whatever case.
func find(table map[string]use, name []byte) use {
	if len(name) > maxName {
		return pass
	}
	var lower [maxName]byte
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	return table[string(lower[:len(name)])]
}

// line is the line of buf that begins at from, without its CRLF, and where the
// next one begins. LF alone ends no line.
func line(buf []byte, from int) (text []byte, next int, err error) {
	i := bytes.IndexByte(buf[from:], '\n')
	if i < 0 {
		return nil, 0, ErrIncomplete
	}
	if i == 0 || buf[from+i-1] != '\r' {
		return nil, 0, ErrOther
	}
	return buf[from : from+i-1], from + i + 1, nil
}

// field takes a field line apart: a name, a colon, at most one space, a value
// without space around it.
func field(text []byte) (name, value []byte, err error) {
	i := bytes.IndexByte(text, ':')
	if i <= 0 || !all(text[:i], isToken) {
		return nil, nil, ErrOther
	}
	name, value = text[:i], text[i+1:]
	if len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	if n := len(value); n > 0 && (blank(value[0]) || blank(value[n-1])) || !all(value, isValue) {
		return nil, nil, ErrOther
	}
	return name, value, nil
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// number reads a length: digits as we would write them, and not so many that an
// int64 has no room.
func number(p []byte) (int64, error) {
	if len(p) == 0 || len(p) > 18 || len(p) > 1 && p[0] == '0' || !all(p, isDigit) {
		return 0, ErrOther
	}
	var n int64
	for _, c := range p {
		n = 10*n + int64(c-'0')
	}
	return n, nil
}

// options reads the value of a Connection field. known are the options that
// mean nothing more than what this package does anyway.
func options(value []byte, known ...string) (closes bool, err error) {
	for opt := range bytes.SplitSeq(value, []byte{','}) {
		opt = bytes.Trim(opt, " \t")
		switch {
		case equal(opt, "close"):
			closes = true
		case equal(opt, "keep-alive"):
		default:
			found := false
			for _, k := range known {
				found = found || equal(opt, k)
			}
			if !found {
				return false, ErrOther
			}
		}
	}
	return closes, nil
}

// equal compares without regard to case; lower is in lower case.
func equal(p []byte, lower string) bool {
	if len(p) != len(lower) {
		return false
	}
	for i, c := range p {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
