// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
)

// build makes a log of several segments with many records in each and returns
// its segment files in order.
func build(t *testing.T, dir string, records int) []string {
	t.Helper()
	l := openLog(t, Options{Dir: dir, SegmentBytes: 24 << 10})
	for i := 0; i < records; i += 5 {
		var evs []*event.Event
		for j := i; j < min(i+5, records); j++ {
			evs = append(evs, denial(j))
		}
		mustAppend(t, l, evs...)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return segmentFiles(t, dir)
}

func segmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

func readLines(t *testing.T, file string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.SplitAfter(bytes.TrimSuffix(b, nil), []byte("\n"))[:bytes.Count(b, []byte("\n"))]
}

func writeLines(t *testing.T, file string, lines [][]byte) {
	t.Helper()
	if err := os.WriteFile(file, bytes.Join(lines, nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

func seqOf(t *testing.T, line []byte) uint64 {
	t.Helper()
	h, err := event.PeekOCSF(line)
	if err != nil {
		t.Fatal(err)
	}
	return h.Sequence
}

// reseal gives a changed line a hash of its own that fits.
func reseal(line []byte) []byte {
	i := bytes.LastIndex(line, []byte(openHash[1:]))
	sum := sha256.Sum256(line[:i])
	out := append(bytes.Clone(line[:i]), openHash[1:]...)
	out = hex.AppendEncode(out, sum[:])
	return append(out, closeAll+"\n"...)
}

func edit(line []byte, from, to string) []byte {
	return bytes.Replace(line, []byte(from), []byte(to), 1)
}

func TestVerifyNamesTheFirstBadRecord(t *testing.T) {
	const at = 4 // index of the line that is attacked
	type outcome struct {
		state State
		line  int // counted from 1; the segment is the attacked one, or the one after it with next set
		next  bool
		why   string
	}
	for _, c := range []struct {
		name   string
		attack func(t *testing.T, files []string, k int) // k is the attacked segment
		want   outcome
	}{
		{"a changed byte", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			l[at] = edit(l[at], "no rule allows it", "no rule allowz it")
			writeLines(t, f[k], l)
		}, outcome{Tampered, at + 1, false, "changed"}},
		{"a changed byte, its own hash recomputed", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			l[at] = reseal(edit(l[at], "no rule allows it", "no rule allowz it"))
			writeLines(t, f[k], l)
		}, outcome{Tampered, at + 2, false, "does not link"}},
		{"a changed hash", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			n := len(l[at]) - len(closeAll) - 2
			l[at][n] = "01"[l[at][n]&1^1]
			writeLines(t, f[k], l)
		}, outcome{Tampered, at + 1, false, "changed"}},
		{"a changed link", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			i := bytes.Index(l[at], []byte(openPrev)) + len(openPrev)
			l[at][i] = "01"[l[at][i]&1^1]
			l[at] = reseal(l[at])
			writeLines(t, f[k], l)
		}, outcome{Tampered, at + 1, false, "does not link"}},
		{"a removed record", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			writeLines(t, f[k], slices.Delete(l, at, at+1))
		}, outcome{Tampered, at + 1, false, "removed"}},
		{"a removed first record of a segment", func(t *testing.T, f []string, k int) {
			writeLines(t, f[k], readLines(t, f[k])[1:])
		}, outcome{Tampered, 1, false, "removed"}},
		{"a repeated record", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			writeLines(t, f[k], slices.Insert(l, at, l[at-1]))
		}, outcome{Tampered, at + 1, false, "repeated"}},
		{"a made-up record", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			writeLines(t, f[k], slices.Insert(l, at, reseal(edit(l[at-1], "no rule", "a rule"))))
		}, outcome{Tampered, at + 1, false, "inserted"}},
		{"text that is no record", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			writeLines(t, f[k], slices.Insert(l, at, []byte("{}\n")))
		}, outcome{Tampered, at + 1, false, "not a record"}},
		{"an empty line", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			writeLines(t, f[k], slices.Insert(l, at, []byte("\n")))
		}, outcome{Tampered, at + 1, false, "not a record"}},
		{"a huge line", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			writeLines(t, f[k], slices.Insert(l, at, append(bytes.Repeat([]byte("x"), 3<<20), '\n')))
		}, outcome{Tampered, at + 1, false, "not a record"}},
		{"two records in the wrong order", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			l[at], l[at+1] = l[at+1], l[at]
			writeLines(t, f[k], l)
		}, outcome{Tampered, at + 1, false, "moved"}},
		{"a segment cut between records", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			writeLines(t, f[k], l[:len(l)-2])
		}, outcome{Tampered, 1, true, "at the end of the segment before were removed"}},
		{"a segment cut in a record", func(t *testing.T, f []string, k int) {
			l := readLines(t, f[k])
			l[len(l)-1] = l[len(l)-1][:40]
			writeLines(t, f[k], l)
		}, outcome{Tampered, -1, false, "it was cut"}},
		{"an emptied segment", func(t *testing.T, f []string, k int) {
			writeLines(t, f[k], nil)
		}, outcome{Tampered, 1, true, "removed"}},
		{"a missing segment", func(t *testing.T, f []string, k int) {
			if err := os.Remove(f[k]); err != nil {
				t.Fatal(err)
			}
		}, outcome{Incomplete, 0, true, "missing"}},
		{"two segments under each other's name", func(t *testing.T, f []string, k int) {
			a, b := readLines(t, f[k]), readLines(t, f[k+1])
			writeLines(t, f[k], b)
			writeLines(t, f[k+1], a)
		}, outcome{Tampered, 1, false, "removed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			files := build(t, dir, 90)
			if len(files) < 5 {
				t.Fatalf("%d segments", len(files))
			}
			before := mustVerify(t, dir)
			const k = 2
			lines := readLines(t, files[k])
			first, count := seqOf(t, lines[0]), len(lines)
			c.attack(t, files, k)
			r, err := Verify(dir)
			if err != nil {
				t.Fatal(err)
			}
			if r.State != c.want.state || r.Bad == nil || !strings.Contains(r.Bad.Why, c.want.why) {
				t.Fatalf("%s", r.String())
			}
			segment := files[k]
			if c.want.next {
				segment = files[k+1]
			}
			line := c.want.line
			if line < 0 {
				line = count
			}
			if r.Bad.Segment != filepath.Base(segment) || r.Bad.Line != line {
				t.Errorf("named %s line %d: %s", r.Bad.Segment, r.Bad.Line, r.String())
			}
			if !c.want.next && r.Bad.Sequence != first+uint64(line)-1 {
				t.Errorf("sequence %d, want %d", r.Bad.Sequence, first+uint64(line)-1)
			}
			if r.Head.Sequence+1 != r.Bad.Sequence || r.Records != r.Head.Sequence {
				t.Errorf("consistent up to %d, %d records, bad is %d", r.Head.Sequence, r.Records, r.Bad.Sequence)
			}
			if a, err := VerifyAgainst(dir, before.Head); err != nil || a.State == Consistent {
				t.Errorf("against the head: %s %v", a.String(), err)
			}
		})
	}
}

// What a chain alone cannot show, and an anchor can.
func TestOnlyAnAnchorShowsTheEnd(t *testing.T) {
	for _, c := range []struct {
		name   string
		attack func(t *testing.T, files []string)
		state  State
		why    string
	}{
		{"the last records cut off", func(t *testing.T, f []string) {
			l := readLines(t, f[len(f)-1])
			writeLines(t, f[len(f)-1], l[:len(l)-2])
		}, Incomplete, "the end was cut off"},
		{"the last segment removed", func(t *testing.T, f []string) {
			os.Remove(f[len(f)-1])
		}, Incomplete, "the end was cut off"},
		{"everything from a record on rewritten", func(t *testing.T, f []string) {
			file := f[len(f)-1]
			lines := readLines(t, file)
			lines[0] = reseal(edit(lines[0], "no rule allows it", "no rule allowz it"))
			for i := 1; i < len(lines); i++ {
				k, err := readLink(lines[i-1][:len(lines[i-1])-1])
				if err != nil {
					t.Fatal(err)
				}
				at := bytes.Index(lines[i], []byte(openPrev)) + len(openPrev)
				hex.Encode(lines[i][at:], k.hash[:])
				lines[i] = reseal(lines[i])
			}
			writeLines(t, file, lines)
		}, Tampered, "rewritten"},
		{"everything removed", func(t *testing.T, f []string) {
			for _, file := range f {
				os.Remove(file)
			}
		}, Incomplete, "the end was cut off"},
		{"another log in its place", func(t *testing.T, f []string) {
			for _, file := range f {
				os.Remove(file)
			}
			build(t, filepath.Dir(f[0]), 90)
		}, Incomplete, "replaced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			files := build(t, dir, 60)
			head := mustVerify(t, dir).Head
			parsed, err := ParseHead(head.String())
			if err != nil || parsed != head {
				t.Fatalf("%v %v", parsed, err)
			}
			if r, err := VerifyAgainst(dir, head); err != nil || r.State != Consistent || r.Anchored != 60 {
				t.Fatalf("control: %s %v", r.String(), err)
			}
			c.attack(t, files)
			if r := mustVerify(t, dir); r.Records > 0 && !strings.Contains(r.String(), "cannot be seen") {
				t.Errorf("the report claims too much: %s", r.String())
			}
			r, err := VerifyAgainst(dir, head)
			if err != nil || r.State != c.state || !strings.Contains(r.Bad.Why, c.why) {
				t.Errorf("%s %v", r.String(), err)
			}
		})
	}
}

func TestMissingBeginning(t *testing.T) {
	dir := t.TempDir()
	files := build(t, dir, 60)
	os.Remove(files[0])
	r, err := Verify(dir)
	if err != nil || r.State != Incomplete || !strings.Contains(r.Bad.Why, "no retention record") {
		t.Errorf("%s %v", r.String(), err)
	}
	// A retention record that speaks of less does not excuse it.
	dir = t.TempDir()
	l := openLog(t, Options{Dir: dir, SegmentBytes: 8 << 10, MaxBytes: 64 << 10})
	for i := range 120 {
		mustAppend(t, l, denial(i))
	}
	l.Close()
	before := mustVerify(t, dir)
	if before.Removed == 0 {
		t.Fatal("nothing was removed")
	}
	os.Remove(segmentFiles(t, dir)[0])
	if r, err := Verify(dir); err != nil || r.State != Incomplete {
		t.Errorf("%s %v", r.String(), err)
	}
}

func TestVerifyOddDirectories(t *testing.T) {
	if _, err := Verify(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("an absent directory was verified")
	}
	dir := t.TempDir()
	if r := mustVerify(t, dir); r.Records != 0 || !strings.Contains(r.String(), "empty") {
		t.Errorf("%+v", r)
	}
	build(t, dir, 5)
	for name, content := range map[string]string{"notes.txt": "x", "1-2.jsonl": "x", "00000009-9.jsonl": "x", "torn-tail": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustVerify(t, dir)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "00000002-00000000000000000006.jsonl")); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(dir); err == nil {
		t.Errorf("a symbolic link was read: %s", r.String())
	}
	for _, s := range []string{"", "x:1:y", "0123456789abcdef:1:" + strings.Repeat("A", 64), "0123456789abcdef:-1:" + strings.Repeat("a", 64), "0123456789ABCDEF:1:" + strings.Repeat("a", 64)} {
		if _, err := ParseHead(s); err == nil {
			t.Errorf("ParseHead(%q)", s)
		}
	}
}

func TestVerifyWhileWriting(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir, SegmentBytes: 16 << 10, MaxBytes: 64 << 10})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 150 {
			if _, err := l.Append(context.Background(), denial(i)); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		mustVerify(t, dir)
	}
}

// A log that somebody damaged is not "repaired": the evidence stays, the chain
// goes on behind it, and verification still names the damage.
func TestOpenKeepsDamageAsEvidence(t *testing.T) {
	for name, pick := range map[string]func(lines int) int{
		"a record in the middle": func(n int) int { return n / 2 },
		"the first record":       func(int) int { return 0 },
		"the last record":        func(n int) int { return n - 1 },
	} {
		for _, short := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, one record in the segment: %v", name, short), func(t *testing.T) {
				dir := t.TempDir()
				files := build(t, dir, 28)
				last := files[len(files)-1]
				lines := readLines(t, last)
				if short {
					lines = lines[:1]
				} else if len(lines) < 3 {
					t.Fatalf("%d records in the last segment", len(lines))
				}
				at := pick(len(lines))
				bad := seqOf(t, lines[at])
				lines[at] = edit(lines[at], "no rule allows it", "no rule allowz it")
				writeLines(t, last, lines)
				damaged, _ := os.ReadFile(last)

				l := openLog(t, Options{Dir: dir})
				mustAppend(t, l, denial(7))
				told := false
				for _, r := range readAll(t, l, Query{}) {
					e, _ := event.ParseOCSF(r.Line)
					told = told || e.Kind == event.KindTamper && e.Object == filepath.Base(last)
				}
				if !told {
					t.Error("no record tells of the damage")
				}
				l.Close()
				if now, _ := os.ReadFile(last); !bytes.Equal(now, damaged) {
					t.Error("the damaged segment was changed")
				}
				if r, _ := Verify(dir); r.State != Tampered || r.Bad.Sequence != bad || r.Bad.Segment != filepath.Base(last) {
					t.Errorf("%s", r.String())
				}
				l = openLog(t, Options{Dir: dir}) // and again
				mustAppend(t, l, denial(7))
			})
		}
	}
	dir := t.TempDir()
	files := build(t, dir, 1)
	lines := readLines(t, files[0])
	lines[0] = edit(lines[0], "no rule allows it", "no rule allowz it")
	writeLines(t, files[0], lines)
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "move the directory away") {
		t.Errorf("a log without one good record: %v", err)
	}
}

func TestOpenCutsATornTail(t *testing.T) {
	for name, tail := range map[string]string{
		"half a record": `{"time":1,"metadata":{"uid":"x`, "zeros": strings.Repeat("\x00", 5000), "a line of rubbish": "rubbish\n",
		"many lines of rubbish": "a\nb\nc\n\x00",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			files := build(t, dir, 10)
			f, err := os.OpenFile(files[0], os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteString(tail)
			f.Close()
			l := openLog(t, Options{Dir: dir})
			mustAppend(t, l, denial(1))
			l.Close()
			r := mustVerify(t, dir)
			if r.Records != 12 || r.Torn != 0 {
				t.Errorf("%+v", r)
			}
			kept, err := os.ReadFile(filepath.Join(dir, tornName))
			if err != nil || string(kept) != tail {
				t.Errorf("kept %q %v", kept, err)
			}
		})
	}
}
