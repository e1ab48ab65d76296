// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

const straightPolicy = docHead + `egress:
  - {id: plain, allow: "a.test:8080", http: {methods: [GET, HEAD, POST], paths: ["/ok/**"]}, resolvesTo: [127.77.0.0/16]}
  - {id: tls, allow: "a.test:443", http: {methods: [GET, HEAD, POST], paths: ["/ok/**"]}, resolvesTo: [127.77.0.0/16]}
`

var bothPorts = map[string]uint16{"in clear": 8080, "over TLS": 443}

const getOne = "GET /ok/1 HTTP/1.1\r\nHost: a.test\r\nx-lower: 1\r\n\r\n"

// wentStraight tells by the spelling of a field, which net/http changes.
func wentStraight(sent string) bool { return strings.Contains(sent, "\r\nx-lower: 1\r\n") }

// Both ways tell the client, the server and the log the same.
func TestStraightAndServerDoTheSame(t *testing.T) {
	const h, long = " HTTP/1.1\r\nHost: a.test\r\nx-lower: 1\r\n", 300 << 10
	answerOf := map[string]string{
		"/ok/length":  ok("hello"),
		"/ok/empty":   ok(""),
		"/ok/long":    ok(strings.Repeat("0123456789", long/10)),
		"/ok/chunks":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
		"/ok/long-ch": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("a\r\n0123456789\r\n", long/10) + "0\r\n\r\n",
		"/ok/204":     "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
		"/ok/304":     "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\n\r\n",
		"/ok/404":     "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nAlt-Svc: h3=\":443\"\r\nContent-Length: 2\r\n\r\nno",
		"/ok/close":   "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
		"/ok/odd":     "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nhi",
		"/ok/interim": "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"/ok/trailer": "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n",
	}
	requests := []string{"HEAD /ok/length" + h + "\r\n", "POST /ok/length" + h + "Content-Length: 7\r\n\r\npayload", "POST /ok/length" + h + "\r\n",
		"GET /ok/length?q=secret" + h + "Connection: close\r\n\r\n", "GET /secret" + h + "\r\n", "PUT /ok/length" + h + "\r\n",
		"POST /ok/length" + h + "Transfer-Encoding: chunked\r\n\r\n7\r\npayload\r\n0\r\n\r\n"}
	for path := range answerOf {
		requests = append(requests, "GET "+path+h+"\r\n")
	}
	for name, port := range bothPorts {
		t.Run(name, func(t *testing.T) {
			var seen [2]map[string]string
			for way := range seen {
				seen[way] = map[string]string{}
				r := newRig(t, straightPolicy, rigOptions{})
				r.g.onlyServer = way == 1
				s := r.rawServer(port, answers(func(req *http.Request) string {
					if a := answerOf[req.URL.Path]; req.Method != "HEAD" {
						return a
					}
					return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
				}))
				for i, q := range requests {
					c := r.rawClient(t, port)
					_, _ = io.WriteString(c, q)
					method, _, _ := strings.Cut(q, " ")
					resp, body := c.answer(method)
					for resp.StatusCode == http.StatusEarlyHints {
						resp, body = c.answer(method)
					}
					resp.Header.Del("Date")
					resp.Header.Del("Content-Type") // the server guesses it
					if resp.StatusCode == 403 {
						resp.Header, body = nil, ""
						resp.ContentLength = 0
					}
					c.Close()
					ev := r.nthRequest(t, i)
					seen[way][q] = fmt.Sprintf("%d %v %d %v close=%v %.99s (%d) | %s %s %d in=%d out=%d %s %s %s %s %v %v", resp.StatusCode, resp.Header, resp.ContentLength, resp.Trailer, resp.Close, body, len(body),
						ev.Method, ev.URL, ev.Status, ev.BytesIn, ev.BytesOut, ev.ReasonCode, ev.Reason, ev.Rule, ev.DstName, ev.Verdict, ev.PeerAddr != "")
				}
				if first := s.sent()[0]; wentStraight(first) != (way == 0) {
					t.Fatalf("way %d: the server was sent %q", way, first)
				}
			}
			for q, a := range seen[0] {
				if b := seen[1][q]; a != b {
					t.Errorf("%.60q:\nstraight %s\nserver   %s", q, a, b)
				}
			}
		})
	}
}

// nthRequest waits for the event of the nth request, from 0.
func (r *rig) nthRequest(t *testing.T, n int) event.Event {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		r.keeper.mu.Lock()
		i := 0
		for _, ev := range r.keeper.events {
			if ev.Kind != event.KindHTTP {
				continue
			}
			if i == n {
				r.keeper.mu.Unlock()
				return ev
			}
			i++
		}
		r.keeper.mu.Unlock()
	}
	t.Fatalf("no event of request %d", n)
	return event.Event{}
}

// A connection of the client goes on, whatever way its requests take, and the
// upstream's is used again.
func TestStraightGoesOn(t *testing.T) {
	for name, port := range bothPorts {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, straightPolicy, rigOptions{})
			s := r.rawServer(port, answers(func(req *http.Request) string { return ok(req.URL.Path) }))
			c := r.rawClient(t, port)
			_, _ = io.WriteString(c, strings.Repeat(getOne, 3)) // at once
			for range 3 {
				if _, body := c.answer("GET"); body != "/ok/1" {
					t.Fatalf("body %q", body)
				}
			}
			for i := range len(getOne) { // byte by byte
				_, _ = io.WriteString(c, getOne[i:i+1])
			}
			if _, body := c.answer("GET"); body != "/ok/1" {
				t.Fatalf("body %q", body)
			}
			if sent := s.sent(); len(sent) != 1 || strings.Count(sent[0], "x-lower") != 4 {
				t.Fatalf("the server was sent %q", sent)
			}
			if status, _ := c.ask("GET /secret HTTP/1.1\r\nHost: a.test\r\n\r\n"); status != 403 {
				t.Errorf("status %d", status)
			}
			if status, _ := c.ask(getOne); status != 200 {
				t.Errorf("status %d after a refusal", status)
			}
			if status, _ := c.ask("POST /ok/1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 20000)); status != 200 {
				t.Errorf("status %d of a large body", status)
			}
			if ev := r.nthRequest(t, 0); ev.Revision != 1 || ev.SrcAddr == "" || ev.Duration <= 0 || ev.DstPort != port {
				t.Errorf("event %+v", ev)
			}
		})
	}
}

// A server that takes its time is waited for; a client that leaves meanwhile
// ends its request.
func TestStraightWaitsForTheServer(t *testing.T) {
	for name, port := range bothPorts {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, straightPolicy, rigOptions{limits: Limits{Patience: time.Hour}})
			gone := make(chan error, 1)
			s := r.rawServer(port, func(_ int, c net.Conn, br *bufio.Reader) {
				for {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					if req.URL.Path == "/ok/never" {
						_, err := br.ReadByte()
						gone <- err
						return
					}
					time.Sleep(3 * watch) // longer than anything is waited for in one go
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
					time.Sleep(3 * watch)
					_, _ = io.WriteString(c, "world")
				}
			})
			c := r.rawClient(t, port)
			for range 2 {
				if status, body := c.ask(getOne); status != 200 || body != "helloworld" {
					t.Fatalf("%d %q", status, body)
				}
			}
			if !wentStraight(s.sent()[0]) {
				t.Error("it did not go straight")
			}
			_, _ = io.WriteString(c, "GET /ok/never HTTP/1.1\r\nHost: a.test\r\n\r\n")
			time.Sleep(2 * grace)
			c.Close()
			select {
			case <-gone:
			case <-time.After(5 * time.Second):
				t.Fatal("the upstream request lives on")
			}
			r.event("client gone", func(e *event.Event) bool {
				return e.Kind == event.KindHTTP && strings.HasSuffix(e.URL, "/ok/never") && !e.Failed && e.Status == 499
			})
		})
	}
}

// A client that leaves in the middle of an answer ends it, also while the
// server has nothing to say.
func TestStraightClientLeavesWithinAnAnswer(t *testing.T) {
	for name, port := range bothPorts {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, straightPolicy, rigOptions{})
			gone := make(chan error, 1)
			r.rawServer(port, func(_ int, c net.Conn, br *bufio.Reader) {
				if _, err := http.ReadRequest(br); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
					_, err := br.ReadByte()
					gone <- err
				}
			})
			c := r.rawClient(t, port)
			_, _ = io.WriteString(c, getOne)
			if _, err := io.ReadFull(c.br, make([]byte, 60)); err != nil {
				t.Fatal(err)
			}
			c.Close()
			select {
			case <-gone:
			case <-time.After(5 * time.Second):
				t.Fatal("the upstream request lives on")
			}
			r.event("broken off", func(e *event.Event) bool {
				return e.Kind == event.KindHTTP && e.Status == 200 && e.ReasonCode == codeUpstream && !e.Failed && e.BytesIn == 5
			})
		})
	}
}

func TestStraightRevocation(t *testing.T) {
	for name, port := range bothPorts {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, straightPolicy, rigOptions{})
			asked, gone := make(chan bool, 1), make(chan error, 1)
			r.rawServer(port, func(_ int, c net.Conn, br *bufio.Reader) {
				if _, err := http.ReadRequest(br); err == nil {
					asked <- true
					_, err := br.ReadByte()
					gone <- err
				}
			})
			c := r.rawClient(t, port)
			_, _ = io.WriteString(c, getOne)
			<-asked
			r.setPolicy(2, closedPolicy)
			select {
			case <-gone:
			case <-time.After(5 * time.Second):
				t.Fatal("the upstream request lives on")
			}
			if _, err := c.br.ReadByte(); err == nil {
				t.Error("the client got an answer")
			}
			r.event("the request's end", func(e *event.Event) bool {
				return e.Kind == event.KindHTTP && e.ReasonCode == codeRevoked && e.Verdict == event.Denied
			})
		})
	}
}

// What a server says unasked, or behind an answer, is nobody's answer.
func TestStraightTakesNoAnswerThatWasNotAsked(t *testing.T) {
	const forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
	for name, port := range bothPorts {
		for _, how := range []string{"behind it", "later", "in the same record"} {
			t.Run(how+" "+name, func(t *testing.T) {
				r := newRig(t, straightPolicy, rigOptions{})
				said := make(chan bool, 8)
				s := r.rawServer(port, func(_ int, c net.Conn, br *bufio.Reader) {
					for {
						if _, err := http.ReadRequest(br); err != nil {
							return
						}
						switch how {
						case "behind it":
							_, _ = io.WriteString(c, ok("true")+forged)
						case "in the same record":
							_, _ = io.WriteString(c, ok(strings.Repeat("0123456789", 4000))+forged)
						case "later":
							_, _ = io.WriteString(c, ok("true"))
							time.Sleep(20 * time.Millisecond)
							_, _ = io.WriteString(c, forged)
						}
						said <- true
					}
				})
				c := r.rawClient(t, port)
				for i := range 3 {
					if status, body := c.ask(getOne); status != 200 || strings.Contains(body, "forged") {
						t.Errorf("request %d: %d %q", i, status, body)
					}
					select {
					case <-said:
					case <-time.After(5 * time.Second):
						t.Fatal("the server was not asked")
					}
					time.Sleep(20 * time.Millisecond)
				}
				if n := len(s.sent()); n != 3 {
					t.Errorf("%d connections for three requests", n)
				}
			})
		}
	}
}

// A connection that the server closed while it was idle costs a replayable
// request nothing; another one is not sent twice.
func TestStraightServerClosesIdleConnections(t *testing.T) {
	for name, port := range bothPorts {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, straightPolicy, rigOptions{})
			s := r.rawServer(port, func(n int, c net.Conn, br *bufio.Reader) {
				for i := 0; ; i++ {
					req, err := http.ReadRequest(br)
					if err != nil || n == 1 && i == 1 { // reads a second one and answers nothing
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					_, _ = io.WriteString(c, ok("hi"))
					if n == 0 {
						return
					}
				}
			})
			c := r.rawClient(t, port)
			for i := range 4 {
				if status, _ := c.ask(getOne); status != 200 {
					t.Fatalf("request %d: %d", i, status)
				}
				time.Sleep(20 * time.Millisecond)
			}
			if n := len(s.sent()); n != 3 {
				t.Errorf("%d connections", n)
			}
		})
		t.Run("POST "+name, func(t *testing.T) {
			r := newRig(t, straightPolicy, rigOptions{})
			s := r.rawServer(port, func(n int, c net.Conn, br *bufio.Reader) {
				if _, err := http.ReadRequest(br); err == nil {
					_, _ = io.WriteString(c, ok("hi"))
					_, _ = http.ReadRequest(br)
				}
			})
			c := r.rawClient(t, port)
			if status, _ := c.ask(getOne); status != 200 {
				t.Fatalf("status %d", status)
			}
			if status, _ := c.ask("POST /ok/1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi"); status != 502 {
				t.Errorf("status %d", status)
			}
			if all := strings.Join(s.sent(), ""); strings.Count(all, "POST") != 1 {
				t.Errorf("sent %q", all)
			}
		})
	}
}

// An answer that breaks off does not look whole.
func TestStraightAnswerBreaksOff(t *testing.T) {
	for name, port := range bothPorts {
		for how, answer := range map[string]string{
			"length":       "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
			"chunks":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
			"chunk":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nhello",
			"wrong chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n",
		} {
			t.Run(how+" "+name, func(t *testing.T) {
				r := newRig(t, straightPolicy, rigOptions{})
				r.rawServer(port, func(_ int, c net.Conn, br *bufio.Reader) {
					if _, err := http.ReadRequest(br); err == nil {
						_, _ = io.WriteString(c, answer)
					}
				})
				c := r.rawClient(t, port)
				_, _ = io.WriteString(c, getOne)
				resp, err := http.ReadResponse(c.br, nil)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
				}
				if err == nil {
					t.Error("the answer looks whole")
				}
				r.event("broken off", func(e *event.Event) bool {
					return e.Kind == event.KindHTTP && e.Status == 200 && e.ReasonCode == codeUpstream && e.Failed
				})
			})
		}
	}
}

// What arrives piece by piece is passed on piece by piece.
func TestStraightDoesNotBuffer(t *testing.T) {
	for name, port := range bothPorts {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, straightPolicy, rigOptions{})
			step := make(chan bool)
			r.rawServer(port, func(_ int, c net.Conn, br *bufio.Reader) {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
				for range 3 {
					<-step
					_, _ = io.WriteString(c, "5\r\nevent\r\n")
				}
				<-step
				_, _ = io.WriteString(c, "0\r\n\r\n")
				_, _ = br.ReadByte()
			})
			c := r.rawClient(t, port)
			_, _ = io.WriteString(c, getOne)
			resp, err := http.ReadResponse(c.br, nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				step <- true
				if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
			}
			step <- true
			if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("the end is %d, %v", n, err)
			}
		})
	}
}

// While the gateway drains, idle connections end and what runs is finished.
func TestStraightDrains(t *testing.T) {
	r := newRig(t, straightPolicy, rigOptions{})
	asked, goOn := make(chan bool, 4), make(chan bool)
	r.rawServer(8080, answers(func(req *http.Request) string {
		if req.URL.Path == "/ok/slow" {
			asked <- true
			<-goOn
		}
		return ok("hi")
	}))
	idle, busy := r.rawClient(t, 8080), r.rawClient(t, 8080)
	for _, c := range []*rawClient{idle, busy} {
		if status, _ := c.ask(getOne); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	_, _ = io.WriteString(busy, "GET /ok/slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
	<-asked
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	drained := make(chan bool)
	go func() { r.g.Drain(ctx); close(drained) }()
	if _, err := idle.br.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v", err)
	}
	time.Sleep(2 * grace) // by now the slow one is the HTTP server's, which was shut down
	close(goOn)
	resp, body := busy.answer("GET")
	if resp.StatusCode != 200 || body != "hi" || !resp.Close {
		t.Errorf("%d %q close=%v", resp.StatusCode, body, resp.Close)
	}
	select {
	case <-drained:
	case <-time.After(5 * time.Second):
		t.Error("Drain does not return")
	}
}
