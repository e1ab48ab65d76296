// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/test/node"
)

// exitRow is one line of the table of exit codes in docs/OPERATIONS.md.
type exitRow struct{ command, exit, when string }

func exitRows(t *testing.T) (rows []exitRow) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "OPERATIONS.md"))
	need(t, err)
	_, table, found := strings.Cut(string(text), "| command | exit | when |\n|---|---|---|\n")
	if !found {
		t.Fatal("there is no table of exit codes")
	}
	command := ""
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 {
			break
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[1] != "" {
			command = cells[1]
		}
		rows = append(rows, exitRow{command, cells[2], cells[3]})
	}
	return rows
}

// TestExitCodes does what each row of the table says.
func TestExitCodes(t *testing.T) {
	w := newWorld(t)
	n := w.start(t, node.Options{})
	ws := n.Workspace(t)
	good := put(t, ws, "good.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: good}\nscope: org:local\negress:\n  - {id: a, allow: \"own.example:443\"}\n")
	bad := put(t, ws, "bad.yaml", "no document\n")
	run := func(args ...string) int { return n.CLIIn(t, ws, args...).Code }
	elsewhere := func(args ...string) int { return run(append([]string{"--socket", "/nowhere"}, args...)...) }
	nobody := func(args ...string) int {
		cmd := n.Command(t.Context(), args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return node.Finish(t, cmd).Code
	}
	if c := run("run", "--detach", "--name", "lives", "--", "sleep", "100000"); c != 0 {
		t.Fatal("exit", c)
	}
	inside := []string{"exec", "lives", "--"}
	s := newSpace(t)
	a := startAdoptee(t, w, s, newCgroup(t))
	pid := strconv.Itoa(a.cmd.Process.Pid)

	cases := map[string][]func() int{
		"`run`, `exec` the program's own": {
			func() int { return run("run", "--", "sh", "-c", "exit 7") - 7 },
			func() int { return run(append(inside, "sh", "-c", "exit 7")...) - 7 },
		},
		"`run`, `exec` 128+N": {
			func() int { return run("run", "--", "sh", "-c", "kill -15 $$") - 128 - 15 },
			func() int { return run(append(inside, "sh", "-c", "kill -15 $$")...) - 128 - 15 },
		},
		"`run`, `exec` 125": {
			func() int { return run("run", "--frob", "--", "true") }, func() int { return run("run", "--profile", "nope", "--", "true") },
			func() int { return run("run", "--policy", bad, "--", "true") }, func() int { return elsewhere("run", "--", "true") },
			func() int { return nobody("run", "--workspace", "none", "--", "true") },
			func() int { return run("exec", "nobody", "--", "true") }, func() int { return elsewhere(append(inside, "true")...) },
		},
		"`run`, `exec` 126": {func() int { return run("run", "--", "/etc/passwd") }, func() int { return run(append(inside, "/etc/passwd")...) }},
		"`run`, `exec` 127": {func() int { return run("run", "--", "no-such-program") }, func() int { return run(append(inside, "no-such-program")...) }},
		"`run --detach` 0":  {func() int { return run("run", "--detach", "--", "false") }},
		"`adopt` 4":         {func() int { return nobody("adopt", "--pid", pid) }},
		"`adopt` 6":         {func() int { return elsewhere("adopt", "--pid", pid) }},
		"`adopt` 2":         {func() int { return run("adopt") }, func() int { return run("adopt", "--pid", "999999999") }, func() int { return run("adopt", "--cgroup", "/no-such") }},
		"`adopt` 0":         {func() int { return run("adopt", "--pid", pid, "--name", "adopted") }},
		"`adopt` 1":         {func() int { return run("adopt", "--pid", pid, "--name", "again") }, func() int { return run("adopt", "--cgroup", "/") }},
		"`policy apply` 0":  {func() int { return run("policy", "apply", good) }, func() int { return run("policy", "apply", "--wait", good) }},
		"`policy apply` 1":  {func() int { return run("policy", "apply", "no-such.yaml") }},
		"`policy apply` 2":  {func() int { return run("policy", "apply", bad) }, func() int { return run("policy", "apply") }},
		"`policy apply` 4":  {func() int { return nobody("policy", "apply", good) }},
		"`policy apply` 6":  {func() int { return elsewhere("policy", "apply", good) }},
		"`policy apply` 7":  {func() int { return applyBehindAGateway(t, n, ws) }},
	}
	for _, row := range exitRows(t) {
		key := row.command + " " + row.exit
		tries := cases[key]
		if len(tries) == 0 {
			t.Errorf("nobody tries %q: %s", key, row.when)
		}
		delete(cases, key)
		want, _ := strconv.Atoi(row.exit) // of a program's own the difference
		for i, try := range tries {
			if got := try(); got != want {
				t.Errorf("%s, try %d: exit %d", key, i+1, got)
			}
		}
	}
	for key := range cases {
		t.Errorf("the table does not have %q", key)
	}
}

// applyBehindAGateway applies a document while the gateway does not answer.
func applyBehindAGateway(t *testing.T, n *node.Node, ws string) int {
	t.Helper()
	gw, ok := n.Gateway(t)
	if !ok {
		t.Fatal("no gateway")
	}
	need(t, syscall.Kill(gw.PID, syscall.SIGSTOP))
	defer syscall.Kill(gw.PID, syscall.SIGCONT) //nolint:errcheck // it may have been replaced
	doc := put(t, ws, "late.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: late}\nscope: org:local\negress:\n  - {id: a, allow: \"late.example:443\"}\n")
	return n.CLIIn(t, ws, "policy", "apply", "--wait", "--timeout", "500ms", doc).Code
}
