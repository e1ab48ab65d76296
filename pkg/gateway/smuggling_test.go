// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// smuggled is a request that policy does not allow. Each attempt hides it
// somewhere; %s is a plain request line and Host.
const smuggled = "GET /secret HTTP/1.1\r\nHost: a.test\r\n\r\n"

var smugglings = map[string]string{
	"behind a plain request":          "%s\r\n" + smuggled,
	"length and chunks":               "POST%sContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
	"chunks and length":               "POST%sTransfer-Encoding: chunked\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"chunks twice":                    "POST%sTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
	"chunks and identity":             "POST%sTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
	"chunked in a list":               "POST%sTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + smuggled,
	"chunked with a tab":              "POST%sTransfer-Encoding:\tchunked\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"chunked with VT":                 "POST%sTransfer-Encoding: \x0bchunked\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"chunked in quotes":               "POST%sTransfer-Encoding: \"chunked\"\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"coding before a colon's space":   "POST%sTransfer-Encoding : chunked\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"coding folded":                   "POST%sX: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"coding's value folded":           "POST%sTransfer-Encoding:\r\n chunked\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"coding behind CR":                "POST%sX: y\rTransfer-Encoding: chunked\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"coding behind LF":                "POST%sX: y\nTransfer-Encoding: chunked\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"coding behind NUL":               "POST%sX: y\x00\r\nTransfer-Encoding: chunked\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"coding with an underscore":       "POST%sTransfer_Encoding: chunked\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"HTTP/1.0 with chunks":            "POST /ok/1 HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 46\r\n\r\n0\r\n\r\n" + smuggled,
	"two lengths":                     "POST%sContent-Length: 0\r\nContent-Length: 41\r\n\r\n" + smuggled,
	"two lengths, the other way":      "POST%sContent-Length: 41\r\nContent-Length: 0\r\n\r\n" + smuggled,
	"a list of lengths":               "POST%sContent-Length: 0, 41\r\n\r\n" + smuggled,
	"a signed length":                 "POST%sContent-Length: +0\r\n\r\n" + smuggled,
	"a negative length":               "POST%sContent-Length: -0\r\n\r\n" + smuggled,
	"a length with a space in it":     "POST%sContent-Length: 0 41\r\n\r\n" + smuggled,
	"a hexadecimal length":            "POST%sContent-Length: 0x0\r\n\r\n" + smuggled,
	"a length that overflows":         "POST%sContent-Length: 18446744073709551616\r\n\r\n" + smuggled,
	"a length with a long zero":       "POST%sContent-Length: 00000000000000000000000\r\n\r\n" + smuggled,
	"a length before a colon's space": "POST%sContent-Length : 41\r\n\r\n" + smuggled,
	"an empty length":                 "POST%sContent-Length:\r\n\r\n" + smuggled,
	"a length as connection option":   "POST%sConnection: close, Content-Length\r\nContent-Length: 41\r\n\r\n" + smuggled,
	"the body of a GET":               "GET%sContent-Length: 41\r\n\r\n" + smuggled,
	"the body of a HEAD":              "HEAD%sContent-Length: 41\r\n\r\n" + smuggled,
	"the body of a POST":              "POST%sContent-Length: 41\r\n\r\n" + smuggled,
	"LF ends the head":                "GET%sX: y\n\n" + smuggled,
	"CR ends the head":                "GET%sX: y\r\r" + smuggled,
	"an LF CR LF in a value":          "GET%sX: y\n\r\n" + smuggled,
	"a line break in the target":      "GET /ok/1\r\n HTTP/1.1\r\nHost: a.test\r\n\r\n" + smuggled,
	"a second request in the target":  "GET /ok/1 HTTP/1.1 HTTP/1.1\r\nHost: a.test\r\n\r\n" + smuggled,
	"an escaped line break":           "GET /ok/%0d%0aGET%20/secret HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a chunk's extension":             "POST%sTransfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n" + smuggled,
	"a chunk's size with LF":          "POST%sTransfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n" + smuggled,
	"a chunk that overflows":          "POST%sTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n0\r\n\r\n" + smuggled,
	"a signed chunk":                  "POST%sTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + smuggled,
	"a trailer with a length":         "POST%sTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 41\r\n\r\n" + smuggled,
	"Expect":                          "POST%sExpect: 100-continue\r\nContent-Length: 41\r\n\r\n" + smuggled,
	"Expect that is unknown":          "POST%sExpect: 100-continue, x\r\nContent-Length: 41\r\n\r\n" + smuggled,
	"an upgrade to h2c":               "GET%sConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + smuggled,
	"a WebSocket that is none":        "GET%sConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 1\r\n\r\n" + smuggled,
	"CONNECT":                         "CONNECT a.test:8080 HTTP/1.1\r\nHost: a.test\r\n\r\n" + smuggled,
	"another method":                  "POST%sX-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n",
	"another target":                  "GET%sX-Original-URL: /secret\r\n\r\n",
	"two hosts":                       "GET /ok/1 HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
	"a host that is folded":           "GET /ok/1 HTTP/1.1\r\nHost: a.test\r\n b.test\r\n\r\n",
	"a host with user":                "GET /ok/1 HTTP/1.1\r\nHost: b.test@a.test\r\n\r\n",
	"a host with a list":              "GET /ok/1 HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
	"absolute form":                   "GET http://a.test/secret HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"absolute form of another host":   "GET http://b.test/ok/1 HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"two slashes":                     "GET //secret HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"dot segments":                    "GET /ok/../secret HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"escaped dot segments":            "GET /ok/%2e%2e/secret HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"dots with a parameter":           "GET /ok/..;/secret HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a backslash":                     "GET /ok/..\\secret HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"an escaped slash":                "GET /ok/..%2fsecret HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a large head":                    "GET%sX: " + strings.Repeat("x", 8<<10-60) + "\r\n\r\n" + smuggled,
	"a large body":                    "POST%sContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 20000) + smuggled,
}

// Whatever a client writes, the server gets requests that policy allows, each
// framed in one way only, on either way through the gateway, and in whatever
// pieces it comes.
func TestNothingIsSmuggled(t *testing.T) {
	for name, port := range bothPorts {
		for way, onlyServer := range map[string]bool{"straight": false, "server": true} {
			t.Run(name+" "+way, func(t *testing.T) {
				r := newRig(t, straightPolicy, rigOptions{})
				r.g.onlyServer = onlyServer
				s := r.rawServer(port, answers(func(req *http.Request) string {
					if req.Method == "HEAD" {
						return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
					}
					return ok("hello")
				}))
				for how, send := range smugglings {
					for _, pieces := range []int{1, 2} {
						send := strings.ReplaceAll(send, "%s", " /ok/1 HTTP/1.1\r\nHost: a.test\r\n")
						if strings.HasPrefix(send, " ") {
							send = "GET" + send
						}
						before := len(s.sent())
						attack(t, r.rawClient(t, port), send, pieces)
						for _, sent := range s.sent()[before:] {
							if err := judgeSent(sent); err != nil {
								t.Errorf("%s, in %d: %v\nthe server was sent %q", how, pieces, err, sent)
							}
						}
						r.g.closeKept()
					}
				}
				if sent := strings.Join(s.sent(), ""); strings.Count(sent, "/ok/1 ") < 10 {
					t.Errorf("few requests came through, so this shows nothing: %q", sent)
				}
			})
		}
	}
}

// attack sends bytes and reads until the gateway has nothing more to say.
func attack(t *testing.T, c *rawClient, send string, pieces int) {
	t.Helper()
	defer c.Close()
	for i := range pieces {
		part := send[len(send)*i/pieces : len(send)*(i+1)/pieces]
		if _, err := io.WriteString(c, part); err != nil {
			break
		}
		if i+1 < pieces {
			time.Sleep(time.Millisecond)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	_, _ = io.Copy(io.Discard, c.br)
}

// closeKept makes the next request go over a new connection.
func (g *Gateway) closeKept() {
	for _, id := range g.Sandboxes() {
		g.mu.Lock()
		e := g.sandboxes[id].epoch.Load()
		g.mu.Unlock()
		e.web1.CloseIdleConnections()
		e.kept.drop(time.Now().Add(time.Hour))
	}
}

var oneLine = regexp.MustCompile(`^[!-9;-~]+:[ -~]*$`)

// judgeSent reads what a server was sent. There is one way to read it, and it
// is what policy allows.
func judgeSent(sent string) error {
	for rest := []byte(sent); len(rest) > 0; {
		head, _, whole := bytes.Cut(rest, []byte("\r\n\r\n"))
		if !whole {
			return nil // it broke off in the head, nobody acts on it
		}
		lines := strings.Split(string(head), "\r\n")
		method, target, _ := strings.Cut(lines[0], " ")
		if !regexp.MustCompile(`^/ok/[!-~]* HTTP/1\.1$`).MatchString(target) || strings.Contains(target, "..") || method != "GET" && method != "HEAD" && method != "POST" {
			return fmt.Errorf("the request line %q", lines[0])
		}
		framings, hosts := 0, 0
		for _, l := range lines[1:] {
			name, value, _ := strings.Cut(strings.ToLower(l), ":")
			value = strings.TrimSpace(value)
			switch {
			case !oneLine.MatchString(l):
				return fmt.Errorf("the line %q", l)
			case name == "content-length" && !regexp.MustCompile(`^(0|[1-9][0-9]*)$`).MatchString(value),
				name == "transfer-encoding" && value != "chunked",
				name == "host" && value != "a.test",
				name == "upgrade" && value != "websocket",
				strings.HasPrefix(name, "x-http-method"), name == "x-original-url":
				return fmt.Errorf("the line %q", l)
			case name == "content-length", name == "transfer-encoding":
				framings++
			case name == "host":
				hosts++
			}
		}
		if framings > 1 || hosts != 1 {
			return fmt.Errorf("%d framings, %d hosts", framings, hosts)
		}
		under := bytes.NewReader(rest)
		br := bufio.NewReaderSize(under, len(rest)+16)
		req, err := http.ReadRequest(br)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil // the body broke off
		}
		rest = rest[len(rest)-under.Len()-br.Buffered():]
	}
	return nil
}

func TestJudgeSentSeesWhatIsSmuggled(t *testing.T) {
	const host = "Host: a.test\r\n"
	if err := judgeSent("POST /ok/1 HTTP/1.1\r\n" + host + "Content-Length: 41\r\n\r\n" + smuggled); err != nil {
		t.Errorf("a body: %v", err)
	}
	for _, sent := range []string{
		"POST /ok/1 HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n" + smuggled,
		"POST /ok/1 HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /ok/1 HTTP/1.1\r\n" + host + "Transfer-Encoding: x\r\n\r\n0\r\n\r\n",
		"GET /ok/1 HTTP/1.1\r\n" + host + host + "\r\n",
		"GET /ok/1 HTTP/1.1\r\n" + host + "X: a\nY: b\r\n\r\n",
		"GET /ok/1 HTTP/1.1\r\nHost: b.test\r\n\r\n",
	} {
		if judgeSent(sent) == nil {
			t.Errorf("%q passes", sent)
		}
	}
}
