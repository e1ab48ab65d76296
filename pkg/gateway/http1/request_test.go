// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

const plainRequest = "GET /v1/a%20b?q=1&r=%2f HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nX-Forwarded-For: 10.0.0.1\r\nCookie: a=b\r\nConnection: keep-alive\r\nX-Empty:\r\n\r\n"

func TestRequestIsReadAndWrittenAgain(t *testing.T) {
	cases := []struct{ name, in, out string }{
		{"fields in their order", plainRequest, "GET /v1/a%20b?q=1&r=%2f HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nCookie: a=b\r\nX-Empty:\r\n\r\n"},
		{"a body", "POST / HTTP/1.1\r\nContent-Length: 5\r\nhost:a.test\r\n\r\nabcde", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n"},
		{"no body where one is usual", "PUT / HTTP/1.1\r\nHost: a.test\r\n\r\n", "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"},
		{"a length of nothing", "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"},
		{"what follows is left alone", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"},
	}
	for _, c := range cases {
		var r Request
		n, err := r.Parse([]byte(c.in))
		if err != nil || n != strings.Index(c.in, "\r\n\r\n")+4 {
			t.Errorf("%s: %d, %v", c.name, n, err)
			continue
		}
		if got := string(r.AppendTo(nil)); got != c.out {
			t.Errorf("%s:\n%q, want\n%q", c.name, got, c.out)
		}
	}
	var r Request
	for i := range len(plainRequest) {
		if _, err := r.Parse([]byte(plainRequest[:i])); !errors.Is(err, ErrIncomplete) {
			t.Fatalf("%d bytes of it: %v", i, err)
		}
	}
	if _, err := r.Parse([]byte(plainRequest)); err != nil || r.Close || string(r.Path) != "/v1/a%20b" {
		t.Errorf("%v %q", err, r.Path)
	}
	if _, err := r.Parse([]byte("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Keep-Alive, close\r\n\r\n")); err != nil || !r.Close {
		t.Errorf("%v close=%v", err, r.Close)
	}
}

// oddRequests are left to somebody else, whatever that makes of them. The
// first two bytes of "%s" stand for a request that would be read.
var oddRequests = map[string]string{
	"a method of its own":         "BREW / HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a method in lower case":      "get / HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"CONNECT":                     "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"HTTP/1.0":                    "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n",
	"HTTP/1.10":                   "GET / HTTP/1.10\r\nHost: a.test\r\n\r\n",
	"HTTP/0.9":                    "GET /\r\nHost: a.test\r\n\r\n",
	"version in lower case":       "GET / http/1.1\r\nHost: a.test\r\n\r\n",
	"absolute form":               "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"asterisk form":               "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"no target":                   "GET  HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"only a version":              "GET HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"two spaces":                  "GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a tab":                       "GET\t/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a space in the target":       "GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a space behind the version":  "GET / HTTP/1.1 \r\nHost: a.test\r\n\r\n",
	"a fragment":                  "GET /#a HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a backslash":                 "GET /\\a HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"half an escape":              "GET /%2 HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"an escape that is none":      "GET /%zz HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"half an escape in the query": "GET /?%2 HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a semicolon in the query":    "GET /?a;b HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a byte beyond ASCII":         "GET /\xc3\xa4 HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"NUL in the target":           "GET /\x00 HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"CR in the target":            "GET /\ra HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"LF alone behind the line":    "GET / HTTP/1.1\nHost: a.test\r\n\r\n",
	"LF alone behind a field":     "GET / HTTP/1.1\r\nHost: a.test\n\r\n",
	"LF alone at the end":         "GET / HTTP/1.1\r\nHost: a.test\r\n\n",
	"CR alone in a value":         "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n",
	"an empty line in front":      "\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"no host":                     "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
	"an empty host":               "GET / HTTP/1.1\r\nHost:\r\n\r\n",
	"two hosts":                   "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
	"two hosts, differently":      "GET / HTTP/1.1\r\nHost: a.test\r\nhOST: b.test\r\n\r\n",
	"space before the colon":      "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
	"space before a field":        "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n",
	"a folded field":              "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\n b\r\n\r\n",
	"a field without a name":      "GET / HTTP/1.1\r\nHost: a.test\r\n: a\r\n\r\n",
	"a field without a colon":     "GET / HTTP/1.1\r\nHost: a.test\r\nX\r\n\r\n",
	"a bracket in a name":         "GET / HTTP/1.1\r\nHost: a.test\r\nX[]: a\r\n\r\n",
	"NUL in a value":              "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\x00b\r\n\r\n",
	"NUL in a name":               "GET / HTTP/1.1\r\nHost: a.test\r\nX\x00: a\r\n\r\n",
	"two spaces before a value":   "GET / HTTP/1.1\r\nHost:  a.test\r\n\r\n",
	"a space behind a value":      "GET / HTTP/1.1\r\nHost: a.test \r\n\r\n",
	"chunked":                     "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"chunked and a length":        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"a coding nobody knows":       "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\n\r\n",
	"two lengths":                 "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
	"the same length twice":       "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
	"a list of lengths":           "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5, 5\r\n\r\nabcde",
	"a signed length":             "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +5\r\n\r\nabcde",
	"a negative length":           "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: -5\r\n\r\nabcde",
	"a hexadecimal length":        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0x5\r\n\r\nabcde",
	"a length beyond 64 bits":     "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 18446744073709551621\r\n\r\nabcde",
	"an empty length":             "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length:\r\n\r\nabcde",
	"a body of a GET":             "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nabcde",
	"a connection option":         "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: X-Secret\r\n\r\n",
	"Host as connection option":   "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close, Host\r\n\r\n",
	"an upgrade":                  "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
	"Expect":                      "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nabcde",
	"TE":                          "GET / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\n\r\n",
	"another method behind it":    "POST / HTTP/1.1\r\nHost: a.test\r\nx-HTTP-method-override: DELETE\r\n\r\n",
	"h2 without TLS":              "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

func TestOddRequestsAreLeftToOthers(t *testing.T) {
	for name, in := range oddRequests {
		var r Request
		if n, err := r.Parse([]byte(in)); !errors.Is(err, ErrOther) {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

// FuzzRequest: what is read, net/http reads in the same way, before and after
// it is written again.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(plainRequest))
	f.Add([]byte("POST /a?b HTTP/1.1\r\nHost: a.test:80\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabcGET / HTTP/1.1\r\n"))
	for _, in := range oddRequests {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var r Request
		n, err := r.Parse(in)
		if err != nil {
			return
		}
		out := r.AppendTo(nil)
		before, rest := readRequest(t, in)
		if rest != len(in)-n {
			t.Fatalf("the head has %d bytes, for net/http %d", n, len(in)-rest)
		}
		after, rest := readRequest(t, append(out, in[n:]...))
		if rest != len(in)-n {
			t.Fatalf("written again it is longer or shorter:\n%q", out)
		}
		for _, h := range []*http.Request{before, after} {
			if h.Method != r.Method || h.RequestURI != string(r.Target) || h.Host != string(r.Host) || h.ContentLength != r.Length ||
				len(h.TransferEncoding) > 0 || h.Proto != "HTTP/1.1" {
				t.Fatalf("%+v is for net/http %+v", r, h)
			}
			if h.URL.EscapedPath() != string(r.Path) || h.URL.RequestURI() != string(r.Target) || h.URL.Host != "" {
				t.Fatalf("%q is for net/url %+v", r.Target, h.URL)
			}
			if _, err := url.ParseQuery(h.URL.RawQuery); err != nil {
				t.Fatalf("%q: %v", r.Target, err)
			}
		}
		if before.Close != r.Close || after.Close {
			t.Fatalf("close %v, for net/http %v and %v", r.Close, before.Close, after.Close)
		}
		for _, gone := range []string{"Connection", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Content-Length"} {
			before.Header.Del(gone)
			if gone != "Content-Length" && len(after.Header[gone]) > 0 {
				t.Fatalf("%s is passed on", gone)
			}
		}
		after.Header.Del("Content-Length")
		sameFields(t, before.Header, after.Header)
	})
}

func readRequest(t *testing.T, b []byte) (*http.Request, int) {
	t.Helper()
	under := bytes.NewReader(b)
	br := bufio.NewReaderSize(under, len(b)+16)
	req, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("net/http does not read it: %v\n%q", err, b)
	}
	return req, br.Buffered() + under.Len()
}

func sameFields(t *testing.T, a, b http.Header) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("fields %v became %v", a, b)
	}
	for k, v := range a {
		if !slices.Equal(v, b[k]) {
			t.Fatalf("%s: %q became %q", k, v, b[k])
		}
	}
}
