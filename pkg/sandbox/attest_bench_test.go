// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkAttest takes one look at one sandbox by the processes in it: a
// thousand such sandboxes cost a thousand of them in each interval; and the look
// through the processes of the machine, which is one for all.
func BenchmarkAttest(b *testing.B) {
	l := newLive(b, Attestation{}, "")
	for _, procs := range []int{1, 10, 100} {
		b.Run("processes="+strconv.Itoa(procs), func(b *testing.B) {
			s := l.run("sh", "-c", `i=1; while [ $i -lt `+strconv.Itoa(procs)+` ]; do sleep 100000 & i=$((i+1)); done; sleep 100000`)
			l.until("its processes", func() bool {
				pids, err := cgroupPIDs(s.Record.Cgroup)
				return err == nil && len(pids) >= procs+1
			})
			threads, err := cgroupThreads(s.Record.Cgroup)
			if err != nil {
				b.Fatal(err)
			}
			began := cpu(b)
			for b.Loop() {
				if d := s.attest(suspicions{}); len(d) > 0 {
					b.Fatal(d)
				}
			}
			b.ReportMetric(float64(len(threads)), "threads")
			b.ReportMetric((cpu(b)-began).Seconds()*1e6/float64(b.N), "cpu-µs")
			s.Stop(0)
			l.ended(s)
		})
	}
	b.Run("machine", func(b *testing.B) {
		s := l.idle()
		began := cpu(b)
		for b.Loop() {
			if found, err := l.strays(l.List()); err != nil || len(found) > 0 {
				b.Fatal(found, err)
			}
		}
		b.ReportMetric((cpu(b)-began).Seconds()*1e6/float64(b.N), "cpu-µs")
		s.Stop(0)
		l.ended(s)
	})
}

// cpu is what this process has used of the processor: what the interval costs,
// whatever else runs.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
