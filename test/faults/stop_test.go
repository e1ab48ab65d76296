// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/node"
)

// SIGTERM is an upgrade: sandboxes stay behind their walls and the next daemon
// has them.
func TestSIGTERMLeavesSandboxesToTheNextDaemon(t *testing.T) {
	w := newWorld(t)
	n := node.Start(t, w.options())
	l := startLoad(t, n, "agent", append(append(w.allowed(), w.denied()...), "stream:stream:echo.example:"+strconv.Itoa(w.echoPort))...)
	l.more(t, nil, 3, "echo", "web", "llm", "stream")
	before := n.Sandbox(t, "agent")
	n.StopDaemon(t, syscall.SIGTERM)
	l.more(t, l.counts(t), 5, "echo", "stream")
	l.tried(t, l.counts(t), 5, "literal", "port", "v6")
	w.nothingPassed(t, l)
	if n.Cgroup(t) == "" {
		t.Error("the cgroup is gone")
	}
	fails := l.counts(t)["stream"].Fail
	n.StartDaemon(t)
	checkAdopted(t, n, "agent", before.ID, before.PID)
	l.more(t, l.counts(t), 5, "echo", "web", "llm", "stream")
	if c := l.counts(t)["stream"]; c.Fail != fails {
		t.Errorf("the long-lived stream broke: %s", c.Last)
	}
	l.tried(t, l.counts(t), 3, deniedKinds...)
	w.nothingPassed(t, l)

	// SIGINT takes everything away.
	n.StopDaemon(t, syscall.SIGINT)
	for _, left := range n.Leftovers(t) {
		t.Errorf("left behind: %s", left)
	}
	if alive(before.PID) {
		t.Error("the sandbox still runs")
	}
	n.StartDaemon(t) // for the harness to stop
}

// alive says whether a process runs; one that only waits for its parent to look
// does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(b), ") ")
	return err == nil && ok && !strings.HasPrefix(rest, "Z")
}

func TestASecondDaemonIsRefused(t *testing.T) {
	n := node.Start(t, node.Options{})
	ws := n.Workspace(t)
	if r := n.CLIIn(t, ws, "run", "--detach", "--name", "a", "--", "sleep", "1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	pid := n.Sandbox(t, "a").PID
	cmd := exec.Command(filepath.Join(n.Bin, "ringfenced"), "--config", filepath.Join(n.Dir, "config.yaml"),
		"--run-dir", n.RunDir, "--state-dir", filepath.Join(n.Dir, "state2"), "--policy-dir", n.PolicyDir)
	r := node.Finish(t, cmd)
	if r.Code != 1 || !strings.Contains(r.Stderr, "another ringfenced uses the run directory "+n.RunDir) || !strings.Contains(r.Stderr, "--run-dir") {
		t.Errorf("exit %d: %s", r.Code, r.Stderr)
	}
	if strings.Contains(r.Stderr, "goroutine") {
		t.Errorf("it crashed: %s", r.Stderr)
	}
	if !alive(pid) || n.Sandbox(t, "a").State != "running" {
		t.Error("the first daemon's sandbox suffered")
	}
	if e := n.CLI(t, "exec", "a", "--", "true"); e.Code != 0 {
		t.Errorf("exec: %s", e.Stderr)
	}
}

// Two daemons of one machine share nothing: not names, not uids, not policy,
// and the end of one does not touch the other.
func TestTwoDaemonsDoNotMeet(t *testing.T) {
	w := newWorld(t)
	a := node.Start(t, w.options())
	b := node.Start(t, node.Options{Config: w.config()})
	la := startLoad(t, a, "same-name", append(w.allowed(), w.denied()...)...)
	lb := startLoad(t, b, "same-name", append(w.allowed(), w.denied()...)...)
	la.more(t, nil, 3, "echo", "web", "llm")
	lb.more(t, nil, 3, "llm")
	lb.tried(t, nil, 3, "web")
	sa, sb := a.Sandbox(t, "same-name"), b.Sandbox(t, "same-name")
	if sa.UID == sb.UID || sa.ID == sb.ID {
		t.Errorf("they share an identity: %+v, %+v", sa, sb)
	}
	if c := lb.counts(t); c["web"].OK != 0 || c["echo"].OK != 0 {
		t.Error("one daemon's policy is in force in the other's sandbox")
	}
	for _, e := range b.Events(t) {
		if e.Sandbox == sa.ID {
			t.Errorf("the other daemon's event: %s", e.Compact(false))
		}
	}
	if r := b.CLI(t, "stop", sa.ID); r.Code == 0 {
		t.Error("a daemon stopped the other's sandbox")
	}
	b.StopDaemon(t, syscall.SIGINT)
	if alive(sb.PID) || !alive(sa.PID) {
		t.Error("the wrong sandbox was stopped")
	}
	la.more(t, la.counts(t), 5, "echo", "web", "llm")
	la.tried(t, la.counts(t), 3, deniedKinds...)
	w.nothingPassed(t, la)
	b.StartDaemon(t)
}

// What a daemon needs and does not have is said in one line, and nothing is
// left behind.
func TestStartsThatCannotWork(t *testing.T) {
	n := node.Start(t, node.Options{NoStart: true})
	start := func(args ...string) node.Result {
		t.Helper()
		cmd := exec.Command(filepath.Join(n.Bin, "ringfenced"), append([]string{"--run-dir", n.RunDir, "--state-dir", n.StateDir, "--policy-dir", n.PolicyDir}, args...)...)
		done := time.AfterFunc(soon, func() { _ = cmd.Process.Kill() })
		defer done.Stop()
		return node.Finish(t, cmd)
	}
	file := func(text string) string {
		f, err := os.CreateTemp(n.Dir, "*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		return f.Name()
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"unknown field", []string{"--config", file("gateway: {uidd: 5}\n")}, 2, "uidd"},
		{"not yaml", []string{"--config", file("\t[")}, 2, "configuration"},
		{"no such file", []string{"--config", n.Dir + "/none.yaml"}, 2, "none.yaml"},
		{"a gateway that is root", []string{"--config", file("gateway: {uid: 0}\n")}, 2, "must not run as root"},
		{"no init", []string{"--config", file("initPath: " + n.Dir + "/no-init\n")}, 1, "no-init"},
		{"metrics for everybody", []string{"--config", file("metrics: {listen: \"0.0.0.0:9100\"}\n")}, 2, "loopback"},
		{"a socket path that is too long", []string{"--run-dir", n.Dir + "/" + strings.Repeat("x", 120)}, 2, "shorter"},
		{"a run directory that is a file", []string{"--run-dir", file("")}, 1, "run directory"},
		{"an argument", []string{"start"}, 2, "start"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(c.args...)
			if r.Code != c.code || !strings.Contains(r.Stderr, c.says) || strings.Contains(r.Stderr, "goroutine") {
				t.Errorf("exit %d, want %d with %q: %s", r.Code, c.code, c.says, r.Stderr)
			}
		})
	}
	n.StartDaemon(t) // control: the same directories are good
}
