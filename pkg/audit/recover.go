// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/ringfence/ringfence/pkg/event"
)

// tornBound is the largest unfinished tail that recovery takes for one when it
// has holes in it (zero bytes, as after a power cut); see scan.
const tornBound = 8 << 20

// tail is what scanning a segment found.
type tail struct {
	last    link  // last good record; seq 0 if none
	good    int64 // offset behind the last good record before any bad line
	damaged bool  // a changed record, or a bad line with good records behind it
	bad     string
}

// scan reads a segment from its beginning and finds where its good records end.
func scan(f File, s segment) (tail, error) {
	t := tail{}
	r := newLineReader(f, 0, s.size)
	holes, broken := false, false
	for {
		ln, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return t, fmt.Errorf("audit: segment %s: %w", s.name(), err)
		}
		k, err := readLink(ln.text)
		if err == nil && !ln.ended {
			err = errShape // whole by chance; it was not acknowledged without its newline
		}
		if err == nil && !broken {
			err = t.follows(k, s)
		}
		switch {
		case err != nil && !broken:
			broken, t.bad = true, fmt.Sprintf("offset %d: %v", ln.start, err)
			holes = bytes.IndexByte(ln.text, 0) >= 0
			// A whole record with a wrong hash is not what a crash leaves.
			t.damaged = ln.ended && !holes && errors.Is(err, errSum)
		case err != nil:
			holes = holes || bytes.IndexByte(ln.text, 0) >= 0
		case broken:
			// Good records behind a bad line: a hole that a power cut left in the
			// last batch, or damage to what was acknowledged.
			if !holes || s.size-t.good > tornBound {
				t.damaged = true
			}
			if t.damaged {
				t.last = k
			}
		default:
			t.last, t.good = k, ln.start+int64(len(ln.text))+1
		}
	}
	return t, nil
}

func (t *tail) follows(k link, s segment) error {
	if t.last.seq == 0 {
		if k.seq != s.first {
			return fmt.Errorf("record %d where %d was expected", k.seq, s.first)
		}
		return nil
	}
	if k.seq != t.last.seq+1 || k.prev != t.last.hash || k.chain != t.last.chain {
		return fmt.Errorf("record %d does not follow record %d", k.seq, t.last.seq)
	}
	return nil
}

// recover finds the end of the chain, cuts a torn tail, and opens the segment
// that is to be continued.
func (l *Log) recover() error {
	segs, err := listSegments(l.fs)
	if err != nil {
		return err
	}
	l.w.segs = segs
	for n := len(segs) - 1; n >= 0; n-- {
		done, err := l.recoverSegment(n)
		if err != nil || done {
			return err
		}
	}
	return nil
}

// recoverSegment looks for the end of the chain in segment n; done is false if
// that holds no record, so that the one before must be asked.
func (l *Log) recoverSegment(n int) (done bool, err error) {
	w := &l.w
	s := &w.segs[n]
	f, err := l.fs.Open(s.name(), true)
	if err != nil {
		return false, fmt.Errorf("audit: segment %s: %w", s.name(), err)
	}
	defer func() {
		if f != nil && w.file != f {
			err = errors.Join(err, f.Close())
		}
	}()
	t, err := scan(f, *s)
	if err != nil {
		return false, err
	}
	last := n == len(w.segs)-1
	if t.damaged || (!last && t.bad != "") {
		return l.sealDamaged(n, t)
	}
	if t.good < s.size {
		if err := l.cutTail(f, s, t); err != nil {
			return false, err
		}
	}
	if t.last.seq == 0 {
		return false, l.dropEmpty(n)
	}
	l.chain, w.next, w.prev = t.last.chain, t.last.seq+1, t.last.hash
	if last {
		w.file = f
	}
	return true, nil
}

// sealDamaged leaves a damaged segment as it is and continues the chain behind
// its last good record, or that of the segment before it, in a new segment.
func (l *Log) sealDamaged(n int, t tail) (done bool, err error) {
	name := l.w.segs[n].name()
	l.log.Error("audit segment is damaged", "segment", name, "at", t.bad)
	l.own = append(l.own, event.Event{
		Kind: event.KindTamper, Source: "keeper", Verdict: event.Observed, Activity: "audit log damaged", Object: name, Layer: "audit", Time: l.opt.Now(),
		ReasonCode: "log-damaged", Reason: "a segment of the audit log holds a bad record", Detail: t.bad,
	})
	if t.last.seq == 0 {
		if n == 0 {
			return false, fmt.Errorf("audit: segment %s holds no good record (%s): move the directory away to start a new log", name, t.bad)
		}
		return false, nil
	}
	l.chain, l.w.next, l.w.prev = t.last.chain, t.last.seq+1, t.last.hash
	return true, nil
}

// cutTail removes what a crash left unfinished, after copying it to torn-tail.
func (l *Log) cutTail(f File, s *segment, t tail) error {
	n := s.size - t.good
	l.log.Warn("audit log: cutting an unfinished tail", "segment", s.name(), "bytes", n, "at", t.bad)
	if err := l.keepTorn(f, t.good, min(n, tornBound)); err != nil {
		l.log.Warn("audit log: the unfinished tail could not be kept", "error", err)
	}
	if err := f.Truncate(t.good); err != nil {
		return fmt.Errorf("audit: segment %s: cut the unfinished tail: %w", s.name(), err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("audit: segment %s: cut the unfinished tail: %w", s.name(), err)
	}
	s.size = t.good
	l.own = append(l.own, event.Event{
		Kind: event.KindDaemon, Verdict: event.Observed, Source: "keeper", Activity: "recover", Object: "audit log", Time: l.opt.Now(),
		ReasonCode: "torn-tail", Reason: fmt.Sprintf("%d bytes that a crash left unfinished were cut from the log and kept in %s", n, tornName),
		Detail: s.name() + ": " + t.bad,
	})
	return nil
}

func (l *Log) keepTorn(from File, off, n int64) error {
	b := make([]byte, n)
	if _, err := from.ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := l.fs.Remove(tornName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := l.fs.Create(tornName)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Sync(), f.Close(), l.fs.SyncDir())
}

// dropEmpty removes a last segment without records: its name promises a
// sequence that the next record may not have.
func (l *Log) dropEmpty(n int) error {
	s := l.w.segs[n]
	if err := l.fs.Remove(s.name()); err != nil {
		return fmt.Errorf("audit: empty segment %s: %w", s.name(), err)
	}
	l.w.segs = l.w.segs[:n]
	return l.fs.SyncDir()
}
