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

// WriteHead hands over the peeked bytes alone; what follows can then be taken
// from the connection inside.
func (c *Conn) WriteHead(w io.Writer) (int64, error) {
	if len(c.head) == 0 {
		return 0, nil
	}
	n, err := w.Write(c.head)
	c.head = nil
	return int64(n), err
}

// WriteTo hands the peeked bytes over and then copies the rest.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.WriteHead(w)
	if err != nil {
		return n, err
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
