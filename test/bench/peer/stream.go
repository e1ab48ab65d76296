// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ringfence/ringfence/test/bench/job"
)

// streamBuffer is what the client reads and writes at once.
const streamBuffer = 256 << 10

// stream moves j.Size bytes on each of Conns new connections: towards the
// client, or with Up away from it. The server is told how many in the first
// eight bytes, and that both sides count the same is part of it.
func (w *worker) stream(addr string, j job.Job) (job.Result, error) {
	j.N = j.Conns
	return spread(j, func(int) (int64, error) {
		c, err := net.Dial("tcp4", addr)
		if err != nil {
			return 0, err
		}
		defer c.Close() //nolint:errcheck // everything was read
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return 0, err
		}
		var head [9]byte
		if j.Up {
			head[0] = 1
		}
		binary.BigEndian.PutUint64(head[1:], uint64(j.Size))
		if _, err := c.Write(head[:]); err != nil {
			return 0, err
		}
		if j.Up {
			return upwards(c.(*net.TCPConn), j.Size)
		}
		return downwards(c, j.Size)
	})
}

func downwards(c net.Conn, size int64) (int64, error) {
	buf := make([]byte, streamBuffer)
	var n int64
	for {
		m, err := c.Read(buf)
		n += int64(m)
		if err == io.EOF && n == size {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("after %d of %d bytes: %w", n, size, err)
		}
	}
}

// upwards sends, ends its side, and waits for the server's count.
func upwards(c *net.TCPConn, size int64) (int64, error) {
	buf := make([]byte, streamBuffer)
	for left := size; left > 0; {
		n, err := c.Write(buf[:min(left, streamBuffer)])
		if err != nil {
			return size - left, err
		}
		left -= int64(n)
	}
	if err := c.CloseWrite(); err != nil {
		return 0, err
	}
	var count [8]byte
	if _, err := io.ReadFull(c, count[:]); err != nil {
		return 0, err
	}
	if n := binary.BigEndian.Uint64(count[:]); n != uint64(size) {
		return 0, fmt.Errorf("%d bytes sent, %d arrived", size, n)
	}
	return size, nil
}

// knock opens a connection, sends one byte, reads one back and closes.
func knock(addr string) (int64, error) {
	c, err := net.Dial("tcp4", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close() //nolint:errcheck // everything was read
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return 0, err
	}
	b := [1]byte{job.KnockByte}
	if _, err := c.Write(b[:]); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(c, b[:])
	return int64(n), err
}
