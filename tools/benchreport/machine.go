// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const intro = `# Benchmarks

What the fence and the gateway cost, measured through the product itself: a real daemon, real sandboxes, real kernel hooks, and
the same client program inside and outside. Every server is on this machine's loopback.

Times depend on the machine; compare figures of one row, which were taken in interleaved rounds of one run. A figure is the
median over the rounds, and ± is the median distance of the rounds from it. CPU time is what the kernel's CPU clock of the
process gained. Nothing here is asserted by a test.

`

// heading is everything above the tables.
func heading(begin time.Time, load string) string {
	var b strings.Builder
	b.WriteString(intro)
	row := func(k, v string) { fmt.Fprintf(&b, "| %s | %s |\n", k, v) }
	b.WriteString("| | |\n|---|---|\n")
	row("command", "`go run ./tools/benchreport -write`, as root")
	row("machine", fmt.Sprintf("%d CPUs, %s, %s", runtime.NumCPU(), cpuModel(), memory()))
	row("kernel", kernel())
	row("Go", strings.TrimPrefix(runtime.Version(), "go"))
	row("revision", revision())
	row("load average", load+" before, "+loadAverage()+" after"+loaded(load))
	row("date, length", begin.UTC().Format("2006-01-02")+", "+time.Since(begin).Round(time.Second).String())
	return b.String()
}

// loaded warns where other work ran: the benchmarks alone keep the load near
// the number of CPUs.
func loaded(load string) string {
	var one float64
	if _, err := fmt.Sscan(load, &one); err != nil || one < float64(runtime.NumCPU())/2 {
		return ""
	}
	return "; **other work ran on this machine: read the ratios, not the times**"
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	f := strings.Fields(string(b))
	return strings.Join(f[:min(3, len(f))], " ")
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func memory() string {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%.0f GB memory", float64(si.Totalram)*float64(si.Unit)/(1<<30))
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
}

func revision() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	rev := string(bytes.TrimSpace(out))
	if diff, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err == nil && len(diff) > 0 {
		rev += " and changes"
	}
	return rev
}
