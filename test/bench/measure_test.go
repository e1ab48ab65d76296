// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// series are the figures of one quantity over the rounds.
type series []float64

func (s series) median() float64 {
	if len(s) == 0 {
		return 0
	}
	c := slices.Sorted(slices.Values(s))
	return (c[(len(c)-1)/2] + c[len(c)/2]) / 2
}

// mad is the median absolute deviation.
func (s series) mad() float64 {
	m := s.median()
	off := make(series, len(s))
	for i, v := range s {
		off[i] = max(v-m, m-v)
	}
	return off.median()
}

// rounds collects series by the unit they are reported as.
type rounds map[string]series

func (r rounds) add(unit string, v float64) { r[unit] = append(r[unit], v) }

// ratio adds the ratio of the newest figures of two units.
func (r rounds) ratio(unit, of, to string) {
	a, b := r[of], r[to]
	r.add(unit, a[len(a)-1]/b[len(b)-1])
}

func (r rounds) report(b *testing.B) {
	for unit, s := range r {
		b.ReportMetric(s.median(), unit)
		b.ReportMetric(s.mad(), unit+"-mad")
	}
	b.ReportMetric(0, "ns/op") // a round's length says nothing
}

// cpuTime is the CPU time that a process and its ended threads used so far, in
// nanoseconds' precision: its CPU clock, which /proc/PID/stat rounds to ticks.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		b.Fatalf("CPU clock of process %d: %v", pid, err)
	}
	return time.Duration(ts.Nano())
}

// ownSession gives a program a session of its own, as sandboxes have: the
// scheduler shares CPUs out by session (autogroup), and on a machine that does
// other work, too, programs of one session would be compared with those of
// several.
func ownSession(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	return cmd
}

// cpuTimes is the CPU time of several processes together.
func cpuTimes(b *testing.B, pids []int) (sum time.Duration) {
	b.Helper()
	for _, pid := range pids {
		sum += cpuTime(b, pid)
	}
	return sum
}

// status is one line of /proc/PID/status.
func status(b *testing.B, pid int, field string) string {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	need(b, err)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	b.Fatalf("no %s in the status of process %d", field, pid)
	return ""
}

// resident is the resident memory of a process in MB.
func resident(b *testing.B, pid int) float64 {
	b.Helper()
	kb, err := strconv.Atoi(strings.TrimSuffix(status(b, pid, "VmRSS"), " kB"))
	need(b, err)
	return float64(kb) / 1024
}

// pss is the proportional share of a process's memory in MB: shared pages are
// divided by the number of processes that have them.
func pss(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	need(b, err)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
			need(b, err)
			return float64(kb) / 1024
		}
	}
	b.Fatalf("no Pss of process %d", pid)
	return 0
}

// processes are the node's processes outside of sandboxes by the first word
// after the program's name: "gateway", and one "hold-output" for each detached
// sandbox.
func (t *testbed) processes(b *testing.B, word string) []int {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(t.n.Cgroup(b), "gateway", "cgroup.procs"))
	need(b, err)
	var out []int
	for f := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(f)
		need(b, err)
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		need(b, err)
		if args := strings.Split(string(cmdline), "\x00"); len(args) > 1 && args[1] == word {
			out = append(out, pid)
		}
	}
	return out
}

func (t *testbed) gateway(b *testing.B) int {
	b.Helper()
	pids := t.processes(b, "gateway")
	if len(pids) != 1 {
		b.Fatalf("%d gateways", len(pids))
	}
	return pids[0]
}

// keeper is the gateway's parent.
func (t *testbed) keeper(b *testing.B) int {
	b.Helper()
	pid, err := strconv.Atoi(status(b, t.gateway(b), "PPid"))
	need(b, err)
	return pid
}
