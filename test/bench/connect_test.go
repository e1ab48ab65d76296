// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"testing"

	"github.com/ringfence/ringfence/test/bench/job"
)

// BenchmarkConnectRequest compares a TCP connection with one HTTP request and
// its answer, from inside a sandbox through the gateway, with the same from
// outside straight to the server, by what the gateway does with it. Each TLS
// handshake is a whole one. "gateway-cpu" and "keeper-cpu" are what the request
// costs the two processes of the node: the event is written to the log.
func BenchmarkConnectRequest(b *testing.B) {
	t := newTestbed(b)
	gateway, keeper := t.gateway(b), t.keeper(b)
	for _, c := range []struct{ name, url, server string }{
		{"passed-through", "http://pass.bench:" + port(t.plain) + "/data/1", t.plain},
		{"passed-through-tls", "https://pass-tls.bench:" + port(t.tls) + "/data/1", t.tls},
		{"inspected", "http://web.bench:" + port(t.plain) + "/data/1", t.plain},
		{"tls-terminated", "https://tls.bench:" + port(t.tls) + "/data/1", t.tls},
	} {
		b.Run(c.name, func(b *testing.B) {
			const each = 100
			direct := job.Job{Kind: job.Connect, URL: c.url, Dial: c.server, Roots: t.roots, N: each}
			fenced := job.Job{Kind: job.Connect, URL: c.url, N: each}
			if c.name == "passed-through-tls" {
				fenced.Roots = t.innerRoots(b)
			}
			t.outside.do(b, direct) // warm
			t.inside.do(b, fenced)
			r := rounds{}
			for b.Loop() {
				d := t.outside.do(b, direct)
				g, k := cpuTime(b, gateway), cpuTime(b, keeper)
				f := t.inside.do(b, fenced)
				r.add("gateway-cpu-µs", perRequest(cpuTime(b, gateway)-g, each))
				r.add("keeper-cpu-µs", perRequest(cpuTime(b, keeper)-k, each))
				r.add("direct-µs", d.P50)
				r.add("fenced-µs", f.P50)
				r.ratio("ratio", "fenced-µs", "direct-µs")
			}
			r.report(b)
		})
	}
	b.Run("name-lookup", func(b *testing.B) {
		const each = 100
		r := rounds{}
		for b.Loop() {
			g, k := cpuTime(b, gateway), cpuTime(b, keeper)
			f := t.inside.do(b, job.Job{Kind: job.DNS, URL: "tls.bench", N: each})
			r.add("gateway-cpu-µs", perRequest(cpuTime(b, gateway)-g, each))
			r.add("keeper-cpu-µs", perRequest(cpuTime(b, keeper)-k, each))
			r.add("fenced-µs", f.P50)
		}
		r.report(b)
	})
}
