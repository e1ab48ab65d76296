// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/test/kernels/plan"
)

// run does the jobs of the plan.
func run() {
	t, err := openTeller()
	if err != nil {
		fmt.Println("guest:", err)
		os.Exit(1)
	}
	var p plan.Plan
	raw, err := os.ReadFile("/run/plan.json")
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		t.say(plan.Message{Kind: plan.Fail, Text: err.Error()})
		os.Exit(1)
	}
	if p.Systemd {
		if err := awaitSystemd(); err != nil {
			t.say(plan.Message{Kind: plan.Fail, Text: err.Error()})
			powerOff()
		}
	}
	for i := range p.Jobs {
		t.job(&p.Jobs[i])
	}
	t.say(plan.Message{Kind: plan.Done})
	if p.Systemd {
		powerOff()
	}
}

// startPatience is for systemd and what it starts, under emulation.
const startPatience = 5 * time.Minute

// awaitSystemd waits until it has started what it starts. That some unit failed
// is none of ours.
func awaitSystemd() error {
	ctx, cancel := context.WithTimeout(context.Background(), startPatience)
	defer cancel()
	for last := ""; ; time.Sleep(time.Second) {
		out, err := exec.CommandContext(ctx, "systemctl", "is-system-running").CombinedOutput()
		switch last = strings.TrimSpace(string(out)); last {
		case "running", "degraded":
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("systemd did not start within %s: %q, %w", startPatience, last, err)
		}
	}
}

// job runs one and tells what it says, line by line.
func (t *teller) job(j *plan.Job) {
	began := time.Now()
	end := plan.Message{Kind: plan.End, Job: j.Name}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(j.Seconds)*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, j.Argv[0], j.Argv[1:]...)
	cmd.Dir = j.Dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "USER=root", "TERM=dumb", "LANG=C.UTF-8"}, j.Env...)
	r, w, err := os.Pipe()
	if err == nil {
		cmd.Stdout, cmd.Stderr = w, w
		err = cmd.Start()
		w.Close()
	}
	if err != nil {
		end.Code, end.Text = 127, err.Error()
		t.say(end)
		return
	}
	lines := make(chan struct{})
	go func() {
		defer close(lines)
		t.lines(j.Name, r)
	}()
	err = cmd.Wait()
	// What the job left running may hold the pipe.
	_ = r.SetReadDeadline(time.Now().Add(2 * time.Second))
	<-lines
	r.Close()
	end.Code, end.Seconds = cmd.ProcessState.ExitCode(), time.Since(began).Seconds()
	if ee := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ee) {
		end.Text = err.Error()
	}
	if st, ok := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); ok && cmd.ProcessState.ExitCode() < 0 {
		end.Text = fmt.Sprintf("killed by %v", st.Signal())
	}
	if ctx.Err() != nil {
		end.Text = fmt.Sprintf("killed after %d s", j.Seconds)
	}
	t.say(end)
}

func (t *teller) lines(job string, r io.Reader) {
	in := bufio.NewReader(r)
	for {
		s, err := in.ReadString('\n')
		if s != "" {
			if n := len(s); s[n-1] == '\n' {
				s = s[:n-1]
			}
			t.say(plan.Message{Kind: plan.Line, Job: job, Text: s})
		}
		if err != nil {
			return
		}
	}
}
