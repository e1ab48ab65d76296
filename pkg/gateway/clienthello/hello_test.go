// SPDX-License-Identifier: Apache-2.0

package clienthello

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// realHello captures what crypto/tls sends.
func realHello(tb testing.TB, cfg *tls.Config) []byte {
	tb.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		_ = tls.Client(b, cfg).HandshakeContext(context.Background())
		b.Close()
	}()
	buf := make([]byte, MaxRecords)
	n := 0
	for {
		m, err := a.Read(buf[n:])
		n += m
		if _, perr := Parse(buf[:n]); !Incomplete(perr) || err != nil {
			return buf[:n]
		}
	}
}

// resplit writes the handshake bytes of raw in records of size bytes.
func resplit(raw []byte, size int) []byte {
	msg := raw[recordHeader:]
	var out []byte
	for len(msg) > 0 {
		n := min(size, len(msg))
		out = append(out, 22, 3, 1, byte(n>>8), byte(n))
		out = append(out, msg[:n]...)
		msg = msg[n:]
	}
	return out
}

func ext(kind uint16, body []byte) []byte {
	out := binary.BigEndian.AppendUint16(nil, kind)
	out = binary.BigEndian.AppendUint16(out, uint16(len(body)))
	return append(out, body...)
}

func sniExt(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(list, 0)
		list = binary.BigEndian.AppendUint16(list, uint16(len(n)))
		list = append(list, n...)
	}
	return ext(extServerName, append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...))
}

func echExt(kind byte) []byte {
	if kind == 1 {
		return ext(extECH, []byte{1})
	}
	body := []byte{kind, 0, 1, 0, 1, 7, 0, 2, 9, 9, 0, 3, 1, 2, 3}
	return ext(extECH, body)
}

// build makes one record with a ClientHello of the given extensions.
func build(exts ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0)                // session id
	body = append(body, 0, 2, 0x13, 0x01) // ciphers
	body = append(body, 1, 0)             // compression
	all := bytes.Join(exts, nil)          //
	if len(exts) > 0 {                    //
		body = binary.BigEndian.AppendUint16(body, uint16(len(all)))
		body = append(body, all...)
	}
	msg := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

func TestParse(t *testing.T) {
	real := realHello(t, &tls.Config{ServerName: "API.Example.com", NextProtos: []string{"h2", "http/1.1"}})
	cases := []struct {
		name string
		raw  []byte
		want Hello
		err  error
	}{
		{"go client", real, Hello{ServerName: "api.example.com", ALPN: []string{"h2", "http/1.1"}}, nil},
		{"spread over one-byte records", resplit(build(sniExt("a.example")), 1), Hello{ServerName: "a.example"}, nil},
		{"spread over small records", resplit(real, 100), Hello{ServerName: "api.example.com", ALPN: []string{"h2", "http/1.1"}}, nil},
		{"no extensions", build(), Hello{}, nil},
		{"no server name", build(ext(extVersions, []byte{2, 3, 4})), Hello{}, nil},
		{"ech outer", build(sniExt("a.example"), echExt(0)), Hello{ServerName: "a.example", ECH: ECHOuter}, nil},
		{"ech inner", build(sniExt("a.example"), echExt(1)), Hello{ServerName: "a.example", ECH: ECHInner}, nil},
		{"ech of unknown form", build(sniExt("a.example"), echExt(2)), Hello{}, ErrMalformed},
		{"esni", build(ext(extESNI, []byte{1, 2})), Hello{ECH: ECHESNI}, nil},
		{"two server names", build(sniExt("a.example", "b.example")), Hello{}, ErrMalformed},
		{"server_name twice", build(sniExt("a.example"), sniExt("b.example")), Hello{}, ErrMalformed},
		{"name with a NUL", build(sniExt("a.example\x00.b")), Hello{}, ErrMalformed},
		{"name with a trailing dot", build(sniExt("a.example.")), Hello{}, ErrMalformed},
		{"name is an address", build(sniExt("10.0.0.1")), Hello{}, ErrMalformed},
		{"name is empty", build(sniExt("")), Hello{}, ErrMalformed},
		{"http", []byte("GET / HTTP/1.1\r\n"), Hello{}, ErrNotTLS},
		{"sslv2 hello", []byte{0x80, 0x2e, 1, 0, 2}, Hello{}, ErrNotTLS},
		{"alert record", []byte{21, 3, 1, 0, 2, 1, 0}, Hello{}, ErrNotTLS},
		{"server hello", []byte{22, 3, 3, 0, 4, 2, 0, 0, 0}, Hello{}, ErrMalformed},
		{"empty record", []byte{22, 3, 1, 0, 0}, Hello{}, ErrMalformed},
		{"alert between the records", append(resplit(real, 100)[:105], 21, 3, 1, 0, 2, 1, 0), Hello{}, ErrMalformed},
		{"bytes after the message in its record", trailing(real), Hello{}, ErrMalformed},
		{"length over the bound", []byte{22, 3, 1, 0x40, 0, 1, 0xff, 0, 0}, Hello{}, ErrTooLarge},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h, err := Parse(c.raw)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			if h.ServerName != c.want.ServerName || h.ECH != c.want.ECH || strings.Join(h.ALPN, ",") != strings.Join(c.want.ALPN, ",") {
				t.Errorf("got %+v, want %+v", *h, c.want)
			}
		})
	}
}

func trailing(raw []byte) []byte {
	out := append(bytes.Clone(raw), 0)
	binary.BigEndian.PutUint16(out[3:], uint16(len(out)-recordHeader))
	return out
}

func TestEveryPrefixIsIncomplete(t *testing.T) {
	for _, raw := range [][]byte{build(sniExt("a.example"), echExt(0)), resplit(build(sniExt("a.example")), 7)} {
		for i := range raw {
			if _, err := Parse(raw[:i]); !Incomplete(err) {
				t.Fatalf("prefix of %d bytes: %v", i, err)
			}
		}
	}
}

func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func TestPeekOverManySegmentsKeepsEveryByte(t *testing.T) {
	client, server := tcpPair(t)
	raw := resplit(realHello(t, &tls.Config{ServerName: "a.example"}), 50)
	go func() {
		for i := range raw {
			_, _ = client.Write(raw[i : i+1])
		}
		_, _ = client.Write([]byte("early"))
		_ = client.CloseWrite()
	}()
	c := NewConn(server)
	h, err := c.Peek(time.Now().Add(5 * time.Second))
	if err != nil || h.ServerName != "a.example" {
		t.Fatalf("%+v, %v", h, err)
	}
	var got bytes.Buffer
	if _, err := c.WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	if got.String() != string(raw)+"early" {
		t.Error("the peeked bytes differ from the sent ones")
	}
}

func TestPeekEndsAtTheDeadline(t *testing.T) {
	client, server := tcpPair(t)
	_, _ = client.Write([]byte{22, 3, 1, 2})
	_, err := NewConn(server).Peek(time.Now().Add(50 * time.Millisecond))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(realHello(f, &tls.Config{ServerName: "api.example.com", NextProtos: []string{"h2"}}))
	f.Add(build(sniExt("a.example"), echExt(0)))
	f.Add(resplit(build(sniExt("a.example")), 3))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := Parse(raw)
		if (h == nil) == (err == nil) {
			t.Fatal("neither a hello nor an error")
		}
		if err != nil {
			return
		}
		if h.ServerName != "" && !validName(h.ServerName) {
			t.Fatalf("accepted the name %q", h.ServerName)
		}
		checkAgainstStdlib(t, raw, h)
	})
}

// checkAgainstStdlib requires that crypto/tls, where it accepts the hello too,
// reads the same name.
func checkAgainstStdlib(t *testing.T, raw []byte, h *Hello) {
	a, b := net.Pipe()
	defer b.Close()
	var got *tls.ClientHelloInfo
	stop := errors.New("stop")
	go func() { _, _ = b.Write(raw); b.Close() }()
	_ = a.SetReadDeadline(time.Now().Add(time.Second))
	_ = tls.Server(readOnly{a}, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		got = i
		return nil, stop
	}}).HandshakeContext(context.Background())
	if got != nil && strings.ToLower(got.ServerName) != h.ServerName {
		t.Fatalf("we read %q, crypto/tls %q", h.ServerName, got.ServerName)
	}
}

// readOnly swallows the alert that the server would write into the pipe.
type readOnly struct{ net.Conn }

func (readOnly) Write(p []byte) (int, error) { return len(p), nil }
