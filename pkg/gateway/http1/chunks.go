// SPDX-License-Identifier: Apache-2.0

package http1

import "errors"

// ErrChunks means that a body's chunks cannot be told apart.
var ErrChunks = errors.New("http1: malformed chunk")

// Chunks reads a body that comes in chunks (RFC 9112, section 7.1). The zero
// value stands before the first one. Extensions and trailers, which say
// nothing about where the body ends, are read over.
type Chunks struct {
	state chunkState
	left  int64 // of the chunk's data
	size  int   // digits of the size so far
	over  int   // bytes of extensions and trailers so far, less what data makes up for
	empty bool  // the trailer's line has no byte yet
}

type chunkState uint8

const (
	inSize chunkState = iota
	inExtension
	inPadding
	afterSize // CR was read
	inData
	afterData
	afterDataCR
	inTrailer
	afterTrailer
	atEnd
)

// maxOver bounds what is read over: it costs a reader and brings nothing.
const maxOver = 16 << 10

// Done tells whether the body is complete.
func (c *Chunks) Done() bool { return c.state == atEnd }

// Decode reads p, which came next, moves the data in it to its beginning and
// returns how much that is. used is how much of p belongs to the body: all of
// it, until the body is done.
func (c *Chunks) Decode(p []byte) (data, used int, err error) {
	for used < len(p) && c.state != atEnd {
		if c.state == inData {
			n := int(min(c.left, int64(len(p)-used)))
			copy(p[data:], p[used:used+n])
			data, used = data+n, used+n
			if c.left -= int64(n); c.left == 0 {
				c.state = afterData
			}
			continue
		}
		if !c.step(p[used]) {
			return data, used, ErrChunks
		}
		used++
	}
	return data, used, nil
}

// step reads one byte that is not data.
func (c *Chunks) step(b byte) bool {
	switch c.state {
	case inSize:
		return c.digit(b)
	case inExtension, inTrailer:
		return c.readOver(b)
	case inPadding:
		return (blank(b) || b == '\r') && c.readOver(b)
	case afterSize:
		// As net/http has it: who sends little data with much around it is refused.
		c.over = max(0, c.over+c.size+len("\r\n")-16-2*int(min(c.left, maxOver)))
		c.state, c.size = inData, 0
		if c.left == 0 {
			c.state, c.empty = inTrailer, true
		}
	case afterData:
		c.state = afterDataCR
		return b == '\r'
	case afterDataCR:
		c.state = inSize
	case afterTrailer:
		if c.state = inTrailer; c.empty {
			c.state = atEnd
		}
		c.empty = true
	}
	return b == '\n'
}

// digit reads a byte of a chunk's size, or what ends it.
func (c *Chunks) digit(b byte) bool {
	if class[b]&isHex != 0 {
		v := b - '0'
		if class[b]&isLetter != 0 {
			v = b&^0x20 - 'A' + 10
		}
		c.left = c.left<<4 | int64(v)
		c.size++
		return c.size <= 15
	}
	switch {
	case b == ';':
		c.state = inExtension
	case blank(b): // as old servers align it
		c.state = inPadding
	case b == '\r':
		c.state = afterSize
	default:
		return false
	}
	return c.size > 0
}

// readOver reads a byte of an extension or of a trailer.
func (c *Chunks) readOver(b byte) bool {
	if c.over++; c.over > maxOver {
		return false
	}
	if b != '\r' {
		c.empty = false
		return class[b]&isValue != 0
	}
	if c.state == inTrailer {
		c.state = afterTrailer
	} else {
		c.state = afterSize
	}
	return true
}
