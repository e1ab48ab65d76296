// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"net/http"
	"time"
)

// responseFields are the fields of a response that are not simply passed on.
var responseFields = map[string]use{
	"content-length":    length,
	"transfer-encoding": coding,
	"connection":        connection,
	"date":              date,

	"keep-alive": drop,
	"upgrade":    drop,
	"alt-svc":    drop, // it would point to QUIC, which is closed

	"te":                  other,
	"trailer":             other,
	"proxy-connection":    other,
	"proxy-authenticate":  other,
	"proxy-authorization": other,
}

// Chunked is the Length of a body that comes in chunks.
const Chunked = -1

// Response is the head of a final response. Slices are parts of the buffer
// that it was read from.
type Response struct {
	Status int
	Length int64 // of the body that follows, or Chunked
	Close  bool  // the server closes behind it

	head   []byte
	line   span
	keep   spans
	dated  bool
	length int64 // as the head says, -1: it does not
}

// Parse reads the response to a request with a method that buf begins with and
// returns the length of its head. After an error r holds nothing of use.
func (r *Response) Parse(buf []byte, method string) (n int, err error) {
	*r = Response{length: -1}
	text, at, err := line(buf, 0)
	if err != nil {
		return 0, err
	}
	if err := r.start(text); err != nil {
		return 0, err
	}
	r.line = span{0, at}
	chunked := false
	for {
		from := at
		if text, at, err = line(buf, from); err != nil {
			return 0, err
		}
		if len(text) == 0 {
			break
		}
		if err := r.field(text, from, at, &chunked); err != nil {
			return 0, err
		}
	}
	switch none := r.Status == http.StatusNoContent || r.Status == http.StatusNotModified; {
	case method == http.MethodHead || none:
		if chunked || r.Status == http.StatusNoContent && r.length > 0 {
			return 0, ErrOther
		}
	case chunked && r.length >= 0, !chunked && r.length < 0: // both, or until the connection ends
		return 0, ErrOther
	case chunked:
		r.Length = Chunked
	default:
		r.Length = r.length
	}
	r.head = buf[:at]
	return at, nil
}

// start reads the status line.
func (r *Response) start(text []byte) error {
	const version = "HTTP/1.1 "
	if len(text) < len(version)+4 || !bytes.HasPrefix(text, []byte(version)) {
		return ErrOther
	}
	code := text[len(version):]
	if code[0] < '2' || code[0] > '5' || !all(code[:3], isDigit) || code[3] != ' ' || !all(code[4:], isValue) {
		return ErrOther
	}
	r.Status = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	return nil
}

// field reads one field line, which goes from from to to in the buffer.
func (r *Response) field(text []byte, from, to int, chunked *bool) error {
	name, value, err := field(text)
	if err != nil {
		return err
	}
	switch find(responseFields, name) {
	case pass:
		if !r.keep.add(from, to) {
			return ErrOther
		}
	case drop:
	case date:
		r.dated = true
		if !r.keep.add(from, to) {
			return ErrOther
		}
	case length:
		if r.length >= 0 {
			return ErrOther
		}
		r.length, err = number(value)
		return err
	case coding:
		if *chunked || !equal(value, "chunked") {
			return ErrOther
		}
		*chunked = true
	case connection:
		closes, err := options(value, "upgrade")
		if err != nil {
			return err
		}
		r.Close = r.Close || closes
	default:
		return ErrOther
	}
	return nil
}

// AppendTo appends the head as the next hop gets it: the same status line and
// fields, a Date where there was none (RFC 9110, section 6.6.1), and one
// statement of how long the body is. closes says that the connection ends
// behind it.
func (r *Response) AppendTo(dst []byte, now time.Time, closes bool) []byte {
	dst = append(dst, r.head[r.line.from:r.line.to]...)
	dst = r.keep.appendTo(dst, r.head)
	if !r.dated {
		dst = append(dst, "Date: "...)
		dst = now.UTC().AppendFormat(dst, http.TimeFormat)
		dst = append(dst, '\r', '\n')
	}
	switch {
	case r.Length == Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case r.length >= 0:
		dst = appendLength(dst, r.length)
	}
	if closes {
		dst = append(dst, "Connection: close\r\n"...)
	}
	return append(dst, '\r', '\n')
}
