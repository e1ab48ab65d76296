// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

const sample = `goos: linux
BenchmarkConnectRequest
BenchmarkConnectRequest/inspected
BenchmarkConnectRequest/inspected-2         	      10	       320.6 direct-µs	        36.68 direct-µs-mad	       903.6 fenced-µs	         3.117 ratio
BenchmarkEgress/rules=10-2   	 5000000	        80.0 ns/op	       0 allocs/op
BenchmarkEgress/rules=10-2   	 5000000	        90.0 ns/op	       0 allocs/op
BenchmarkEgress/rules=10-2   	 5000000	       120.0 ns/op	       0 allocs/op
BenchmarkLaunch/bubblewrap-2
--- SKIP: BenchmarkLaunch/bubblewrap-2
    launch_test.go:40: bubblewrap is not installed
Benchmark output that is no result
PASS
`

func TestReport(t *testing.T) {
	rows := parse([]byte(sample))
	if len(rows) != 2 || rows[0].name != "ConnectRequest/inspected" || rows[1].name != "Egress/rules=10" {
		t.Fatalf("rows %+v", rows)
	}
	for _, c := range []struct {
		row        int
		unit, want string
	}{
		{0, "direct-µs", "321 ± 36.7"},
		{0, "fenced-µs", "904"},
		{0, "ratio", "3.12"},
		{1, "ns/op", "90 ± 10"},
		{1, "allocs/op", "0"},
		{1, "other", ""},
	} {
		if got := rows[c.row].cell(c.unit); got != c.want {
			t.Errorf("%s of %s: %q, want %q", c.unit, rows[c.row].name, got, c.want)
		}
	}
	var b strings.Builder
	s := section{title: "T", text: "X.", pkg: "./p", bench: "^B$", tables: [][]column{{{"direct", "direct-µs"}, {"other", "other"}}, {{"none", "none"}}}}
	s.render(&b, rows, notes([]byte(sample)))
	want := "\n## T\n\nX.\n\n`go test -v -run '^$' -timeout 10m -bench '^B$' ./p`\n\n| | direct | other |\n|---|---|---|\n" +
		"| ConnectRequest/inspected | 321 ± 36.7 |  |\n\nLaunch/bubblewrap was skipped: bubblewrap is not installed.\n"
	if b.String() != want {
		t.Errorf("report %q", b.String())
	}
}
