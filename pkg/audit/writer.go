// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// writer is the state of the one goroutine that writes.
type writer struct {
	file  File      // active segment, nil before the first record of a new one
	segs  []segment // all segments, the last one active if file is not nil
	next  uint64    // sequence of the next record
	prev  Hash      // hash of the record before it
	buf   []byte    // the batch, reused
	dirty bool      // a failed batch may have left bytes behind the committed size

	victims []segment // to be removed once the retention record is durable
	failing bool      // the last batch failed
	retryAt time.Time // when failing: earliest attempt for own records alone
}

const maxBatch = 1024 // best-effort events in one batch, and strict ones unless one request is larger

// batch is what one sync makes durable.
type batch struct {
	own      []event.Event
	said     [lossReasons]uint64 // the losses that own speaks of
	requests []*request
	posted   []event.Event
	removal  bool // own holds the retention record for writer.victims
}

func (b *batch) strict() (n uint64) {
	for _, r := range b.requests {
		n += uint64(len(r.evs))
	}
	return n
}

// run is the writer goroutine.
func (l *Log) run() {
	defer close(l.done)
	for {
		b, last := l.take()
		if b != nil {
			l.write(b)
		}
		if last {
			break
		}
	}
	var err error
	if l.w.file != nil {
		err = l.w.file.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var unsaid uint64
	for _, n := range l.loss {
		unsaid += n
	}
	if unsaid > 0 {
		err = errors.Join(err, fmt.Errorf("audit: %d records were lost and no loss record could be written", unsaid))
	}
	l.closeErr = err
	close(l.changed)
}

// take waits for work. last is set with the final batch, which may be nil.
func (l *Log) take() (b *batch, last bool) {
	for {
		l.mu.Lock()
		wait, ready := l.readyLocked()
		if ready {
			b = l.collectLocked()
			last = l.closing && len(l.strict)+len(l.denials)+len(l.flows) == 0
			l.mu.Unlock()
			return b, last
		}
		l.mu.Unlock()
		if wait <= 0 {
			<-l.kick
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-l.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// readyLocked says whether a batch should be written now; if not, wait is how
// long until that may change by itself (0: not at all).
func (l *Log) readyLocked() (wait time.Duration, ready bool) {
	if l.closing || len(l.strict) > 0 {
		return 0, true
	}
	soonest := func(d time.Duration) {
		if wait == 0 || d < wait {
			wait = max(d, time.Millisecond)
		}
	}
	if posted := len(l.denials) + len(l.flows); posted > 0 {
		age := time.Since(l.oldest)
		if age >= l.opt.PostDelay || posted >= min(maxBatch, l.opt.Queue/2+1) {
			return 0, true
		}
		soonest(l.opt.PostDelay - age)
	}
	if len(l.own) > 0 || l.loss != [lossReasons]uint64{} || len(l.w.victims) > 0 {
		if !l.w.failing || !time.Now().Before(l.w.retryAt) {
			return 0, true
		}
		soonest(time.Until(l.w.retryAt))
	}
	return wait, false
}

// collectLocked takes a batch off the queues: own records, then strict ones,
// then refusals, then flows.
func (l *Log) collectLocked() *batch {
	b := &batch{}
	loss, said := l.lossRecordsLocked()
	b.own, b.said = append(slices.Clone(l.own), loss...), said
	l.own = nil
	if len(l.w.victims) > 0 {
		b.own = append(b.own, l.retentionRecord())
		b.removal = true
	}
	n := 0
	for len(l.strict) > 0 && (n == 0 || n+len(l.strict[0].evs) <= maxBatch) {
		r := l.strict[0]
		l.strict[0] = nil
		l.strict = l.strict[1:]
		n += len(r.evs)
		b.requests = append(b.requests, r)
	}
	l.waiting -= n
	for _, q := range []*[]event.Event{&l.denials, &l.flows} {
		k := min(len(*q), maxBatch-len(b.posted))
		b.posted = append(b.posted, (*q)[:k]...)
		rest := copy(*q, (*q)[k:])
		clear((*q)[rest:])
		*q = (*q)[:rest]
	}
	l.stats.inBatch = uint64(n + len(b.posted))
	if len(b.own)+n+len(b.posted) == 0 {
		return nil
	}
	return b
}

// write commits a batch; when that fails for the whole, the best-effort part
// gives way to the rest.
func (l *Log) write(b *batch) {
	err := l.commit(b)
	if err != nil && len(b.posted) > 0 && len(b.own)+len(b.requests) > 0 {
		l.mu.Lock()
		n := uint64(len(b.posted))
		b.posted = nil
		l.stats.inBatch -= n
		l.dropLocked(lossOf(err), n)
		l.mu.Unlock()
		err = l.commit(b)
	}
	l.mu.Lock()
	if err != nil {
		l.failLocked(b, err)
	} else {
		l.settleLocked(b)
	}
	l.mu.Unlock()
	for _, r := range b.requests {
		r.err = err
		close(r.done)
	}
	if err == nil {
		if b.removal {
			l.removeVictims()
		}
		l.planRetention()
	}
}

func (l *Log) failLocked(b *batch, err error) {
	reason := lossOf(err)
	if !l.w.failing {
		l.log.Error("audit log cannot be written", "error", err)
	}
	l.w.failing = true
	l.w.retryAt = time.Now().Add(l.opt.RetryDelay)
	l.stats.Failures++
	l.stats.Full = reason == lossFull
	l.dropLocked(reason, b.strict()+uint64(len(b.posted)))
	l.stats.inBatch = 0
	for _, e := range b.own { // loss and retention records are made anew each time
		if e.Kind != event.KindLoss && e.Activity != retentionActivity {
			l.own = append(l.own, e)
		}
	}
}

func (l *Log) settleLocked(b *batch) {
	if l.w.failing {
		l.log.Info("audit log can be written again")
	}
	l.w.failing = false
	l.stats.Full = false
	l.stats.Commits++
	l.stats.Delivered += b.strict() + uint64(len(b.posted))
	l.stats.Own += uint64(len(b.own))
	l.stats.inBatch = 0
	for r, n := range b.said {
		l.loss[r] -= n
	}
	l.segs = append(l.segs[:0:0], l.w.segs...)
	l.head = Head{Chain: l.chain, Sequence: l.w.next - 1, Hash: l.w.prev}
	close(l.changed)
	l.changed = make(chan struct{})
}

func lossOf(err error) lossReason {
	if errors.Is(err, ErrFull) {
		return lossFull
	}
	return lossIO
}

// commit encodes the batch and makes it durable, or leaves nothing of it.
func (l *Log) commit(b *batch) error {
	w := &l.w
	if err := w.heal(); err != nil {
		return classify(err)
	}
	if w.file != nil {
		if linked, err := w.file.Linked(); err == nil && !linked {
			l.segmentGone(b)
		}
	}
	next, prev, now := w.next, w.prev, l.opt.Now().UTC()
	w.buf = w.buf[:0]
	if cap(w.buf) > 8<<20 {
		w.buf = nil
	}
	add := func(e *event.Event) (err error) {
		e.Sequence, e.ID, e.Logged = next, recordID(l.chain, next), now
		if e.Time.IsZero() {
			e.Time = now
		}
		w.buf, prev, err = appendSealed(w.buf, e, l.opt.Node, l.chain, prev)
		next++
		return err
	}
	if err := b.each(add); err != nil {
		return fmt.Errorf("audit: encode: %w", err)
	}
	if err := l.store(now); err != nil {
		return classify(err)
	}
	w.next, w.prev = next, prev
	return nil
}

// each visits all events of the batch in the order in which they are written.
func (b *batch) each(f func(*event.Event) error) error {
	for i := range b.own {
		if err := f(&b.own[i]); err != nil {
			return err
		}
	}
	for _, r := range b.requests {
		for i := range r.evs {
			if err := f(&r.evs[i]); err != nil {
				return err
			}
		}
		r.first = r.evs[0].Sequence
	}
	for i := range b.posted {
		if err := f(&b.posted[i]); err != nil {
			return err
		}
	}
	return nil
}

// store writes and syncs w.buf behind what is committed.
func (l *Log) store(now time.Time) error {
	w := &l.w
	if w.file != nil && w.active().size > 0 && w.active().size+int64(len(w.buf)) > l.opt.SegmentBytes {
		err := w.file.Close()
		w.file = nil
		if err != nil {
			l.log.Warn("closing an audit segment", "error", err)
		}
	}
	if w.file == nil {
		if err := l.newSegment(now); err != nil {
			return err
		}
	}
	s := w.active()
	n, err := w.file.WriteAt(w.buf, s.size)
	if err == nil {
		err = w.file.Sync()
	}
	if err != nil {
		w.dirty = true
		return fmt.Errorf("write segment %s (%d of %d bytes): %w", s.name(), n, len(w.buf), errors.Join(err, w.heal()))
	}
	s.size += int64(len(w.buf))
	return nil
}

func (w *writer) active() *segment { return &w.segs[len(w.segs)-1] }

// heal cuts what a failed batch left. Until that is durable nothing may follow:
// a crash could bring those bytes back under sequences that were used again.
func (w *writer) heal() error {
	if !w.dirty {
		return nil
	}
	if err := w.file.Truncate(w.active().size); err != nil {
		return fmt.Errorf("cut a failed batch: %w", err)
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("cut a failed batch: %w", err)
	}
	w.dirty = false
	return nil
}

func (l *Log) newSegment(now time.Time) error {
	w := &l.w
	s := segment{ordinal: 1, first: w.next, began: now}
	if len(w.segs) > 0 {
		s.ordinal = w.active().ordinal + 1
	}
	f, err := l.fs.Create(s.name())
	if errors.Is(err, syscall.EEXIST) { // left by an attempt that failed half way
		f, err = l.reuseEmpty(s.name())
	}
	if err != nil {
		return fmt.Errorf("new segment %s: %w", s.name(), err)
	}
	if err := l.fs.SyncDir(); err != nil {
		return fmt.Errorf("new segment %s: %w", s.name(), errors.Join(err, f.Close(), l.fs.Remove(s.name())))
	}
	w.file, w.segs = f, append(w.segs, s)
	return nil
}

func (l *Log) reuseEmpty(name string) (File, error) {
	f, err := l.fs.Open(name, true)
	if err != nil {
		return nil, err
	}
	if size, err := f.Size(); err != nil || size != 0 {
		return nil, errors.Join(err, f.Close(), fmt.Errorf("a file of that name has %d bytes", size))
	}
	return f, nil
}

// segmentGone goes on in a new segment after somebody removed the file that is
// being written, and says so in the log.
func (l *Log) segmentGone(b *batch) {
	w := &l.w
	name := w.active().name()
	l.log.Error("the active audit segment was removed", "segment", name)
	if err := w.file.Close(); err != nil {
		l.log.Warn("closing an audit segment", "error", err)
	}
	w.file, w.dirty = nil, false
	b.own = append(b.own, event.Event{
		Kind: event.KindTamper, Time: l.opt.Now(), Source: "keeper", Verdict: event.Observed, Activity: "segment removed", Object: name, Layer: "audit",
		ReasonCode: "segment-removed", Reason: "the segment that was being written has lost its name; its records are gone from the log",
	})
}

func classify(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("audit: %w", err)
}
