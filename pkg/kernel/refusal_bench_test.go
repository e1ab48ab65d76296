// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkSystemCall measures what a process of the machine that is in no
// sandbox pays while a sandbox lives: the same calls with the tracepoint of
// refused calls and without it, in turns.
func BenchmarkSystemCall(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		name string
		n    int
		call func()
	}{
		{"getppid", 200000, func() { unix.Getppid() }},
		{"write", 200000, func() { unix.Write(int(null.Fd()), nil) }},
		{"open+close", 40000, func() {
			if fd, err := unix.Open("/usr/bin/env", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
				unix.Close(fd)
			}
		}},
		{"open-missing", 40000, func() { unix.Open("/usr/bin/no-such", unix.O_RDONLY, 0) }},
	} {
		b.Run(c.name, func(b *testing.B) { benchSystemCall(b, c.n, c.call) })
	}
}

func benchSystemCall(b *testing.B, n int, call func()) {
	needRoot(b)
	f, err := Open(Options{PinDir: b.TempDir(), Logger: slog.New(slog.DiscardHandler), Refusals: testRefusals()})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Remove()
	if err := f.Refusals(); err != nil {
		b.Skip(err)
	}
	cgroup := newCgroup(b)
	var off, on []time.Duration
	round := func() time.Duration {
		start := time.Now()
		for range n {
			call()
		}
		return time.Since(start) / time.Duration(n)
	}
	for b.Loop() {
		off = append(off, round())
		box, err := f.AttachSandbox(cgroup, State{Sandbox: testSandbox, Policy: testPolicy})
		if err != nil {
			b.Fatal(err)
		}
		on = append(on, round())
		if err := box.Detach(); err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(off)
	slices.Sort(on)
	b.ReportMetric(float64(off[len(off)/2]), "off-ns")
	b.ReportMetric(float64(on[len(on)/2]), "on-ns")
	b.ReportMetric(float64(on[len(on)/2])-float64(off[len(off)/2]), "added-ns")
}
