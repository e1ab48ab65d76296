// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// TestUnderSystemd installs the product on this machine, which must be one of
// the test's own, and restarts, kills, upgrades and stops the unit under load:
// see `go run ./test/kernels -systemd`.
func TestUnderSystemd(t *testing.T) {
	if os.Getenv("RINGFENCE_OWN_MACHINE") != "systemd" {
		t.Skip("needs a machine of its own that runs systemd: go run ./test/kernels -systemd")
	}
	w := newWorld(t)
	s := newSink(t, w.own)
	u := installed(t, w)
	other, next := node.Another(t, "other"), node.Another(t, "next", "ringfence_next")
	n := u.node
	u.systemctl(t, "start", "ringfenced")
	u.running(t)
	attempts := append(append(w.allowed(), fmt.Sprintf("stream:stream:echo.example:%d", w.echoPort)), w.floods(s)[:2]...)
	floods := flooded[:2]
	l := startLoad(t, n, "agent", append(attempts, w.denied()...)...)
	l.more(t, nil, 3, "echo", "web", "llm", "stream")
	l.tried(t, nil, 10, floods...)
	was, gateway, before := standing(t, n), must(n.Gateway(t)), l.counts(t)

	for i, step := range []struct {
		what string
		do   func()
	}{
		{"restart", func() { u.systemctl(t, "restart", "ringfenced") }},
		{"kill -9", func() { u.kill(t) }},
		{"upgrade to another build", func() { u.program(t, other); u.systemctl(t, "restart", "ringfenced") }},
		{"kill -9 of that", func() { u.kill(t) }},
		{"stop, and start after a while", func() {
			u.systemctl(t, "stop", "ringfenced")
			l.tried(t, l.counts(t), 100, floods...)
			l.more(t, l.counts(t), 3, "echo", "stream")
			u.systemctl(t, "start", "ringfenced")
		}},
		{"upgrade to another layout", func() { u.program(t, next); u.systemctl(t, "restart", "ringfenced") }},
		{"restart of that", func() { u.systemctl(t, "restart", "ringfenced") }},
	} {
		since := l.counts(t)
		step.do()
		u.running(t)
		l.more(t, since, 3, "echo", "web", "llm", "stream")
		l.tried(t, since, 50, floods...)
		was.still(t, n)
		if c := l.counts(t)["stream"]; c.Fail != before["stream"].Fail {
			t.Errorf("%s: the long-lived stream broke: %s", step.what, c.Last)
		}
		if g := must(n.Gateway(t)); g != gateway {
			t.Errorf("%s: the gateway was replaced: %v, was %v", step.what, g, gateway)
		}
		noneOf(t, l, s, floods)
		w.nothingPassed(t, l)
		t.Logf("step %d, %s: %+v", i, step.what, u.state(t))
		if t.Failed() {
			t.Fatalf("after: %s\n%s", step.what, u.journal(t))
		}
	}
	n.WaitEvent(t, "the end of the former layout", func(e *event.Event) bool { return e.Activity == "layout-left" })
	report(t, "steps under systemd", 7, before, l.counts(t), 0)

	// Back to a version that does not know the state: refused, not tried again.
	u.systemctl(t, "stop", "ringfenced")
	u.program(t, filepath.Join(node.Root(), "bin", "test", "ringfenced"))
	if out, err := exec.Command("systemctl", "start", "ringfenced").CombinedOutput(); err == nil {
		t.Errorf("an older version started: %s", out)
	}
	time.Sleep(time.Second)
	if st := u.state(t); st["ActiveState"] != "failed" || st["ExecMainStatus"] != "2" {
		t.Errorf("refused, and the unit is %v", st)
	}
	l.tried(t, l.counts(t), 100, floods...)
	noneOf(t, l, s, floods)
	u.program(t, next)
	u.systemctl(t, "start", "ringfenced")
	u.running(t)
	was.still(t, n)
	if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
		t.Errorf("audit verify: %s%s", v.Stdout, v.Stderr)
	}
	if r := n.CLI(t, "stop", "agent"); r.Code != 0 {
		t.Errorf("stop: %s", r.Stderr)
	}
	u.systemctl(t, "stop", "ringfenced")
	for _, left := range n.Leftovers(t) {
		t.Errorf("left behind: %s", left)
	}
	if t.Failed() {
		t.Log(u.journal(t))
	}
}

// noneOf fails the test if one of the attempts got anywhere.
func noneOf(t *testing.T, l *load, s *sink, kinds []string) {
	t.Helper()
	c := l.counts(t)
	for _, k := range kinds {
		if c[k].OK != 0 || c[k].Fail == 0 {
			t.Errorf("%s: %d attempts succeeded, %d were refused", k, c[k].OK, c[k].Fail)
		}
	}
	if n := s.n.Load(); n > s.probed {
		t.Errorf("%d datagrams arrived that policy refuses", n-s.probed)
	}
}

// service is the installed unit.
type service struct{ node *node.Node }

func installed(t *testing.T, w *world) *service {
	t.Helper()
	cmd := exec.Command(filepath.Join(node.Root(), "tools", "install.sh"), "install")
	cmd.Env = append(os.Environ(), "BIN="+filepath.Join(node.Root(), "bin", "test"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	for path, text := range map[string]string{"/etc/ringfence/ringfenced.yaml": w.config(), "/etc/ringfence/policy/world.yaml": w.policy()} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "rf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &service{&node.Node{Bin: "/usr/local/bin", Dir: dir, RunDir: "/run/ringfence", StateDir: "/var/lib/ringfence",
		PolicyDir: "/etc/ringfence/policy", Socket: "/run/ringfence/ringfence.sock"}}
}

func (u *service) systemctl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
		t.Fatalf("systemctl %s: %v\n%s\n%s", strings.Join(args, " "), err, out, u.journal(t))
	}
}

func (u *service) journal(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("journalctl", "-u", "ringfenced", "--no-pager", "-n", "200").CombinedOutput()
	if err != nil {
		return fmt.Sprint(err, string(out))
	}
	return string(out)
}

func (u *service) state(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "ringfenced", "-p", "ActiveState,SubState,MainPID,NRestarts,ExecMainStatus,ControlGroup").Output()
	if err != nil {
		t.Fatal(err)
	}
	st := map[string]string{}
	for line := range strings.Lines(string(out)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		st[k] = v
	}
	return st
}

// running waits until the unit is, and looks at where things are: the keeper
// alone is in the unit's cgroup.
func (u *service) running(t *testing.T) {
	t.Helper()
	eventually(t, "the unit is active and the daemon answers", func() bool {
		return u.state(t)["ActiveState"] == "active" && u.node.CLI(t, "ps").Code == 0
	})
	st := u.state(t)
	b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", st["ControlGroup"], "cgroup.procs"))
	if err != nil || strings.TrimSpace(string(b)) != st["MainPID"] {
		t.Errorf("the unit's cgroup %s holds %q, the keeper is %s (%v)", st["ControlGroup"], b, st["MainPID"], err)
	}
}

// kill ends the keeper; systemd starts another.
func (u *service) kill(t *testing.T) {
	t.Helper()
	was := u.state(t)
	u.systemctl(t, "kill", "-s", "KILL", "ringfenced")
	eventually(t, "systemd starts another keeper", func() bool {
		st := u.state(t)
		return st["ActiveState"] == "active" && st["MainPID"] != was["MainPID"] && st["NRestarts"] != was["NRestarts"]
	})
}

// program replaces the daemon's, as an installation does.
func (u *service) program(t *testing.T, from string) {
	t.Helper()
	if out, err := exec.Command("install", "-m", "0755", from, "/usr/local/bin/ringfenced").CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
}
