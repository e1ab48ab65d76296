// SPDX-License-Identifier: Apache-2.0

// Package clienthello reads the first flight of a TLS client strictly and
// without consuming it: which server name it asks for, which protocols it
// offers and whether it hides a second hello (ECH). Anything that two TLS
// stacks could read differently is an error, so that what is forwarded is what
// was judged.
package clienthello

import (
	"encoding/binary"
	"errors"
	"strings"
)

// Hello is what a ClientHello says. All fields are as sent, except that
// ServerName is in lower case.
type Hello struct {
	ServerName string   // host_name of the server_name extension, "" if absent
	ALPN       []string // application_layer_protocol_negotiation, in order
	ECH        ECH      // encrypted_client_hello (or its ancestor, ESNI)
	Versions   []uint16 // supported_versions, or legacy_version alone
}

// ECH says whether the hello carries an encrypted inner hello. GREASE (random
// bytes in the extension, sent by browsers to keep it usable) cannot be told
// from the real thing by anyone but the server, by design of RFC 9849.
type ECH uint8

// The forms of ECH.
const (
	ECHNone  ECH = iota
	ECHOuter     // outer hello: real or GREASE
	ECHInner     // an inner hello in the clear: never valid on the wire
	ECHESNI      // the draft's encrypted_server_name: hides the name
)

// Errors of the parser. ErrNotTLS means that the bytes are not a TLS handshake
// record at all; every other error is a TLS record that does not hold one
// well-formed ClientHello.
var (
	ErrNotTLS    = errors.New("clienthello: not a TLS handshake")
	ErrMalformed = errors.New("clienthello: malformed ClientHello")
	ErrTooLarge  = errors.New("clienthello: ClientHello larger than 16 KiB of records")
	errShort     = errors.New("clienthello: incomplete")
)

// MaxRecords is the number of raw bytes within which the ClientHello must be
// complete. Post-quantum key shares need 1.8 kB; 16 KiB is one full record.
const MaxRecords = 16 << 10

const (
	recordHandshake   = 22
	msgClientHello    = 1
	extServerName     = 0
	extALPN           = 16
	extVersions       = 43
	extECH            = 0xfe0d
	extESNI           = 0xffce
	maxRecordPayload  = 1 << 14
	recordHeader      = 5
	handshakeHeader   = 4
	maxServerNameSize = 253
)

// Parse reads the ClientHello at the start of raw. When more bytes are needed
// it returns an error for which [Incomplete] is true.
func Parse(raw []byte) (*Hello, error) {
	msg, err := reassemble(raw)
	if err != nil {
		return nil, err
	}
	return parseMessage(msg)
}

// Incomplete tells whether err means that raw ended before the ClientHello did.
func Incomplete(err error) bool { return errors.Is(err, errShort) }

// reassemble joins the handshake bytes of the records in raw up to the end of
// the first handshake message. Records are bounded by the caller's buffer.
func reassemble(raw []byte) ([]byte, error) {
	var msg []byte
	for off := 0; ; {
		rest := raw[off:]
		if len(rest) > 0 && rest[0] != recordHandshake {
			return nil, notHandshake(off)
		}
		if len(rest) > 1 && rest[1] != 3 {
			return nil, notHandshake(off)
		}
		if len(rest) < recordHeader {
			return nil, tooLargeOrShort(raw)
		}
		n := int(binary.BigEndian.Uint16(rest[3:5]))
		if n == 0 || n > maxRecordPayload || rest[2] > 4 {
			return nil, ErrMalformed
		}
		take := min(n, len(rest)-recordHeader)
		msg = append(msg, rest[recordHeader:recordHeader+take]...)
		if len(msg) > 0 && msg[0] != msgClientHello {
			return nil, ErrMalformed
		}
		if len(msg) >= handshakeHeader {
			want := handshakeHeader + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3])
			if want > MaxRecords-recordHeader {
				return nil, ErrTooLarge
			}
			if len(msg) > want || (len(msg) == want && take < n) {
				return nil, ErrMalformed // a second message before the server spoke
			}
			if len(msg) == want {
				return msg[handshakeHeader:], nil
			}
		}
		if take < n {
			return nil, tooLargeOrShort(raw)
		}
		off += recordHeader + n
	}
}

func notHandshake(off int) error {
	if off == 0 {
		return ErrNotTLS
	}
	return ErrMalformed
}

func tooLargeOrShort(raw []byte) error {
	if len(raw) >= MaxRecords {
		return ErrTooLarge
	}
	return errShort
}

func parseMessage(b []byte) (*Hello, error) {
	r := reader{b: b}
	version := r.u16()
	r.take(32) // random
	session := r.vec8()
	ciphers := r.vec16()
	compression := r.vec8()
	if r.bad || version>>8 != 3 || len(session) > 32 ||
		len(ciphers) < 2 || len(ciphers)%2 != 0 || !hasNull(compression) {
		return nil, ErrMalformed
	}
	h := &Hello{Versions: []uint16{version}}
	if len(r.b) == 0 {
		return h, nil // no extensions at all: TLS 1.2 and older
	}
	exts := reader{b: r.vec16()}
	if r.bad || len(r.b) != 0 {
		return nil, ErrMalformed
	}
	seen := make(map[uint16]bool, 16)
	for len(exts.b) > 0 {
		kind, body := exts.u16(), exts.vec16()
		if exts.bad || seen[kind] {
			return nil, ErrMalformed
		}
		seen[kind] = true
		if !h.extension(kind, body) {
			return nil, ErrMalformed
		}
	}
	return h, nil
}

func hasNull(methods []byte) bool {
	for _, m := range methods {
		if m == 0 {
			return true
		}
	}
	return false
}

// extension reads one extension and tells whether it is well formed.
func (h *Hello) extension(kind uint16, body []byte) bool {
	r := reader{b: body}
	switch kind {
	case extServerName:
		list := reader{b: r.vec16()}
		typ, name := list.u8(), list.vec16()
		if r.bad || len(r.b) != 0 || list.bad || len(list.b) != 0 || typ != 0 {
			return false
		}
		h.ServerName = strings.ToLower(string(name))
		return validName(h.ServerName)
	case extALPN:
		list := reader{b: r.vec16()}
		for len(list.b) > 0 && !list.bad {
			p := list.vec8()
			if len(p) == 0 {
				return false
			}
			h.ALPN = append(h.ALPN, string(p))
		}
		return !r.bad && len(r.b) == 0 && !list.bad && len(h.ALPN) > 0
	case extVersions:
		list := reader{b: r.vec8()}
		h.Versions = h.Versions[:0]
		for len(list.b) > 0 && !list.bad {
			h.Versions = append(h.Versions, list.u16())
		}
		return !r.bad && len(r.b) == 0 && !list.bad && len(h.Versions) > 0
	case extECH:
		switch r.u8() {
		case 0:
			h.ECH = ECHOuter
			r.take(4) // cipher suite
			r.u8()    // config id
			r.vec16() // enc: empty in the second hello
			r.vec16() // payload
			return !r.bad && len(r.b) == 0
		case 1:
			h.ECH = ECHInner
			return !r.bad && len(r.b) == 0
		}
		return false
	case extESNI:
		h.ECH = ECHESNI
	}
	return true
}

// validName accepts what may stand in server_name: a host name in LDH form
// (underscores are met in the wild), no trailing dot, no address literal
// (RFC 6066, section 3).
func validName(s string) bool {
	if s == "" || len(s) > maxServerNameSize {
		return false
	}
	letters := false
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			switch {
			case c >= 'a' && c <= 'z', c == '-', c == '_':
				letters = true
			case c >= '0' && c <= '9':
			default:
				return false
			}
		}
	}
	return letters
}

// reader takes fields off b; after a short read it is bad and returns zeroes.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) vec8() []byte  { return r.take(int(r.u8())) }
func (r *reader) vec16() []byte { return r.take(int(r.u16())) }
