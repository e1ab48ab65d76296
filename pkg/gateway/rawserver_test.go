// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

// rawServer is an upstream that keeps what it was sent.
type rawServer struct {
	mu    sync.Mutex
	conns []*bytes.Buffer
}

// rawServer runs answer on every connection to a.test; what it reads from br
// is kept.
func (r *rig) rawServer(port uint16, answer func(n int, c net.Conn, br *bufio.Reader)) *rawServer {
	r.tb.Helper()
	l := r.listen("a.test", port)
	if port == 443 {
		cfg := r.world.server(r.tb, "a.test")
		cfg.NextProtos = []string{"http/1.1"}
		l = tls.NewListener(l, cfg)
	}
	s := &rawServer{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			kept := &bytes.Buffer{}
			n := len(s.conns)
			s.conns = append(s.conns, kept)
			s.mu.Unlock()
			go func() {
				defer c.Close()
				answer(n, c, bufio.NewReader(io.TeeReader(c, lockedWriter{&s.mu, kept})))
			}()
		}
	}()
	return s
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

// sent is what came on each connection.
func (s *rawServer) sent() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.conns {
		all = append(all, b.String())
	}
	return all
}

// answers answers every request with what make says.
func answers(make func(*http.Request) string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if _, err := io.WriteString(c, make(req)); err != nil {
				return
			}
		}
	}
}

func ok(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// rawClient is a connection of the sandbox to a.test.
type rawClient struct {
	net.Conn
	br *bufio.Reader
	t  *testing.T
}

func (r *rig) rawClient(t *testing.T, port uint16) *rawClient {
	t.Helper()
	c := r.mustDial("a.test", port)
	if port == 443 {
		c = tls.Client(c, &tls.Config{ServerName: "a.test", RootCAs: r.keeper.ca.pool(), NextProtos: []string{"http/1.1"}})
	}
	return &rawClient{c, bufio.NewReader(c), t}
}

// ask sends a request and reads the whole answer.
func (c *rawClient) ask(request string) (status int, body string) {
	c.t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		c.t.Fatal(err)
	}
	resp, body := c.answer("GET")
	return resp.StatusCode, body
}

func (c *rawClient) answer(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.br, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, string(body)
}
