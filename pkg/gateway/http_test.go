// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

const httpPolicy = docHead + `egress:
  - {id: read, allow: "api.test:443", http: {methods: [GET, HEAD], paths: ["/v1/**"]}, resolvesTo: [127.77.0.0/16]}
  - {id: any, allow: "any.test:443", http: {paths: ["/**"]}, resolvesTo: [127.77.0.0/16]}
  - {id: any-plain, allow: "any.test:8080", http: {paths: ["/**"]}, resolvesTo: [127.77.0.0/16]}
  - {id: ws, allow: "ws.test:443", http: {methods: [GET, WEBSOCKET]}, resolvesTo: [127.77.0.0/16]}
  - {id: web, allow: "web.test:80", resolvesTo: [127.77.0.0/16]}
  - {id: untrusted, allow: "untrusted.test:443", http: {methods: [GET]}, resolvesTo: [127.77.0.0/16]}
  - {id: private, allow: "private.test:443", http: {methods: [GET]}}
`

func get(t *testing.T, c *http.Client, method, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, string(b)
}

func TestInspectedRequests(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{})
	r.web("api.test", 443, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Alt-Svc", `h3=":443"`)
		fmt.Fprintf(w, "%s %s %s %v", req.Method, req.RequestURI, req.Host, req.Header["X-Forwarded-For"])
	})
	cases := []struct {
		method, path string
		status       int
	}{
		{"GET", "/v1/x?secret=1", 200},
		{"HEAD", "/v1/x", 200},
		{"GET", "/v1/a%20b", 200},
		{"POST", "/v1/x", 403},
		{"GET", "/v2/x", 403},
		{"GET", "/v1/../v2/x", 403},
		{"GET", "/v1/%2e%2e/v2", 403},
		{"GET", "/v1/%2fv2", 403},
		{"GET", "//v1/x", 403},
		{"TRACE", "/v1/x", 403},
		{"BREW", "/v1/x", 403},
	}
	for _, h2 := range []bool{false, true} {
		client := r.inside(h2)
		for _, c := range cases {
			resp, body := get(t, client, c.method, "https://api.test"+c.path, nil)
			if resp.StatusCode != c.status || resp.ProtoMajor != map[bool]int{false: 1, true: 2}[h2] {
				t.Errorf("h2=%v %s %s: %s %d %s", h2, c.method, c.path, resp.Proto, resp.StatusCode, body)
			}
			if c.status == 200 && c.method == "GET" && (body != "GET "+c.path+" api.test []" || resp.Header.Get("Alt-Svc") != "") {
				t.Errorf("upstream saw %q", body)
			}
			if c.status == 403 && c.method != "HEAD" {
				checkDenial(t, resp, body)
			}
		}
	}
	ev := r.event("allowed request", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.Verdict == event.Allowed && e.Method == "GET" && e.Status == 200 && e.BytesIn > 0
	})
	if ev.URL != "https://api.test/v1/x" || ev.Rule != "test/read" || ev.PeerAddr == "" || ev.Layer != "gateway" {
		t.Errorf("event %+v", ev)
	}
	den := r.event("denied request", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.Verdict == event.Denied && e.Method == "POST"
	})
	if den.Status != 403 || den.Remedy != "ringfence allow api.test:443" || den.RequestID == "" {
		t.Errorf("event %+v", den)
	}
}

func checkDenial(t *testing.T, resp *http.Response, body string) {
	t.Helper()
	var d map[string]any
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	for _, k := range []string{"error", "detail", "reason", "next_steps", "agent_guidance", "decision_id"} {
		if d[k] == nil || d[k] == "" {
			t.Errorf("the body has no %s: %s", k, body)
		}
	}
	if resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("content type %q", resp.Header.Get("Content-Type"))
	}
}

func TestRefusalAddressExplains(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{explain: true})
	for _, url := range []string{"https://example.com/x", "http://example.com/x", "https://api.test.evil.test/"} {
		for _, h2 := range []bool{false, true} {
			resp, body := get(t, r.client(r.keeper.ca.pool(), h2), "GET", url, nil)
			if resp.StatusCode != 403 || !strings.Contains(body, "no-rule") || !strings.Contains(body, "ringfence allow ") {
				t.Errorf("%s: %d %s", url, resp.StatusCode, body)
			}
			checkDenial(t, resp, body)
		}
	}
	// A name that resolves, on a port that is not allowed.
	resp, body := get(t, r.inside(false), "GET", "http://api.test/", nil)
	if resp.StatusCode != 403 || !strings.Contains(body, "ringfence allow api.test:80") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	ev := r.event("refusal", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.DstName == "example.com" && e.DstPort == 443
	})
	if ev.Verdict != event.Denied || ev.DstAddr != "198.18.0.2:443" {
		t.Errorf("event %+v", ev)
	}
}

// raw sends bytes to a name's port 80 or, inside TLS, to another and returns
// the first answer's status line, or the error.
func (r *rig) raw(name string, port uint16, bytes string) (string, error) {
	c := r.mustDial(name, port)
	var rw net.Conn = c
	if port == 443 {
		rw = tls.Client(c, &tls.Config{ServerName: name, RootCAs: r.keeper.ca.pool(), NextProtos: []string{"http/1.1"}})
	}
	if _, err := io.WriteString(rw, bytes); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(rw).ReadString('\n')
	return strings.TrimSpace(line), err
}

func TestRawRequests(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{limits: Limits{HeaderBytes: 16 << 10}})
	var upstream atomic.Int64
	h := func(w http.ResponseWriter, req *http.Request) {
		upstream.Add(1)
		_, _ = io.Copy(io.Discard, req.Body)
	}
	r.web("web.test", 80, h)
	r.web("any.test", 443, h)
	cases := []struct {
		name, send, status string
		code               string
	}{
		{"plain", "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", "200", ""},
		{"absolute form", "GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n", "200", ""},
		{"host with another name", "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", "421", codeHostMismatch},
		{"absolute form with another name", "GET http://evil.test/ HTTP/1.1\r\nHost: %s\r\n\r\n", "421", codeHostMismatch},
		{"host with another port", "GET / HTTP/1.1\r\nHost: %s:81\r\n\r\n", "421", codeHostMismatch},
		{"two hosts", "GET / HTTP/1.1\r\nHost: %s\r\nHost: evil.test\r\n\r\n", "400", ""},
		{"no host", "GET / HTTP/1.1\r\n\r\n", "400", ""},
		{"no host in 1.0", "GET / HTTP/1.0\r\n\r\n", "400", codeNoHost},
		{"connect", "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", "405", codeConnect},
		{"length and chunked", "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200", ""},
		{"two lengths", "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", "400", ""},
		{"strange coding", "POST / HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501", ""},
		{"space before the colon", "GET / HTTP/1.1\r\nHost : %s\r\n\r\n", "400", ""},
		{"bare line feed in a value", "GET / HTTP/1.1\r\nHost: %s\r\nX: a\rb\r\n\r\n", "400", ""},
		{"oversized header", "GET / HTTP/1.1\r\nHost: %s\r\nX: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", "431", ""},
		{"method override", "POST / HTTP/1.1\r\nHost: %s\r\nX-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n", "403", codeMethodOverride},
		{"upgrade to h2c is ignored", "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "200", ""},
		{"h2 without tls", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", codeNoRequest},
		{"not http", "\x00\x01\x02\x03\r\n\r\n", "400", ""},
	}
	for _, c := range cases {
		for name, port := range map[string]uint16{"web.test": 80, "any.test": 443} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				before := upstream.Load()
				line, _ := r.raw(name, port, strings.ReplaceAll(c.send, "%s", name))
				if c.status != "" && !strings.Contains(line, " "+c.status) {
					t.Errorf("answer %q, want %s", line, c.status)
				}
				if c.status != "200" && upstream.Load() != before {
					t.Error("the upstream was reached")
				}
				if c.code != "" {
					r.event(c.code, func(e *event.Event) bool { return e.ReasonCode == c.code && (e.DstName == name) })
				}
			})
		}
	}
}

func TestServerSentEventsAreNotBuffered(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{})
	step := make(chan struct{})
	r.web("any.test", 443, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-step:
			case <-req.Context().Done():
				return
			}
		}
	})
	for _, h2 := range []bool{false, true} {
		resp, err := r.inside(h2).Get("https://any.test/stream")
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(resp.Body)
		for i := range 3 {
			line, err := br.ReadString('\n') // arrives while the upstream waits for us
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("h2=%v: %q, %v", h2, line, err)
			}
			_, _ = br.ReadString('\n')
			step <- struct{}{}
		}
		resp.Body.Close()
	}
}

func TestClientThatLeavesCancelsTheUpstream(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{})
	gone := make(chan struct{}, 1)
	r.web("any.test", 443, func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-req.Context().Done()
		gone <- struct{}{}
	})
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, "GET", "https://any.test/", nil)
	resp, err := r.inside(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Fatal("the upstream request lives on")
	}
}

func TestLargeBodiesBothWays(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{})
	r.web("any.test", 443, func(w http.ResponseWriter, req *http.Request) {
		h := sha256.New()
		n, _ := io.Copy(h, req.Body)
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.CopyN(w, zeroes{}, n)
		w.Header().Set("X-Sum", fmt.Sprintf("%x", h.Sum(nil)))
	})
	data := bytes.Repeat([]byte("payload!"), 1<<20) // 8 MiB
	want := fmt.Sprintf("%x", sha256.Sum256(data))
	for _, h2 := range []bool{false, true} {
		resp, err := r.inside(h2).Post("https://any.test/up", "application/octet-stream", io.MultiReader(bytes.NewReader(data)))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || n != int64(len(data)) || resp.Trailer.Get("X-Sum") != want {
			t.Errorf("h2=%v: %d bytes, %v, trailer %v", h2, n, err, resp.Trailer)
		}
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestExpectContinueAndEarlyRefusal(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{})
	r.web("any.test", 443, func(w http.ResponseWriter, req *http.Request) {
		n, _ := io.Copy(io.Discard, req.Body)
		fmt.Fprint(w, n)
	})
	send := func(url string) (*http.Response, string, bool) {
		continued := false
		req, _ := http.NewRequest("POST", url, strings.NewReader("12345"))
		req.Header.Set("Expect", "100-continue")
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got100Continue: func() { continued = true }}))
		c := r.inside(false)
		c.Transport.(*http.Transport).ExpectContinueTimeout = 5 * time.Second
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp, string(b), continued
	}
	if resp, body, cont := send("https://any.test/"); resp.StatusCode != 200 || body != "5" || !cont {
		t.Errorf("%d %q continued=%v", resp.StatusCode, body, cont)
	}
	if resp, _, cont := send("https://api.test/v1/x"); resp.StatusCode != 403 || cont {
		t.Errorf("%d continued=%v", resp.StatusCode, cont)
	}
}

func TestWebSocket(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{})
	echo := func(w http.ResponseWriter, req *http.Request) {
		if !strings.EqualFold(req.Header.Get("Upgrade"), "websocket") {
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(c, rw)
	}
	for _, n := range []string{"ws.test", "api.test", "any.test"} {
		r.web(n, 443, echo)
	}
	open := func(name, upgrade string) (net.Conn, *bufio.Reader, string) {
		c := tls.Client(r.mustDial(name, 443), &tls.Config{ServerName: name, RootCAs: r.keeper.ca.pool(), NextProtos: []string{"http/1.1"}})
		fmt.Fprintf(c, "GET /v1/chat HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", name, upgrade)
		br := bufio.NewReader(c)
		line, _ := br.ReadString('\n')
		return c, br, strings.TrimSpace(line)
	}
	for _, name := range []string{"ws.test", "any.test"} {
		c, br, line := open(name, "websocket")
		if !strings.Contains(line, "101") {
			t.Fatalf("%s: %q", name, line)
		}
		_, _ = textproto.NewReader(br).ReadMIMEHeader()
		_, _ = io.WriteString(c, "ping\n")
		if got, err := br.ReadString('\n'); got != "ping\n" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		c.Close()
	}
	if _, _, line := open("api.test", "websocket"); !strings.Contains(line, "403") {
		t.Errorf("a host with read methods only: %q", line)
	}
	r.denied(codeUpgrade)
	if _, _, line := open("any.test", "raw-socket"); !strings.Contains(line, "426") {
		t.Errorf("another protocol: %q", line)
	}
	r.event("tunnel", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.Status == 101 && e.Verdict == event.Allowed && e.BytesOut > 0
	})
}

func TestUpstreamFailuresSayWhatFailed(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{})
	stranger := newTestCA(t, "stranger")
	l := r.listen("untrusted.test", 443)
	srv := &http.Server{TLSConfig: stranger.server(t, "untrusted.test"), Handler: http.HandlerFunc(hello)}
	go func() { _ = srv.ServeTLS(l, "", "") }()
	defer srv.Close()
	r.hosts.set("private.test", addrs("10.9.8.7")...)
	r.host("any.test") // nothing listens
	cases := []struct {
		url    string
		status int
		code   string
	}{
		{"https://untrusted.test/", 502, codeUpstreamTLS},
		{"https://private.test/", 403, "private-address"},
		{"https://any.test/", 502, codeUpstream},
		{"https://ws.test/", 502, codeResolve},
	}
	for _, c := range cases {
		resp, body := get(t, r.inside(true), "GET", c.url, nil)
		if resp.StatusCode != c.status || !strings.Contains(body, c.code) {
			t.Errorf("%s: %d %s", c.url, resp.StatusCode, body)
		}
		r.event(c.code, func(e *event.Event) bool { return e.Kind == event.KindHTTP && e.ReasonCode == c.code })
	}
}

func TestTerminatedServerNames(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{})
	r.web("any.test", 443, hello)
	handshake := func(sni string, roots bool) error {
		cfg := &tls.Config{ServerName: sni, InsecureSkipVerify: true}
		if roots {
			cfg = &tls.Config{ServerName: sni, RootCAs: r.world.pool()}
		}
		return tls.Client(r.mustDial("any.test", 443), cfg).HandshakeContext(context.Background())
	}
	if err := handshake("any.test", false); err != nil {
		t.Errorf("matching name: %v", err)
	}
	if err := handshake("", false); err != nil {
		t.Errorf("no name: %v", err)
	}
	if err := handshake("api.test", false); err == nil {
		t.Error("another name was served")
	}
	r.denied(codeSNIMismatch)
	if err := handshake("any.test", true); err == nil {
		t.Error("a client that pins roots completed")
	}
	r.denied(codeHandshake)
	r.keeper.mu.Lock()
	leaves := r.keeper.leaves
	r.keeper.noLeaf = true
	r.keeper.mu.Unlock()
	if leaves != 1 {
		t.Errorf("%d leaves for one name", leaves)
	}
	c := r.mustDial("ws.test", 443)
	if err := tls.Client(c, &tls.Config{ServerName: "ws.test", InsecureSkipVerify: true}).HandshakeContext(context.Background()); err == nil {
		t.Error("served without a certificate")
	}
	r.denied(codeLeaf)
}

func TestSlowHeaderIsCut(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{limits: Limits{Header: 100 * time.Millisecond, Hello: 100 * time.Millisecond}})
	for name, first := range map[string]string{"web.test": "GET / HTTP/1.1\r\nX: ", "any.test": "\x16\x03\x01"} {
		c := r.mustDial(name, map[string]uint16{"web.test": 80, "any.test": 443}[name])
		_, _ = io.WriteString(c, first)
		start := time.Now()
		_, _ = io.Copy(io.Discard, c)
		if time.Since(start) > 5*time.Second {
			t.Errorf("%s: held for %v", name, time.Since(start))
		}
	}
	r.denied(codeNoRequest)
	r.denied(codeMalformedTLS)
}

func TestPlainHTTPOnInspectedPort(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{})
	r.web("any.test", 8080, hello)
	resp, body := get(t, r.inside(false), "GET", "http://any.test:8080/x", nil)
	if resp.StatusCode != 200 || body != "hello from any.test:8080" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl")
	}
	r := newRig(t, httpPolicy, rigOptions{explain: true})
	r.web("any.test", 443, hello)
	a, err := r.lookup("any.test")
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		var out []byte
		r.ns.do(func() {
			out, _ = exec.Command(curl, append([]string{"-sk", "--max-time", "5"}, args...)...).CombinedOutput()
		})
		return string(out)
	}
	at := func(name string, a netip.Addr) string { return name + ":443:" + a.String() }
	for _, v := range []string{"--http1.1", "--http2"} {
		if got := run(v, "--resolve", at("any.test", a), "https://any.test/"); got != "hello from any.test" {
			t.Errorf("%s: %q", v, got)
		}
	}
	if got := run("--resolve", at("example.com", RefusalAddr), "https://example.com/"); !strings.Contains(got, "agent_guidance") {
		t.Errorf("refusal: %q", got)
	}
}
