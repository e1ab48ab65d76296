// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

// bigSnapshot has n rules of several tenants: hosts, wildcards, addresses and
// models, a tenth of them blocks.
func bigSnapshot(tb testing.TB, n int) *Snapshot {
	tb.Helper()
	const perDoc = 50
	var docs []Document
	for i := 0; i < n; i += perDoc {
		d := Document{Kind: KindPolicy, Name: fmt.Sprint("doc", i), File: "bench.yaml", Policy: &Policy{}}
		switch (i / perDoc) % 4 {
		case 0:
			d.Scope = sel("org:acme")
		case 1:
			d.Scope = sel("org:acme/team:eng")
		case 2:
			d.Scope = sel(fmt.Sprintf("org:acme/team:eng/agent:a%d", i%97))
		case 3:
			d.Scope = sel(fmt.Sprintf("org:other%d", i%13))
		}
		for j := i; j < min(i+perDoc, n); j++ {
			r := Rule{ID: fmt.Sprint("r", j), Section: SectionEgress, Effect: Allow, Port: 443, Line: j}
			if j%10 == 9 {
				r.Effect = Block
			}
			switch j % 8 {
			case 6:
				r.Host = HostPattern{HostDeep, fmt.Sprintf("zone%d.example.net", j)}
			case 7:
				r.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(j >> 16), byte(j >> 8), 0}), 24)
			default:
				r.Host = HostPattern{HostExact, fmt.Sprintf("host%d.region%d.example.com", j, j%7)}
			}
			d.Policy.Egress = append(d.Policy.Egress, r)
		}
		docs = append(docs, d)
	}
	docs = append(docs, Document{Kind: KindPolicy, Name: "floor", Scope: sel("org:acme"), Policy: &Policy{Egress: []Rule{
		{ID: "corp", Section: SectionEgress, Host: HostPattern{HostDeep, "region3.example.com"}},
		{ID: "never", Section: SectionEgress, Host: HostPattern{HostDeep, "zone6.example.net"}, Mandatory: true},
	}, Inference: []Rule{{ID: "m", Section: SectionInference, Effect: Allow, Model: scope.Pattern{Text: "claude-", Wild: true}}}}})
	s, problems := Compile(1, docs)
	if len(problems) > 0 {
		tb.Fatal(Problems(problems))
	}
	return s
}

// questions are a mix of hits, misses and blocks.
func questions(n int) []string {
	var out []string
	for i := range 256 {
		j := i * 31 % n
		switch i % 4 {
		case 0, 1:
			out = append(out, fmt.Sprintf("host%d.region%d.example.com", j, j%7))
		case 2:
			out = append(out, fmt.Sprintf("www.zone%d.example.net", j))
		case 3:
			out = append(out, fmt.Sprintf("unknown%d.example.org", j))
		}
	}
	return out
}

// loop runs f and reports CPU time beside wall time: a busy machine shows in
// the second only.
func loop(b *testing.B, f func(i int)) {
	b.Helper()
	b.ReportAllocs()
	before := cpuTime(b)
	for i := 0; b.Loop(); i++ {
		f(i)
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func BenchmarkEgress(b *testing.B) {
	for _, n := range []int{10, 1000, 10000, 100000} {
		v := bigSnapshot(b, n).View(bot)
		qs := questions(n)
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			loop(b, func(i int) { v.Egress(qs[i&255], 443) })
		})
	}
}

func BenchmarkAddr(b *testing.B) {
	v := bigSnapshot(b, 10000).View(bot)
	loop(b, func(i int) { v.Addr(netip.AddrFrom4([4]byte{20, 0, byte(i), 7}), 443, TCP) })
}

func BenchmarkHTTP(b *testing.B) {
	docs, problems := Parse("f", []byte(egressDoc(`{id: a, allow: "api.x.org:443", http: {methods: [GET], paths: ["/repos/*/issues/**"]}}`)))
	if len(problems) > 0 {
		b.Fatal(Problems(problems))
	}
	v := compileAll(b, docs).View(bot)
	loop(b, func(int) { v.HTTP("api.x.org", 443, "GET", "/repos/ringfence/issues/12") })
}

func BenchmarkInference(b *testing.B) {
	v := bigSnapshot(b, 10000).View(bot)
	loop(b, func(int) { v.Inference(DialectAnthropic, "claude-sonnet-4-5") })
}

func BenchmarkCompile(b *testing.B) {
	s := bigSnapshot(b, 10000)
	data, err := s.MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("unmarshal/rules=10000", func(b *testing.B) {
		for b.Loop() {
			if _, err := UnmarshalSnapshot(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestDecisionsDoNotAllocate(t *testing.T) {
	v := bigSnapshot(t, 1000).View(bot)
	http := viewOf(t, egressDoc(`{id: a, allow: "api.x.org:443", http: {methods: [GET], paths: ["/repos/**"]}}`))
	addr := netip.MustParseAddr("20.0.3.9")
	for name, f := range map[string]func(){
		"Egress":       func() { v.Egress("host9.region2.example.com", 443) },
		"Datagrams":    func() { v.Datagrams("host9.region2.example.com", 443) },
		"Opaque":       func() { v.Opaque("host9.region2.example.com", 443) },
		"HTTP":         func() { http.HTTP("api.x.org", 443, "GET", "/repos/a?b") },
		"Addr":         func() { v.Addr(addr, 443, TCP) },
		"AddrDenied":   func() { v.AddrDenied(addr, TCP, 443) },
		"Inference":    func() { v.Inference(DialectAnthropic, "claude-x") },
		"ProviderTool": func() { v.ProviderTool("web_search") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
