// SPDX-License-Identifier: Apache-2.0

// Package escapes runs every attempt of the attempts program inside sandboxes
// of a real daemon and asks three things of each: did the call fail as it must,
// did the world outside notice anything, and does the event stream tell of it.
package escapes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// attempt is one row of the program's list; see there.
type attempt struct {
	Name    string   `json:"name"`
	Class   string   `json:"class"`
	Expect  expect   `json:"expect"`
	Third   expect   `json:"third"`
	Params  []string `json:"params"`
	Needs   []string `json:"needs"`
	NotIn   []string `json:"notIn"`
	Layer   string   `json:"layer"`
	Event   string   `json:"event"`
	Trace   string   `json:"trace"`
	Silent  string   `json:"silent"`
	Control string   `json:"control"`
	As      string   `json:"as"`
	Env     []string `json:"env"`
}

type expect struct {
	Errnos    []string `json:"errnos"`
	Contained bool     `json:"contained"`
}

type result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Errno  string `json:"errno"`
	Detail string `json:"detail"`
}

func list(t *testing.T, program string) (out []attempt) {
	t.Helper()
	b, err := exec.CommandContext(t.Context(), program, "--list").Output()
	need(t, err)
	need(t, json.Unmarshal(b, &out))
	return out
}

// launch is one kind of sandbox.
type launch struct {
	name string
	args []string // of ringfence run
	user bool     // launched by the world's owner, a member of the operators' group
	are  []string // what rows name in notIn
	only []string // classes; none means all
}

// closed is the coding profile without unix sockets and memory files.
const closed = "closed.yaml"

var launches = []launch{
	{name: "root-coding", args: []string{"--profile", "coding"}, are: []string{"coding", "unix-sockets"}},
	{name: "root-default", args: []string{"--profile", "default"}, are: []string{"default", "unix-sockets", "workspace-ro"}},
	{name: "root-inside", args: []string{"--profile", "coding", "--user", "root"}, are: []string{"coding", "unix-sockets", "root-inside"}},
	{name: "user", args: []string{"--profile", "coding"}, user: true, are: []string{"coding", "unix-sockets"}},
	{name: "user-closed", args: []string{"--profile", closed}, user: true, are: []string{"closed"}, only: []string{"unix", "process", "socket"}},
}

func (l *launch) takes(a *attempt) bool {
	if l.only != nil && !slices.Contains(l.only, a.Class) {
		return false
	}
	return !slices.ContainsFunc(a.NotIn, func(kind string) bool { return slices.Contains(l.are, kind) })
}

// onWire are the classes that reach for the network: those sandboxes belong to
// the daemon that stands where the world stands.
var onWire = []string{"tcp", "udp", "dns", "unix", "network-control"}

func TestEscapes(t *testing.T) {
	p := newPlace(t)
	p.daemons(t)
	for _, l := range launches {
		t.Run(l.name, func(t *testing.T) { p.run(t, &l) })
	}
}

// run makes every attempt in sandboxes of one kind: those on processes of the
// host first, in a sandbox of few processes, whose numbers cannot be the host's.
func (p *place) run(t *testing.T, l *launch) {
	var wire, host, rest []*attempt
	left := 0
	for i := range p.attempts {
		switch a := &p.attempts[i]; {
		case !l.takes(a):
			left++
		case slices.Contains(onWire, a.Class):
			wire = append(wire, a)
		case slices.Contains(a.Params, "hostpid"):
			host = append(host, a)
		default:
			rest = append(rest, a)
		}
	}
	need(t, p.world.Reset())
	var all []*outcome
	for _, b := range []struct {
		n    *node.Node
		rows []*attempt
	}{{p.wire, wire}, {p.home, host}, {p.home, rest}} {
		if len(b.rows) > 0 {
			all = append(all, p.batch(t, b.n, l, b.rows)...)
		}
	}
	silent, events := 0, 0
	for _, o := range all {
		if o.row.Event == "none" {
			silent++
		} else {
			events++
		}
		t.Run(o.row.Name, func(t *testing.T) {
			for _, c := range p.judge(o) {
				t.Errorf("%s (%s)", c, o.row.Control)
			}
		})
	}
	p.after(t)
	t.Logf("%d attempts: %d with an event of their own, %d that only show as a program that ran; %d are no escape in this kind of launch", len(all), events, silent, left)
}

// outcome is everything known about one attempt.
type outcome struct {
	row      *attempt
	audited  bool
	result   result
	effects  []string
	alive    bool // the victim
	from, to time.Time
	events   []event.Event // all of the sandbox
}

// batch makes attempts in one sandbox, one by one.
func (p *place) batch(t *testing.T, n *node.Node, l *launch, rows []*attempt) []*outcome {
	t.Helper()
	ws := p.world.Params["ws"]
	program := filepath.Join(ws, "attempts")
	need(t, os.WriteFile(program, p.program, 0o755))
	need(t, os.Chown(program, owner, owner))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	name := fmt.Sprintf("%s-%d", l.name, time.Now().UnixNano())
	args := append([]string{"run", "--quiet", "--name", name, "--workspace", ws}, p.profile(t, l)...)
	args = append(append(args, "--", program, "--batch"), p.world.Args(nil)...)
	cmd := n.Command(ctx, args...)
	cmd.Dir = ws
	if l.user {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner, Gid: owner, Groups: []uint32{groupGID}}}
	}
	for i := range p.attempts {
		cmd.Env = append(cmd.Env, p.attempts[i].Env...)
	}
	stray, err := os.Open("/usr")
	need(t, err)
	defer stray.Close()
	cmd.ExtraFiles = []*os.File{6: stray} // descriptor 9: it must not get in
	in, err := cmd.StdinPipe()
	need(t, err)
	out, err := cmd.StdoutPipe()
	need(t, err)
	var said bytes.Buffer
	cmd.Stderr = &said
	p.world.Effects()
	need(t, cmd.Start())
	done := p.drive(t, rows, in, bufio.NewScanner(out))
	need(t, in.Close())
	_, err = io.Copy(io.Discard, out)
	need(t, err)
	if err := cmd.Wait(); err != nil || len(done) != len(rows) {
		t.Errorf("the sandbox did not live to the end: %v after %d of %d attempts\n%s", err, len(done), len(rows), said.String())
	}
	time.Sleep(100 * time.Millisecond) // what is on its way to the world
	for _, e := range p.world.Effects() {
		t.Errorf("seen only at the end: %s", e)
	}
	events := p.story(t, n, name, done)
	for _, o := range done {
		o.events, o.audited = events, n == p.home && p.audited
	}
	return done
}

func (p *place) profile(t *testing.T, l *launch) []string {
	t.Helper()
	i := slices.Index(l.args, closed)
	if i < 0 {
		return l.args
	}
	b, err := os.ReadFile(filepath.Join(node.Root(), "profiles", "coding.yaml"))
	need(t, err)
	text := strings.NewReplacer("unixSockets: true", "unixSockets: false", "memfd: true", "memfd: false", "name: coding", "name: closed").Replace(string(b))
	path := filepath.Join(p.home.Dir, closed)
	need(t, os.WriteFile(path, []byte(text), 0o644))
	args := slices.Clone(l.args)
	args[i] = path
	return args
}

// drive writes one name after the other and looks at the world after each.
func (p *place) drive(t *testing.T, rows []*attempt, in io.Writer, out *bufio.Scanner) (done []*outcome) {
	t.Helper()
	for _, a := range rows {
		o := &outcome{row: a, from: time.Now()}
		if _, err := fmt.Fprintln(in, a.Name); err != nil || !out.Scan() {
			t.Errorf("%s: the sandbox is gone: %v", a.Name, err)
			return done
		}
		o.result = parse(t, out.Bytes())
		time.Sleep(3 * time.Millisecond) // a service notices on its own time
		o.to, o.effects, o.alive = time.Now(), p.world.Effects(), p.world.VictimAlive()
		done = append(done, o)
	}
	return done
}

func parse(t *testing.T, line []byte) (r result) {
	t.Helper()
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return r
}

// story waits until the stop of the sandbox and the program of its last
// attempt are in the event stream, and returns its events.
func (p *place) story(t *testing.T, n *node.Node, name string, done []*outcome) (events []event.Event) {
	t.Helper()
	for range 100 {
		events = n.Events(t, "--sandbox", name)
		complete := false
		for i := range events {
			complete = complete || events[i].Kind == event.KindSandboxStop
		}
		if complete && len(done) > 0 && started(events, done[len(done)-1].row.Name) != 0 {
			return events
		}
		time.Sleep(30 * time.Millisecond)
	}
	t.Errorf("the event stream of %s is not complete: %d events", name, len(events))
	return events
}

// after looks at what may show only when every sandbox is gone.
func (p *place) after(t *testing.T) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	need(t, err)
	for _, f := range procs {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte("--helper\x00daemon")) && bytes.Contains(b, []byte(p.world.Params["marker"])) {
			t.Errorf("a process outlived its sandbox: %s", f)
		}
	}
	need(t, filepath.WalkDir(p.world.Params["ws"], func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode()&(os.ModeSetuid|os.ModeSetgid|os.ModeDevice) != 0 {
			t.Errorf("left in the workspace: %s %s", info.Mode(), path)
		}
		return err
	}))
	cmd := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", "-C", p.world.Params["repo"], "config", "--local", "--list")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("not installed: git (%v)", err)
		out, err = os.ReadFile(filepath.Join(p.world.Params["repo"], ".git/config"))
		need(t, err)
	}
	for line := range strings.Lines(strings.ToLower(string(out))) {
		for _, key := range []string{"core.fsmonitor", "core.hookspath", "alias.", "filter.", "include.", "core.sshcommand"} {
			if strings.HasPrefix(line, key) {
				t.Errorf("git on the host would obey: %s", line)
			}
		}
	}
}
