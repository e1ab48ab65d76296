// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
)

// Whatever stands in a segment: opening, appending and verifying do not crash,
// what could be appended is there, and recovery never makes a bad log look good
// by losing a good record.
func FuzzSegment(f *testing.F) {
	m := newMemFS()
	l, err := Open(Options{FS: m, Node: testNode})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := l.Append(context.Background(), denial(1), denial(2), denial(3)); err != nil {
		f.Fatal(err)
	}
	l.Close()
	name := segment{ordinal: 1, first: 1}.name()
	good := m.names[name].data
	f.Add(good, 0)
	f.Add(append(bytes.Clone(good), "torn"...), 100)
	f.Add(good[:len(good)-10], 5)
	f.Add(bytes.Repeat([]byte{0}, 300), 1)
	f.Add(append(append(bytes.Clone(good), "x\x00\n"...), good...), 3)
	f.Fuzz(func(t *testing.T, content []byte, flip int) {
		if flip > 0 && flip < len(content) {
			content[flip] ^= 1
		}
		m := newMemFS()
		m.names[name] = &inode{data: content, synced: content}
		before, err := verify(m, nil)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{FS: m, Node: testNode})
		if err != nil {
			return
		}
		e := denial(9)
		if _, err := l.Append(context.Background(), e); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Get(e.ID); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		after, err := verify(m, nil)
		if err != nil {
			t.Fatal(err)
		}
		if after.Records < before.Records {
			t.Fatalf("%d good records before, %d after:\n%s\n%s", before.Records, after.Records, before.String(), after.String())
		}
	})
}

func FuzzLineReader(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), uint16(0))
	f.Add(bytes.Repeat([]byte("x"), 70<<10), uint16(3))
	f.Fuzz(func(t *testing.T, content []byte, at uint16) {
		off := min(int64(at), int64(len(content)))
		r := newLineReader(bytes.NewReader(content), off, int64(len(content)))
		var got []byte
		for {
			l, err := r.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if l.start != off+int64(len(got)) || bytes.IndexByte(l.text, '\n') >= 0 || l.long {
				t.Fatalf("line at %d, expected %d", l.start, off+int64(len(got)))
			}
			got = append(got, l.text...)
			if l.ended {
				got = append(got, '\n')
			}
		}
		if !bytes.Equal(got, content[off:]) {
			t.Fatalf("%q of %q", got, content[off:])
		}
	})
}

func TestRetentionDetailIsReadBack(t *testing.T) {
	h := genesis("0123456789abcdef")
	e := event.Event{Kind: event.KindDaemon, Activity: retentionActivity, Detail: retentionDetail(77, h)}
	line, err := e.AppendOCSF(nil, testNode)
	if err != nil {
		t.Fatal(err)
	}
	if last, got, ok := readRetention(line); !ok || last != 77 || got != h {
		t.Errorf("%d %v %v", last, got, ok)
	}
	// An event of a sandbox that says the same is not one.
	e.Kind = event.KindNetwork
	line, _ = e.AppendOCSF(nil, testNode)
	if _, _, ok := readRetention(line); ok {
		t.Error("a network event passed for a retention record")
	}
}
