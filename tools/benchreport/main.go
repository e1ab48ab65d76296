// SPDX-License-Identifier: Apache-2.0

// Command benchreport runs the benchmarks and prints what they measured as
// Markdown, with the machine and the commands.
//
//	go run ./tools/benchreport [-only REGEXP] [-write]
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const document = "docs/BENCHMARKS.md"

func main() {
	only := flag.String("only", "", "run the sections whose title matches this regular expression")
	write := flag.Bool("write", false, "write "+document+" too; needs every section")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only, *write); err != nil {
		fmt.Fprintln(os.Stderr, "benchreport:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, write bool) error {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if write && only != "" {
		return errors.New("-write needs every section: leave -only out")
	}
	if err := os.Chdir(root()); err != nil {
		return err
	}
	begin, load := time.Now(), loadAverage()
	var body bytes.Buffer
	var failed []string
	for _, s := range sections {
		if !pattern.MatchString(s.title) {
			continue
		}
		fmt.Fprintf(os.Stderr, "benchreport: %s: %s\n", s.title, s.command())
		out, err := s.run(ctx)
		if err != nil {
			failed = append(failed, s.title)
			fmt.Fprintf(os.Stderr, "%s\nbenchreport: %v\n", out, err)
			continue
		}
		s.render(&body, parse(out), notes(out))
	}
	page := heading(begin, load) + body.String()
	fmt.Print(page)
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	if !write {
		return nil
	}
	if err := os.WriteFile(document, []byte(page), 0o644); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "benchreport: wrote", document)
	return nil
}

// root is the top of the checkout that go runs this in.
func root() string {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "."
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// run runs a section's benchmarks. What they print is returned with an error
// too.
func (s *section) run(ctx context.Context) ([]byte, error) {
	args := s.args()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.Bytes(), err
}

func (s *section) args() []string {
	args := []string{"go"}
	if s.dir != "" {
		args = append(args, "-C", s.dir)
	}
	return append(append(args, "test", "-v", "-run", "^$", "-timeout", "10m", "-bench", s.bench), append(s.flags, s.pkg)...)
}

// command is args as a shell would take it.
func (s *section) command() string {
	args := s.args()
	for i, a := range args {
		if strings.ContainsAny(a, "^$|()") {
			args[i] = "'" + a + "'"
		}
	}
	return strings.Join(args, " ")
}
