// SPDX-License-Identifier: Apache-2.0

// Package node runs a real Ringfence daemon for whole-product tests: built
// from this checkout, in directories and a cgroup of its own, beside any other
// daemon of the machine. What a test leaves behind fails it.
package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/daemon"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/test/env"
)

// build is done once for all tests of a process.
var build = sync.OnceValues(buildAll)

// Root is the top of this checkout.
func Root() string {
	if t := env.Tree(); t != "" {
		return t
	}
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// buildAll compiles the three programs into the checkout's own cache folder.
// The daemon is built with the race detector when the tests are.
func buildAll() (string, error) {
	if p := env.Built("ringfenced"); p != "" {
		return filepath.Dir(p), nil
	}
	dir := filepath.Join(Root(), "bin", "test")
	if raceEnabled {
		dir += "-race"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // several test packages at once
		return "", err
	}
	for name, cgo := range map[string]string{"ringfence": "0", "ringfence-policy": "0", "ringfence-init": "0", "ringfenced": "1"} {
		args := []string{"build", "-o", filepath.Join(dir, name)}
		if raceEnabled && cgo == "1" {
			args = append(args, "-race")
		}
		cmd := exec.Command("go", append(args, "./cmd/"+name)...)
		cmd.Dir = Root()
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
}

// Another builds one more daemon beside those that the tests use: of another
// version, with build tags.
func Another(t testing.TB, version string, tags ...string) string {
	t.Helper()
	if p := env.Built("ringfenced-" + version); p != "" {
		if _, err := os.Stat(p); err != nil {
			t.Skip("needs Go: another daemon is built")
		}
		return p
	}
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ringfenced-"+version)
	args := []string{"build", "-o", path, "-ldflags", "-X main.version=" + version, "-tags", strings.Join(tags, ",")}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/ringfenced")...)
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", path, err, out)
	}
	return path
}

// Options of a node.
type Options struct {
	Config   string            // YAML of the daemon's configuration
	Policies map[string]string // file name -> YAML, in the policy directory
	Env      []string          // for the daemon
	Wrap     []string          // a command that runs the daemon in its own place (exec), with what limits it
	NoStart  bool
}

// Node is one daemon under test.
type Node struct {
	Bin, Dir, RunDir, StateDir, PolicyDir, Socket string

	// Daemon is the program that StartDaemon runs; a test that upgrades puts
	// another one here.
	Daemon string
	Wrap   []string // see Options

	cmd *exec.Cmd
}

// Start builds and runs a daemon and stops it when the test ends; the test
// fails if it leaves anything behind. It skips without root.
func Start(t testing.TB, o Options) *Node {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("RINGFENCE_CI") != "" {
			t.Fatal("whole-product tests need root, and CI has it")
		}
		t.Skip("needs root: cgroups, namespaces and BPF programs")
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "rf") // short: unix socket paths have 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n := &Node{Bin: bin, Daemon: filepath.Join(bin, "ringfenced"), Wrap: o.Wrap, Dir: dir, RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), PolicyDir: filepath.Join(dir, "policy")}
	n.Socket = filepath.Join(n.RunDir, "ringfence.sock")
	if err := os.MkdirAll(n.PolicyDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range o.Policies {
		n.WritePolicy(t, name, text)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(o.Config+"\nlockDir: "+filepath.Join(os.TempDir(), "ringfence-test-uids")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.finish(t) })
	if !o.NoStart {
		n.StartDaemon(t, o.Env...)
	}
	return n
}

// StartDaemon starts the daemon and waits until its API answers.
func (n *Node) StartDaemon(t testing.TB, environ ...string) {
	t.Helper()
	n.Launch(t, environ...)
	n.await(t)
}

// Launch starts the daemon and does not wait for it.
func (n *Node) Launch(t testing.TB, environ ...string) {
	t.Helper()
	argv := append(slices.Clone(n.Wrap), n.Daemon, "--config", filepath.Join(n.Dir, "config.yaml"),
		"--run-dir", n.RunDir, "--state-dir", n.StateDir, "--policy-dir", n.PolicyDir)
	n.cmd = exec.Command(argv[0], argv[1:]...)
	n.cmd.Env = append(os.Environ(), environ...)
	// A file, not a pipe: the gateway has it too, and outlives a keeper.
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	n.cmd.Stdout, n.cmd.Stderr = log, log
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// Refused starts a daemon that is to end by itself, and returns its exit status
// and what it said.
func (n *Node) Refused(t testing.TB) (code int, said string) {
	t.Helper()
	before := len(n.Log())
	n.Launch(t)
	done := make(chan struct{})
	go func() { defer close(done); _ = n.cmd.Wait() }() // its status is looked at
	select {
	case <-done:
	case <-time.After(env.Wait(60 * time.Second)):
		t.Fatalf("the daemon that was to refuse runs:\n%s", n.Log())
	}
	return n.cmd.ProcessState.ExitCode(), n.Log()[before:]
}

func (n *Node) await(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(env.Wait(30 * time.Second)); time.Now().Before(end); {
		if err := n.cmd.Process.Signal(syscall.Signal(0)); err != nil {
			break
		}
		if r := n.CLI(t, "ps"); r.Code == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = n.cmd.Process.Signal(syscall.SIGQUIT) // where it hangs comes into its log, if it does
	time.Sleep(time.Second)
	t.Fatalf("the daemon did not come up:\n%s", n.Log())
}

func (n *Node) logFile() string { return filepath.Join(n.Dir, "daemon.log") }

// Log is what the daemon and its gateway wrote.
func (n *Node) Log() string {
	b, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// WritePolicy puts a document into the policy directory.
func (n *Node) WritePolicy(t testing.TB, name, text string) {
	t.Helper()
	tmp := filepath.Join(n.PolicyDir, "."+name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(n.PolicyDir, name)); err != nil {
		t.Fatal(err)
	}
}

// Result is one finished command.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Command prepares the command line tool against this node.
func (n *Node) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(n.Bin, "ringfence"), args...)
	cmd.Env = append(os.Environ(), "RINGFENCE_SOCKET="+n.Socket)
	cmd.Dir = n.Dir
	return cmd
}

// CLI runs the command line tool to its end.
func (n *Node) CLI(t testing.TB, args ...string) Result {
	t.Helper()
	return n.CLIIn(t, n.Dir, args...)
}

// CLIIn runs the command line tool in a directory.
func (n *Node) CLIIn(t testing.TB, dir string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), env.Wait(3*time.Minute))
	defer cancel()
	cmd := n.Command(ctx, args...)
	cmd.Dir = dir
	return Finish(t, cmd)
}

// Finish runs a prepared command and collects what it said.
func Finish(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return Result{Code: cmd.ProcessState.ExitCode(), Stdout: out.String(), Stderr: errOut.String()}
}

// Workspace makes an empty directory that can be a workspace.
func (n *Node) Workspace(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(n.Dir, "ws")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Events returns the records that `ringfence events` gives for the arguments.
func (n *Node) Events(t testing.TB, args ...string) []event.Event {
	t.Helper()
	r := n.CLI(t, append([]string{"events", "-o", "json"}, args...)...)
	if r.Code != 0 {
		t.Fatalf("events: %s", r.Stderr)
	}
	var out []event.Event
	for line := range strings.Lines(r.Stdout) {
		e, err := event.ParseOCSF([]byte(strings.TrimSpace(line)))
		if err != nil {
			t.Fatalf("event %s: %v", line, err)
		}
		out = append(out, e)
	}
	return out
}

// WaitEvent waits until an event that want accepts is in the log.
func (n *Node) WaitEvent(t testing.TB, what string, want func(*event.Event) bool, args ...string) event.Event {
	t.Helper()
	var last []event.Event
	for end := time.Now().Add(env.Wait(10 * time.Second)); time.Now().Before(end); {
		last = n.Events(t, args...)
		for i := range last {
			if want(&last[i]) {
				return last[i]
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	var have strings.Builder
	for i := range last {
		fmt.Fprintln(&have, last[i].Compact(false))
	}
	t.Fatalf("no event: %s; have:\n%s", what, have.String())
	return event.Event{}
}

// KillDaemon ends the keeper without warning; sandboxes and gateway live on.
func (n *Node) KillDaemon(t testing.TB) {
	t.Helper()
	if err := n.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = n.cmd.Wait() // "signal: killed"
}

// StopDaemon asks the keeper to stop. SIGINT stops sandboxes too.
func (n *Node) StopDaemon(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := n.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the daemon ended with %v:\n%s", err, n.Log())
		}
	case <-time.After(env.Wait(60 * time.Second)):
		t.Fatalf("the daemon does not stop:\n%s", n.Log())
	}
}

// Cgroup is where everything of this daemon lives, "" before it ran.
func (n *Node) Cgroup(t testing.TB) string {
	t.Helper()
	root, err := kernel.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(root, daemon.Instance(n.RunDir))
	if _, err := os.Stat(p); err != nil {
		return ""
	}
	return p
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// finish stops the daemon and fails the test if anything is left.
func (n *Node) finish(t testing.TB) {
	if n.cmd != nil && n.cmd.ProcessState == nil {
		n.StopDaemon(t, syscall.SIGINT)
	} else if n.cmd != nil {
		n.StartDaemon(t) // a test that killed it: let it clean up
		n.StopDaemon(t, syscall.SIGINT)
	}
	if strings.Contains(n.Log(), "DATA RACE") {
		t.Errorf("data race in the daemon:\n%s", n.Log())
	}
	for _, l := range n.Leftovers(t) {
		t.Errorf("left behind: %s", l)
	}
	if t.Failed() {
		t.Logf("daemon log:\n%s", n.Log())
	}
	if err := os.RemoveAll(n.Dir); err != nil {
		t.Error(err)
	}
}

// Leftovers lists cgroups, mounts, processes and files of a stopped daemon.
func (n *Node) Leftovers(t testing.TB) []string {
	var out []string
	if c := n.Cgroup(t); c != "" {
		out = append(out, "cgroup "+c)
	}
	b := must(os.ReadFile("/proc/self/mountinfo"))
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, n.Dir) {
			out = append(out, "mount "+strings.TrimSpace(line))
		}
	}
	if entries, err := os.ReadDir(n.RunDir); err == nil {
		for _, e := range entries {
			out = append(out, "file "+filepath.Join(n.RunDir, e.Name()))
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err == nil && bytes.Contains(b, []byte(n.RunDir)) {
			out = append(out, "process "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out
}
