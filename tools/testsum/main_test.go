// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const mainEnv = "TESTSUM_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestSaysFirstWhatItDoes: the line is there while `go test` still builds.
func TestSaysFirstWhatItDoes(t *testing.T) {
	dir := t.TempDir()
	fake := `#!/bin/sh
cd "$0-d" || exit 9
case $1 in
list) printf 'a\n\nb\n' ;;
test) for i in $(seq 500); do [ -e built ] || sleep 0.02; done; echo '{"Action":"pass","Package":"a"}' ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "go-d"), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "2:./a ./b")
	cmd.Env = append(os.Environ(), mainEnv+"=1", "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "building and running 2 packages, 2 at a time" {
		t.Errorf("first line: %q", lines.Text())
	}
	if err := os.WriteFile(filepath.Join(dir, "go-d", "built"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "ok ") {
		t.Errorf("second line: %q", lines.Text())
	}
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

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
