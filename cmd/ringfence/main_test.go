// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// TestBecomesRingfencePolicy: what evaluates documents is done by the program
// beside this one, with the same words; without it that is said.
func TestBecomesRingfencePolicy(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "ringfence")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	evaluating := [][]string{{"policy", "check", "a b.yaml"}, {"policy", "test", "x"}, {"policy", "who-can", "egress", "a:443"}, {"explain", "--as", "org:a", "egress", "a:443"}}
	for _, args := range evaluating {
		out, err := exec.Command(program, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "ringfence-policy is missing") || !strings.Contains(string(out), dir) {
			t.Errorf("%q alone: %v %s", args, err, out)
		}
	}
	top := exec.Command(program, "top")
	top.Env = append(os.Environ(), "TERM=xterm")
	if tty, err := pty.Start(top); err != nil {
		t.Error(err)
	} else {
		said, _ := io.ReadAll(tty) // ends with EIO
		if err := top.Wait(); err == nil || !strings.Contains(string(said), "ringfence-policy is missing, which has the view") {
			t.Errorf("top alone: %v %s", err, said)
		}
	}
	copied := filepath.Join(dir, "ringfence-policy")
	if err := os.Link(program, copied); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "policy", "check", "x").CombinedOutput()
	if err == nil || !strings.Contains(string(out), copied+" is not the program of that name") {
		t.Errorf("beside itself under the other name: %v %s", err, out)
	}
	if err := os.Remove(copied); err != nil {
		t.Fatal(err)
	}
	beside := "#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 7\n"
	if err := os.WriteFile(filepath.Join(dir, "ringfence-policy"), []byte(beside), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range evaluating {
		cmd := exec.Command(program, args...)
		out, _ := cmd.Output()
		if want := "<" + strings.Join(args, "><") + ">"; string(out) != want || cmd.ProcessState.ExitCode() != 7 {
			t.Errorf("%q: exit %d, %s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
	if out, err := exec.Command(program, "policy", "schema").Output(); err != nil || !strings.HasPrefix(string(out), "{") {
		t.Errorf("what evaluates nothing: %v %.100s", err, out)
	}
}
