// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/node"
)

// clockTick is the unit of times in /proc/PID/stat (USER_HZ, 100 everywhere).
const clockTick = 10 * time.Millisecond

// BenchmarkLaunch takes `ringfence run -- true` from start to end against plain
// exec of the same program, and against bubblewrap with every namespace, one of
// each in every round. CPU is that of the command line tool, the keeper and the
// gateway for each launch; init's is with the agent's and what the kernel spends
// to end their namespaces, a mean over all rounds, because the kernel adds it to
// the keeper only in whole ticks.
func BenchmarkLaunch(b *testing.B) {
	t := &testbed{n: node.Start(b, node.Options{})}
	ws := t.n.Workspace(b)
	bwrap, err := exec.LookPath("bwrap")
	if err != nil {
		b.Log("bubblewrap is not installed: no comparison with it")
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir = ws
		return cmd
	}
	fenced := func() *exec.Cmd {
		cmd := t.n.Command(b.Context(), "run", "--", "true")
		cmd.Dir = ws
		return cmd
	}
	for range 3 { // caches of the keeper and of the kernel
		timed(b, fenced())
	}
	keeper, gateway := t.keeper(b), t.gateway(b)
	r, launches := rounds{}, 0
	children := childTime(b, keeper)
	for b.Loop() {
		wall, cpu := timed(b, command("true"))
		r.add("exec-ms", ms(wall))
		r.add("exec-cpu-ms", ms(cpu))
		if bwrap != "" {
			wall, cpu = timed(b, command(bwrap, "--unshare-all", "--new-session", "--ro-bind", "/", "/", "true"))
			r.add("bwrap-ms", ms(wall))
			r.add("bwrap-cpu-ms", ms(cpu))
		}
		k, g := cpuTime(b, keeper), cpuTime(b, gateway)
		wall, cpu = timed(b, fenced())
		r.add("ringfence-ms", ms(wall))
		r.add("over-exec-ms", ms(wall)-r["exec-ms"][launches])
		r.ratio("ratio-to-exec", "ringfence-ms", "exec-ms")
		if bwrap != "" {
			r.ratio("ratio-to-bwrap", "ringfence-ms", "bwrap-ms")
		}
		r.add("tool-cpu-ms", ms(cpu))
		time.Sleep(20 * time.Millisecond) // the keeper removes what is left
		r.add("keeper-cpu-ms", ms(cpuTime(b, keeper)-k))
		r.add("gateway-cpu-ms", ms(cpuTime(b, gateway)-g))
		launches++
	}
	r.report(b)
	b.ReportMetric(ms(childTime(b, keeper)-children)/float64(launches), "init-cpu-ms")
}

// BenchmarkLaunchIdle takes what twenty idle sandboxes add to the memory of the
// processes, for each: the proportional share of its init, and the growth of
// what keeper and gateway have for themselves, which their garbage collectors
// blur. Kernel memory (namespaces, mounts, maps) is not in it.
func BenchmarkLaunchIdle(b *testing.B) {
	const sandboxes = 20
	t := &testbed{n: node.Start(b, node.Options{})}
	ws := t.n.Workspace(b)
	start := func(name string) {
		if r := t.n.CLIIn(b, ws, "run", "--detach", "--name", name, "--", "sleep", "600"); r.Code != 0 {
			b.Fatal(r.Stderr)
		}
	}
	start("first") // what is made once
	keeper, gateway := t.keeper(b), t.gateway(b)
	before := anonymous(b, keeper) + anonymous(b, gateway)
	for i := range sandboxes {
		start(fmt.Sprint("idle", i))
	}
	r := rounds{}
	for b.Loop() {
		grown := (anonymous(b, keeper) + anonymous(b, gateway) - before) / sandboxes
		var inits series
		for _, pid := range t.inits(b) {
			inits = append(inits, pss(b, pid))
		}
		r.add("init-pss-MB", inits.median())
		r.add("daemon-growth-MB", grown)
		r.add("idle-sandbox-MB", inits.median()+grown)
	}
	r.report(b)
}

// anonymous is the resident memory in MB that no file is behind.
func anonymous(b *testing.B, pid int) float64 {
	b.Helper()
	kb, err := strconv.Atoi(strings.TrimSuffix(status(b, pid, "RssAnon"), " kB"))
	need(b, err)
	return float64(kb) / 1024
}

// timed runs a command that must succeed.
func timed(b *testing.B, cmd *exec.Cmd) (wall, cpu time.Duration) {
	b.Helper()
	began := time.Now()
	err := cmd.Run()
	wall = time.Since(began)
	if err != nil {
		b.Fatalf("%v: %v", cmd.Args, err)
	}
	return wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// childTime is the CPU time of the ended children of a process.
func childTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	need(b, err)
	_, after, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(after)
	var ticks int
	for _, n := range []int{13, 14} { // cutime and cstime
		v, err := strconv.Atoi(f[n])
		need(b, err)
		ticks += v
	}
	return time.Duration(ticks) * clockTick
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
