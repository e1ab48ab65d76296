// SPDX-License-Identifier: Apache-2.0

// Package bench measures the product as its users have it: a real daemon, real
// sandboxes, the same client program inside and outside, in interleaved
// rounds. Nothing here asserts a time. One iteration is one round, so
// `-benchtime 10x` means ten rounds; figures are medians over the rounds, and
// every figure named -mad is the median distance from the one before it.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/bench/job"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

const realKey = "sk-real-bench-0123456789abcdef"

// testbed is a node, the servers that stand for the world, all on loopback,
// and the client program inside and outside.
type testbed struct {
	n     *node.Node
	ca    *doubles.CA
	roots string // PEM file of ca
	peer  string // the client program
	ws    string

	plain, tls, llm, llmTLS, udp, streams string // addresses of the servers

	inside, outside *worker
}

func need(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func newTestbed(b *testing.B) *testbed {
	b.Helper()
	return newTestbedOf(b, "", "")
}

// newTestbedOf is a testbed with a daemon of its own and a further policy; "" for none.
func newTestbedOf(b *testing.B, daemon, policy string) *testbed {
	b.Helper()
	t := &testbed{}
	var err error
	t.ca, err = doubles.NewCA()
	need(b, err)
	serve := func(h http.Handler, names ...string) string {
		var s *doubles.Server
		if len(names) == 0 {
			s, err = doubles.Serve(nil, h)
		} else {
			s, err = t.ca.Serve(nil, h, names...)
		}
		need(b, err)
		b.Cleanup(func() { _ = s.Close() })
		return s.Addr.String()
	}
	page := withDownloads(doubles.Page("bench"))
	t.plain, t.tls = serve(page), serve(page, "pass-tls.bench", "tls.bench")
	t.udp, t.streams = echoDatagrams(b), serveStreams(b)
	llm := newInstant()
	t.llm, t.llmTLS = serve(llm), serve(llm, "api.openai.com")

	roots := filepath.Join(b.TempDir(), "roots.pem")
	need(b, os.WriteFile(roots, t.ca.PEM(), 0o644))
	t.roots = roots
	policies := map[string]string{"bench.yaml": t.policy()}
	if policy != "" {
		policies["more.yaml"] = policy
	}
	t.n = node.Start(b, node.Options{Config: t.config(), Policies: policies, NoStart: true})
	if daemon != "" {
		t.n.Daemon = daemon
	}
	t.n.StartDaemon(b)
	t.ws = t.n.Workspace(b)
	t.peer = node.BuildInto(b, t.ws, "test/bench/peer")
	t.outside = startWorker(b, ownSession(exec.Command(t.peer, "client")))
	in := t.n.Command(context.Background(), "run", "--profile", "coding", "--", "./peer", "client")
	in.Dir = t.ws
	t.inside = startWorker(b, in)
	return t
}

func (t *testbed) config() string {
	var s strings.Builder
	fmt.Fprintf(&s, "gateway:\n  rootCAs: %s\n  resolvers: [\"192.0.2.53:53\"]\n  hosts:\n", t.roots)
	for _, name := range []string{"pass", "pass-tls", "web", "tls", "datagrams", "streams"} {
		fmt.Fprintf(&s, "    %s.bench: [127.0.0.1]\n", name)
	}
	return s.String()
}

func (t *testbed) policy() string {
	return fmt.Sprintf(`apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: bench}
scope: org:local
egress:
  - {id: pass, allow: "pass.bench:%[1]s", resolvesTo: [127.0.0.1/32]}
  - {id: pass-tls, allow: "pass-tls.bench:%[2]s", resolvesTo: [127.0.0.1/32]}
  - {id: web, allow: "web.bench:%[1]s", http: {methods: [GET], paths: ["/data/**"]}, resolvesTo: [127.0.0.1/32]}
  - {id: tls, allow: "tls.bench:%[2]s", http: {methods: [GET], paths: ["/data/**"]}, resolvesTo: [127.0.0.1/32]}
  - {id: datagrams, allow: "datagrams.bench:%[3]s/udp", resolvesTo: [127.0.0.1/32]}
  - {id: streams, allow: "streams.bench:%[4]s", resolvesTo: [127.0.0.1/32]}
`, port(t.plain), port(t.tls), port(t.udp), port(t.streams))
}

func port(addr string) string {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err)
	}
	return p
}

// addProvider sends the model calls of OpenAI's dialect to the double.
func (t *testbed) addProvider(b *testing.B) {
	b.Helper()
	cmd := t.n.Command(b.Context(), "provider", "add", "openai", "--base-url", "http://"+t.llm+"/v1", "--key-env", "THE_KEY")
	cmd.Env = append(cmd.Env, "THE_KEY="+realKey)
	if r := node.Finish(b, cmd); r.Code != 0 {
		b.Fatalf("provider add: %s", r.Stderr)
	}
}

// worker is a running client program.
type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
	err strings.Builder
}

func startWorker(b *testing.B, cmd *exec.Cmd) *worker {
	b.Helper()
	w := &worker{cmd: cmd}
	in, err := cmd.StdinPipe()
	need(b, err)
	out, err := cmd.StdoutPipe()
	need(b, err)
	cmd.Stderr = &w.err
	need(b, cmd.Start())
	w.in, w.enc, w.dec = in, json.NewEncoder(in), json.NewDecoder(out)
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("%v: %v\n%s", cmd.Args, err, w.err.String())
		}
	})
	return w
}

// do runs one job to its end.
func (w *worker) do(b *testing.B, j job.Job) job.Result {
	b.Helper()
	j.Conns = max(j.Conns, 1)
	need(b, w.enc.Encode(j))
	var r job.Result
	if err := w.dec.Decode(&r); err != nil {
		b.Fatalf("%v: %v\n%s", w.cmd.Args, err, w.err.String())
	}
	if r.Error != "" {
		b.Fatalf("%+v: %s", j, r.Error)
	}
	return r
}

// instant is a provider that answers at once what the double would answer:
// a document, or a stream of 20 events of which each is flushed. It refuses
// anything but the real key, so a figure without the swap cannot come out.
type instant struct {
	document []byte
	events   []string
	strict   bool // also over TLS

	mu   sync.Mutex
	slow chan struct{} // streams for the user "slow" go on until it is closed
}

// release gives the channel that ends the slow streams, which has another one after it.
func (p *instant) release() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.slow
	p.slow = make(chan struct{})
	return c
}

func newInstant() *instant {
	double := doubles.NewProvider()
	double.Text = strings.Repeat("six or seven words of text. ", 15)
	document := answerOf(double, askBody)
	double.Text = strings.TrimSpace(strings.Repeat("token ", 17)) // and the end, the usage and [DONE]
	events := strings.SplitAfter(answerOf(double, streamBody), "\n\n")
	return &instant{document: []byte(document), events: events[:len(events)-1]}
}

func answerOf(h http.Handler, body string) string {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body)))
	return rec.Body.String()
}

func (p *instant) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if key := req.Header.Get("Authorization"); err != nil || key != "Bearer "+realKey && (p.strict || req.TLS == nil) {
		http.Error(w, "wrong key", http.StatusUnauthorized)
		return
	}
	if !strings.Contains(string(body), `"stream":true`) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(p.document)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if strings.Contains(string(body), `"user":"slow"`) {
		p.slowly(w, req)
	}
	for _, e := range p.events {
		_, _ = io.WriteString(w, e)
		_ = http.NewResponseController(w).Flush()
	}
}

// slowly sends an event each second.
func (p *instant) slowly(w http.ResponseWriter, req *http.Request) {
	p.mu.Lock()
	over := p.slow
	p.mu.Unlock()
	for {
		_, _ = io.WriteString(w, p.events[0])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-over:
			return
		case <-req.Context().Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// askBody and streamBody are model calls of about 600 bytes.
var (
	askBody    = `{"model":"gpt-4o","messages":[{"role":"system","content":"` + strings.Repeat("Be brief. ", 20) + `"},{"role":"user","content":"` + strings.Repeat("What is it? ", 22) + `"}],"temperature":0.2}`
	streamBody = `{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"` + strings.Repeat("What is it? ", 40) + `"}]}`
)
