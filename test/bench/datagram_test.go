// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"net"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/bench/job"
)

// BenchmarkDatagrams compares a datagram and its answer from inside a sandbox
// through the relay with the same from outside straight to the server: the
// latency of one at a time, and how many go through a second with eight sockets.
func BenchmarkDatagrams(b *testing.B) {
	t := newTestbed(b)
	gateway := t.gateway(b)
	for _, c := range []struct {
		name string
		size int
	}{{"64-bytes", 64}, {"1200-bytes", 1200}, {"16384-bytes", 16384}} {
		b.Run(c.name, func(b *testing.B) {
			const each, many = 500, 4000
			body := strings.Repeat("x", c.size)
			direct := job.Job{Kind: job.Datagram, Dial: t.udp, Body: body, N: each}
			fenced := job.Job{Kind: job.Datagram, URL: "udp://datagrams.bench:" + port(t.udp), Body: body, N: each}
			busy := func(j job.Job) job.Job { j.N, j.Conns = many, 8; return j }
			t.outside.do(b, direct) // warm
			t.inside.do(b, fenced)
			r := rounds{}
			for b.Loop() {
				r.add("direct-µs", t.outside.do(b, direct).P50)
				r.add("fenced-µs", t.inside.do(b, fenced).P50)
				r.ratio("ratio", "fenced-µs", "direct-µs")
				r.add("direct-per-s", t.outside.do(b, busy(direct)).PerSec)
				g := cpuTime(b, gateway)
				r.add("fenced-per-s", t.inside.do(b, busy(fenced)).PerSec)
				r.add("gateway-cpu-µs", perRequest(cpuTime(b, gateway)-g, many))
				r.ratio("share", "fenced-per-s", "direct-per-s")
			}
			r.report(b)
		})
	}
}

// echoDatagrams sends datagrams back; it returns its address.
func echoDatagrams(b *testing.B) string {
	b.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	need(b, err)
	b.Cleanup(func() { _ = c.Close() })
	for range 2 { // one reader would be what is measured
		go func() {
			buf := make([]byte, 1<<16)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDPAddrPort(buf[:n], from)
			}
		}()
	}
	return c.LocalAddr().String()
}
