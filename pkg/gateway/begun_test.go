// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// What was begun goes on with the HTTP server, whatever kept it.
func TestBegunRequestsGoOn(t *testing.T) {
	const body = "POST /ok/1 HTTP/1.1\r\nHost: a.test\r\nx-lower: 1\r\nContent-Length: 7\r\n\r\npayload"
	large := "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*straightOut) + "\r\nContent-Length: 2\r\n\r\nhi"
	cases := map[string]struct {
		before time.Duration // the handshake
		answer string
		status int
		code   string
	}{
		"a slow handshake":        {3 * grace, ok("hi"), 200, ""},
		"a large head":            {0, large, 200, ""},
		"a slow one, a large one": {3 * grace, large, 200, ""},
		"HTTP/1.0":                {0, "HTTP/1.0 200 OK\r\n\r\nhi", 200, ""},
		"a head without an end":   {0, "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", maxAnswerHead/1000+1), 502, codeUpstream},
		"protocols switched":      {0, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 502, codeUpstream},
		"something else":          {0, "SSH-2.0-x\r\n", 502, codeUpstream},
	}
	for how, c := range cases {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, straightPolicy, rigOptions{})
			s := r.rawServer(443, func(_ int, conn net.Conn, br *bufio.Reader) {
				time.Sleep(c.before)
				req, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				if sent, err := io.ReadAll(req.Body); err != nil || string(sent) != "payload" {
					t.Errorf("the server was sent %q, %v", sent, err)
				}
				_, _ = io.WriteString(conn, c.answer)
			})
			status, got := r.rawClient(t, 443).ask(body)
			if status != c.status || status == 200 && got != "hi" {
				t.Errorf("%d %.99q", status, got)
			}
			if sent := s.sent(); len(sent) != 1 || !wentStraight(sent[0]) || strings.Count(sent[0], "payload") != 1 {
				t.Errorf("the server was sent %q", sent)
			}
			r.event("the request", func(e *event.Event) bool {
				return e.Kind == event.KindHTTP && e.Status == uint32(c.status) && (c.code == "" || e.ReasonCode == c.code) && e.BytesOut == 7
			})
		})
	}
}

// What was sent is recorded as it was decided then, though policy has changed
// before the answer, which the HTTP server has to look at.
func TestBegunKeepsItsDecision(t *testing.T) {
	for how, answer := range map[string]string{"odd": "HTTP/1.0 200 OK\r\n\r\nhi", "plain": ok("hi")} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, straightPolicy, rigOptions{})
			s := r.rawServer(443, func(_ int, conn net.Conn, br *bufio.Reader) {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				r.setPolicy(2, strings.ReplaceAll(straightPolicy, "/ok/", "/other/"))
				_, _ = io.WriteString(conn, answer)
			})
			c := r.rawClient(t, 443)
			if status, got := c.ask(getOne); status != 200 || got != "hi" {
				t.Errorf("%d %q", status, got)
			}
			e := r.event("the request", func(e *event.Event) bool { return e.Kind == event.KindHTTP })
			if e.Verdict != event.Allowed || e.PeerAddr == "" || e.Status != 200 {
				t.Errorf("it was sent, and the record is %+v", e)
			}
			if status, _ := r.rawClient(t, 443).ask(getOne); status != 403 || len(s.sent()) != 1 {
				t.Errorf("the next one: %d, %d were sent", status, len(s.sent()))
			}
		})
	}
}

// The place of its record goes along with what was begun; nobody wants it: what
// was sent is recorded, and else the place is free again.
func TestBegunThatNobodyWants(t *testing.T) {
	r := newRig(t, straightPolicy, rigOptions{})
	const id = 1
	b := &begun{ticket: r.g.rec.reserve(id), sent: &sent{unclaimed: event.Event{Kind: event.KindHTTP, Path: "/unclaimed"}}}
	b.drop()
	r.event("what was sent", func(e *event.Event) bool { return e.Path == "/unclaimed" })
	free := &begun{ticket: r.g.rec.reserve(id)}
	place := free.ticket
	free.drop()
	if !place.used {
		t.Error("the place of what was not sent is kept")
	}
}

func TestBegunIsForOneRequestOnly(t *testing.T) {
	b := &begun{method: "GET", target: "/ok/1", err: io.EOF}
	if _, err := b.RoundTrip(httptest.NewRequest("GET", "/ok/1", nil)); !errors.Is(err, io.EOF) {
		t.Errorf("the request itself: %v", err)
	}
	for _, other := range []*http.Request{httptest.NewRequest("POST", "/ok/1", nil), httptest.NewRequest("GET", "/ok/1?a", nil)} {
		if _, err := b.RoundTrip(other); !errors.Is(err, errNotBegun) {
			t.Errorf("%s %s: %v", other.Method, other.URL, err)
		}
	}
}
