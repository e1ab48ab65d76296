// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/daemon"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
)

// node is the quickstart's own daemon.
type node struct {
	bin, dir string
	cmd      *exec.Cmd
	log      *safeBuffer
}

// safeBuffer is written by the daemon's output while it is read here.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func startNode(ctx context.Context, bin string) (*node, error) {
	if _, err := os.Stat(filepath.Join(bin, "ringfenced")); err != nil {
		return nil, fmt.Errorf("the programs are not built (%w): `make quickstart` in the checkout does both, `make build` that alone", err)
	}
	dir, err := os.MkdirTemp("", "ringfence-quickstart-")
	if err != nil {
		return nil, err
	}
	n := &node{bin: bin, dir: dir, log: &safeBuffer{}}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w\nthe daemon said:\n%s", err, n.log.String()), n.stop())
	}
	return n, nil
}

func (n *node) start(ctx context.Context) error {
	if err := os.Chmod(n.dir, 0o755); err != nil {
		return err
	}
	config := filepath.Join(n.dir, "config.yaml")
	// What the agent looks for in here and does not find is worth a record.
	text := "lockDir: " + filepath.Join(n.dir, "locks") + "\naudit: {watch: [" + n.dir + "]}\n"
	if err := errors.Join(os.WriteFile(config, []byte(text), 0o644), os.Mkdir(filepath.Join(n.dir, "policy"), 0o755)); err != nil {
		return err
	}
	n.cmd = exec.Command(filepath.Join(n.bin, "ringfenced"), "--config", config, "--run-dir", n.run(),
		"--state-dir", filepath.Join(n.dir, "state"), "--policy-dir", filepath.Join(n.dir, "policy"))
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us; we stop it in order
	if err := n.cmd.Start(); err != nil {
		n.cmd = nil
		return err
	}
	for range 300 {
		if n.command(ctx, "ps").Run() == nil {
			return nil
		}
		if ctx.Err() != nil || n.cmd.Process.Signal(syscall.Signal(0)) != nil || strings.Contains(n.log.String(), "ringfenced: ") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the daemon did not come up")
}

func (n *node) run() string { return filepath.Join(n.dir, "run") }

func (n *node) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(n.bin, "ringfence"), args...)
	cmd.Env = append(os.Environ(), "RINGFENCE_SOCKET="+filepath.Join(n.run(), "ringfence.sock"))
	return cmd
}

func (n *node) events(ctx context.Context) ([]event.Event, error) {
	b, err := output(n.command(ctx, "events", "-o", "json"))
	if err != nil {
		return nil, err
	}
	var list []event.Event
	for line := range bytes.Lines(b) {
		e, err := event.ParseOCSF(bytes.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// stop stops the daemon with everything it runs, and says what stayed behind.
func (n *node) stop() error {
	var errs []error
	if n.cmd != nil {
		if err := n.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
		if err := n.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("the daemon ended with %w:\n%s", err, n.log.String()))
		}
		n.cmd = nil
	}
	for range 30 { // the gateway ends with its keeper, a moment later
		if len(n.processes()) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, l := range n.leftovers() {
		errs = append(errs, errors.New("left behind: "+l))
	}
	return errors.Join(append(errs, os.RemoveAll(n.dir))...)
}

func (n *node) leftovers() []string {
	out := n.processes()
	if root, err := kernel.CgroupRoot(); err == nil {
		p := filepath.Join(root, daemon.Instance(n.run()))
		if _, err := os.Stat(p); err == nil {
			out = append(out, "cgroup "+p)
		}
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		out = append(out, err.Error())
	}
	for line := range strings.Lines(string(b)) { // the pins of kernel programs lie in a mount of their own
		if strings.Contains(line, n.dir) {
			out = append(out, "mount "+strings.TrimSpace(line))
		}
	}
	entries, err := os.ReadDir(n.run())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		out = append(out, err.Error())
	}
	for _, e := range entries {
		out = append(out, "file "+filepath.Join(n.run(), e.Name()))
	}
	return out
}

// processes lists what still runs with our directory in its command line or
// from it.
func (n *node) processes() []string {
	var out []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		group, _ := os.ReadFile(filepath.Join(p, "cgroup"))
		if bytes.Contains(line, []byte(n.dir)) || bytes.Contains(group, []byte("/"+daemon.Instance(n.run()))) {
			out = append(out, "process "+filepath.Base(p)+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return out
}
