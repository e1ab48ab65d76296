// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ringfence/ringfence/test/doubles"
)

// end is how a call ends for the client.
type end struct {
	how    string // "whole", "cut" (a stream that ends with an error), or "failed"
	status int    // failed: what the client gets
	reason string // reason code of the event; "" where it is whole
}

var (
	endsWhole   = end{how: "whole", status: 200}
	endsCut     = end{how: "cut", status: 200, reason: "upstream-broke-off"}
	endsBroken  = end{"failed", 502, "upstream"}
	endsSilent  = end{"failed", 504, "upstream-timeout"}
	endsRefused = end{"failed", 502, "upstream-answer"}
)

// modelFault is one way in which a provider fails.
type modelFault struct {
	name     string
	document end    // with one provider, an answer in one piece
	stream   end    // the same, a stream
	timeouts string // of the provider's document

	serve func(p *failing)      // runs the provider; nil: handle does
	with  func(cfg *tls.Config) // changes what it serves with
	h1    bool                  // it speaks HTTP/1.1 only
	clock time.Duration         // the clock jumps by that while the provider has the request
	do    func(p *failing, w http.ResponseWriter, r *http.Request)
	frame func(p *failing, c *doubles.FrameConn)
}

const hurry = "{firstByte: 200ms, idle: 200ms}"

// failing is a provider with a fault.
type failing struct {
	f       *modelFault
	m       *faultMatrix
	host    string
	dialect string
}

// pieces are what a healthy provider would send.
func (p *failing) pieces(r *http.Request) []string {
	b, _ := io.ReadAll(r.Body)
	return p.piecesOf(strings.Contains(string(b), `"stream":true`))
}

func (p *failing) piecesOf(stream bool) []string {
	d := doubles.NewProvider()
	d.Text = "first of them speaks here"
	rec := httptest.NewRecorder()
	d.ServeHTTP(rec, httptest.NewRequest("POST", pathOf(p.dialect), strings.NewReader(bodyFor(p.dialect, "m", stream))))
	if !stream {
		s := rec.Body.String()
		return []string{s[:len(s)/2], s[len(s)/2:]}
	}
	list := strings.SplitAfter(rec.Body.String(), "\n\n")
	return list[:len(list)-1]
}

// announcement is the beginning of an answer that says nothing yet.
func (p *failing) announcement(r *http.Request) []string {
	pieces := p.pieces(r)
	if contentType(pieces) == "text/event-stream" && p.dialect == "openai" {
		return []string{": wait\n\n"}
	}
	return pieces[:1]
}

// saying is the number of pieces after which a stream has said something.
const saying = 5

func contentType(pieces []string) string {
	if strings.HasPrefix(pieces[0], "data:") || strings.HasPrefix(pieces[0], ":") || strings.HasPrefix(pieces[0], "event:") {
		return "text/event-stream"
	}
	return "application/json"
}

// send writes some of the pieces, each flushed.
func send(w http.ResponseWriter, pieces []string) {
	w.Header().Set("Content-Type", contentType(pieces))
	for _, s := range pieces {
		_, _ = io.WriteString(w, s)
		_ = http.NewResponseController(w).Flush()
	}
}

// most are the pieces before the end, but for which the answer is no whole one.
func most(pieces []string) []string { return pieces[:min(saying, len(pieces)-1)] }

// seize takes the connection from the server: of HTTP/1.1 only.
func seize(w http.ResponseWriter) (*tls.Conn, *net.TCPConn) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	tc := c.(*tls.Conn)
	return tc, tc.NetConn().(*net.TCPConn)
}

func resetConn(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// raw writes an answer of HTTP/1.1 piece by piece in chunks, without an end.
func raw(c io.Writer, pieces []string) {
	_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n", contentType(pieces))
	for _, s := range pieces {
		_, _ = fmt.Fprintf(c, "%x\r\n%s\r\n", len(s), s)
	}
}

func compressed(p *failing, w http.ResponseWriter, r *http.Request, name string, with func(io.Writer) io.WriteCloser) {
	pieces := p.pieces(r)
	w.Header().Set("Content-Type", contentType(pieces))
	w.Header().Set("Content-Encoding", name)
	z := with(w)
	_, _ = io.WriteString(z, strings.Join(pieces, ""))
	_ = z.Close()
}

func gzipped(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }

type plainCloser struct{ io.Writer }

func (plainCloser) Close() error { return nil }

// errorEvent is what the providers send in a stream that fails.
func errorEvent(dialect string) string {
	if dialect == "anthropic" {
		return "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n"
	}
	return "data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n"
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// modelFaults are the rows of the matrix.
var modelFaults = []modelFault{
	{name: "none", document: endsWhole, stream: endsWhole, do: func(p *failing, w http.ResponseWriter, r *http.Request) { send(w, p.pieces(r)) }},

	{name: "refuses", document: endsBroken, stream: endsBroken, serve: func(p *failing) { p.m.r.host(p.host) }},
	{name: "no-name", document: endsBroken, stream: endsBroken, serve: func(*failing) {}},
	{name: "mute-name", document: endsSilent, stream: endsSilent, timeouts: hurry, serve: func(*failing) {}},
	{name: "no-tls", document: endsBroken, stream: endsBroken, serve: func(p *failing) {
		p.m.serve(p, &http.Server{Handler: http.NotFoundHandler()}, false)
	}},
	{name: "wrong-name", document: endsBroken, stream: endsBroken, do: func(p *failing, w http.ResponseWriter, r *http.Request) { send(w, p.pieces(r)) },
		with: func(cfg *tls.Config) { cfg.Certificates = cfg.Certificates[1:] }},
	{name: "expired", document: endsBroken, stream: endsBroken, do: func(p *failing, w http.ResponseWriter, r *http.Request) { send(w, p.pieces(r)) },
		with: func(cfg *tls.Config) { cfg.Certificates = cfg.Certificates[2:] }},
	{name: "silent-tls", document: endsSilent, stream: endsSilent, timeouts: hurry, serve: func(p *failing) { p.m.listenOnly(p) }},

	{name: "hangs-before-the-head", document: endsSilent, stream: endsSilent, timeouts: hurry,
		do: func(_ *failing, w http.ResponseWriter, r *http.Request) { hang(w, r) }},
	{name: "hangs-after-the-head", document: endsSilent, stream: endsSilent, timeouts: "{idle: 400ms}",
		do: func(p *failing, w http.ResponseWriter, r *http.Request) { send(w, p.announcement(r)); hang(w, r) }},
	{name: "hangs-inside", document: endsSilent, stream: end{"cut", 200, "upstream-broke-off"}, timeouts: "{idle: 400ms}",
		do: func(p *failing, w http.ResponseWriter, r *http.Request) { send(w, most(p.pieces(r))); hang(w, r) }},
	{name: "resets-before-the-head", document: endsBroken, stream: endsBroken, h1: true,
		do: func(p *failing, w http.ResponseWriter, r *http.Request) {
			p.pieces(r)
			_, c := seize(w)
			resetConn(c)
		}},
	{name: "closes-before-the-head", document: endsBroken, stream: endsBroken, h1: true,
		do: func(p *failing, w http.ResponseWriter, r *http.Request) {
			p.pieces(r)
			c, _ := seize(w)
			_ = c.Close()
		}},
	{name: "resets-inside", document: endsBroken, stream: endsCut, h1: true, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		pieces := p.pieces(r)
		c, tcp := seize(w)
		raw(c, most(pieces))
		p.m.arrived(r) // or the reset could overtake what was written
		resetConn(tcp)
	}},
	{name: "closes-inside", document: endsBroken, stream: endsCut, h1: true, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		pieces := p.pieces(r)
		c, _ := seize(w)
		raw(c, most(pieces))
		_ = c.Close()
	}},
	{name: "half-an-event", document: endsBroken, stream: endsCut, h1: true, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		pieces := p.pieces(r)
		c, _ := seize(w)
		raw(c, append(most(pieces)[:len(most(pieces)):len(most(pieces))], pieces[len(most(pieces))][:9]))
		_ = c.Close()
	}},
	{name: "half-a-json", document: endsRefused, stream: endsCut, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		pieces := p.pieces(r)
		send(w, append(most(pieces)[:len(most(pieces)):len(most(pieces))], pieces[len(most(pieces))][:9]))
	}},
	{name: "less-than-its-length", document: endsBroken, stream: endsCut, h1: true, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		pieces := p.pieces(r)
		text := strings.Join(most(pieces), "")
		c, _ := seize(w)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", contentType(pieces), len(text)+100, text)
		_ = c.Close()
	}},
	{name: "ends-too-early", document: endsRefused, stream: endsCut, do: func(p *failing, w http.ResponseWriter, r *http.Request) { send(w, most(p.pieces(r))) }},
	{name: "ends-with-the-connection", document: endsRefused, stream: endsCut, h1: true, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		pieces := p.pieces(r)
		c, _ := seize(w)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nConnection: close\r\n\r\n%s", contentType(pieces), strings.Join(most(pieces), ""))
		_ = c.Close()
	}},
	{name: "wrong-type", document: endsRefused, stream: endsRefused, do: func(_ *failing, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html><body>Log in</body></html>")
	}},
	{name: "no-http", document: endsBroken, stream: endsBroken, h1: true, do: func(_ *failing, w http.ResponseWriter, _ *http.Request) {
		c, _ := seize(w)
		_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n\r\n")
		_ = c.Close()
	}},
	{name: "error-under-200", document: endsRefused, stream: endsRefused, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		text := errorEvent(p.dialect)
		if !strings.HasPrefix(contentType(p.pieces(r)), "text/") {
			_, text, _ = strings.Cut(text, "data: ")
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, text)
			return
		}
		send(w, []string{text})
	}},
	{name: "error-event-inside", document: endsRefused, stream: end{"cut", 200, "upstream-error"}, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		pieces := p.pieces(r)
		if contentType(pieces) == "text/event-stream" {
			send(w, append(most(pieces)[:len(most(pieces)):len(most(pieces))], errorEvent(p.dialect)))
			return
		}
		send(w, pieces[:1])
	}},
	{name: "slow-trickle", document: endsWhole, stream: endsWhole, timeouts: "{idle: 20s}", do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		pieces := p.pieces(r)
		w.Header().Set("Content-Type", contentType(pieces))
		for b := []byte(strings.Join(pieces, "")); len(b) > 0; b = b[min(len(b), 37):] {
			_, _ = w.Write(b[:min(len(b), 37)])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(2 * time.Millisecond)
		}
	}},
	{name: "trickle-without-end", document: endsSilent, stream: end{"cut", 200, "upstream-broke-off"}, timeouts: "{total: 500ms}", do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		pieces := p.pieces(r)
		send(w, most(pieces))
		for r.Context().Err() == nil {
			if contentType(pieces) == "text/event-stream" {
				send(w, pieces[saying-1:saying])
			} else {
				send(w, []string{" "})
			}
			time.Sleep(20 * time.Millisecond)
		}
	}},
	{name: "redirects", document: endsRefused, stream: endsRefused, do: func(_ *failing, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "https://evil.test/v1/chat/completions")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}},
	{name: "huge-head", document: endsBroken, stream: endsBroken, h1: true, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		for i := range 40 {
			w.Header().Set(fmt.Sprintf("X-Filler-%d", i), strings.Repeat("x", 40<<10))
		}
		send(w, p.pieces(r))
	}},
	{name: "huge-head-h2", document: endsBroken, stream: endsBroken, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		for i := range 40 {
			w.Header().Set(fmt.Sprintf("X-Filler-%d", i), strings.Repeat("x", 40<<10))
		}
		send(w, p.pieces(r))
	}},
	{name: "large-head", document: endsWhole, stream: endsWhole, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Filler", strings.Repeat("x", 60<<10))
		send(w, p.pieces(r))
	}},
	{name: "gzip", document: endsWhole, stream: endsWhole, do: func(p *failing, w http.ResponseWriter, r *http.Request) { compressed(p, w, r, "gzip", gzipped) }},
	{name: "broken-gzip", document: endsBroken, stream: endsBroken, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		compressed(p, w, r, "gzip", func(w io.Writer) io.WriteCloser { return plainCloser{w} })
	}},
	{name: "half-a-gzip", document: endsBroken, stream: endsBroken, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		pieces := p.pieces(r)
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, strings.Join(pieces, ""))
		_ = z.Close()
		w.Header().Set("Content-Type", contentType(pieces))
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(b.Bytes()[:20])
	}},
	{name: "deflate", document: endsRefused, stream: endsRefused, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		compressed(p, w, r, "deflate", func(w io.Writer) io.WriteCloser { z, _ := flate.NewWriter(w, 1); return z })
	}},
	{name: "br", document: endsRefused, stream: endsRefused, do: func(p *failing, w http.ResponseWriter, r *http.Request) {
		compressed(p, w, r, "br", func(w io.Writer) io.WriteCloser { return plainCloser{w} }) // it is refused by its name
	}},
	{name: "h2-resets-before-the-head", document: endsBroken, stream: endsBroken, frame: func(_ *failing, c *doubles.FrameConn) {
		_ = c.Framer.WriteRSTStream(c.Stream, http2.ErrCodeInternal)
	}},
	{name: "h2-resets-inside", document: endsBroken, stream: endsCut, frame: func(p *failing, c *doubles.FrameConn) {
		p.frames(c, true)
		p.m.arrivedBy(p)
		_ = c.Framer.WriteRSTStream(c.Stream, http2.ErrCodeInternal)
	}},
	{name: "goaway-with-an-error", document: endsBroken, stream: endsBroken, frame: func(_ *failing, c *doubles.FrameConn) {
		_ = c.Framer.WriteGoAway(c.Stream, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings"))
		_ = c.Conn.Close()
	}},
	{name: "goaway-before-the-head", document: endsBroken, stream: endsBroken, frame: func(_ *failing, c *doubles.FrameConn) {
		_ = c.Framer.WriteGoAway(0, http2.ErrCodeNo, nil)
	}},
	{name: "goaway-inside", document: endsWhole, stream: endsWhole, frame: func(p *failing, c *doubles.FrameConn) {
		p.frames(c, true)
		_ = c.Framer.WriteGoAway(c.Stream, http2.ErrCodeNo, nil)
		p.frames(c, false)
	}},
	{name: "goaway-and-gone", document: endsBroken, stream: endsCut, frame: func(p *failing, c *doubles.FrameConn) {
		p.frames(c, true)
		p.m.arrivedBy(p)
		_ = c.Framer.WriteGoAway(c.Stream, http2.ErrCodeNo, nil)
		_ = c.Conn.Close()
	}},
	{name: "clock-ahead", document: endsWhole, stream: endsWhole, clock: 26 * time.Hour, do: func(p *failing, w http.ResponseWriter, r *http.Request) { p.jump(w, r) }},
	{name: "clock-back", document: endsWhole, stream: endsWhole, clock: -26 * time.Hour, do: func(p *failing, w http.ResponseWriter, r *http.Request) { p.jump(w, r) }},
}

// jump sets the gateway's clock in the middle of an answer.
func (p *failing) jump(w http.ResponseWriter, r *http.Request) {
	pieces := p.pieces(r)
	send(w, most(pieces))
	p.m.offset.Store(int64(p.f.clock))
	send(w, pieces[len(most(pieces)):])
}

// frames sends the head and most of an answer, or the rest of it.
func (p *failing) frames(c *doubles.FrameConn, first bool) {
	pieces := p.piecesOf(p.m.stream.Load())
	n := len(most(pieces))
	if first {
		_ = c.Head(200, contentType(pieces))
		_ = c.Data(strings.Join(pieces[:n], ""), false)
		return
	}
	_ = c.Data(strings.Join(pieces[n:], ""), true)
}

func TestModelFaults(t *testing.T) {
	m := newFaultMatrix(t)
	for i := range modelFaults {
		f := &modelFaults[i]
		t.Run(f.name, func(t *testing.T) {
			for _, dialect := range []string{"openai", "anthropic"} {
				for _, stream := range []bool{false, true} {
					for _, two := range []bool{false, true} {
						for _, h2 := range []bool{false, true} {
							c := cell{f: f, dialect: dialect, stream: stream, two: two, h2: h2}
							if !t.Run(c.name(), func(t *testing.T) { m.run(t, c) }) {
								m.forget()
							}
						}
					}
				}
			}
		})
	}
	m.nothingLeft(t)
}
