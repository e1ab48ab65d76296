// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/test/bench/job"
	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/node"
)

// The cores of the inference benchmarks: what is measured has one for itself.
const (
	coreMeasured = 0
	coreOthers   = 1
)

// pin has all threads of a process run on one core, and those that they start.
func pin(b *testing.B, pid, core int) {
	b.Helper()
	var set unix.CPUSet
	set.Set(core)
	done := map[string]bool{}
	for again := true; again; {
		again = false
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		need(b, err)
		for _, t := range tasks {
			if done[t.Name()] {
				continue
			}
			tid, err := strconv.Atoi(t.Name())
			need(b, err)
			if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
				b.Fatalf("pin thread %d: %v", tid, err)
			}
			done[t.Name()], again = true, true
		}
	}
}

// few is n, or a fiftieth of it in the short form, which only shows that it works.
func few(n int) int {
	if testing.Short() {
		return max(n/50, 20)
	}
	return n
}

// modelWay is one way to the provider: straight, or through something.
type modelWay struct {
	name string
	w    *worker
	dial string
	pids []int
}

// modelBed is a node whose gateway has a core for itself, and beside it, on the same
// core in turns, nginx and a plain reverse proxy in Go. Everything else, the provider
// and the clients too, has the other core.
type modelBed struct {
	*testbed
	provider *instant
	ways     map[string]modelWay
	behind   map[string]string // address of the provider, by the protocol it speaks
}

const modelNginx = `
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log access.log combined buffer=64k flush=1s;
  client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  tcp_nodelay on;
  keepalive_requests 10000000;
  proxy_http_version 1.1;
  upstream back { server %[1]s; keepalive 64; keepalive_requests 10000000; }
  server {
    listen %[2]s ssl;
    server_name api.openai.com;
    ssl_certificate %[3]s;
    ssl_certificate_key %[4]s;
    ssl_protocols TLSv1.3;
    ssl_prefer_server_ciphers off;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_name back.bench;
    proxy_ssl_server_name on;
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate %[5]s;
    proxy_buffering off;
    location /v1/ {
      limit_except POST { deny all; }
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer %[6]s";
      proxy_pass https://back;
    }
    location / { return 403; }
  }
}
`

func newModelBed(b *testing.B) *modelBed {
	b.Helper()
	if runtime.NumCPU() < 2 {
		env.Lack(b, false, "a second CPU: one is for what is measured, one for everything else")
	}
	daemon := node.Another(b, "probe", "ringfence_probe")
	node.BuildInto(b, b.TempDir(), "test/bench/peer") // before there is one core only
	var before unix.CPUSet
	need(b, unix.SchedGetaffinity(0, &before))
	pin(b, os.Getpid(), coreOthers)
	b.Cleanup(func() { unpin(b, &before) })

	m := &modelBed{testbed: newTestbedOf(b, daemon, modelPolicy), ways: map[string]modelWay{}, behind: map[string]string{}}
	m.provider = newInstant()
	m.provider.strict, m.provider.slow = true, make(chan struct{})
	for name, protos := range map[string][]string{"h1": {"http/1.1"}, "h2": {"h2", "http/1.1"}} {
		m.behind[name] = m.serveBehind(b, protos)
		cmd := m.n.Command(b.Context(), "provider", "add", name, "--dialect", "openai", "--base-url", "https://"+m.behind[name]+"/v1", "--key-env", "THE_KEY")
		cmd.Env = append(cmd.Env, "THE_KEY="+realKey)
		if r := node.Finish(b, cmd); r.Code != 0 {
			b.Fatalf("provider add: %s", r.Stderr)
		}
	}
	m.ways["direct"] = modelWay{"direct", m.outside, m.llmTLS, nil}
	m.ways["gateway"] = modelWay{"gateway", m.inside, "", []int{m.gateway(b)}}
	cert, key := m.leafFiles(b, "api.openai.com")
	if _, ok := nginxPath(); ok {
		listen := freeAddr(b)
		workers := runNginx(b, fmt.Sprintf(modelNginx, m.behind["h1"], listen, cert, key, m.roots, realKey), 1)
		m.ways["nginx"] = modelWay{"nginx", m.outside, listen, workers}
	} else {
		b.Log("without nginx, which is not installed (make deps-bench)")
	}
	for _, name := range []string{"h1", "h2"} {
		addr, pid := m.startPeer(b, "proxy", "127.0.0.1:0", "https://"+m.behind[name], cert, key, m.roots)
		m.ways["proxy-"+name] = modelWay{"proxy", m.outside, addr, []int{pid}}
	}
	for _, w := range m.ways {
		for _, pid := range w.pids {
			pin(b, pid, coreMeasured)
		}
	}
	return m
}

// unpin gives the process its cores back.
func unpin(b *testing.B, set *unix.CPUSet) {
	tasks, err := os.ReadDir("/proc/self/task")
	need(b, err)
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.SchedSetaffinity(tid, set)
		}
	}
}

// modelPolicy has models by what their provider speaks.
const modelPolicy = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: models}
scope: org:local
routes:
  - {id: h1, models: [gpt-h1], to: [{provider: h1}]}
  - {id: h2, models: [gpt-4o], to: [{provider: h2}]}
`

// serveBehind serves the provider over TLS.
func (m *modelBed) serveBehind(b *testing.B, protos []string) string {
	b.Helper()
	leaf, err := m.ca.Certificate("127.0.0.1", "back.bench")
	need(b, err)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	need(b, err)
	srv := &http.Server{Handler: m.provider, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{leaf}, NextProtos: protos}}
	if len(protos) == 1 {
		srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	b.Cleanup(func() { _ = srv.Close() })
	return ln.Addr().String()
}

// through are the ways of these names, without nginx where there is none.
func (m *modelBed) through(names ...string) (ways []modelWay) {
	for _, name := range names {
		if w, ok := m.ways[name]; ok {
			ways = append(ways, w)
		}
	}
	return ways
}

const chatURL = "https://api.openai.com/v1/chat/completions"

// call has a way's clients make calls, and gives what each cost the process.
func (m *modelBed) call(b *testing.B, w modelWay, j job.Job) (cpu float64, r job.Result) {
	b.Helper()
	j.URL, j.Dial = chatURL, w.dial
	if w.dial != "" {
		j.Roots = m.roots
	}
	before := cpuTimes(b, w.pids)
	r = w.w.do(b, j)
	return perRequest(cpuTimes(b, w.pids)-before, j.N), r
}

// BenchmarkInference measures model calls through the gateway of a node that serves
// one sandbox, on a core of its own, beside nginx and a plain reverse proxy in Go on
// the same core in turns. TLS on both sides, connections are kept on both sides. The
// provider speaks HTTP/1.1 or HTTP/2, nginx only the former. Without limits and
// budgets.
func BenchmarkInference(b *testing.B) {
	m := newModelBed(b)
	b.Run("with-one-sandbox", func(b *testing.B) {
		for b.Loop() {
			b.ReportMetric(resident(b, m.gateway(b)), "resident-MB")
		}
		b.ReportMetric(0, "ns/op")
	})
	for _, proto := range []string{"h1", "h2"} {
		for _, c := range []struct {
			name, body string
			n, conns   int
		}{
			{"document", askBody, 1600, 32},
			{"stream-of-20", streamBody, 480, 16},
		} {
			b.Run(c.name+"/"+proto, func(b *testing.B) { m.bare(b, proto, c.body, few(c.n), c.conns) })
		}
	}
	b.Run("paced", m.paced)
	b.Run("handshakes", m.handshakes)
	b.Run("memory", m.memory)
	b.Run("slow-streams", m.slowStreams)
}

// model has the body ask for the model of that protocol's provider.
func model(body, proto string) string {
	if proto == "h1" {
		return strings.Replace(body, "gpt-4o", "gpt-h1", 1)
	}
	return body
}

// bare takes CPU and throughput with many connections.
func (m *modelBed) bare(b *testing.B, proto, body string, n, conns int) {
	r := rounds{}
	names := []string{"gateway", "proxy-" + proto}
	if proto == "h1" {
		names = append(names, "nginx")
	}
	round := func() {
		for _, w := range m.through(names...) {
			cpu, got := m.call(b, w, job.Job{Kind: job.Ask, Body: model(body, proto), N: n, Conns: conns})
			r.add(w.name+"-cpu-µs", cpu)
			r.add(w.name+"-per-s", got.PerSec)
		}
	}
	round() // opens the connections and warms everything
	r = rounds{}
	for b.Loop() {
		round()
		r.ratio("cpu-ratio", "gateway-cpu-µs", "proxy-cpu-µs")
	}
	r.report(b)
}

// paced takes latency with 200 calls a second, whether they are answered or not.
func (m *modelBed) paced(b *testing.B) {
	r := rounds{}
	round := func() {
		for _, w := range m.through("direct", "gateway", "proxy-h1", "nginx") {
			_, got := m.call(b, w, job.Job{Kind: job.Paced, Body: model(askBody, "h1"), N: few(400), Conns: 16, Rate: 200})
			r.add(w.name+"-p50-µs", got.P50)
			r.add(w.name+"-p99-µs", got.P99)
		}
	}
	round()
	r = rounds{}
	for b.Loop() {
		round()
		last := func(unit string) float64 { s := r[unit]; return s[len(s)-1] }
		r.add("added-p50-µs", last("gateway-p50-µs")-last("direct-p50-µs"))
	}
	r.report(b)
}

// handshakes takes what a call on a connection of its own costs, above one on a
// connection that is kept. No session is resumed.
func (m *modelBed) handshakes(b *testing.B) {
	r := rounds{}
	round := func() {
		for _, w := range m.through("gateway", "proxy-h1", "nginx") {
			j := job.Job{Kind: job.Connect, Body: model(askBody, "h1"), N: few(200), Conns: 4}
			fresh, _ := m.call(b, w, j)
			j.Kind = job.Ask
			kept, _ := m.call(b, w, j)
			r.add(w.name+"-handshake-µs", fresh-kept)
		}
	}
	round()
	r = rounds{}
	for b.Loop() {
		round()
	}
	r.report(b)
}

// collect has the gateway collect garbage, and says what lives then.
func (m *modelBed) collect(b *testing.B) (heapMB, goroutines float64) {
	b.Helper()
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(m.n.RunDir, "metrics.sock"))
	}}}
	resp, err := c.Post("http://gateway/debug/collect", "", nil)
	need(b, err)
	defer resp.Body.Close() //nolint:errcheck // it has been read
	var bytes, n float64
	_, err = fmt.Fscan(resp.Body, &bytes, &n)
	need(b, err)
	return bytes / (1 << 20), n
}

// memory takes what the gateway holds after 20,000 calls and after 100,000.
func (m *modelBed) memory(b *testing.B) {
	take := sync.OnceFunc(func() {
		done := 0
		var first float64
		for _, to := range []int{few(20_000), few(100_000)} {
			m.call(b, m.ways["gateway"], job.Job{Kind: job.Ask, Body: model(askBody, "h1"), N: to - done, Conns: 32})
			done = to
			heap, _ := m.collect(b)
			rss := resident(b, m.gateway(b))
			if first == 0 {
				first = rss
				b.ReportMetric(heap, "heap-20k-MB")
				b.ReportMetric(rss, "resident-20k-MB")
				continue
			}
			b.ReportMetric(heap, "heap-100k-MB")
			b.ReportMetric(rss, "resident-100k-MB")
			b.ReportMetric((rss/first-1)*100, "growth-percent")
		}
	})
	for b.Loop() { // once, for it takes a while
		take()
	}
	b.ReportMetric(0, "ns/op")
}

// slowStreams takes what 2,000 streams leave behind that a sandbox has open at once.
func (m *modelBed) slowStreams(b *testing.B) {
	n := few(2000)
	take := sync.OnceFunc(func() {
		hold := func() {
			m.inside.do(b, job.Job{Kind: job.Hold, URL: chatURL, Body: strings.Replace(streamBody, "gpt-4o", "gpt-4o\",\"user\":\"slow", 1), N: n, Conns: 20})
		}
		report := func(when string) {
			heap, goroutines := m.collect(b)
			b.ReportMetric(goroutines, when+"-goroutines")
			b.ReportMetric(heap, when+"-heap-MB")
			b.ReportMetric(resident(b, m.gateway(b)), when+"-resident-MB")
		}
		letGo := func() {
			close(m.provider.release())
			m.inside.do(b, job.Job{Kind: job.LetGo, URL: chatURL})
		}
		hold() // what is made once: connections, buffers
		letGo()
		m.settle(b)
		report("before")
		hold()
		report("during")
		letGo()
		m.settle(b)
		report("after")
	})
	for b.Loop() {
		take()
	}
	b.ReportMetric(0, "ns/op")
}

// settle waits until the gateway's goroutines are as many as half a second before.
func (m *modelBed) settle(b *testing.B) {
	b.Helper()
	last := -1.0
	for range 60 {
		_, n := m.collect(b)
		if n == last {
			return
		}
		last = n
		time.Sleep(500 * time.Millisecond)
	}
	b.Fatalf("the gateway's goroutines do not settle: %v", last)
}
