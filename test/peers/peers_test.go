// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

func inputOf(q request) ast.Value {
	return ast.MustInterfaceToValue(map[string]any{"team": q.team, "server": q.server, "tool": q.tool, "amount": q.amount})
}

var kinds = []struct {
	name       string
	conditions bool
}{{"plain", false}, {"conditions", true}}

// TestAllAgree has every engine decide every request of the benchmarks as the
// subset says.
func TestAllAgree(t *testing.T) {
	sizes := []int{10, 1000}
	if !testing.Short() {
		sizes = append(sizes, 10000, 100000)
	}
	for _, kind := range kinds {
		for _, n := range sizes {
			rules := makeRules(n, kind.conditions)
			requests, count, err := makeRequests(n, func(q request) effect { return naive(rules, q) })
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range engines {
				if n > e.most {
					continue
				}
				decide, err := e.make(rules)
				if err != nil {
					t.Fatalf("%s: %v", e.name, err)
				}
				for _, q := range requests {
					if got, want := decide(q)(), naive(rules, q); got != want {
						t.Fatalf("%s, %s, %d rules: %+v: %s, the subset says %s", e.name, kind.name, n, q, got, want)
					}
				}
			}
			t.Logf("%s, %d rules: %d requests, %v", kind.name, n, len(requests), count)
		}
	}
}

func BenchmarkPeers(b *testing.B) {
	for _, kind := range kinds {
		for _, n := range []int{10, 1000, 10000, 100000} {
			rules := makeRules(n, kind.conditions)
			var requests []request // found when the first engine needs them
			for _, e := range engines {
				if n > e.most {
					continue
				}
				b.Run(fmt.Sprintf("%s/rules=%d/%s", kind.name, n, e.name), func(b *testing.B) {
					decide, err := e.make(rules)
					if err != nil {
						b.Fatal(err)
					}
					if requests == nil {
						if requests, _, err = makeRequests(n, func(q request) effect { return naive(rules, q) }); err != nil {
							b.Fatal(err)
						}
					}
					measure(b, rules, decide, requests)
				})
			}
		}
	}
}

// measure decides prepared requests in turn, after each was decided once and
// rightly. CPU time beside wall time: a busy machine shows in the second only.
func measure(b *testing.B, rules []rule, decide prepare, requests []request) {
	b.Helper()
	ready := make([]func() effect, len(requests))
	for i, q := range requests {
		ready[i] = decide(q)
		if got, want := ready[i](), naive(rules, q); got != want {
			b.Fatalf("%+v: %s, the subset says %s", q, got, want)
		}
	}
	b.ReportAllocs()
	before := cpuTime(b)
	for i := 0; b.Loop(); i++ {
		ready[i%len(ready)]()
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
