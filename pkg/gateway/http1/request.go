// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"strconv"
)

// methods are those of the plainest form, and whether a body goes with them.
var methods = map[string]struct {
	name string
	body bool
}{
	"GET": {"GET", false}, "HEAD": {"HEAD", false}, "OPTIONS": {"OPTIONS", false}, "DELETE": {"DELETE", false},
	"POST": {"POST", true}, "PUT": {"PUT", true}, "PATCH": {"PATCH", true},
}

// requestFields are the fields of a request that are not simply passed on.
// Those that are "other" are hop-by-hop (RFC 9110, section 7.6.1) with a
// meaning, change how the exchange goes, or make some servers act on another
// method or target than the request line's.
var requestFields = map[string]use{
	"host":              host,
	"content-length":    length,
	"transfer-encoding": other,
	"connection":        connection,

	"forwarded":         drop,
	"x-forwarded-for":   drop,
	"x-forwarded-host":  drop,
	"x-forwarded-proto": drop,

	"expect":                 other,
	"upgrade":                other,
	"http2-settings":         other,
	"te":                     other,
	"trailer":                other,
	"keep-alive":             other,
	"proxy-connection":       other,
	"proxy-authenticate":     other,
	"proxy-authorization":    other,
	"x-http-method-override": other,
	"x-http-method":          other,
	"x-method-override":      other,
	"x-original-url":         other,
	"x-rewrite-url":          other,
}

// Request is the head of a request. Slices are parts of the buffer that it was
// read from.
type Request struct {
	Method string
	Target []byte // in origin form
	Path   []byte // of Target, without the query
	Host   []byte
	Length int64 // of the body
	Close  bool  // the client closes after the answer

	head []byte
	keep spans
	body bool // the method has a body
}

// Parse reads the request that buf begins with and returns the length of its
// head. After an error r holds nothing of use.
func (r *Request) Parse(buf []byte) (n int, err error) {
	*r = Request{}
	text, at, err := line(buf, 0)
	if err != nil {
		return 0, err
	}
	if err := r.start(text); err != nil {
		return 0, err
	}
	hosts, lengths := 0, 0
	for {
		from := at
		if text, at, err = line(buf, from); err != nil {
			return 0, err
		}
		if len(text) == 0 {
			break
		}
		name, value, err := field(text)
		if err != nil {
			return 0, err
		}
		switch find(requestFields, name) {
		case pass:
			if !r.keep.add(from, at) {
				return 0, ErrOther
			}
		case drop:
		case host:
			r.Host = value
			hosts++
		case length:
			if r.Length, err = number(value); err != nil {
				return 0, err
			}
			lengths++
		case connection:
			closes, err := options(value)
			if err != nil {
				return 0, err
			}
			r.Close = r.Close || closes
		default:
			return 0, ErrOther
		}
	}
	if hosts != 1 || len(r.Host) == 0 || lengths > 1 || r.Length > 0 && !r.body {
		return 0, ErrOther
	}
	r.head = buf[:at]
	return at, nil
}

// start reads the request line.
func (r *Request) start(text []byte) error {
	i := bytes.IndexByte(text, ' ')
	if i < 0 || !bytes.HasSuffix(text, []byte(" HTTP/1.1")) {
		return ErrOther
	}
	m, ok := methods[string(text[:i])]
	if !ok || i+1 > len(text)-len(" HTTP/1.1") {
		return ErrOther
	}
	r.Method, r.body = m.name, m.body
	r.Target = text[i+1 : len(text)-len(" HTTP/1.1")]
	if len(r.Target) == 0 || r.Target[0] != '/' {
		return ErrOther
	}
	r.Path = r.Target
	query := []byte(nil)
	if i := bytes.IndexByte(r.Target, '?'); i >= 0 {
		r.Path, query = r.Target[:i], r.Target[i+1:]
	}
	if !escaped(r.Path, isPath) || !escaped(query, isQuery) {
		return ErrOther
	}
	return nil
}

// escaped tells whether every byte of p is of a class, or of a whole escape.
func escaped(p []byte, of uint8) bool {
	for i := 0; i < len(p); i++ {
		if class[p[i]]&of != 0 {
			continue
		}
		if p[i] != '%' || i+2 >= len(p) || !all(p[i+1:i+3], isHex) {
			return false
		}
		i += 2
	}
	return true
}

// AppendTo appends the head as the next hop gets it: the same request line and
// fields, and one statement of how long the body is.
func (r *Request) AppendTo(dst []byte) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	dst = append(dst, r.Target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, r.Host...)
	dst = append(dst, '\r', '\n')
	dst = r.keep.appendTo(dst, r.head)
	if r.body {
		dst = appendLength(dst, r.Length)
	}
	return append(dst, '\r', '\n')
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, '\r', '\n')
}
