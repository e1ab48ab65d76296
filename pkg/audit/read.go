// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// Query says which records Read yields. The zero value is all of them.
type Query struct {
	Since      time.Time // happened at or after
	Sandbox    string    // sandbox id
	Scope      string    // principal or a prefix of whole segments: "org:acme/team:x" has everything below it
	DeniedOnly bool      // refusals only
	FromSeq    uint64    // sequence at or after
	Follow     bool      // wait for more at the end, until ctx ends or the log is closed
	// Match decides on what is left, if set. It must not keep the header.
	Match func(*event.Header) bool
}

// Record is one record of the log. Line is one OCSF JSON object without its
// newline; the caller owns it.
type Record struct {
	Seq  uint64
	Line []byte
}

// Read yields durable records in order of sequence. It ends with the log as it
// is now, or, with Follow, goes on. A reader that is overtaken by retention
// continues with the oldest record there is: the sequence shows the gap. The
// error, if any, is the last thing yielded.
func (l *Log) Read(ctx context.Context, q Query) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		c := cursor{fs: l.fs}
		defer c.close()
		for first := true; ; first = false {
			segs, changed, closed := l.snapshot(c.seg.ordinal)
			if first {
				segs = segs[l.startAt(segs, q):]
			}
			for _, s := range segs {
				more, err := c.read(ctx, s, q, yield)
				if err != nil {
					yield(Record{}, err)
				}
				if err != nil || !more {
					return
				}
			}
			if !q.Follow || closed {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(Record{}, ctx.Err())
				return
			}
		}
	}
}

// snapshot returns the committed segments from an ordinal on, and what will be
// closed when there is more.
func (l *Log) snapshot(from uint64) (segs []segment, changed <-chan struct{}, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.changed:
		closed = true
	default:
	}
	i, _ := slices.BinarySearchFunc(l.segs, from, func(s segment, o uint64) int {
		if s.ordinal < o {
			return -1
		}
		return 1
	})
	return slices.Clone(l.segs[i:]), l.changed, closed
}

// clockSlack is how much later than it was logged an event may claim to be.
const clockSlack = time.Minute

// startAt is the index of the first segment that can hold what q wants.
func (l *Log) startAt(segs []segment, q Query) int {
	i := 0
	for i+1 < len(segs) && segs[i+1].first <= q.FromSeq {
		i++
	}
	if q.Since.IsZero() {
		return i
	}
	for j := len(segs) - 1; j > i; j-- {
		began := l.beganAt(segs[j])
		if !began.IsZero() && began.Add(clockSlack).Before(q.Since) {
			return j
		}
	}
	return i
}

// beganAt is when the first record of a segment was logged, zero if unknown.
func (l *Log) beganAt(s segment) time.Time {
	if !s.began.IsZero() {
		return s.began
	}
	f, err := l.fs.Open(s.name(), false)
	if err != nil {
		return time.Time{}
	}
	defer f.Close()
	first, err := newLineReader(f, 0, s.size).next()
	if err != nil {
		return time.Time{}
	}
	e, err := event.ParseOCSF(first.text)
	if err != nil {
		return time.Time{}
	}
	return e.Logged
}

// cursor is a place in the log.
type cursor struct {
	fs   FS
	seg  segment
	file File
	off  int64
}

func (c *cursor) close() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// read yields what segment s has beyond the cursor; more is false when the
// consumer has enough.
func (c *cursor) read(ctx context.Context, s segment, q Query, yield func(Record, error) bool) (more bool, err error) {
	if s.ordinal != c.seg.ordinal {
		c.close()
		c.off = 0
	}
	c.seg = s
	if c.off >= s.size {
		return true, nil
	}
	if c.file == nil {
		if c.file, err = c.fs.Open(s.name(), false); err != nil {
			if errors.Is(err, fs.ErrNotExist) { // removed by retention
				c.off = s.size
				return true, nil
			}
			return false, fmt.Errorf("audit: segment %s: %w", s.name(), err)
		}
	}
	r := newLineReader(c.file, c.off, s.size)
	for n := 0; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		ln, err := r.next()
		if errors.Is(err, io.EOF) {
			c.off = s.size
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("audit: segment %s: %w", s.name(), err)
		}
		h, err := event.PeekOCSF(ln.text)
		if err != nil || !q.wants(&h) {
			continue // a line that is no record is for Verify to report
		}
		if !yield(Record{Seq: h.Sequence, Line: bytes.Clone(ln.text)}, nil) {
			return false, nil
		}
	}
}

func (q *Query) wants(h *event.Header) bool {
	switch {
	case h.Sequence < q.FromSeq:
	case !q.Since.IsZero() && h.Time.Before(q.Since.Truncate(time.Millisecond)):
	case q.DeniedOnly && !h.Denial():
	case q.Sandbox != "" && h.Sandbox != q.Sandbox:
	case q.Scope != "" && !within(h.Scope, q.Scope):
	default:
		return q.Match == nil || q.Match(h)
	}
	return false
}

// within says whether a principal is a scope or below it.
func within(principal, scope string) bool {
	rest, ok := strings.CutPrefix(principal, scope)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(scope, "/"))
}

// Get returns the record with this id ("<chain>-<sequence>") or this bare
// sequence, or ErrNotFound.
func (l *Log) Get(id string) ([]byte, error) {
	chain, seq, ok := splitID(id)
	if !ok {
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: %q is neither an event id nor a sequence", ErrNotFound, id)
		}
		chain, seq = l.chain, n
	}
	if chain != l.chain || seq == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	for rec, err := range l.Read(context.Background(), Query{FromSeq: seq}) {
		if err != nil {
			return nil, err
		}
		if rec.Seq != seq {
			break
		}
		return rec.Line, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
}
