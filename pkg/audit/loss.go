// SPDX-License-Identifier: Apache-2.0

package audit

import "github.com/ringfence/ringfence/pkg/event"

// lossReason says why a record could not be kept.
type lossReason uint8

const (
	lossFull    lossReason = iota // no space on the disk
	lossIO                        // the file system failed otherwise
	lossQueue                     // a best-effort queue was full
	lossBusy                      // too many strict records were waiting
	lossInvalid                   // no such kind of event
	lossClosed                    // the log was closed
	lossReasons
)

var lossNames = [lossReasons]string{"disk-full", "io-error", "queue-full", "busy", "invalid", "closed"}

var lossText = [lossReasons]string{
	"there was no space left for the log", "the file system failed", "the best-effort queue was full",
	"too many records were waiting to be written", "events of an unknown kind were handed over", "the log was closed",
}

// dropLocked counts n records as lost; a loss record will say so.
func (l *Log) dropLocked(r lossReason, n uint64) {
	l.stats.dropped[r] += n
	if r != lossClosed { // there is nobody left to write it
		l.loss[r] += n
	}
}

// lossRecords turns what is pending into events, and returns the counts that
// they stand for: they are subtracted when the records are durable.
func (l *Log) lossRecordsLocked() ([]event.Event, [lossReasons]uint64) {
	var evs []event.Event
	for r, n := range l.loss {
		if n > 0 {
			evs = append(evs, event.Event{
				Kind: event.KindLoss, Time: l.opt.Now(), Source: "keeper", Activity: "loss", Object: "audit log",
				Lost: n, ReasonCode: lossNames[r], Reason: lossText[r],
			})
		}
	}
	return evs, l.loss
}

// Stats counts what went through the log since Open. At any moment
//
//	Produced = Delivered + sum of Dropped + Waiting
type Stats struct {
	Produced  uint64            // events handed to Append and Post
	Delivered uint64            // of those, durable
	Dropped   map[string]uint64 // of those, lost, by reason
	Waiting   uint64            // of those, not decided yet
	Own       uint64            // records that the log wrote about itself
	Unsaid    uint64            // lost, and no loss record is durable yet
	Commits   uint64            // batches synced
	Failures  uint64            // batches that failed
	Full      bool              // the last batch failed for want of space
	Segments  int
	Bytes     int64  // of all segments
	First     uint64 // oldest sequence kept, 0 if none
	Last      uint64 // newest durable sequence

	dropped [lossReasons]uint64
	inBatch uint64
}

// Stats returns a consistent copy of the counters.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Dropped = make(map[string]uint64, lossReasons)
	for r, n := range s.dropped {
		s.Dropped[lossNames[r]] = n
	}
	for _, n := range l.loss {
		s.Unsaid += n
	}
	s.Waiting = uint64(l.waiting+len(l.denials)+len(l.flows)) + s.inBatch
	s.Segments = len(l.segs)
	for _, g := range l.segs {
		s.Bytes += g.size
	}
	if len(l.segs) > 0 && l.head.Sequence >= l.segs[0].first {
		s.First = l.segs[0].first
	}
	s.Last = l.head.Sequence
	return s
}
