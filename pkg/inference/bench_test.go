// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/test/doubles"
)

// BenchmarkRedirector compares a model call through the Redirector with the
// same call through httputil.ReverseProxy and without anything in between, all
// in clear on loopback with keep-alive.
func BenchmarkRedirector(b *testing.B) {
	double := doubles.NewProvider()
	double.Text = strings.Repeat("twenty short words ", 6)
	fixed := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		req.Body = io.NopCloser(strings.NewReader(benchBodies[strings.Contains(req.Header.Get("Accept"), "event")]))
		double.ServeHTTP(w, req)
		double.Reset()
	})
	up := serve(b, fixed)
	target, _ := url.Parse(up)
	tr := &http.Transport{MaxIdleConnsPerHost: 16}
	defer tr.CloseIdleConnections()
	rp := httputil.NewSingleHostReverseProxy(target)
	rp.Transport = tr
	rp.FlushInterval = -1
	red := inference.New(inference.Options{})
	snap := providers{"openai": {Name: "o", Dialect: "openai", BaseURL: up + "/v1", Keys: []policy.Key{{Secret: "s", Weight: 1}}, Weight: 1, Credential: policy.CredentialInject}}
	call := inference.Call{View: view{}, Snapshot: snap, Host: openAIHost, Dialect: "openai",
		Secrets:   func(string) (string, bool) { return realKey, true },
		Transport: func(*policy.Provider) http.RoundTripper { return tr },
		Record:    func(event.Event) {}}
	for _, c := range []struct{ name, url string }{
		{"direct", up},
		{"reverseproxy", serve(b, rp)},
		{"ringfence", serve(b, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { red.ServeHTTP(w, req, call) }))},
	} {
		for _, stream := range []bool{false, true} {
			kind := "document"
			if stream {
				kind = "stream"
			}
			b.Run(kind+"/"+c.name, func(b *testing.B) { ask(b, c.url+"/v1/chat/completions", stream) })
		}
	}
}

var benchBodies = map[bool]string{
	false: `{"model":"gpt-4o","messages":[{"role":"system","content":"` + strings.Repeat("Be brief. ", 20) + `"},{"role":"user","content":"` + strings.Repeat("What is it? ", 20) + `"}],"temperature":0.2}`,
	true:  `{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"` + strings.Repeat("What is it? ", 40) + `"}]}`,
}

func serve(b *testing.B, h http.Handler) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s, err := doubles.Serve(ln, h)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return "http://" + s.Addr.String()
}

func ask(b *testing.B, target string, stream bool) {
	b.ReportAllocs()
	tr := &http.Transport{MaxIdleConnsPerHost: 16}
	defer tr.CloseIdleConnections()
	body := []byte(benchBodies[stream])
	for b.Loop() {
		req, err := http.NewRequest("POST", target, bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if stream {
			req.Header.Set("Accept", "text/event-stream")
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		n, _ := io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || n == 0 {
			b.Fatal(resp.StatusCode)
		}
	}
}

// pieces is a body that comes in pieces.
type pieces struct{ left []string }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[0])
	if p.left[0] = p.left[0][n:]; p.left[0] == "" {
		p.left = p.left[1:]
	}
	return n, nil
}

func (*pieces) Close() error { return nil }

// canned answers without a network.
type canned struct {
	header http.Header
	body   []string
}

func (c *canned) RoundTrip(req *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, req.Body)
	n := int64(-1)
	if len(c.body) == 1 {
		n = int64(len(c.body[0]))
	}
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: c.header.Clone(), Body: &pieces{slices.Clone(c.body)}, ContentLength: n, Request: req}, nil
}

// sink is a writer to nobody.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Flush()                      {}

// cpuTime does not grow with what else the machine does.
func cpuTime(b *testing.B) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkOwnWork is what a call costs here, without networks: a document, and a
// stream of 20 events.
func BenchmarkOwnWork(b *testing.B) {
	double := doubles.NewProvider()
	double.Text = strings.Repeat("six or seven words of text. ", 15)
	head := http.Header{"X-Request-Id": {"req"}, "Date": {"x"}, "Openai-Version": {"1"}, "X-Ratelimit-Limit-Requests": {"5"}}
	for _, stream := range []bool{false, true} {
		name, c := "document", &canned{header: head.Clone()}
		c.header.Set("Content-Type", "application/json")
		if stream {
			name, double.Text = "stream", strings.TrimSpace(strings.Repeat("token ", 17))
			c.header.Set("Content-Type", "text/event-stream")
		}
		rec := httptest.NewRecorder()
		double.ServeHTTP(rec, httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(benchBodies[stream])))
		c.body = []string{rec.Body.String()}
		if stream {
			c.body = strings.SplitAfter(rec.Body.String(), "\n\n")
			c.body = c.body[:len(c.body)-1]
		}
		red := inference.New(inference.Options{})
		snap := providers{"openai": {Name: "o", Dialect: "openai", BaseURL: "https://o.example/v1", Keys: []policy.Key{{Secret: "s", Weight: 1}}, Weight: 1, Credential: policy.CredentialInject}}
		call := inference.Call{View: view{}, Snapshot: snap, Host: openAIHost, Dialect: "openai", Record: func(event.Event) {},
			Secrets:   func(string) (string, bool) { return realKey, true },
			Transport: func(*policy.Provider) http.RoundTripper { return c }}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				req := &http.Request{Method: "POST", RequestURI: "/v1/chat/completions", Host: openAIHost, ProtoMajor: 1, ProtoMinor: 1, Body: io.NopCloser(strings.NewReader(benchBodies[stream])), ContentLength: int64(len(benchBodies[stream])),
					Header: http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer x"}, "User-Agent": {"bench"}, "Accept": {"*/*"}}}
				w := &sink{h: http.Header{}}
				red.ServeHTTP(w, req, call)
				if w.h.Get("Content-Type") != c.header.Get("Content-Type") {
					b.Fatal(w.h)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
