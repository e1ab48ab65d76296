// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// segment is one file of the log as the writer knows it.
type segment struct {
	ordinal uint64
	first   uint64    // sequence of its first record, also when it holds none yet
	size    int64     // committed bytes
	began   time.Time // when its first record was logged; zero if not known yet
}

const (
	segmentSuffix = ".jsonl"
	tornName      = "torn-tail"
	// maxLine bounds a record; the limits of package event keep real ones far below.
	maxLine = 1 << 20
)

func (s segment) name() string {
	return fmt.Sprintf("%08d-%020d%s", s.ordinal, s.first, segmentSuffix)
}

func parseSegmentName(name string) (segment, bool) {
	base, ok := strings.CutSuffix(name, segmentSuffix)
	o, f, ok2 := strings.Cut(base, "-")
	ordinal, err := strconv.ParseUint(o, 10, 64)
	first, err2 := strconv.ParseUint(f, 10, 64)
	s := segment{ordinal: ordinal, first: first}
	return s, ok && ok2 && err == nil && err2 == nil && ordinal > 0 && first > 0 && s.name() == name
}

// listSegments returns the segments of the directory with their present sizes
// in order of ordinal.
func listSegments(fs FS) ([]segment, error) {
	names, err := fs.List()
	if err != nil {
		return nil, fmt.Errorf("audit: list segments: %w", err)
	}
	var segs []segment
	for _, n := range names {
		s, ok := parseSegmentName(n)
		if !ok {
			continue
		}
		f, err := fs.Open(n, false)
		if err != nil {
			return nil, fmt.Errorf("audit: segment %s: %w", n, err)
		}
		s.size, err = f.Size()
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("audit: segment %s: %w", n, err)
		}
		segs = append(segs, s)
	}
	slices.SortFunc(segs, func(a, b segment) int {
		return cmp.Or(cmp.Compare(a.ordinal, b.ordinal), cmp.Compare(a.first, b.first))
	})
	return segs, nil
}

// lineReader reads the lines of a file between two offsets. The slice that next
// returns is valid until the following call.
type lineReader struct {
	r     io.ReaderAt
	off   int64 // offset of the next byte to read into buf
	limit int64
	buf   []byte
	pos   int // start of the next line in buf
}

func newLineReader(r io.ReaderAt, off, limit int64) *lineReader {
	return &lineReader{r: r, off: off, limit: limit, buf: make([]byte, 0, 64<<10)}
}

// line is one line of a file, without its newline.
type line struct {
	text  []byte
	start int64 // offset of its first byte
	ended bool  // a newline follows
	long  bool  // longer than maxLine; text is its beginning only
}

// next returns io.EOF at the limit.
func (r *lineReader) next() (line, error) {
	if err := r.fill(); err != nil {
		return line{}, err
	}
	l := line{start: r.off - int64(len(r.buf)-r.pos)}
	if i := bytes.IndexByte(r.buf[r.pos:], '\n'); i >= 0 {
		l.text, l.ended = r.buf[r.pos:r.pos+i], true
		r.pos += i + 1
		return l, nil
	}
	l.text = r.buf[r.pos:]
	r.pos = len(r.buf)
	if len(l.text) < maxLine {
		return l, nil // the unfinished last line
	}
	l.long = true
	keep := bytes.Clone(l.text[:64])
	for { // skip to the end of it
		r.buf, r.pos = r.buf[:0], 0
		if err := r.more(); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return line{}, err
		}
		if i := bytes.IndexByte(r.buf, '\n'); i >= 0 {
			r.pos, l.ended = i+1, true
			break
		}
		r.pos = len(r.buf)
	}
	l.text = keep
	return l, nil
}

// fill makes sure that buf holds a whole line, maxLine bytes, or all there is.
func (r *lineReader) fill() error {
	for bytes.IndexByte(r.buf[r.pos:], '\n') < 0 && len(r.buf)-r.pos < maxLine {
		if err := r.more(); err != nil {
			if errors.Is(err, io.EOF) && r.pos < len(r.buf) {
				return nil
			}
			return err
		}
	}
	return nil
}

// more reads another piece behind what is buffered.
func (r *lineReader) more() error {
	if r.off >= r.limit {
		return io.EOF
	}
	if r.pos > 0 {
		r.buf = r.buf[:copy(r.buf, r.buf[r.pos:])]
		r.pos = 0
	}
	if cap(r.buf)-len(r.buf) < 32<<10 {
		r.buf = slices.Grow(r.buf, max(len(r.buf), 64<<10))
	}
	free := r.buf[len(r.buf):cap(r.buf)]
	if rest := r.limit - r.off; int64(len(free)) > rest {
		free = free[:rest]
	}
	n, err := r.r.ReadAt(free, r.off)
	r.buf = r.buf[:len(r.buf)+n]
	r.off += int64(n)
	if n > 0 {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return err
}
