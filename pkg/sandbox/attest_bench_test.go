// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"strconv"
	"testing"
)

// BenchmarkAttest takes one look at one sandbox, with what an interval costs for
// a thousand of them computed from it; and the look through the processes of
// the machine, which is one for all.
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
			for b.Loop() {
				if d := s.attest(suspicions{}); len(d) > 0 {
					b.Fatal(d)
				}
			}
			b.ReportMetric(float64(len(threads)), "threads")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "us/look")
			s.Stop(0)
			l.ended(s)
		})
	}
	b.Run("machine", func(b *testing.B) {
		s := l.idle()
		for b.Loop() {
			if found, err := l.strays(l.List()); err != nil || len(found) > 0 {
				b.Fatal(found, err)
			}
		}
		s.Stop(0)
		l.ended(s)
	})
}
