// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/event"
)

const retentionActivity = "retention"

// planRetention picks the oldest segments that have to go. They go after a
// record that says so is durable.
func (l *Log) planRetention() {
	w := &l.w
	if len(w.victims) > 0 {
		return
	}
	var total int64
	for _, s := range w.segs {
		total += s.size
	}
	n := 0
	for total > l.opt.MaxBytes && n < len(w.segs)-1 {
		total -= w.segs[n].size
		n++
	}
	if n > 0 {
		w.victims = w.segs[:n:n]
	}
}

// retentionRecord tells which records are about to be removed.
func (l *Log) retentionRecord() event.Event {
	w := &l.w
	first, last := w.victims[0].first, w.segs[len(w.victims)].first-1
	e := event.Event{
		Kind: event.KindDaemon, Verdict: event.Observed, Time: l.opt.Now(), Source: "keeper", Activity: retentionActivity, Object: "audit log",
		ReasonCode: "size-bound", Reason: fmt.Sprintf("records %d to %d were removed to keep the log below %d bytes", first, last, l.opt.MaxBytes),
	}
	h, err := l.hashBefore(w.segs[len(w.victims)])
	if err != nil {
		l.log.Error("audit retention: the first record kept cannot be read", "error", err)
	}
	e.Detail = retentionDetail(last, h)
	return e
}

func retentionDetail(last uint64, h Hash) string {
	return "removed-through=" + strconv.FormatUint(last, 10) + " hash=" + h.String()
}

// readRetention is the inverse of retentionDetail on a line of the log; ok is
// false for every other record.
func readRetention(line []byte) (last uint64, h Hash, ok bool) {
	if !bytes.Contains(line, []byte(`"activity":"`+retentionActivity+`"`)) {
		return 0, h, false
	}
	e, err := event.ParseOCSF(line)
	if err != nil || e.Kind != event.KindDaemon || e.Activity != retentionActivity {
		return 0, h, false
	}
	rest, ok := strings.CutPrefix(e.Detail, "removed-through=")
	n, sum, ok2 := strings.Cut(rest, " hash=")
	last, err = strconv.ParseUint(n, 10, 64)
	return last, h, ok && ok2 && err == nil && parseHash(&h, []byte(sum))
}

// hashBefore is the prev of the first record of a segment.
func (l *Log) hashBefore(s segment) (Hash, error) {
	f, err := l.fs.Open(s.name(), false)
	if err != nil {
		return Hash{}, err
	}
	defer f.Close()
	first, err := newLineReader(f, 0, s.size).next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return l.w.prev, nil // empty: what follows is the next record
		}
		return Hash{}, err
	}
	k, err := readLink(first.text)
	return k.prev, err
}

// removeVictims removes the segments that the durable retention record names.
func (l *Log) removeVictims() {
	w := &l.w
	n := 0
	for _, s := range w.victims {
		if err := l.fs.Remove(s.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.log.Error("audit retention", "segment", s.name(), "error", err)
			break
		}
		n++
	}
	if err := l.fs.SyncDir(); err != nil {
		l.log.Error("audit retention", "error", err)
	}
	w.victims = nil
	w.segs = append([]segment(nil), w.segs[n:]...)
	l.mu.Lock()
	l.segs = append(l.segs[:0:0], w.segs...)
	l.mu.Unlock()
}
