// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// TestAttacks are attempts of more than one step, on a daemon with a member's
// and root's sandboxes.
func TestAttacks(t *testing.T) {
	n := node.Start(t, node.Options{Config: "group: " + group + "\n"})
	for name, f := range map[string]func(*testing.T, *node.Node){
		"fill memory": fillMemory, "workspace over the daemon": ownPlaces, "operator socket from inside": operatorSocket,
		"text for the operator's terminal": hostileText, "flood of names": nameFlood, "signals to the first process": manySignals,
	} {
		t.Run(name, func(t *testing.T) { f(t, n) })
	}
}

func inside(t *testing.T, n *node.Node, ws, script string) node.Result {
	t.Helper()
	return n.CLIIn(t, ws, "run", "--quiet", "--profile", "coding", "--", "sh", "-c", script)
}

// fillMemory: every memory file system has the size of the profile, and a
// number of files.
func fillMemory(t *testing.T, n *node.Node) {
	r := inside(t, n, n.Workspace(t), `for d in /tmp /var/tmp "$HOME" /dev/shm /run; do stat -f -c "$d %b %S %c" $d; done`)
	want := map[string]uint64{"/tmp": 4 << 30, "/var/tmp": 4 << 30, "/home/agent": 4 << 30, "/dev/shm": 512 << 20, "/run": 16 << 20}
	for line := range strings.Lines(r.Stdout) {
		var dir string
		var blocks, size, files uint64
		if _, err := fmt.Sscan(line, &dir, &blocks, &size, &files); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if blocks*size != want[dir] {
			t.Errorf("%s has %d bytes, not %d", dir, blocks*size, want[dir])
		}
		if files == 0 || files > 1<<20 {
			t.Errorf("%s takes %d files", dir, files)
		}
		delete(want, dir)
	}
	if len(want) > 0 {
		t.Errorf("not seen: %v in %q %s", want, r.Stdout, r.Stderr)
	}
}

// ownPlaces: root's workspace would make the daemon's files the agent's.
func ownPlaces(t *testing.T, n *node.Node) {
	for _, dir := range []string{n.Dir, n.StateDir, n.RunDir, n.PolicyDir} {
		r := n.CLI(t, "run", "--quiet", "--profile", "coding", "--workspace", dir, "--", "ls")
		if r.Code != 125 || !strings.Contains(r.Stderr, "cannot be a workspace") {
			t.Errorf("%s: %+v", dir, r)
		}
	}
}

// operatorSocket: a process of a sandbox is refused whatever its uid, even
// where it finds the socket and the program.
func operatorSocket(t *testing.T, n *node.Node) {
	ws := n.Workspace(t)
	program, err := os.ReadFile(filepath.Join(n.Bin, "ringfence"))
	need(t, err)
	need(t, os.WriteFile(filepath.Join(ws, "ringfence"), program, 0o755))
	sock := filepath.Join(ws, "s")
	need(t, os.Link(n.Socket, sock)) // the worst case: the very socket, in the workspace
	defer os.Remove(sock)
	need(t, os.Chmod(n.Socket, 0o777))
	defer func() { need(t, os.Chmod(n.Socket, 0o660)) }()
	r := inside(t, n, ws, "./ringfence --socket $PWD/s ps; ./ringfence --socket $PWD/s allow evil.test:443 --always --scope org:local; ./ringfence --socket $PWD/s run -- id")
	if r.Code != 125 || strings.Contains(r.Stdout, "ID") || strings.Contains(r.Stdout, "uid=") {
		t.Errorf("%+v", r)
	}
}

// hostileText: names, arguments and output of a sandbox never steer the
// operator's terminal.
func hostileText(t *testing.T, n *node.Node) {
	ws := n.Workspace(t)
	evil := "e\x1b]0;pwned\x07\x1b[31m\nDENIED forged"
	need(t, os.WriteFile(filepath.Join(ws, "evil"), []byte("#!/bin/sh\nexit 0\n"), 0o755))
	r := inside(t, n, ws, "cp evil '"+evil+"'; ./e* '"+evil+"'; mkdir -p '"+evil+"d/.git/objects' '"+evil+"d/.git/refs'; echo ref: refs/heads/m > '"+evil+"d/.git/HEAD'; printf '[core]\\n\\tfsmonitor = \\033[31mx\\n' > '"+evil+"d/.git/config'")
	n.WaitEvent(t, "the program", func(e *event.Event) bool { return e.Kind == event.KindExec && strings.Contains(e.Args, evil) })
	n.WaitEvent(t, "the finding", func(e *event.Event) bool { return e.Kind == event.KindWorkspace && strings.Contains(e.Path, evil) })
	texts := map[string]string{"run": r.Stderr, "events": n.CLI(t, "events").Stdout, "ps": n.CLI(t, "ps", "--all").Stdout}
	for what, text := range texts {
		if strings.ContainsAny(text, "\x1b\x07") || strings.Contains(text, "\nDENIED forged") {
			t.Errorf("%s: %q", what, text)
		}
	}
	if !strings.Contains(texts["events"], `\x1b`) || !strings.Contains(texts["run"], `\x1b`) {
		t.Errorf("it is not shown escaped either: %q", texts)
	}
}

// nameFlood: questions beyond what a sandbox may ask do not stop the service.
func nameFlood(t *testing.T, n *node.Node) {
	ws := n.Workspace(t)
	r := inside(t, n, ws, `seq 1 4000 | sed 's/.*/n&.evil.test/' | xargs -P 8 -n 500 getent ahostsv4 > /dev/null; exit 0`)
	if r.Code != 0 {
		t.Errorf("%+v", r)
	}
	if r := inside(t, n, ws, "getent hosts api.openai.com"); !strings.Contains(r.Stdout, "198.18.") {
		t.Errorf("afterwards: %+v", r)
	}
}

// manySignals: no signal from inside ends the sandbox's first process.
func manySignals(t *testing.T, n *node.Node) {
	r := inside(t, n, n.Workspace(t), `i=1; while [ $i -le 64 ]; do kill -$i 1 2>/dev/null; i=$((i+1)); done; sleep 0.2; echo alive; exit 7`)
	if r.Code != 7 || !bytes.Contains([]byte(r.Stdout), []byte("alive")) {
		t.Errorf("%+v", r)
	}
}
