// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/bench/job"
	"github.com/ringfence/ringfence/test/node"
)

// serveStreams does what a stream or a knock of the client program asks for in
// its first bytes; it returns its address.
func serveStreams(b *testing.B) string {
	b.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	need(b, err)
	b.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serveStream(c.(*net.TCPConn))
		}
	}()
	return ln.Addr().String()
}

func serveStream(c *net.TCPConn) {
	defer c.Close() //nolint:errcheck // both sides have counted
	var head [9]byte
	n, err := io.ReadAtLeast(c, head[:], 1)
	if err != nil {
		return
	}
	if head[0] == job.KnockByte {
		if _, err := c.Write(head[:1]); err == nil {
			_, _ = c.Read(head[:])
		}
		return
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return
	}
	size := int64(binary.BigEndian.Uint64(head[1:]))
	buf := make([]byte, 256<<10)
	if head[0] == 1 {
		var got uint64
		for err == nil {
			n, err = c.Read(buf)
			got += uint64(n)
		}
		_, _ = c.Write(binary.BigEndian.AppendUint64(nil, got))
		return
	}
	for left := size; left > 0 && err == nil; left -= int64(n) {
		n, err = c.Write(buf[:min(left, int64(len(buf)))])
	}
}

// withDownloads answers /data/bytes/N with N bytes.
func withDownloads(h http.Handler) http.Handler {
	buf := make([]byte, 256<<10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/data/bytes/"), 10, 64)
		if err != nil {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		for n > 0 && err == nil {
			var m int
			m, err = w.Write(buf[:min(n, int64(len(buf)))])
			n -= int64(m)
		}
	})
}

// ways runs one job along several ways, in turns.
type ways struct {
	b *testing.B
	t *testbed
	r rounds
	j job.Job
}

// way reports what figure says of the result as unit; with a process, its CPU
// time by the number of things that the result counts.
func (w *ways) way(name string, from *worker, dial string, pid int, unit string, figure func(job.Result) (value, things float64)) {
	w.j.Dial = dial
	var before time.Duration
	if pid != 0 {
		before = cpuTime(w.b, pid)
	}
	got := from.do(w.b, w.j)
	value, things := figure(got)
	w.r.add(name+"-"+unit, value)
	if pid != 0 {
		w.r.add(name+"-cpu-µs", float64((cpuTime(w.b, pid)-before).Nanoseconds())/1000/things)
	}
}

// BenchmarkStream compares opaque streams from inside a sandbox, relayed by
// the gateway, with the same through the barest relay in Go, through one that
// is programs in the kernel's socket map, and with no relay.
func BenchmarkStream(b *testing.B) {
	t := newTestbed(b)
	gateway := t.gateway(b)
	relayAddr, relay := t.startPeer(b, "relay", "127.0.0.1:0", t.streams)
	sockmapAddr, sockmap := startServer(b, exec.Command(node.BuildInto(b, b.TempDir(), "test/bench/sockmap"), "127.0.0.1:0", t.streams))
	figure := func(r job.Result) (float64, float64) { return r.Gbit, float64(r.Bytes) / (1 << 20) }
	for _, c := range []struct {
		name  string
		conns int
		up    bool
	}{{"1-down", 1, false}, {"4-down", 4, false}, {"64-down", 64, false}, {"1-up", 1, true}} {
		b.Run(c.name, func(b *testing.B) {
			const total = 256 << 20
			w := &ways{b: b, t: t, j: job.Job{Kind: job.Stream, URL: "tcp://streams.bench:" + port(t.streams), Conns: c.conns, Up: c.up, Size: total / int64(c.conns)}}
			round := func() {
				w.way("direct", t.outside, t.streams, 0, "Gbit", figure)
				w.way("relay", t.outside, relayAddr, relay, "Gbit", figure)
				if !c.up { // see test/bench/sockmap
					w.way("sockmap", t.outside, sockmapAddr, sockmap, "Gbit", figure)
					w.r.ratio("sockmap-share", "sockmap-Gbit", "direct-Gbit")
				}
				w.way("gateway", t.inside, "", gateway, "Gbit", figure)
				w.r.ratio("relay-share", "relay-Gbit", "direct-Gbit")
				w.r.ratio("gateway-share", "gateway-Gbit", "direct-Gbit")
			}
			w.run(round)
		})
	}
}

// run warms with one round and reports the others.
func (w *ways) run(round func()) {
	w.r = rounds{}
	round()
	w.r = rounds{}
	for w.b.Loop() {
		round()
	}
	w.r.report(w.b)
}

// BenchmarkKnock compares how many connections per second open, carry one byte
// each way and close, eight at a time: from inside a sandbox through the
// gateway, and from outside through the barest relay in Go and straight to the
// server. "inspected" has a small request in the place of the byte.
func BenchmarkKnock(b *testing.B) {
	t := newTestbed(b)
	gateway, keeper := t.gateway(b), t.keeper(b)
	for _, c := range []struct{ name, kind, url, server string }{
		{"passed-through", job.Knock, "tcp://streams.bench:" + port(t.streams), t.streams},
		{"inspected", job.Connect, "http://web.bench:" + port(t.plain) + "/data/1", t.plain},
	} {
		b.Run(c.name, func(b *testing.B) {
			const each = 1000
			figure := func(r job.Result) (float64, float64) { return r.PerSec, each }
			relayAddr, relay := t.startPeer(b, "relay", "127.0.0.1:0", c.server)
			w := &ways{b: b, t: t, j: job.Job{Kind: c.kind, URL: c.url, N: each, Conns: 8}}
			w.run(func() {
				w.way("direct", t.outside, c.server, 0, "per-s", figure)
				w.way("relay", t.outside, relayAddr, relay, "per-s", figure)
				k := cpuTime(b, keeper)
				w.way("gateway", t.inside, "", gateway, "per-s", figure)
				w.r.add("keeper-cpu-µs", perRequest(cpuTime(b, keeper)-k, each))
				w.r.ratio("relay-share", "relay-per-s", "direct-per-s")
				w.r.ratio("gateway-share", "gateway-per-s", "direct-per-s")
			})
		})
	}
}
