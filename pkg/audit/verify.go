// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// State is the outcome of a verification. Its numbers are the exit codes of
// `ringfence audit verify`.
type State int

// Outcomes of a verification.
const (
	Consistent State = 0 // everything there follows from what is before it
	Tampered   State = 1 // a record or a segment was changed, removed, inserted or moved
	Incomplete State = 2 // whole segments are missing, or the log does not reach the anchor
)

func (s State) String() string {
	return [...]string{"consistent", "tampered", "incomplete"}[s]
}

// Bad is the first place where the log is not what it should be.
type Bad struct {
	Segment  string // file name
	Line     int    // counted from 1; 0 for the segment as a whole
	Offset   int64
	Sequence uint64 // sequence that was expected there
	Why      string
}

func (b *Bad) String() string {
	if b.Line == 0 {
		return fmt.Sprintf("segment %s, record %d: %s", b.Segment, b.Sequence, b.Why)
	}
	return fmt.Sprintf("segment %s, line %d, record %d: %s", b.Segment, b.Line, b.Sequence, b.Why)
}

// Report is what a verification found.
type Report struct {
	State    State
	Chain    string
	Segments int
	Records  uint64 // good ones read
	First    uint64 // sequence of the first record kept
	Head     Head   // last good record: "consistent up to" its sequence
	Anchored uint64 // the log matches an anchor up to here; 0 without one
	Removed  uint64 // records that retention removed and accounts for
	Torn     int64  // bytes of an unfinished line at the end: being written now, or left by a crash
	Bad      *Bad
}

// String is the report in one or two lines.
func (r *Report) String() string {
	if r.Bad != nil {
		return fmt.Sprintf("%s: %s\n%d records before it are consistent", r.State, r.Bad, r.Records)
	}
	if r.Records == 0 {
		return "consistent: the log is empty"
	}
	s := fmt.Sprintf("consistent up to record %d (%d records in %d segments", r.Head.Sequence, r.Records, r.Segments)
	if r.Removed > 0 {
		s += fmt.Sprintf(", %d older ones removed by retention", r.Removed)
	}
	if r.Torn > 0 {
		s += fmt.Sprintf(", %d bytes unfinished at the end", r.Torn)
	}
	s += ")"
	if r.Anchored > 0 {
		return s + fmt.Sprintf(", anchored up to record %d", r.Anchored)
	}
	return s + "\nwithout an anchor that left this host a cut or wholly rewritten end cannot be seen; head " + r.Head.String()
}

// Verify reads the whole log of a directory, also while it is being written.
// The error is for a log that could not be read; everything about its content
// is in the report.
func Verify(dir string) (Report, error) { return verifyDir(dir, nil) }

// VerifyAgainst verifies and also demands that the log holds the record that an
// earlier Head names.
func VerifyAgainst(dir string, anchor Head) (Report, error) { return verifyDir(dir, &anchor) }

func verifyDir(dir string, anchor *Head) (Report, error) {
	d, err := DirFS(dir)
	if err != nil {
		return Report{}, err
	}
	defer d.Close()
	return verify(d, anchor)
}

func verify(d FS, anchor *Head) (r Report, err error) {
	// Retention may remove segments under our feet: then look again.
	for range 3 {
		v := verifier{fs: d, anchor: anchor}
		if err = v.run(); !errors.Is(err, fs.ErrNotExist) {
			return v.r, err
		}
	}
	return Report{}, err
}

type verifier struct {
	fs        FS
	anchor    *Head
	r         Report
	started   bool
	missing   uint64 // last sequence before the first record kept, if that is not 0
	before    Hash   // prev of the first record kept
	excused   bool   // a retention record accounts for what is missing
	metAnchor bool
}

func (v *verifier) run() error {
	segs, err := listSegments(v.fs)
	if err != nil {
		return err
	}
	v.r.Segments = len(segs)
	for i, s := range segs {
		if i > 0 && s.ordinal != segs[i-1].ordinal+1 {
			v.bad(Incomplete, Bad{Segment: s.name(), Sequence: v.r.Head.Sequence + 1}, missingText(segs[i-1].ordinal, s.ordinal))
			return nil
		}
		if err := v.segment(s, i == len(segs)-1); err != nil || v.r.Bad != nil {
			return err
		}
	}
	if v.missing > 0 && !v.excused {
		v.bad(Incomplete, Bad{Segment: segs[0].name(), Sequence: 1},
			fmt.Sprintf("records 1 to %d are missing and no retention record accounts for them", v.missing))
		return nil
	}
	v.r.Removed = v.missing
	v.checkAnchor()
	return nil
}

func missingText(before, after uint64) string {
	if after == before+2 {
		return fmt.Sprintf("segment %d before it is missing", before+1)
	}
	if after <= before {
		return fmt.Sprintf("there are two segments %d", before)
	}
	return fmt.Sprintf("segments %d to %d before it are missing", before+1, after-1)
}

func (v *verifier) bad(state State, b Bad, why string) {
	b.Why = why
	v.r.State, v.r.Bad = state, &b
}

// segment checks all lines of one segment.
func (v *verifier) segment(s segment, last bool) error {
	f, err := v.fs.Open(s.name(), false)
	if err != nil {
		return fmt.Errorf("audit: segment %s: %w", s.name(), err)
	}
	defer f.Close()
	r := newLineReader(f, 0, s.size)
	for n := 1; ; n++ {
		ln, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("audit: segment %s: %w", s.name(), err)
		}
		if !ln.ended && last {
			v.r.Torn = s.size - ln.start
			return nil
		}
		at := Bad{Segment: s.name(), Line: n, Offset: ln.start, Sequence: v.expected(s)}
		if why := v.line(ln, s, n); why != "" {
			v.bad(Tampered, at, why)
			return nil
		}
	}
}

func (v *verifier) expected(s segment) uint64 {
	if v.started {
		return v.r.Head.Sequence + 1
	}
	return s.first
}

// line checks one line; the answer is what is wrong with it, "" if nothing.
func (v *verifier) line(ln line, s segment, n int) string {
	if !ln.ended {
		return "the segment ends in the middle of a record: it was cut"
	}
	k, err := readLink(ln.text)
	if err != nil {
		return err.Error()
	}
	if n == 1 && k.seq != s.first && k.seq == v.expected(s) {
		return fmt.Sprintf("the name of the segment promises record %d: it was renamed", s.first)
	}
	if !v.started {
		if why := v.begin(k, s); why != "" {
			return why
		}
	} else if why := v.follows(k, n); why != "" {
		return why
	}
	v.r.Head = Head{Chain: k.chain, Sequence: k.seq, Hash: k.hash}
	v.r.Records++
	if v.missing > 0 && !v.excused {
		last, h, ok := readRetention(ln.text)
		v.excused = ok && last >= v.missing && (last > v.missing || h == v.before)
	}
	if v.anchor != nil && k.seq == v.anchor.Sequence && k.chain == v.anchor.Chain {
		v.metAnchor = true
		if k.hash != v.anchor.Hash {
			return "its hash is not the one that the anchor holds: it or something before it was rewritten"
		}
	}
	return ""
}

func (v *verifier) begin(k link, s segment) string {
	if k.seq != s.first {
		return fmt.Sprintf("it is record %d: records before it were removed or moved", k.seq)
	}
	if k.seq == 1 && k.prev != genesis(k.chain) {
		return "the first record does not start from the genesis of its chain"
	}
	v.started, v.r.First, v.r.Chain = true, k.seq, k.chain
	v.missing, v.before = k.seq-1, k.prev
	return ""
}

func (v *verifier) follows(k link, n int) string {
	head := v.r.Head
	switch {
	case k.chain != head.Chain:
		return fmt.Sprintf("it belongs to another log (%s)", k.chain)
	case k.seq > head.Sequence+1 && n == 1:
		return fmt.Sprintf("it is record %d: records %d to %d at the end of the segment before were removed", k.seq, head.Sequence+1, k.seq-1)
	case k.seq > head.Sequence+1:
		return fmt.Sprintf("it is record %d: records %d to %d were removed or moved", k.seq, head.Sequence+1, k.seq-1)
	case k.seq <= head.Sequence:
		return fmt.Sprintf("it is record %d, which is not later than the one before it: it was inserted, repeated or moved", k.seq)
	case k.prev != head.Hash:
		return "it does not link to the record before it: one of the two was replaced"
	}
	return ""
}

func (v *verifier) checkAnchor() {
	a := v.anchor
	switch {
	case a == nil:
	case v.metAnchor || a.Sequence == 0 && (v.r.Chain == "" || v.r.Chain == a.Chain):
		v.r.Anchored = a.Sequence
	case v.r.Chain != "" && v.r.Chain != a.Chain:
		v.bad(Incomplete, Bad{Sequence: a.Sequence}, fmt.Sprintf("the anchor is of log %s, this is log %s: the log was replaced", a.Chain, v.r.Chain))
	case v.r.Records > 0 && a.Sequence < v.r.First:
		v.bad(Incomplete, Bad{Sequence: a.Sequence}, "retention has removed the record that the anchor names: use a later anchor")
	default:
		v.bad(Incomplete, Bad{Sequence: v.r.Head.Sequence + 1},
			fmt.Sprintf("the log ends at record %d, the anchor names record %d: the end was cut off", v.r.Head.Sequence, a.Sequence))
	}
}
