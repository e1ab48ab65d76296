// SPDX-License-Identifier: Apache-2.0

// Command quickstart shows the main job end to end: it starts a daemon of its
// own in a temporary directory, runs the demo agent in a sandbox with the
// coding profile, and prints what the agent tried, what the agent saw and what
// the event log says about it. It exits 1 if anything was not as it should be.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/ringfence/ringfence/pkg/event"
)

// settle is how long events may take from the kernel to the log.
const settle = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("the daemon needs root: it owns cgroups, namespaces and BPF programs")
	}
	top, err := os.Getwd()
	if err != nil {
		return err
	}
	say := printer{color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(1), width: width()}
	n, err := startNode(ctx, filepath.Join(top, "bin"))
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			err = errors.Join(err, n.stop())
		}
	}()
	say.line("A daemon runs in %s, beside any other.", n.dir)
	say.line("The demo agent runs: ringfence run --profile coding -- ./demo-agent\n")
	rows, err := try(ctx, n, top)
	if err != nil {
		return fmt.Errorf("%w\nthe daemon said:\n%s", err, n.log.String())
	}
	wrong := say.table(rows)
	stopped = true
	if err := n.stop(); err != nil {
		return err
	}
	say.line("The daemon is stopped. Checked: it left no process, cgroup, mount, kernel program or file behind.\n")
	if wrong > 0 {
		return fmt.Errorf("%d of %d rows are not as they should be; please report them with the kernel version (uname -r)", wrong, len(rows))
	}
	say.next()
	return nil
}

// try runs the agent and joins what it saw with what was recorded.
func try(ctx context.Context, n *node, top string) ([]row, error) {
	w, err := newWorld(n.dir)
	if err != nil {
		return nil, err
	}
	defer w.close()
	if err := w.buildAgent(ctx, top); err != nil {
		return nil, err
	}
	saw, err := runAgent(ctx, n, w)
	if err != nil {
		return nil, err
	}
	rows := expectations(saw, w)
	deadline := time.Now().Add(settle)
	for {
		events, err := n.events(ctx)
		if err != nil {
			return nil, err
		}
		if match(rows, events, recordsCalls(events)) || time.Now().After(deadline) {
			return rows, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// observation is one line of the demo agent.
type observation struct {
	ID, Tried, Saw, Error string
	Status                int
	Millis                float64
}

func runAgent(ctx context.Context, n *node, w *world) ([]observation, error) {
	cmd := n.command(ctx, "run", "--profile", "coding", "--name", "demo", "--", "./demo-agent", w.outside, w.socket)
	cmd.Dir = w.workspace
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the demo agent: %w\n%s", err, errOut.String())
	}
	var list []observation
	in := bufio.NewScanner(&out)
	in.Buffer(nil, 4<<20)
	for in.Scan() {
		var o observation
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			return nil, fmt.Errorf("the demo agent wrote %s: %w", event.Printable(in.Text(), 200), err)
		}
		list = append(list, o)
	}
	return list, in.Err()
}

func width() int {
	if w, _, err := term.GetSize(1); err == nil && w >= 80 {
		return min(w, 180)
	}
	return 132
}

func output(cmd *exec.Cmd) ([]byte, error) {
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	b, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, errOut.String())
	}
	return b, nil
}
