// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC)

func TestResponseIsReadAndWrittenAgain(t *testing.T) {
	const at = "Date: Mon, 30 Nov 2026 01:02:03 GMT\r\n"
	cases := []struct {
		name, method, in, out string
		length                int64
		closes                bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: a\r\nAlt-Svc: h3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nX: a\r\n" + at + "Content-Length: 3\r\n\r\n", 3, false},
		{"its own date", "GET", "HTTP/1.1 200 OK\r\nDate: today\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 0\r\n\r\n", 0, false},
		{"chunks", "GET", "HTTP/1.1 404 \r\nTransfer-Encoding: Chunked\r\nKeep-Alive: timeout=5\r\nConnection: Upgrade, close\r\nUpgrade: h2\r\n\r\n", "HTTP/1.1 404 \r\n" + at + "Transfer-Encoding: chunked\r\n\r\n", Chunked, true},
		{"to HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HTTP/1.1 200 OK\r\n" + at + "Content-Length: 3\r\n\r\n", 0, false},
		{"no content", "GET", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\n" + at + "\r\n", 0, false},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n" + at + "Content-Length: 9\r\n\r\n", 0, false},
	}
	for _, c := range cases {
		var r Response
		n, err := r.Parse([]byte(c.in), c.method)
		if err != nil || n != strings.Index(c.in, "\r\n\r\n")+4 || r.Length != c.length || r.Close != c.closes {
			t.Errorf("%s: %d, %v, %+v", c.name, n, err, r)
			continue
		}
		if got := string(r.AppendTo(nil, now, false)); got != c.out {
			t.Errorf("%s:\n%q, want\n%q", c.name, got, c.out)
		}
		if got := string(r.AppendTo(nil, now, true)); got != strings.TrimSuffix(c.out, "\r\n")+"Connection: close\r\n\r\n" {
			t.Errorf("%s at the end: %q", c.name, got)
		}
		for i := range n {
			if _, err := r.Parse([]byte(c.in[:i]), c.method); !errors.Is(err, ErrIncomplete) {
				t.Errorf("%s: %d bytes of it: %v", c.name, i, err)
			}
		}
	}
}

var oddResponses = map[string]string{
	"until the end":          "HTTP/1.1 200 OK\r\nX: a\r\n\r\nabc",
	"HTTP/1.0":               "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
	"no reason":              "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc",
	"interim":                "HTTP/1.1 100 Continue\r\n\r\n",
	"switches protocols":     "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
	"no status":              "HTTP/1.1 OK\r\nContent-Length: 3\r\n\r\nabc",
	"a status of four":       "HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\nabc",
	"no HTTP":                "SSH-2.0-x\r\n\r\n",
	"LF alone":               "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
	"CR in a value":          "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 3\r\n\r\nabc",
	"folded":                 "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
	"two lengths":            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
	"a length and chunks":    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"chunked twice":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"another coding":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"announced trailers":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n\r\n",
	"a connection option":    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: X-Secret\r\n\r\nabc",
	"no content with length": "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
}

func TestOddResponsesAreLeftToOthers(t *testing.T) {
	for name, in := range oddResponses {
		var r Response
		if n, err := r.Parse([]byte(in), "GET"); !errors.Is(err, ErrOther) {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

// FuzzResponse: what is read, net/http reads in the same way, before and after
// it is written again.
func FuzzResponse(f *testing.F) {
	for _, in := range oddResponses {
		f.Add([]byte(in), false)
	}
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\nX: a\r\n\r\nabc"), true)
	f.Add([]byte("HTTP/1.1 503 Oops\r\nTransfer-Encoding: chunked\r\nDate: x\r\n\r\n0\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		var r Response
		n, err := r.Parse(in, method)
		if err != nil {
			return
		}
		read := func(b []byte) *http.Response {
			resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: method})
			if err != nil {
				t.Fatalf("net/http does not read it: %v\n%q", err, b)
			}
			return resp
		}
		before, after := read(in), read(append(r.AppendTo(nil, now, false), in[n:]...))
		for _, h := range []*http.Response{before, after} {
			body := h.ContentLength
			if head || h.StatusCode == 204 || h.StatusCode == 304 {
				body = 0
			}
			if h.StatusCode != r.Status || body != r.Length || (r.Length == Chunked) != slices.Equal(h.TransferEncoding, []string{"chunked"}) {
				t.Fatalf("%+v is for net/http %+v", r, h)
			}
		}
		if before.Close != r.Close || after.Close {
			t.Fatalf("close %v, for net/http %v and %v", r.Close, before.Close, after.Close)
		}
		if before.Header.Get("Date") == "" && len(before.Header["Date"]) == 0 {
			after.Header.Del("Date")
		}
		for _, gone := range []string{"Connection", "Keep-Alive", "Upgrade", "Alt-Svc"} {
			before.Header.Del(gone)
		}
		sameFields(t, before.Header, after.Header)
	})
}

func TestChunksInPieces(t *testing.T) {
	const body = "5;a=b\r\nhello\r\n00a  \r\n, world!!!\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\nHTTP/1.1 200"
	for size := 1; size <= len(body); size++ {
		var c Chunks
		var got []byte
		all := 0
		for p := range slices.Chunk([]byte(body), size) {
			p = slices.Clone(p)
			n, used, err := c.Decode(p)
			if err != nil {
				t.Fatalf("by %d: %v", size, err)
			}
			got = append(got, p[:n]...)
			all += used
		}
		if !c.Done() || string(got) != "hello, world!!!" || body[all:] != "HTTP/1.1 200" {
			t.Errorf("by %d: %q and %q left", size, got, body[all:])
		}
	}
}

// Padding of long bodies is made up for by their data.
func TestPaddedChunksGoOn(t *testing.T) {
	var c Chunks
	chunk := "1000;an-extension\r\n" + strings.Repeat("x", 4096) + "\r\n"
	for i := range 20_000 {
		if _, _, err := c.Decode([]byte(chunk)); err != nil {
			t.Fatalf("after %d chunks: %v", i, err)
		}
	}
	var tiny Chunks
	var err error
	for i := 0; i < 20_000 && err == nil; i++ {
		_, _, err = tiny.Decode([]byte("1;" + strings.Repeat("x", 64) + "\r\nx\r\n"))
	}
	if err == nil {
		t.Error("any amount of extensions around single bytes is read")
	}
}

var oddChunks = map[string]string{
	"no size":                  "\r\nabc\r\n0\r\n\r\n",
	"not hexadecimal":          "g\r\n",
	"negative":                 "-1\r\n",
	"more than a length holds": "1000000000000000\r\n",
	"LF alone":                 "3\nabc\r\n",
	"more data than its size":  "3\r\nabcd\r\n",
	"less data than its size":  "3\r\nab\r\n0\r\n\r\n",
	"a space in the size":      "1 0\r\n",
	"a space before it":        " 3\r\nabc\r\n",
	"LF alone at the end":      "0\r\n\n",
	"CR in an extension":       "3;a\rb\r\nabc\r\n",
	"endless extension":        "3;" + strings.Repeat("a", maxOver) + "\r\nabc\r\n",
	"endless trailer":          "0\r\n" + strings.Repeat("X: a\r\n", maxOver/4),
}

func TestOddChunksAreRefused(t *testing.T) {
	for name, in := range oddChunks {
		var c Chunks
		if _, _, err := c.Decode([]byte(in)); err == nil || c.Done() {
			t.Errorf("%s is read, done=%v", name, c.Done())
		}
	}
}

// FuzzChunks: a body that is read to its end has the same data for net/http,
// however it comes in pieces.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5;a=b\r\nhello\r\na\r\n, world!!!\r\n0\r\nX-Sum: 1\r\n\r\n"), uint8(3))
	for _, in := range oddChunks {
		f.Add([]byte(in[:min(len(in), 100)]), uint8(7))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		whole, pieces := decodeAll(in, len(in)+1), decodeAll(in, int(size)+1)
		if !bytes.Equal(whole, pieces) || (whole == nil) != (pieces == nil) {
			t.Fatalf("%q at once, %q in pieces", whole, pieces)
		}
		if whole == nil {
			return
		}
		want, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in)))
		if err != nil || !bytes.Equal(whole, want) {
			t.Fatalf("%q, for net/http %q, %v", whole, want, err)
		}
	})
}

// decodeAll returns nil unless the body is complete.
func decodeAll(in []byte, size int) []byte {
	var c Chunks
	got := []byte{}
	for p := range slices.Chunk(slices.Clone(in), size) {
		n, _, err := c.Decode(p)
		if err != nil {
			return nil
		}
		if got = append(got, p[:n]...); c.Done() {
			return got
		}
	}
	return nil
}
