// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/test/kernels/plan"
)

// outcome is what one job of a guest came to.
type outcome struct {
	job            string
	output         []string // as printed, with the marks of -test.v=test2json
	ended          bool
	end            plan.Message
	passed, failed int
	skips          map[string]string // test -> reason
	problems       []string          // tests that failed, with what they printed
}

// event is one of `go tool test2json`.
type event struct {
	Action, Test, Output string
}

// count reads the results of a job that is a test program.
func (o *outcome) count(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", o.job)
	cmd.Stdin = strings.NewReader(strings.Join(o.output, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go tool test2json: %w", err)
	}
	printed := map[string][]string{}
	o.skips = map[string]string{}
	in := bufio.NewScanner(bytes.NewReader(out))
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			return err
		}
		if e.Action == "output" {
			printed[e.Test] = append(printed[e.Test], e.Output)
			continue
		}
		if e.Test == "" {
			continue
		}
		switch e.Action {
		case "pass":
			o.passed++
		case "skip":
			o.skips[e.Test] = reason(printed[e.Test])
		case "fail":
			o.failed++
			o.problems = append(o.problems, strings.Join(printed[e.Test], ""))
		default:
			continue
		}
		delete(printed, e.Test)
	}
	o.unfinished(printed)
	return in.Err()
}

// unfinished adds what a job that did not come to its own end left.
func (o *outcome) unfinished(printed map[string][]string) {
	if o.ended && o.end.Code == 0 && o.end.Text == "" || o.ended && o.end.Code == 1 && o.failed > 0 {
		return
	}
	o.failed++
	var tests []string
	for t := range printed {
		tests = append(tests, t)
	}
	slices.Sort(tests)
	what := "the kernel ended before it"
	if o.ended {
		what = fmt.Sprintf("status %d %s", o.end.Code, o.end.Text)
	}
	for _, t := range tests {
		what += "\n" + strings.Join(printed[t], "")
	}
	o.problems = append(o.problems, what)
}

// reason is the last line of a skipped test, without its place in the source.
func reason(printed []string) string {
	why := "no reason given"
	for _, p := range printed {
		if p = strings.TrimSpace(p); p != "" && !strings.HasPrefix(p, "=== ") && !strings.HasPrefix(p, "--- ") {
			why = p
		}
	}
	if place, rest, ok := strings.Cut(why, ": "); ok && strings.Contains(place, ".go:") {
		why = rest
	}
	return why
}
