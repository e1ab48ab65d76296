// SPDX-License-Identifier: Apache-2.0

// Command testsum runs `go test` and says clearly how it went: what it is about
// to do, as building takes minutes without a word, one line for each package, the
// whole output of each test that failed, every skip with its reason, and the
// counts alone on the last line. It exits 1 if anything failed.
//
//	testsum [-race] [-timeout 20m] 2:./pkg/... 1:./test/...
//
// Each argument is a group of packages, tried in order, with the number of
// packages that run at the same time in front: packages that start daemons
// need the machine for themselves.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
	"time"
)

// line is one event of `go test -json`.
type line struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type sum struct {
	out            io.Writer
	passed, failed int
	skips          map[string][]string // reason -> tests
	output         map[string][]string // package and test -> what it printed
	bad            map[string]bool     // packages with a failed test
}

func main() {
	race := flag.Bool("race", false, "run with the race detector")
	timeout := flag.Duration("timeout", 20*time.Minute, "for one package")
	run := flag.String("run", "", "only tests that match")
	flag.Parse()
	s := &sum{out: os.Stdout, skips: map[string][]string{}, output: map[string][]string{}, bad: map[string]bool{}}
	broken := false
	for _, group := range flag.Args() {
		parallel, packages, ok := strings.Cut(group, ":")
		if !ok {
			fmt.Fprintf(os.Stderr, "testsum: %q is not N:PACKAGES\n", group)
			os.Exit(2)
		}
		s.announce(parallel, strings.Fields(packages))
		args := []string{"test", "-json", "-count=1", "-p", parallel, "-timeout", timeout.String()}
		if *race {
			args = append(args, "-race")
		}
		if *run != "" {
			args = append(args, "-run", *run)
		}
		if err := s.group(append(args, strings.Fields(packages)...)); err != nil {
			fmt.Fprintln(s.out, "FAIL", packages, err)
			broken = true
		}
	}
	s.report()
	if s.failed > 0 || broken {
		os.Exit(1)
	}
}

// announce says what takes the time until the first package has ended.
func (s *sum) announce(parallel string, packages []string) {
	out, err := exec.Command("go", append([]string{"list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}"}, packages...)...).Output()
	what := strings.Join(packages, " ")
	if err == nil { // otherwise `go test` says what is wrong
		what = fmt.Sprintf("%d packages", len(strings.Fields(string(out))))
	}
	fmt.Fprintf(s.out, "building and running %s, %s at a time\n", what, parallel)
}

// group runs one `go test`. A failed test is no error here: it is counted.
func (s *sum) group(args []string) error {
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	before := s.failed
	in := bufio.NewScanner(pipe)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			fmt.Fprintln(s.out, in.Text())
			continue
		}
		s.add(l)
	}
	if err := in.Err(); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil && s.failed == before {
		s.failed++
		return err
	}
	return nil
}

func (s *sum) add(l line) {
	key := l.Package + " " + l.Test
	switch l.Action {
	case "build-output":
		fmt.Fprint(s.out, l.Output)
	case "output":
		s.output[key] = append(s.output[key], l.Output)
	case "pass":
		if l.Test == "" {
			fmt.Fprintf(s.out, "ok  \t%s\t%.1fs\n", l.Package, l.Elapsed)
		} else {
			s.passed++
		}
		delete(s.output, key)
	case "skip":
		if l.Test != "" {
			why := reason(s.output[key])
			s.skips[why] = append(s.skips[why], strings.TrimPrefix(l.Package, "github.com/ringfence/ringfence/")+"."+l.Test)
		}
		delete(s.output, key)
	case "fail":
		s.fail(l, key)
	}
}

func (s *sum) fail(l line, key string) {
	if l.Test != "" {
		s.failed++
		s.bad[l.Package] = true
	} else if !s.bad[l.Package] { // did not build, crashed, or TestMain said no
		s.failed++
	}
	fmt.Fprint(s.out, strings.Join(s.output[key], ""))
	delete(s.output, key)
	if l.Test == "" {
		for _, k := range s.unfinished(l.Package) {
			fmt.Fprint(s.out, strings.Join(s.output[k], ""))
			delete(s.output, k)
		}
		fmt.Fprintf(s.out, "FAIL\t%s\t%.1fs\n", l.Package, l.Elapsed)
	}
}

// unfinished are the tests of a package that a crash or timeout cut off.
func (s *sum) unfinished(pkg string) []string {
	var out []string
	for k := range s.output {
		if strings.HasPrefix(k, pkg+" ") {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return out
}

// reason is the last word of a test that was skipped.
func reason(output []string) string {
	why := "no reason given"
	for _, o := range output {
		if o = strings.TrimSpace(o); o != "" && !strings.HasPrefix(o, "=== ") && !strings.HasPrefix(o, "--- ") {
			why = o
		}
	}
	return why
}

func (s *sum) report() {
	var reasons []string
	for r := range s.skips {
		reasons = append(reasons, r)
	}
	sort.Strings(reasons)
	for _, r := range reasons {
		fmt.Fprintf(s.out, "skipped: %s (%s)\n", strings.Join(s.skips[r], ", "), r)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed\n", s.passed, s.failed)
}
