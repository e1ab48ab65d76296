// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/test/env"
)

func TestParseStat(t *testing.T) {
	const rest = " S 1 2 3 4 5 4194308 7 8 9 10 21 34 0 0 20 0"
	for text, want := range map[string]bool{"12 (a) b) (c)" + rest: true, "12 (sh)" + rest: true, "12 (sh) S 1 2": false, "": false, "12 (sh) S 1 2 3 4 5 x 7 8 9 10 21 34": false} {
		flags, ticks, ok := parseStat([]byte(text))
		if ok != want || ok && (flags&pfExiting == 0 || ticks != 55) {
			t.Errorf("%q: flags %#x, %d ticks, %v", text, flags, ticks, ok)
		}
	}
}

// A process that ended is on its way, one that runs or waits is not; nor is one
// whose first thread has ended while another goes on.
func TestComesOrGoes(t *testing.T) {
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{os.Getpid(), 1, cmd.Process.Pid} {
		for end := time.Now().Add(env.Wait(10 * time.Second)); comesOrGoes(pid); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("process %d is never there", pid)
			}
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if !comesOrGoes(cmd.Process.Pid) {
		t.Error("a process that has ended is not on its way")
	}
	_ = cmd.Wait() // it was killed
}
