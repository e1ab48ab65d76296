// SPDX-License-Identifier: Apache-2.0

package clienthello

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Conn is a connection of which the first bytes were read already: Read hands
// them out again before it reads on.
type Conn struct {
	*net.TCPConn
	head []byte
}

// NewConn wraps c; nothing has been read yet.
func NewConn(c *net.TCPConn) *Conn { return &Conn{TCPConn: c} }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		if len(c.head) == 0 {
			c.head = nil
		}
		return n, nil
	}
	return c.TCPConn.Read(p)
}

// WriteTo hands the peeked bytes over and then copies the rest, by splice(2)
// when w is a TCP connection.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	var n int64
	if len(c.head) > 0 {
		m, err := w.Write(c.head)
		n = int64(m)
		c.head = nil
		if err != nil {
			return n, err
		}
	}
	if t, ok := w.(*net.TCPConn); ok {
		m, err := t.ReadFrom(c.TCPConn)
		return n + m, err
	}
	m, err := io.Copy(w, c.TCPConn)
	return n + m, err
}

// Head is what was read so far and not yet handed out.
func (c *Conn) Head() []byte { return c.head }

// PeekByte reads the first byte without consuming it.
func (c *Conn) PeekByte(deadline time.Time) (byte, error) {
	if len(c.head) == 0 {
		if err := c.fill(deadline, 4096); err != nil {
			return 0, err
		}
	}
	return c.head[0], nil
}

// Peek reads the ClientHello without consuming it: at most MaxRecords bytes,
// however they are spread over records and segments, until deadline. On
// [ErrNotTLS] the bytes read so far stay readable.
func (c *Conn) Peek(deadline time.Time) (*Hello, error) {
	for {
		if len(c.head) > 0 {
			h, err := Parse(c.head)
			if !Incomplete(err) {
				return h, err
			}
		}
		if err := c.fill(deadline, MaxRecords); err != nil {
			if errors.Is(err, io.EOF) && len(c.head) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("clienthello: %w", err)
		}
	}
}

// fill reads once more into head, up to limit bytes in all.
func (c *Conn) fill(deadline time.Time, limit int) error {
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	room := limit - len(c.head)
	if room <= 0 {
		return ErrTooLarge
	}
	size := min(room, 4096)
	buf := make([]byte, len(c.head)+size)
	copy(buf, c.head)
	n, err := c.TCPConn.Read(buf[len(c.head):])
	c.head = buf[:len(c.head)+n]
	if n > 0 {
		err = nil
	}
	return errors.Join(err, c.SetReadDeadline(time.Time{}))
}
