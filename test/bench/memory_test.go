// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/node"
)

// BenchmarkMemory takes the memory of the node's processes without a sandbox
// and with ten idle detached ones, and of what each sandbox adds: its
// ringfence-init and the process that holds its output.
func BenchmarkMemory(b *testing.B) {
	t := &testbed{n: node.Start(b, node.Options{})}
	ws := t.n.Workspace(b)
	for _, sandboxes := range []int{0, 10} {
		b.Run(fmt.Sprintf("sandboxes=%d", sandboxes), func(b *testing.B) {
			for i := range sandboxes {
				r := t.n.CLIIn(b, ws, "run", "--detach", "--name", fmt.Sprint("idle", i), "--", "sleep", "600")
				if r.Code != 0 {
					b.Fatal(r.Stderr)
				}
			}
			r := rounds{}
			for b.Loop() {
				r.add("keeper-MB", resident(b, t.keeper(b)))
				r.add("gateway-MB", resident(b, t.gateway(b)))
				for _, pid := range t.inits(b) {
					r.add("init-pss-MB", pss(b, pid))
				}
				for _, pid := range t.processes(b, "hold-output") {
					r.add("holder-pss-MB", pss(b, pid))
				}
			}
			r.report(b)
		})
	}
}

// BenchmarkIdle takes what each idle detached sandbox takes: the growth of the
// proportional shares of all processes (its own, and the node's), of the kernel's
// own memory, and of what is no longer available on the machine; the last two
// have in them whatever else runs. Their number is RINGFENCE_BENCH_SANDBOXES, or
// 100; with a thousand it takes minutes, and 18,768 descriptors in the keeper
// (sandbox.Room).
func BenchmarkIdle(b *testing.B) {
	sandboxes := 100
	if s := os.Getenv("RINGFENCE_BENCH_SANDBOXES"); s != "" {
		var err error
		sandboxes, err = strconv.Atoi(s)
		need(b, err)
	}
	t := &testbed{n: node.Start(b, node.Options{})}
	ws := t.n.Workspace(b)
	start := func(name string) {
		if r := t.n.CLIIn(b, ws, "run", "--detach", "--name", name, "--", "sleep", "100000"); r.Code != 0 {
			b.Fatal(r.Stderr)
		}
	}
	start("first") // what is made once
	before, own, kernel := available(b), t.shares(b), kernelMemory(b)
	for i := range sandboxes {
		start(fmt.Sprint("idle", i))
	}
	r := rounds{}
	for b.Loop() {
		r.add("taken-MB", (before-available(b))/float64(sandboxes))
		r.add("processes-MB", (t.shares(b)-own)/float64(sandboxes))
		r.add("kernel-MB", (kernelMemory(b)-kernel)/float64(sandboxes))
		var inits, holders series
		for _, pid := range t.inits(b) {
			inits = append(inits, pss(b, pid))
		}
		for _, pid := range t.processes(b, "hold-output") {
			holders = append(holders, pss(b, pid))
		}
		r.add("init-pss-MB", inits.median())
		r.add("init-most-MB", slices.Max(inits))
		r.add("holder-pss-MB", holders.median())
		r.add("keeper-MB", resident(b, t.keeper(b)))
		r.add("gateway-MB", resident(b, t.gateway(b)))
		r.add("keeper-fds", float64(node.FDs(b, t.keeper(b))))
		r.add("gateway-fds", float64(node.FDs(b, t.gateway(b))))
	}
	r.report(b)
}

// shares is the memory in MB of all processes of the node and of its sandboxes.
func (t *testbed) shares(b *testing.B) float64 {
	b.Helper()
	sum := pss(b, t.keeper(b)) + pss(b, t.gateway(b))
	procs, err := filepath.Glob(filepath.Join(t.n.Cgroup(b), "sb-*", "cgroup.procs"))
	need(b, err)
	for _, p := range procs {
		text, err := os.ReadFile(p)
		need(b, err)
		for f := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(f)
			need(b, err)
			sum += pss(b, pid)
		}
	}
	for _, pid := range t.processes(b, "hold-output") {
		sum += pss(b, pid)
	}
	return sum
}

// kernelMemory is what the kernel has for itself, in MB.
func kernelMemory(b *testing.B) (mb float64) {
	for _, field := range []string{"Slab", "KernelStack", "PageTables", "Percpu"} {
		mb += meminfo(b, field)
	}
	return mb
}

// available is the memory of the machine that can be given out, in MB.
func available(b *testing.B) float64 { return meminfo(b, "MemAvailable") }

func meminfo(b *testing.B, field string) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	need(b, err)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
			need(b, err)
			return float64(kb) / 1024
		}
	}
	b.Fatalf("no %s in /proc/meminfo", field)
	return 0
}

// inits are the PID 1s of the running sandboxes.
func (t *testbed) inits(b *testing.B) []int {
	b.Helper()
	keeper := strconv.Itoa(t.keeper(b))
	var out []int
	procs, err := filepath.Glob(filepath.Join(t.n.Cgroup(b), "sb-*", "cgroup.procs"))
	need(b, err)
	for _, p := range procs {
		text, err := os.ReadFile(p)
		need(b, err)
		for f := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(f)
			need(b, err)
			if status(b, pid, "PPid") == keeper {
				out = append(out, pid)
			}
		}
	}
	return out
}
