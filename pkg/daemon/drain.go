// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"time"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// drainTime bounds how long the end of a sandbox waits for its records.
const drainTime = 300 * time.Millisecond

// startReading notes how many records the kernel had written before this
// daemon began to read. Those of them that are still in the rings do not count
// when they are taken.
func (d *Daemon) startReading() { d.readingSince, d.recordsBefore = time.Now(), d.recordsKept() }

func (d *Daemon) recordsKept() uint64 {
	var n uint64
	rings, err := d.fence.Losses()
	if err != nil {
		return 0 // then nothing is waited for
	}
	for _, r := range rings {
		n += r.Kept
	}
	return n
}

// take counts and handles one record of the kernel.
func (d *Daemon) take(r kernel.Record) {
	d.record(r)
	if r.When().After(d.readingSince) {
		d.recordsTaken.Add(1)
	} else {
		d.recordsFound.Add(1)
	}
}

// drainRecords waits until every record that the kernel has written by now is
// an event and, if the sandbox was refused anything or something failed, until
// the event log has it: that is told with the sandbox's end.
func (d *Daemon) drainRecords(s *sandbox.Sandbox) {
	kept, end := d.recordsKept(), time.Now().Add(drainTime)
	d.fence.Hurry()
	for pause := 20 * time.Microsecond; d.recordsBefore+d.recordsTaken.Load() < kept && time.Now().Before(end); pause = min(2*pause, time.Millisecond) {
		time.Sleep(pause)
	}
	d.repeats.flush(time.Now(), s.Record.ID)
	d.tellLossesOf(s.Record.Number) // the counters go with the fence
	for s.Denials()+s.Failures() > 0 && d.log.Stats().Waiting > 0 && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
	}
}
