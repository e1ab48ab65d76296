// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// How processes end is known of children, that they do of all.
func TestAwait(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137, "read x": 0} {
		cmd := exec.Command("sh", "-c", script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		code := make(chan int)
		go func() { code <- Process{PID: cmd.Process.Pid}.Await() }()
		if script == "read x" {
			select {
			case c := <-code:
				t.Errorf("%s: ended with %d before it did", script, c)
			default:
			}
			if _, err := in.Write([]byte("\n")); err != nil {
				t.Error(err)
			}
		}
		if got := <-code; got != want {
			t.Errorf("%s: %d, want %d", script, got, want)
		}
		if err := unix.Kill(cmd.Process.Pid, 0); err != unix.ESRCH {
			t.Errorf("%s: not reaped: %v", script, err)
		}
		in.Close()
	}
	if got := (Process{PID: os.Getpid(), Start: 1}).Await(); got != -1 {
		t.Errorf("another process of that number: %d", got)
	}
}

// A sandbox that was taken over is no child of this keeper.
func TestAwaitOfNoChild(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 600 & echo $!; read x; kill -9 $!; wait; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	p, err := ProcessOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	code := make(chan int)
	go func() { code <- p.Await() }()
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != -1 || p.Alive() {
		t.Errorf("%d, alive %v", got, p.Alive())
	}
}

// Waiting for many processes takes no thread for each.
func TestAwaitTakesNoThreads(t *testing.T) {
	const many = 40
	code := make(chan int, many)
	var inputs []interface{ Close() error }
	for range many {
		cmd := exec.Command("cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, in)
		go func() { code <- Process{PID: cmd.Process.Pid}.Await() }()
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		in.Close()
	}
	for range many {
		if c := <-code; c != 0 {
			t.Errorf("ended with %d", c)
		}
	}
	if len(threads) >= many {
		t.Errorf("%d threads while %d processes run", len(threads), many)
	}
}
