// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

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
