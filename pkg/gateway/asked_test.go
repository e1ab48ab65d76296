// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
)

func TestDecodeAsked(t *testing.T) {
	make := func(addr string, sandbox uint32, port uint16) (b [askedSize]byte) {
		a := netip.MustParseAddr(addr).As16()
		copy(b[:], a[:])
		binary.NativeEndian.PutUint64(b[16:], 0xabcd<<32|99)
		binary.NativeEndian.PutUint32(b[24:], sandbox)
		binary.NativeEndian.PutUint16(b[28:], port)
		return b
	}
	for name, c := range map[string]struct {
		b    [askedSize]byte
		want string // "" refuses
	}{
		"IPv4":               {make("::ffff:198.18.1.7", 7, 443), "198.18.1.7:443"},
		"IPv6":               {make("fd00::1", 7, 443), "[fd00::1]:443"},
		"of another sandbox": {make("::ffff:198.18.1.7", 8, 443), ""},
		"without a port":     {make("::ffff:198.18.1.7", 7, 0), ""},
		"nothing":            {[askedSize]byte{}, ""},
	} {
		o, ok := decodeAsked(c.b, 7)
		if ok != (c.want != "") || ok && (o.dst.String() != c.want || o.client != 0xabcd) {
			t.Errorf("%s: %+v %t, want %q", name, o, ok, c.want)
		}
	}
	if _, ok := decodeAsked(make("::ffff:198.18.1.7", 0, 443), 0); ok {
		t.Error("sandbox 0 is one")
	}
}

// A connection that no program knows has no destination.
func TestAskedOfAnybody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if dst, ok := asked(c.(*net.TCPConn), 7); ok {
		t.Errorf("asked for %v", dst)
	}
}
