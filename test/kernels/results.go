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
	costs          map[string]cost   // by program, of TestVerifier
	problems       []string          // tests that failed, with what they printed
}

// event is one of `go tool test2json`.
type event struct {
	Action, Test, Output, Key, Value string
}

// costKey begins the attribute in which TestVerifier tells what a program
// costs: instructions, of which so many processed, and bytes of stack.
const costKey = "verifier:"

// count reads the results of a job that is a test program.
func (o *outcome) count(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", o.job)
	cmd.Stdin = strings.NewReader(strings.Join(o.output, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go tool test2json: %w", err)
	}
	printed := map[string][]string{}
	o.skips, o.costs = map[string]string{}, map[string]cost{}
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
		case "attr":
			if err := o.attribute(e.Key, e.Value); err != nil {
				return err
			}
			continue
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

// attribute takes what a test says of itself.
func (o *outcome) attribute(key, value string) error {
	program, ok := strings.CutPrefix(key, costKey)
	if !ok {
		return nil
	}
	var c cost
	var instructions int
	if _, err := fmt.Sscanf(value, "%d %d %d", &instructions, &c.Processed, &c.Stack); err != nil {
		return fmt.Errorf("%s: cost of %s: %q: %w", o.job, program, value, err)
	}
	o.costs[program] = c
	return nil
}

// good says that the job came to its own end and that it was a good one.
func (o *outcome) good() bool { return o.ended && o.end.Code == 0 && o.end.Text == "" }

// unfinished adds what a job that did not come to its own end left.
func (o *outcome) unfinished(printed map[string][]string) {
	if o.good() || o.ended && o.end.Code == 1 && o.failed > 0 {
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
