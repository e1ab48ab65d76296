// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// trees lists the layouts that are pinned.
func trees(t *testing.T, n *node.Node) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(n.RunDir, "bpf", "ringfence-v*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range dirs {
		dirs[i] = filepath.Base(dirs[i])
	}
	return dirs
}

// TestUpgrade goes to a daemon with another layout of the kernel's maps,
// another version of the messages between keeper and gateway and another format
// of the state directory, while a sandbox tries what it may and what it may
// not; and the way back is refused.
func TestUpgrade(t *testing.T) {
	w := newWorld(t)
	s := newSink(t, w.own)
	n := node.Start(t, w.options())
	now, next := n.Daemon, node.Another(t, "next", "ringfence_next")
	if r := n.CLI(t, "allow", "later.example:443", "--scope", "org:local", "--always"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	attempts := append(append(w.allowed(), fmt.Sprintf("stream:stream:echo.example:%d", w.echoPort)), w.floods(s)...)
	l := startLoad(t, n, "agent", append(attempts, w.denied()...)...)
	l.more(t, nil, 3, "echo", "web", "llm", "stream")
	l.tried(t, nil, 100, flooded...)
	was, gateway, before := standing(t, n), must(n.Gateway(t)), l.counts(t)
	old := trees(t, n)
	kept := read(t, filepath.Join(n.StateDir, "store"))

	n.KillDaemon(t)
	n.Daemon = next
	n.StartDaemon(t)
	l.more(t, l.counts(t), 10, "echo", "web", "llm", "stream")
	l.tried(t, l.counts(t), 300, flooded...)
	was.still(t, n)
	if g := must(n.Gateway(t)); g != gateway {
		t.Errorf("the gateway, one version of the messages apart, was replaced: %v, was %v", g, gateway)
	}
	if c := l.counts(t); c["stream"].Fail != before["stream"].Fail || c["echo"].Fail != before["echo"].Fail {
		t.Errorf("what is allowed was refused: stream %d times, echo %d times; %s %s", c["stream"].Fail-before["stream"].Fail,
			c["echo"].Fail-before["echo"].Fail, c["stream"].Last, c["echo"].Last)
	}
	noneSucceeded(t, l, s)
	w.nothingPassed(t, l)
	n.WaitEvent(t, "the end of the former layout", func(e *event.Event) bool { return e.Activity == "layout-left" })
	if got := trees(t, n); len(old) != 1 || len(got) != 1 || got[0] == old[0] {
		t.Errorf("pinned are %v, were %v", got, old)
	}
	if got := read(t, filepath.Join(n.StateDir, "backup", "format-2", "store")); len(got["ringfence.db"]) == 0 || len(got) < len(kept) {
		t.Errorf("the backup of the store has %d files, %d bytes", len(got), len(got["ringfence.db"]))
	}
	if _, there := read(t, filepath.Join(n.StateDir, "store"))["of-format-3"]; !there {
		t.Error("the store was not brought to the new format")
	}
	if r := n.CLI(t, "policy", "get", "allow-later.example-443"); r.Code != 0 {
		t.Errorf("what was stored is gone: %s", r.Stderr)
	}
	// It is as good as one that it launched.
	checkCommands(t, n)
	if r := n.CLIIn(t, n.Workspace(t), "run", "--", "true"); r.Code != 0 {
		t.Errorf("a new sandbox: %d %s", r.Code, r.Stderr)
	}

	n.StopDaemon(t, syscall.SIGTERM)
	n.Daemon = now
	code, said := n.Refused(t)
	if code != 2 || !strings.Contains(said, "has format 3, written by ringfenced next") || !strings.Contains(said, "start version next or a later one again") {
		t.Errorf("the way back: exit status %d, %s", code, said)
	}
	l.tried(t, l.counts(t), 100, flooded...)
	noneSucceeded(t, l, s)
	n.Daemon = next
	n.StartDaemon(t)
	l.more(t, l.counts(t), 3, "echo", "web", "llm", "stream")
	was.still(t, n)
	if c := l.counts(t); c["stream"].Fail != before["stream"].Fail {
		t.Errorf("a long-lived stream broke: %s", c["stream"].Last)
	}
	noneSucceeded(t, l, s)
	w.nothingPassed(t, l)
	if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
		t.Errorf("audit verify: %s%s", v.Stdout, v.Stderr)
	}
}

// read returns the files of a directory, without those below it.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}
