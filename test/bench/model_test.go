// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/bench/job"
)

func perRequest(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }

// innerRoots puts the doubles' CA where the client in the sandbox can read it.
func (t *testbed) innerRoots(b *testing.B) string {
	b.Helper()
	need(b, os.WriteFile(filepath.Join(t.ws, "roots.pem"), t.ca.PEM(), 0o644))
	return "roots.pem"
}

// startProxy runs the plain reverse proxy: where it listens, and its process.
func (t *testbed) startProxy(b *testing.B) (addr string, pid int) {
	b.Helper()
	cert, key := t.leafFiles(b, "api.openai.com")
	return t.startPeer(b, "proxy", "127.0.0.1:0", "http://"+t.llm, cert, key)
}

// leafFiles writes a certificate of the doubles' CA and its key.
func (t *testbed) leafFiles(b *testing.B, names ...string) (cert, key string) {
	b.Helper()
	leaf, err := t.ca.Certificate(names...)
	need(b, err)
	der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	need(b, err)
	var chain []byte
	for _, der := range leaf.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	dir := b.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	need(b, os.WriteFile(cert, chain, 0o600))
	need(b, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return cert, key
}

// startPeer runs a server of the peer program.
func (t *testbed) startPeer(b *testing.B, args ...string) (addr string, pid int) {
	b.Helper()
	return startServer(b, exec.Command(t.peer, args...))
}

// startServer runs a server that prints its address first and ends with its
// stdin.
func startServer(b *testing.B, cmd *exec.Cmd) (addr string, pid int) {
	b.Helper()
	ownSession(cmd).Env = append(os.Environ(), "THE_KEY="+realKey)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	need(b, err)
	out, err := cmd.StdoutPipe()
	need(b, err)
	need(b, cmd.Start())
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("%v: %v", cmd.Args, err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	need(b, err)
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return strings.TrimSpace(line), cmd.Process.Pid
}

// BenchmarkModelCall compares a model call of about 600 bytes, answered at
// once by a double on loopback, through the gateway with the same call through
// a plain reverse proxy in Go that parses it and swaps the key (the floor), and
// with no one between. All clients speak TLS on connections that are kept; the
// proxies speak clear HTTP to the double on connections that are kept. CPU and
// throughput are taken with 16 connections, latency with one.
func BenchmarkModelCall(b *testing.B) {
	t := newTestbed(b)
	t.addProvider(b)
	proxyAddr, proxy := t.startProxy(b)
	for _, c := range []struct {
		name, body string
		many, one  int
	}{
		{"document", askBody, 1600, 150},
		{"stream-of-20", streamBody, 640, 100},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := &modelBench{b: b, r: rounds{}, many: c.many, one: c.one, body: c.body,
				pids: map[string]int{"proxy": proxy, "gateway": t.gateway(b), "keeper": t.keeper(b)}}
			round := func() {
				m.way("direct", t.outside, t.llmTLS, t.roots)
				m.way("proxy", t.outside, proxyAddr, t.roots)
				m.way("gateway", t.inside, "", "")
			}
			round() // opens the connections and warms everything
			m.r = rounds{}
			for b.Loop() {
				round()
				m.r.ratio("cpu-ratio", "gateway-cpu-µs", "proxy-cpu-µs")
				m.r.ratio("p50-ratio", "gateway-p50-µs", "direct-p50-µs")
			}
			m.r.report(b)
		})
	}
	b.Run("memory-after", func(b *testing.B) {
		for b.Loop() {
			b.ReportMetric(resident(b, t.gateway(b)), "gateway-MB")
			b.ReportMetric(resident(b, t.keeper(b)), "keeper-MB")
			b.ReportMetric(resident(b, proxy), "proxy-MB")
		}
		b.ReportMetric(0, "ns/op")
	})
}

type modelBench struct {
	b         *testing.B
	r         rounds
	many, one int
	body      string
	pids      map[string]int
}

// way measures one way to the model: many at once, then one at a time.
func (m *modelBench) way(name string, w *worker, dial, roots string) {
	j := job.Job{Kind: job.Ask, URL: "https://api.openai.com/v1/chat/completions", Dial: dial, Roots: roots, Body: m.body, N: m.many, Conns: 16}
	before := map[string]time.Duration{}
	for p, pid := range m.pids {
		before[p] = cpuTime(m.b, pid)
	}
	got := w.do(m.b, j)
	if name != "direct" {
		m.r.add(name+"-cpu-µs", perRequest(cpuTime(m.b, m.pids[name])-before[name], m.many))
	}
	if name == "gateway" {
		m.r.add("keeper-cpu-µs", perRequest(cpuTime(m.b, m.pids["keeper"])-before["keeper"], m.many))
	}
	m.r.add(name+"-rps", got.PerSec)
	j.Conns, j.N = 1, m.one
	m.r.add(name+"-p50-µs", w.do(m.b, j).P50)
}
