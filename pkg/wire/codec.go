// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"unicode/utf8"
)

// Encoder appends fields to a payload. The first field over its limit sticks:
// nothing is cut, and Payload reports it. The zero value is ready.
type Encoder struct {
	B   []byte
	err error
}

// TooLongError says that a field of a message of ours is over its limit.
type TooLongError struct{ Len, Max int }

func (e *TooLongError) Error() string {
	return fmt.Sprintf("wire: a field of %d exceeds its limit of %d", e.Len, e.Max)
}

// Payload returns what was encoded, or the first *TooLongError.
func (e *Encoder) Payload() ([]byte, error) {
	if e.err != nil {
		return nil, e.err
	}
	return e.B, nil
}

// U8, U16, U32 and U64 append fixed-size little-endian integers.
func (e *Encoder) U8(v uint8)   { e.B = append(e.B, v) }
func (e *Encoder) U16(v uint16) { e.B = binary.LittleEndian.AppendUint16(e.B, v) }
func (e *Encoder) U32(v uint32) { e.B = binary.LittleEndian.AppendUint32(e.B, v) }
func (e *Encoder) U64(v uint64) { e.B = binary.LittleEndian.AppendUint64(e.B, v) }

// Bool appends one byte, 0 or 1.
func (e *Encoder) Bool(v bool) {
	if v {
		e.U8(1)
		return
	}
	e.U8(0)
}

// fits notes that n is more than max.
func (e *Encoder) fits(n, max int) bool {
	if n > max && e.err == nil {
		e.err = &TooLongError{n, max}
	}
	return n <= max
}

// Count appends the length of a list of at most max items, in 16 bits.
func (e *Encoder) Count(n, max int) {
	if e.fits(n, min(max, math.MaxUint16)) {
		e.U16(uint16(n))
	}
}

// Bytes appends a length-prefixed string of at most max bytes.
func (e *Encoder) Bytes(b []byte, max int) {
	if e.fits(len(b), max) {
		e.U32(uint32(len(b)))
		e.B = append(e.B, b...)
	}
}

// Str is Bytes for strings.
func (e *Encoder) Str(s string, max int) {
	if e.fits(len(s), max) {
		e.U32(uint32(len(s)))
		e.B = append(e.B, s...)
	}
}

// Clip cuts a text that only people read to max bytes, at the border of a
// character.
func Clip(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max]
}

// Addr appends an IP address (4 or 16 bytes, 0 for the invalid address).
func (e *Encoder) Addr(a netip.Addr) { e.Bytes(a.AsSlice(), 16) }

// Decoder reads fields in order. The first violation sticks: later reads
// return zero values and Err reports it.
type Decoder struct {
	b   []byte
	err error
}

// NewDecoder reads from b without copying.
func NewDecoder(b []byte) *Decoder { return &Decoder{b: b} }

func (d *Decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n > len(d.b) {
		d.err = &ProtocolError{fmt.Sprintf("field of %d bytes in %d remaining", n, len(d.b))}
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

// U8, U16, U32 and U64 read fixed-size little-endian integers.
func (d *Decoder) U8() uint8 {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *Decoder) U16() uint16 {
	if v := d.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (d *Decoder) U32() uint32 {
	if v := d.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (d *Decoder) U64() uint64 {
	if v := d.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

// Bool reads one byte that must be 0 or 1.
func (d *Decoder) Bool() bool {
	v := d.U8()
	if v > 1 && d.err == nil {
		d.err = &ProtocolError{"boolean that is neither 0 nor 1"}
	}
	return v == 1
}

// Bytes reads a length-prefixed string of at most max bytes (a copy).
func (d *Decoder) Bytes(max int) []byte {
	n := d.U32()
	if d.err == nil && n > uint32(max) {
		d.err = &ProtocolError{fmt.Sprintf("string of %d bytes exceeds its limit of %d", n, max)}
	}
	if d.err != nil {
		return nil
	}
	return append([]byte(nil), d.take(int(n))...)
}

// Str is Bytes for strings.
func (d *Decoder) Str(max int) string { return string(d.Bytes(max)) }

// Count reads the length of a list of at most max items.
func (d *Decoder) Count(max int) int {
	n := int(d.U16())
	if n > max && d.err == nil {
		d.err = &ProtocolError{fmt.Sprintf("list of %d exceeds its limit of %d", n, max)}
		return 0
	}
	return n
}

// Addr reads an IP address; the invalid address when its length is 0.
func (d *Decoder) Addr() netip.Addr {
	b := d.Bytes(16)
	if len(b) == 0 {
		return netip.Addr{}
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok && d.err == nil {
		d.err = &ProtocolError{fmt.Sprintf("address of %d bytes", len(b))}
	}
	return a
}

// Rest returns what was not read yet.
func (d *Decoder) Rest() []byte { return d.b }

// End reports the first violation, or trailing bytes.
func (d *Decoder) End() error {
	if d.err == nil && len(d.b) > 0 {
		d.err = &ProtocolError{fmt.Sprintf("%d trailing bytes", len(d.b))}
	}
	return d.err
}

// Err reports the first violation.
func (d *Decoder) Err() error { return d.err }
