// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/node"
)

// takeover is one attack of an init that its agent took over; see
// testdata/takenover.
type takeover struct {
	name   string
	tamper bool   // the keeper notices, records it and ends the sandbox
	code   int    // how `ringfence run` ends
	says   string // and what it says
}

// The agent itself would end with 3. A sandbox that the keeper ends is killed:
// 137. What the tool hears is the word of the sandbox: it may lie about the
// agent's exit code, and about nothing else.
var takeovers = []takeover{
	{"garbage", true, 137, "the daemon ended the sandbox"},
	{"short", true, 137, "the daemon ended the sandbox"},
	{"empty", true, 137, "the daemon ended the sandbox"},
	{"oversized", true, 137, "the daemon ended the sandbox"},
	{"long text", true, 137, "the daemon ended the sandbox"},
	{"unfinished", true, 137, "the daemon ended the sandbox"},
	{"huge", true, 137, "the daemon ended the sandbox"},
	{"continuation", true, 137, "the daemon ended the sandbox"},
	{"unknown", true, 137, "the daemon ended the sandbox"},
	{"keeper's word", true, 137, "the daemon ended the sandbox"},
	{"ready again", true, 137, "the daemon ended the sandbox"},
	{"started again", true, 137, "the daemon ended the sandbox"},
	{"failed late", true, 137, "the daemon ended the sandbox"},
	{"two ends", true, 137, "the daemon ended the sandbox"},
	{"end of -1", true, 137, "the daemon ended the sandbox"},
	{"end of 2^31-1", true, 137, "the daemon ended the sandbox"},
	{"descriptors", true, 137, "the daemon ended the sandbox"}, // see mayPass
	{"lingering", true, 137, "the daemon ended the sandbox"},
	{"flood", true, 137, "the daemon ended the sandbox"},
	{"closed", true, 137, "the daemon ended the sandbox"},
	{"handed on", false, 3, ""},

	{"no start", true, 125, "ringfence-init"},
	{"silent start", false, 125, "did not answer"},
	{"false start", false, 127, "no such command"},

	{"tool garbage", false, 3, ""},
	{"tool empty", false, 3, ""},
	{"tool oversized", false, 3, ""},
	{"tool unfinished", false, 3, ""},
	{"tool unknown", false, 3, ""},
	{"tool terminal", false, 3, ""},
	{"tool lingering", false, 3, ""},
	{"tool escapes", false, 3, ""},
	{"tool flood", false, 3, ""},
	{"tool end of 999", false, 1, ""},
	{"tool end of -7", false, 1, ""},
	{"tool two ends", false, 4, ""},
	{"tool closed", false, 3, ""},
}

// takenOver builds the hostile init.
func takenOver(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(node.Root(), "cmd/ringfence-init/takenover.go"): filepath.Join(node.Root(), "test/escapes/testdata/takenover/takenover.go"),
	}})
	need(t, err)
	need(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	program := filepath.Join(dir, "ringfence-init")
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./cmd/ringfence-init")
	build.Dir = node.Root()
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

// TestTakenOverInit attacks the keeper and the command line tool with an init
// that does what it likes as soon as the agent runs. The keeper goes on, names
// the sandbox in a record and ends it; another sandbox does not notice;
// nothing is left open; and not one packet more gets out.
func TestTakenOverInit(t *testing.T) {
	p := newPlace(t)
	// Without a spare: what the keeper holds is counted.
	n := node.Start(t, node.Options{NoStart: true, Config: "spare: false\ninitPath: " + takenOver(t) + "\n"})
	p.do(func() { n.StartDaemon(t) })
	other := honest(t, n)
	before := holds(t, n)
	for i := range takeovers {
		a := &takeovers[i]
		t.Run(a.name, func(t *testing.T) {
			p.takeover(t, n, a)
			other.goesOn(t)
		})
	}
	t.Run("a tool that is left alone", func(t *testing.T) { leftAlone(t, n); other.goesOn(t) })
	t.Run("nothing is left open", func(t *testing.T) { quiet(t, n, before) })
	t.Run("towards the next keeper", func(t *testing.T) { p.nextKeeper(t, n); other.goesOn(t) })
	t.Run("deaf", func(t *testing.T) { deaf(t, n); other.goesOn(t) })
	for _, crash := range []string{"panic", "goroutine ", "DATA RACE"} {
		if strings.Contains(n.Log(), crash) {
			t.Errorf("%q in the daemon's log", crash)
		}
	}
	for _, e := range n.Events(t) {
		if e.Kind == event.KindPolicy && e.Activity != "apply" { // by the two daemons, when they started
			t.Errorf("policy was changed: %s", e.Compact(false))
		}
	}
}

// tries are attempts that the agent makes all the while.
const tries = `(while :; do for a in tcp-literal4 tcp-private10 tcp-metadata4 udp-sendto4 dns-own-server; do ./attempts $a "$@" >> tried; done; sleep 0.1; done) & `

// takeover runs an agent under a hostile init. In the end nothing of the world
// outside was touched.
func (p *place) takeover(t *testing.T, n *node.Node, a *takeover) {
	ws := p.workspace(t, n)
	if a.name == "handed on" {
		defer holder(t, n, ws)()
	}
	name := "hostile-" + strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(a.name, "-"), "-")
	p.world.Effects()
	args := []string{"run", "--quiet", "--profile", "coding", "--name", name, "--env", "TAKENOVER=" + a.name, "--", "sh", "-c", tries + "sleep 1.5; exit 3", "agent"}
	began := time.Now()
	r := n.CLIIn(t, ws, append(args, p.world.Args(nil)...)...)
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	code, says, tamper := a.code, a.says, a.tamper
	if (a.name == "descriptors" || a.name == "lingering") && !mayPass(t) {
		code, says, tamper = 3, "", false // the kernel refuses them: the keeper sees none
	}
	if r.Code == 137 && strings.HasPrefix(a.name, "tool ") && strings.Contains(r.Stderr, "ringfence stop ") {
		code = 137 // a slow machine: the tool gave up before the agent ended, and says so
	}
	if r.Code != code || !strings.Contains(r.Stderr, says) || strings.ContainsAny(r.Stderr, "\x1b\x07") {
		t.Errorf("exit %d, want %d: %q, want %q", r.Code, code, r.Stderr, says)
	}
	p.nothingPassed(t, ws)
	since := []string{"--since", began.Add(-time.Second).Format(time.RFC3339Nano)}
	stop := n.WaitEvent(t, "the end", func(e *event.Event) bool { return e.Kind == event.KindSandboxStop && e.Object == name }, since...)
	if stop.Status > 255 {
		t.Errorf("recorded with status %d", stop.Status)
	}
	if told := tampers(n.Events(t, since...), stop.Sandbox); told != tamper {
		t.Errorf("a tamper event that names the sandbox: %v, want %v", told, tamper)
	}
}

func (p *place) workspace(t *testing.T, n *node.Node) string {
	t.Helper()
	ws := n.Workspace(t)
	need(t, os.WriteFile(filepath.Join(ws, "attempts"), p.program, 0o755))
	return ws
}

// nothingPassed looks at what the agent's attempts came to, and at the world.
func (p *place) nothingPassed(t *testing.T, ws string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(ws, "tried"))
	need(t, err)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i, line := range lines {
		var r result
		if err := json.Unmarshal([]byte(line), &r); err != nil && i < len(lines)-1 { // the last may have been cut short
			t.Errorf("%q: %v", line, err)
		}
		if r.OK {
			t.Errorf("ESCAPE: %s succeeded", r.Name)
		}
	}
	if len(b) == 0 {
		t.Error("the agent tried nothing")
	}
	for _, e := range p.world.Effects() {
		t.Errorf("ESCAPE: the world noticed: %s", e)
	}
}

func tampers(events []event.Event, id string) bool {
	return slices.ContainsFunc(events, func(e event.Event) bool {
		return e.Kind == event.KindTamper && e.Sandbox == id && e.Scope != "" && e.Source == "keeper"
	})
}

// mayPass says whether descriptors reach a socket that refuses them: before
// Linux 6.16 nothing could.
func mayPass(t *testing.T) bool {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	need(t, err)
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	_, err = unix.GetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PASSRIGHTS)
	return err != nil
}

// neighbour is another sandbox of the same daemon.
type neighbour struct {
	n    *node.Node
	name string
	ws   string
	pid  int
}

// honest starts a sandbox that counts.
func honest(t *testing.T, n *node.Node) *neighbour {
	t.Helper()
	o := &neighbour{n: n, name: "honest", ws: n.Workspace(t)}
	r := n.CLIIn(t, o.ws, "run", "--detach", "--profile", "coding", "--name", o.name, "--", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > n; mv n count; sleep 0.05; done")
	if r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	o.pid = n.Sandbox(t, o.name).PID
	return o
}

func (o *neighbour) count() string {
	b, _ := os.ReadFile(filepath.Join(o.ws, "count")) // not there yet
	return string(b)
}

// goesOn fails unless the sandbox counts, answers and is the same.
func (o *neighbour) goesOn(t *testing.T) {
	t.Helper()
	before := o.count()
	eventually(t, "the other sandbox goes on", func() bool { return o.count() != before })
	s := o.n.Sandbox(t, o.name)
	if s.State != "running" || s.PID != o.pid || s.Enforcement != "enforced" && s.Enforcement != "degraded" {
		t.Errorf("the other sandbox is %+v", s)
	}
	if r := o.n.CLI(t, "exec", o.name, "--", "sh", "-c", "echo here; exit 9"); r.Code != 9 || r.Stdout != "here\n" {
		t.Errorf("exec in the other sandbox: %+v", r)
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// holding is what the daemon has open and running.
type holding map[string]int

var number = regexp.MustCompile(`\[\d+\]$|\d+$`)

// holds counts descriptors by what they are, threads, and entries of the
// kernel's tables. The user namespaces and images behind workspaces are caches
// with bounds of their own.
func holds(t *testing.T, n *node.Node) holding {
	t.Helper()
	h := holding{}
	for name, c := range node.OpenFiles(n.PID()) {
		kind := number.ReplaceAllString(name, "")
		if kind == "user:" || kind == "/" {
			continue
		}
		for _, dir := range []string{"/proc", filepath.Join(n.StateDir, "events")} {
			if strings.HasPrefix(kind, dir+"/") {
				kind = dir
			}
		}
		h[kind] += c
	}
	for name, v := range n.Metrics(t) {
		if strings.HasPrefix(name, "ringfence_kernel_table_entries") || name == "ringfence_sandboxes" {
			h[name] = int(v)
		}
	}
	return h
}

// quiet waits until the daemon holds no more than before.
func quiet(t *testing.T, n *node.Node, before holding) {
	t.Helper()
	var more []string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		more = nil
		for k, v := range holds(t, n) {
			if v > before[k] {
				more = append(more, fmt.Sprintf("%s: %d, were %d", k, v, before[k]))
			}
		}
		if len(more) == 0 {
			return
		}
	}
	t.Errorf("left open: %s", strings.Join(more, "; "))
}

// deaf: an init that reads nothing any more holds up neither the operator's
// stop nor the daemon's.
func deaf(t *testing.T, n *node.Node) {
	for _, name := range []string{"deaf", "deaf-and-found-out", "deaf-to-the-end"} {
		ws := n.Workspace(t)
		r := n.CLIIn(t, ws, "run", "--detach", "--profile", "coding", "--name", name, "--env", "TAKENOVER=deaf", "--", "sleep", "1000")
		if r.Code != 0 {
			t.Fatal(r.Stderr)
		}
		// More than the socket's buffers hold.
		long := make([]string, 10)
		for i := range long {
			long[i] = strings.Repeat("x", 100_000)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		cmd := n.Command(ctx, append([]string{"exec", name, "--", "true"}, long...)...)
		if err := cmd.Run(); err == nil {
			t.Error("exec: it ran")
		}
		cancel()
		switch name {
		case "deaf-and-found-out": // nobody stops it
			eventually(t, "it is ended", func() bool { return n.Sandbox(t, name).State == "stopped" })
			if !tampers(n.Events(t, "--sandbox", name), n.Sandbox(t, name).ID) {
				t.Error("no tamper event")
			}
		case "deaf":
			began := time.Now()
			if r := n.CLI(t, "stop", "--timeout", "1s", name); r.Code != 0 {
				t.Errorf("stop: %+v", r)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("the stop took %s", took)
			}
		}
	}
	// The last one is left for the daemon to stop when the test ends.
}

// leftAlone: the tool says the truth about a sandbox that stopped reporting to
// it and goes on.
func leftAlone(t *testing.T, n *node.Node) {
	for _, attack := range []string{"tool closed", "tool garbage", "tool end of 999"} {
		ws := n.Workspace(t)
		name := "alone-" + strings.ReplaceAll(attack, " ", "-")
		cmd := n.Command(t.Context(), "run", "--quiet", "--profile", "coding", "--name", name, "--env", "TAKENOVER="+attack, "--", "sleep", "1000")
		cmd.Dir = ws
		said, err := os.Create(filepath.Join(n.Dir, "said")) // a pipe would be open as long as the sandbox lives
		need(t, err)
		cmd.Stderr = said
		_ = cmd.Run() // with which status is asked below
		need(t, said.Close())
		b, err := os.ReadFile(said.Name())
		need(t, err)
		if code := cmd.ProcessState.ExitCode(); code != 137 && attack != "tool end of 999" || code == 0 || !strings.Contains(string(b), "ringfence stop ") {
			t.Errorf("%s: exit %d: %q", attack, code, b)
		}
		if s := n.Sandbox(t, name); s.State != "running" {
			t.Errorf("%s: it is %s", attack, s.State)
		}
		if r := n.CLI(t, "stop", "--timeout", "0s", name); r.Code != 0 {
			t.Errorf("%s: stop: %+v", attack, r)
		}
	}
}

// nextKeeper: what a taken-over init says to a keeper that adopted its sandbox
// is judged as by the one that launched it.
func (p *place) nextKeeper(t *testing.T, n *node.Node) {
	ws := p.workspace(t, n)
	args := []string{"run", "--detach", "--profile", "coding", "--name", "adopted", "--env", "TAKENOVER=to the next", "--", "sh", "-c", tries + "sleep 1000", "agent"}
	if r := n.CLIIn(t, ws, append(args, p.world.Args(nil)...)...); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	p.world.Effects()
	n.KillDaemon(t)
	p.do(func() { n.StartDaemon(t) })
	for what, kind := range map[string]event.Kind{"the tampering": event.KindTamper, "the end": event.KindSandboxStop} {
		n.WaitEvent(t, what, func(e *event.Event) bool { return e.Kind == kind && e.Object == "adopted" }, "--since", "1m")
	}
	p.nothingPassed(t, ws)
}

// holder starts a sandbox that accepts on a socket in the shared workspace and
// keeps whatever descriptors come.
func holder(t *testing.T, n *node.Node, ws string) (end func()) {
	t.Helper()
	need(t, os.WriteFile(filepath.Join(ws, "neighbour"), neighbourProgram(t), 0o755))
	if r := n.CLIIn(t, ws, "run", "--detach", "--profile", "coding", "--name", "holder", "--", "./neighbour", "hold", "holder"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	eventually(t, "the holder listens", func() bool { _, err := os.Stat(filepath.Join(ws, "holder")); return err == nil })
	before := holds(t, n)
	return func() {
		quiet(t, n, before) // although the holder lives
		b, err := os.ReadFile(filepath.Join(ws, "holder.got"))
		if err != nil || string(b) != "1" {
			t.Errorf("the holder got no descriptor: %q %v", b, err)
		}
		if r := n.CLI(t, "stop", "--timeout", "0s", "holder"); r.Code != 0 {
			t.Errorf("stop: %+v", r)
		}
	}
}

// neighbourProgram is the static program of that name.
func neighbourProgram(t *testing.T) []byte {
	t.Helper()
	if built := env.Built("neighbour"); built != "" {
		b, err := os.ReadFile(built)
		need(t, err)
		return b
	}
	out := filepath.Join(t.TempDir(), "neighbour")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", out, "./neighbour")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	b, err := os.ReadFile(out)
	need(t, err)
	return b
}
