// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/wire"
	"github.com/ringfence/ringfence/test/node"
)

// foreground is `ringfence run` that somebody waits for.
type foreground struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

func runForeground(t *testing.T, n *node.Node, ws, name, script string) *foreground {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	f := &foreground{cmd: n.Command(ctx, "run", "--name", name, "--profile", "coding", "--", "sh", "-c", script)}
	f.cmd.Dir, f.cmd.Stdout, f.cmd.Stderr = ws, &f.out, &f.err
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, name+" runs", func() bool {
		_, err := os.Stat(filepath.Join(ws, name+".started"))
		return err == nil
	})
	return f
}

func (f *foreground) wait(t *testing.T, want int) {
	t.Helper()
	_ = f.cmd.Wait() // the code is looked at
	if c := f.cmd.ProcessState.ExitCode(); c != want {
		t.Errorf("%v: exit status %d, want %d; stderr: %s", f.cmd.Args, c, want, f.err.String())
	}
}

// until is a script that says it runs and ends with a status when a file
// appears.
func until(name string, status int) string {
	return fmt.Sprintf("touch %s.started; while ! [ -e %s.go ]; do sleep 0.02; done; exit %d", name, name, status)
}

func release(t *testing.T, ws, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(ws, name+".go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// cookies are those of the listeners that a sandbox was made with.
func cookies(t *testing.T, n *node.Node, id string) []uint64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.RunDir, "sandboxes", id, "record.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r sandbox.Record
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r.Listeners
}

func TestKillTheKeeper(t *testing.T) {
	w := newWorld(t)
	n := node.Start(t, w.options())
	l := startLoad(t, n, "agent", append(append(w.allowed(), fmt.Sprintf("stream:stream:echo.example:%d", w.echoPort)), w.denied()...)...)
	ws := n.Workspace(t)
	within, after := runForeground(t, n, ws, "within", until("within", 7)), runForeground(t, n, ws, "after", until("after", 9))
	killed := runForeground(t, n, ws, "killed", "touch killed.started; while ! [ -e killed.go ]; do sleep 0.02; done; kill -9 $$")
	if r := n.CLIIn(t, ws, "run", "--detach", "--name", "short", "--", "sh", "-c", "while ! [ -e short.go ]; do sleep 0.02; done"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if r := n.CLI(t, "allow", "later.example:443", "--sandbox", "agent"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	l.more(t, nil, 3, "echo", "web", "llm", "stream")
	l.tried(t, nil, 3, deniedKinds...)
	before, gateway := n.Sandbox(t, "agent"), must(n.Gateway(t))
	addr, listeners := resolved(t, n, "agent", "echo.example"), cookies(t, n, before.ID)
	since := l.counts(t)

	n.KillDaemon(t)
	// The gateway serves names it knows and opens connections; denials hold.
	l.more(t, l.counts(t), 10, "echo", "stream")
	l.tried(t, l.counts(t), 10, "literal", "port", "v6")
	w.nothingPassed(t, l)
	release(t, ws, "within")
	within.wait(t, 7)
	release(t, ws, "short")
	eventually(t, "the short one ends without a keeper", func() bool { return len(cgroupProcs(t, n, "short")) == 0 })
	if r := n.CLI(t, "ps"); r.Code == 0 {
		t.Error("ps succeeds without a keeper")
	}

	n.StartDaemon(t)
	l.more(t, l.counts(t), 5, "echo", "web", "llm", "stream")
	if c := l.counts(t)["stream"]; c.Fail != since["stream"].Fail {
		t.Errorf("the long-lived stream broke: %s", c.Last)
	}
	if now := must(n.Gateway(t)); now != gateway {
		t.Errorf("the gateway was replaced: %v, was %v", now, gateway)
	}
	checkAdopted(t, n, "agent", before.ID, before.PID)
	if now := cookies(t, n, before.ID); fmt.Sprint(now) != fmt.Sprint(listeners) || len(now) != wire.Listeners {
		t.Errorf("the listeners are %v, were %v", now, listeners)
	}
	if now := resolved(t, n, "agent", "echo.example"); now != addr {
		t.Errorf("echo.example has the address %s now, had %s", now, addr)
	}
	if r := n.CLI(t, "exec", "agent", "--", "getent", "ahostsv4", "later.example"); r.Code != 0 || strings.HasPrefix(r.Stdout, "198.18.0.2") {
		t.Errorf("the rule of `ringfence allow` for this sandbox is lost: %d %s", r.Code, r.Stdout)
	}
	release(t, ws, "after")
	after.wait(t, 9)
	release(t, ws, "killed")
	killed.wait(t, 137)
	checkCommands(t, n)
	checkEnded(t, n)
	l.tried(t, l.counts(t), 3, deniedKinds...)
	w.nothingPassed(t, l)
	if r := n.CLI(t, "stop", "agent"); r.Code != 0 {
		t.Errorf("stop: %s", r.Stderr)
	}
	if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
		t.Errorf("audit verify: %s%s", v.Stdout, v.Stderr)
	}
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("no gateway runs")
	}
	return v
}

// cgroupProcs lists the processes of a sandbox by its name, also while no
// keeper is there.
func cgroupProcs(t *testing.T, n *node.Node, name string) []string {
	t.Helper()
	records, err := filepath.Glob(filepath.Join(n.RunDir, "sandboxes", "*", "record.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range records {
		var r sandbox.Record
		b, err := os.ReadFile(f)
		if err != nil || json.Unmarshal(b, &r) != nil || r.Name != name {
			continue
		}
		procs, err := os.ReadFile(filepath.Join(r.Cgroup, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(procs))
	}
	t.Fatalf("no record of %s", name)
	return nil
}

func checkAdopted(t *testing.T, n *node.Node, name, id string, pid int) {
	t.Helper()
	s := n.Sandbox(t, name)
	if s.ID != id || s.PID != pid || s.State != "running" || (s.Enforcement == "unenforced" || s.Enforcement == "broken") {
		t.Errorf("%s was not adopted as it was: %+v", name, s)
	}
	for _, p := range s.Parts {
		if p.Name == "attestation" {
			t.Errorf("%s: %s", name, p.Detail)
		}
	}
}

// checkCommands uses an adopted sandbox.
func checkCommands(t *testing.T, n *node.Node) {
	t.Helper()
	if r := n.CLI(t, "exec", "agent", "--", "sh", "-c", "echo inside; exit 3"); r.Code != 3 || r.Stdout != "inside\n" {
		t.Errorf("exec: %d %q %s", r.Code, r.Stdout, r.Stderr)
	}
	if r := n.CLI(t, "logs", "agent"); r.Code != 0 {
		t.Errorf("logs: %d %s", r.Code, r.Stderr)
	}
	if r := n.CLI(t, "allow", "brief.example:443", "--sandbox", "agent", "--for", "2s"); r.Code != 0 {
		t.Errorf("allow: %d %s", r.Code, r.Stderr)
	}
	if r := n.CLI(t, "allow", "adopted.example:443", "--sandbox", "agent"); r.Code != 0 {
		t.Errorf("allow: %d %s", r.Code, r.Stderr)
	}
	if r := n.CLI(t, "exec", "agent", "--", "getent", "ahostsv4", "adopted.example"); r.Code != 0 || strings.HasPrefix(r.Stdout, "198.18.0.2") {
		t.Errorf("the rule is not in force: %d %s", r.Code, r.Stdout)
	}
}

// checkEnded looks at what is known of the sandboxes that ended while the
// keeper was away, and after.
func checkEnded(t *testing.T, n *node.Node) {
	t.Helper()
	for _, name := range []string{"short", "within"} {
		id := ""
		n.WaitEvent(t, "the end of "+name, func(e *event.Event) bool {
			if e.Kind == event.KindSandboxStop && e.Object == name {
				id = e.Sandbox
				return true
			}
			return false
		})
		if _, err := os.Stat(filepath.Join(n.RunDir, "sandboxes", id)); err == nil {
			t.Errorf("the directory of %s is still there", name)
		}
	}
	e := n.WaitEvent(t, "the end of after, with its status", func(e *event.Event) bool { return e.Kind == event.KindSandboxStop && e.Object == "after" })
	if e.Status != 9 || !strings.HasSuffix(e.Reason, " 9") {
		t.Errorf("the log says of an adopted sandbox that exited with 9: %d %q", e.Status, e.Reason)
	}
}

// Both at once: nobody holds the listeners any more but the kernel's own
// steering, and they are opened again.
func TestKillKeeperAndGateway(t *testing.T) {
	w := newWorld(t)
	n := node.Start(t, w.options())
	l := startLoad(t, n, "agent", append(w.allowed(), w.denied()...)...)
	ws := n.Workspace(t)
	fg := runForeground(t, n, ws, "front", until("front", 5))
	l.more(t, nil, 3, "echo", "web", "llm")
	before := n.Sandbox(t, "agent")
	addr, listeners := resolved(t, n, "agent", "echo.example"), cookies(t, n, before.ID)
	gw := must(n.Gateway(t))
	n.KillDaemon(t)
	if err := syscall.Kill(gw.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	since := l.counts(t)
	l.tried(t, since, 10, "literal", "port", "v6")
	if c := l.counts(t); c["echo"].OK > since["echo"].OK+5 {
		t.Errorf("something answers although nobody is there: %+v", c["echo"])
	}
	w.nothingPassed(t, l)
	n.StartDaemon(t)
	l.more(t, l.counts(t), 5, "echo", "web", "llm")
	checkAdopted(t, n, "agent", before.ID, before.PID)
	if now := cookies(t, n, before.ID); fmt.Sprint(now) == fmt.Sprint(listeners) || len(now) != wire.Listeners {
		t.Errorf("the listeners are %v, were %v: nobody can have held them", now, listeners)
	}
	if now := resolved(t, n, "agent", "echo.example"); now != addr {
		t.Errorf("echo.example has the address %s now, had %s", now, addr)
	}
	release(t, ws, "front")
	fg.wait(t, 5)
	// And once more, now with listeners that an adopting keeper opened.
	n.KillDaemon(t)
	n.StartDaemon(t)
	l.more(t, l.counts(t), 3, "echo", "web", "llm")
	n.KillGateway(t)
	l.more(t, l.counts(t), 3, "echo", "web", "llm")
	l.tried(t, l.counts(t), 3, deniedKinds...)
	w.nothingPassed(t, l)
}

// A keeper that dies in the middle of launches leaves nothing that runs
// unwatched, and its successor cleans up.
func TestKillTheKeeperWhileItLaunches(t *testing.T) {
	n := node.Start(t, node.Options{})
	ws := n.Workspace(t)
	for round := range 4 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		var cmds []*exec.Cmd
		for range 4 {
			cmd := n.Command(ctx, "run", "--", "true")
			cmd.Dir = ws
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmds = append(cmds, cmd)
		}
		time.Sleep(time.Duration(5+round*25) * time.Millisecond)
		n.KillDaemon(t)
		for _, c := range cmds {
			_ = c.Wait()
			if code := c.ProcessState.ExitCode(); code != 125 && code != 0 && code != 137 {
				t.Errorf("a run whose keeper died exits with %d", code)
			}
		}
		cancel()
		n.StartDaemon(t)
		for _, s := range n.Sandboxes(t) {
			if s.State == "running" && (s.Enforcement == "unenforced" || s.Enforcement == "broken") {
				t.Errorf("unwatched: %+v", s)
			}
		}
		eventually(t, "nothing is left of the launches", func() bool {
			dirs, err := os.ReadDir(filepath.Join(n.RunDir, "sandboxes"))
			return err == nil && len(dirs) == 1 // the spare
		})
		if r := n.CLIIn(t, ws, "run", "--", "true"); r.Code != 0 {
			t.Errorf("the next run: %d %s", r.Code, r.Stderr)
		}
	}
}
