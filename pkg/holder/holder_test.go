// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"bytes"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

// disk is full for some writes.
type disk struct {
	bytes.Buffer
	full func(write int) bool
	n    int
}

func (d *disk) Write(b []byte) (int, error) {
	d.n++
	if d.full(d.n) {
		half, _ := d.Buffer.Write(b[:len(b)/2])
		return half, syscall.ENOSPC
	}
	return d.Buffer.Write(b)
}

// The holder reads to the end whatever the disk does: otherwise SIGPIPE would
// end the agent.
func TestHeldOutput(t *testing.T) {
	for _, c := range []struct {
		name, in string
		limit    int64
		full     func(int) bool
		want     string
		ok       bool
	}{
		{"all of it", "abcd", 9, nil, "abcd", true},
		{"exactly the bound", "abcd", 4, nil, "abcd", true},
		{"above the bound", "abcdefgh", 4, nil, "abcd\n[ringfence: output above 4 bytes is not kept]\n", true},
		{"a full disk for a while", "abcdefgh", 9, func(n int) bool { return n == 2 || n == 3 }, "abcegh\n[ringfence: 2 bytes of output are missing: no space left on device]\n", false},
		{"a full disk to the end", "abcd", 9, func(n int) bool { return n > 1 }, "ab", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := strings.NewReader(c.in)
			out := &disk{full: func(n int) bool { return c.full != nil && c.full(n) }}
			err := hold(twoByTwo{in}, out, c.limit)
			if got := out.String(); !strings.HasPrefix(got, c.want) || c.ok && got != c.want || (err == nil) != c.ok {
				t.Errorf("%q, %v", got, err)
			}
			if in.Len() > 0 {
				t.Errorf("%d bytes were not read", in.Len())
			}
		})
	}
	if err := hold(iotest.ErrReader(syscall.EIO), io.Discard, 9); err != syscall.EIO {
		t.Error(err)
	}
}

// twoByTwo reads two bytes at a time.
type twoByTwo struct{ r io.Reader }

func (t twoByTwo) Read(b []byte) (int, error) { return t.r.Read(b[:2]) }
