// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// TestNewcomer is what somebody tries in the first hour.
func TestNewcomer(t *testing.T) {
	n := node.Start(t, node.Options{})
	t.Run("no workspace", func(t *testing.T) { noWorkspace(t, n) })
	t.Run("a program of the home", func(t *testing.T) { homeProgram(t, n) })
	t.Run("quarantine", func(t *testing.T) { namesQuarantine(t, n) })
	t.Run("allow without effect", func(t *testing.T) { allowInVain(t, n) })
	t.Run("events", func(t *testing.T) { tellingEvents(t, n) })
	t.Run("a typo", func(t *testing.T) { typo(t, n) })
	t.Run("what is not up", func(t *testing.T) { notUp(t, n) })
}

// noWorkspace: the sandbox has its home and nothing of where the caller stands.
func noWorkspace(t *testing.T, n *node.Node) {
	ws := n.Workspace(t)
	file := put(t, ws, "file", "seen\n")
	for _, profile := range []string{"default", "coding"} {
		look := []string{"--profile", profile, "--", "sh", "-c", `pwd; echo "$HOME"; cat "$0" || echo unseen; cd; echo x > own && cat own`, file}
		r := n.CLIIn(t, ws, append([]string{"run", "-q"}, look...)...)
		if !strings.Contains(r.Stdout, "seen\n") || strings.Contains(r.Stdout, "unseen") {
			t.Errorf("%s, the control, with the workspace: exit %d %s%s", profile, r.Code, r.Stdout, r.Stderr)
		}
		r = n.CLIIn(t, ws, append([]string{"run", "-q", "--workspace", "none"}, look...)...)
		lines := strings.Split(r.Stdout, "\n")
		if r.Code != 0 || len(lines) < 4 || lines[0] != lines[1] || !filepath.IsAbs(lines[0]) || lines[2] != "unseen" || lines[3] != "x" {
			t.Errorf("%s: exit %d %s%s", profile, r.Code, r.Stdout, r.Stderr)
		}
	}
	if r := n.CLIIn(t, "/", "run", "--workspace", "none", "--detach", "--", "true"); r.Code != 0 {
		t.Errorf("from /, detached: exit %d %s", r.Code, r.Stderr)
	}
}

// allowInVain: what an upper layer denies is not added, and the rule is named.
func allowInVain(t *testing.T, n *node.Node) {
	n.WritePolicy(t, "upper.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: upper}\nscope: org:local\negress:\n  - {id: closed, deny: \"**.closed.test\", mandatory: true}\n")
	eventually(t, "the document is in force", func() bool { return strings.Contains(documents(t, n), "upper") })
	if r := n.CLI(t, "run", "--workspace", "none", "-d", "--name", "vain", "--", "sleep", "1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	at := "(rule upper/closed, " + filepath.Join(n.PolicyDir, "upper.yaml") + ":6)"
	for _, whom := range [][]string{
		{"--scope", "org:local/team:default/agent:curl", "--always"}, {"--scope", "org:local/team:default", "--for", "1h"},
		{"--scope", "org:local", "--once"}, {"--sandbox", "vain"}, {"--sandbox", "vain", "--once"},
	} {
		r := n.CLI(t, append([]string{"allow", "www.closed.test:443"}, whom...)...)
		if r.Code != 4 || r.Stdout != "" || !strings.Contains(r.Stderr, "was not added: ") || !strings.Contains(r.Stderr, at) {
			t.Errorf("%v: exit %d %s%s", whom, r.Code, r.Stdout, r.Stderr)
		}
		allow(t, n, append([]string{"www.open.test:443"}, whom...)...) // the control
	}
	if docs := documents(t, n); strings.Contains(docs, "www.closed.test") || !strings.Contains(docs, "www.open.test") {
		t.Errorf("in force: %s", docs)
	}
	if r := n.CLI(t, "stop", "vain", "--timeout", "0s"); r.Code != 0 {
		t.Error(r.Stderr)
	}
}

// tellingEvents: remedies where there is one, and no noise of our own.
func tellingEvents(t *testing.T, n *node.Node) {
	ws := n.Workspace(t)
	put(t, ws, ".git/hooks/pre-commit", "")
	const remedy = "to allow: run it with --profile coding, which may write the workspace"
	r := n.CLIIn(t, ws, "run", "--", "sh", "-c", "touch x; mkdir $PWD/y; touch /usr/z; :")
	contains(t, "default", r.Stderr, "open x  it is read-only in the sandbox's view\n    "+remedy, "create "+ws+"/y  it is read-only in the sandbox's view\n    "+remedy)
	if strings.Count(r.Stderr, remedy) != 2 {
		t.Errorf("also where it would not help:\n%s", r.Stderr)
	}
	r = n.CLIIn(t, ws, "run", "--profile", "coding", "--", "sh", "-c", "touch x; touch .git/hooks/pre-commit; curl -s https://nothing.test; nslookup nothing.test; sleep 0.1; :")
	if strings.Contains(r.Stderr, remedy) {
		t.Errorf("coding:\n%s", r.Stderr)
	}

	n.WaitEvent(t, "a program", func(e *event.Event) bool { return e.Kind == event.KindExec && strings.HasPrefix(e.Args, "touch x") })
	n.WaitEvent(t, "its end", func(e *event.Event) bool { return e.Kind == event.KindExit && e.Comm == "touch" })
	id := ""
	for _, e := range n.Events(t) {
		if line := e.Compact(false); (e.Kind == event.KindExec || e.Kind == event.KindExit) && strings.Contains(line, "ringfence-init") {
			t.Errorf("noise: %s", line)
		}
		if e.Kind == event.KindDNS && e.Verdict == event.Denied && strings.Contains(e.Compact(false), "NOERROR") {
			t.Errorf("a refusal that looks like none: %s", e.Compact(false))
		}
		id = cmp.Or(id, e.Sandbox)
	}

	if r := n.CLI(t, "events", "--sandbox", "nope"); r.Code != 3 || r.Stdout != "" || !strings.Contains(r.Stderr, `no sandbox "nope"`) {
		t.Errorf("of none: exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	n.StopDaemon(t, syscall.SIGINT)
	n.StartDaemon(t) // which knows no sandbox any more
	if r := n.CLI(t, "events", "--sandbox", id); r.Code != 0 || r.Stdout == "" {
		t.Errorf("of %s, which ended before: exit %d %s%s", id, r.Code, r.Stdout, r.Stderr)
	}
}

// notUp: whatever ps counts it names, and doctor has a remedy for it.
func notUp(t *testing.T, n *node.Node) {
	if r := n.CLI(t, "run", "--workspace", "none", "-d", "--name", "up", "--", "sleep", "1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	ps, doctor := n.CLI(t, "ps").Stdout, n.CLI(t, "doctor").Stdout
	_, todo, _ := strings.Cut(doctor, "What to do:")
	for part, check := range map[string]string{"memoryLimit": "memory limit: ", "pidsLimit": "pids limit: ", "unix sockets that host programs": "unix sockets by path: "} {
		if strings.Contains(ps, part) != strings.Contains(todo, "  "+check) {
			t.Errorf("%s in ps and not in doctor, or the other way round:\n%s%s", part, ps, doctor)
		}
	}
	for line := range strings.Lines(ps) {
		if strings.Contains(line, "running") && (strings.Contains(line, "Limit") || len(line) > 140) {
			t.Errorf("a long line: %s", line)
		}
	}
	if r := n.CLI(t, "stop", "up", "--timeout", "0s"); r.Code != 0 {
		t.Error(r.Stderr)
	}
}

// typo: a mistake in a file is named, and so is what holds meanwhile.
func typo(t *testing.T, n *node.Node) {
	const text = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: mine}\nscope: org:local\negress:\n  - {id: a, allow: \"a.test:443\"}\n"
	file := filepath.Join(n.PolicyDir, "mine.yaml")
	n.WritePolicy(t, "mine.yaml", text)
	eventually(t, "the document is in force", func() bool { return strings.Contains(documents(t, n), "mine") })
	n.WritePolicy(t, "mine.yaml", strings.Replace(text, "allow:", "alow:", 1))
	e := n.WaitEvent(t, "the mistake", func(e *event.Event) bool {
		return e.Kind == event.KindPolicy && e.Activity == "refuse" && e.Object == file
	})
	contains(t, "the event", e.Reason, file+":6:", "alow", "; its form of revision ", " stays in force")
	r := n.CLI(t, "policy", "show")
	contains(t, "policy show", r.Stderr, "ringfence: "+file+":6:", "; its form of revision ")
	if r.Code != 7 || strings.Contains(r.Stderr, "not in force") {
		t.Errorf("policy show: exit %d %s", r.Code, r.Stderr)
	}
	r = n.CLI(t, "doctor")
	contains(t, "doctor", r.Stdout, "  policy: "+file+":6:", "; its form of revision ", ": ringfence policy check "+file)
	for line := range strings.Lines(r.Stdout) {
		if strings.HasPrefix(line, "policy") && strings.Contains(line, "MISSING") || r.Code != 7 {
			t.Errorf("doctor: exit %d %s", r.Code, line)
		}
	}
	need(t, os.Remove(file))
	n.WaitEvent(t, "the removal", func(e *event.Event) bool {
		return e.Kind == event.KindPolicy && e.Activity == "remove" && e.Object == file
	})
	if r := n.CLI(t, "policy", "show"); r.Code != 0 {
		t.Errorf("after it: exit %d %s", r.Code, r.Stderr)
	}
}

// homeProgram: what the caller can run and the sandbox does not see is found on
// the host, and the message says where.
func homeProgram(t *testing.T, n *node.Node) {
	bin := filepath.Join(n.Workspace(t), "bin")
	prog := put(t, bin, "ownprog", "#!/bin/sh\n")
	need(t, os.Chmod(prog, 0o755))
	run := func(program string) node.Result {
		cmd := n.Command(t.Context(), "run", "-q", "--", program)
		cmd.Dir = n.Workspace(t)
		cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
		return node.Finish(t, cmd)
	}
	for _, program := range []string{"ownprog", prog} {
		r := run(program)
		contains(t, program, r.Stderr, "not found in the sandbox", "on the host it is "+prog+", and the sandbox does not see that", "Profiles")
		if r.Code != 127 {
			t.Errorf("exit %d", r.Code)
		}
	}
	if r := n.CLI(t, "run", "-d", "--workspace", "none", "--", "no-such-program"); !strings.HasPrefix(r.Stderr, "ringfence: no-such-program: ") {
		t.Errorf("detached: %s", r.Stderr)
	}
	if r := run("no-such-program"); r.Code != 127 || strings.Contains(r.Stderr, "on the host") {
		t.Errorf("one that is nowhere: exit %d %s", r.Code, r.Stderr)
	}
}

// namesQuarantine: where the original of what was made harmless lies is said.
func namesQuarantine(t *testing.T, n *node.Node) {
	ws := n.Workspace(t)
	put(t, ws, ".git/HEAD", "ref: refs/heads/main\n")
	put(t, ws, ".git/config", "[core]\n\tbare = false\n")
	need(t, os.MkdirAll(filepath.Join(ws, ".git/objects"), 0o755))
	need(t, os.MkdirAll(filepath.Join(ws, ".git/refs"), 0o755))
	r := sandboxed(t, n, ws, "default", `mkdir -p sub/.git/objects sub/.git/refs sub/.git/hooks && cp .git/HEAD .git/config sub/.git/ && printf '#!/bin/sh\n' > sub/.git/hooks/pre-commit && chmod +x sub/.git/hooks/pre-commit`)
	dirs, err := filepath.Glob(filepath.Join(ws, ".ringfence-quarantine", "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%v %v: %s", dirs, err, r.Stderr)
	}
	contains(t, "run", r.Stderr, "  the originals are in .ringfence-quarantine/"+filepath.Base(dirs[0])+"/ of the workspace; its index.txt")
	if _, err := os.Stat(filepath.Join(dirs[0], "index.txt")); err != nil {
		t.Error(err)
	}
}
