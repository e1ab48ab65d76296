// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestCounts(t *testing.T) {
	const pkg = "github.com/ringfence/ringfence/pkg/x"
	for _, c := range []struct {
		name           string
		lines          []line
		passed, failed int
		says           []string
	}{
		{"pass", []line{{Action: "pass", Package: pkg, Test: "TestA"}, {Action: "pass", Package: pkg}}, 1, 0, []string{"ok  \t" + pkg}},
		{"a failed test is counted once, with its output", []line{
			{Action: "output", Package: pkg, Test: "TestA", Output: "x.go:1: wrong\n"},
			{Action: "fail", Package: pkg, Test: "TestA"}, {Action: "fail", Package: pkg},
		}, 0, 1, []string{"x.go:1: wrong", "FAIL\t" + pkg}},
		{"a package that does not build or panics", []line{
			{Action: "output", Package: pkg, Test: "TestB", Output: "panic: oh\n"},
			{Action: "fail", Package: pkg},
		}, 0, 1, []string{"panic: oh"}},
		{"a skip is neither, and says why", []line{
			{Action: "output", Package: pkg, Test: "TestC", Output: "=== RUN   TestC\n"},
			{Action: "output", Package: pkg, Test: "TestC", Output: "    x.go:2: needs root\n"},
			{Action: "skip", Package: pkg, Test: "TestC"}, {Action: "pass", Package: pkg},
		}, 0, 0, []string{"skipped: pkg/x.TestC (x.go:2: needs root)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			s := &sum{out: &out, skips: map[string][]string{}, output: map[string][]string{}, bad: map[string]bool{}}
			for _, l := range c.lines {
				s.add(l)
			}
			s.report()
			if s.passed != c.passed || s.failed != c.failed {
				t.Errorf("%d passed, %d failed", s.passed, s.failed)
			}
			for _, want := range c.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is missing in:\n%s", want, out.String())
				}
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if last := lines[len(lines)-1]; !strings.HasSuffix(last, " failed") {
				t.Errorf("the last line is %q", last)
			}
		})
	}
}
