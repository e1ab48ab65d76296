// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	mrand "math/rand/v2"
	"net"
	"testing"
)

// What is gathered comes out once, whole and in its order, and what others
// write meanwhile neither gets into the middle nor waits.
func TestGatheringKeepsTheOrder(t *testing.T) {
	var from lender
	g := gathering{from: &from}
	var out bytes.Buffer
	if g.keep([]byte("x")) {
		t.Fatal("kept before begin")
	}
	g.begin()
	for _, s := range []string{"a", "b", "c"} {
		if !g.keep([]byte(s)) {
			t.Fatal("not kept")
		}
	}
	writes := 0
	err := g.end(func(p []byte) (int, error) {
		if writes++; writes == 1 && !g.keep([]byte("later")) { // as the answer to a KeyUpdate would
			t.Error("a write overtakes what is being written")
		}
		return out.Write(p)
	})
	if err != nil || out.String() != "abclater" || writes != 2 {
		t.Errorf("%q in %d writes, %v", out.String(), writes, err)
	}
	if g.keep([]byte("x")) || from.lent.Load() != 0 {
		t.Errorf("after the end: %d lent", from.lent.Load())
	}
	g.begin()
	g.keep([]byte("lost"))
	if err := g.end(func([]byte) (int, error) { return 0, net.ErrClosed }); err == nil || from.lent.Load() != 0 {
		t.Errorf("a failed write: %v, %d lent", err, from.lent.Load())
	}
}

// Buffers are bounded: beyond that everything goes on in smaller steps.
func TestLenderIsBounded(t *testing.T) {
	var l lender
	var out [][]byte
	for range maxChunks {
		b := l.Get()
		if len(b) != chunk {
			t.Fatalf("buffer %d has %d bytes", len(out), len(b))
		}
		out = append(out, b)
	}
	if l.borrow() != nil {
		t.Error("more than the limit are lent")
	}
	small := l.Get()
	if len(small) != smallChunk {
		t.Errorf("beyond the limit: %d bytes", len(small))
	}
	g := gathering{from: &l}
	if g.begin(); g.keep([]byte("x")) {
		t.Error("kept without a buffer")
	}
	if err := g.end(nil); err != nil {
		t.Error(err)
	}
	l.Put(small)
	for _, b := range out {
		l.Put(b)
	}
	if n := l.lent.Load(); n != 0 {
		t.Errorf("%d are lent after all came back", n)
	}
}

// ahead is a connection whose far end is left to write.
func ahead(t *testing.T, from *lender, write func(io.WriteCloser)) *readAhead {
	t.Helper()
	far, near := connection(t)
	c, err := newReadAhead(near, from)
	if err != nil {
		t.Fatal(err)
	}
	go write(far)
	return c
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// Read ahead or not, the bytes are the same, and no buffer stays behind.
func TestReadAheadIsTheSameStream(t *testing.T) {
	data := randomBytes(8 << 20)
	for name, step := range map[string]int{"at once": len(data), "in pieces": 1000} {
		var from lender
		c := ahead(t, &from, func(w io.WriteCloser) {
			for rest := data; len(rest) > 0; rest = rest[min(step, len(rest)):] {
				_, _ = w.Write(rest[:min(step, len(rest))])
			}
			_ = w.Close()
		})
		most := int64(0)
		var got []byte
		for {
			p := make([]byte, 1+mrand.IntN(20<<10))
			n, err := c.Read(p)
			got = append(got, p[:n]...)
			most = max(most, from.lent.Load())
			if err == io.EOF {
				break
			}
		}
		if !bytes.Equal(got, data) || from.lent.Load() != 0 || step == len(data) && most != 1 {
			t.Errorf("%s: %d of %d bytes, at most %d buffers, %d stay", name, len(got), len(data), most, from.lent.Load())
		}
	}
}

// A connection that waits holds no buffer, whatever it carried before.
func TestReadAheadHoldsNothingWhileItWaits(t *testing.T) {
	var from lender
	c := ahead(t, &from, func(w io.WriteCloser) { _, _ = w.Write(make([]byte, 4*chunk)) })
	if _, err := io.ReadFull(c, make([]byte, 4*chunk-1)); err != nil {
		t.Fatal(err)
	}
	c.much = true // it had much to say at last
	ended := make(chan error)
	go func() {
		for {
			if _, err := c.Read(make([]byte, 100)); err != nil {
				ended <- err
				return
			}
		}
	}()
	eventually(t, "nothing is lent", func() bool { return from.lent.Load() == 0 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read of a closed connection: %v", err)
	}
}

func TestReadAheadGivesBackWhenClosed(t *testing.T) {
	for range 50 {
		var from lender
		c := ahead(t, &from, func(w io.WriteCloser) { _, _ = w.Write(make([]byte, 10<<20)) })
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for p := make([]byte, 1000); ; {
				if _, err := c.Read(p); err != nil {
					return
				}
			}
		}()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		<-ended
		if from.lent.Load() != 0 {
			t.Fatalf("%d lent after the end", from.lent.Load())
		}
	}
}

// recordBody reads from conn at most one record's content at a time, as
// crypto/tls does.
type recordBody struct {
	conn  io.Reader
	reads int
}

func (b *recordBody) Read(p []byte) (int, error) {
	b.reads++
	return b.conn.Read(p[:min(len(p), tlsRecord)])
}
func (*recordBody) Close() error { return nil }

// A body takes all that has come, and never waits for more than the first of
// it.
func TestFullBodyTakesWhatIsThere(t *testing.T) {
	data := randomBytes(16 << 20)
	var from lender
	c := ahead(t, &from, func(w io.WriteCloser) { _, _ = w.Write(data); _ = w.Close() })
	records := &recordBody{conn: c}
	body := &fullBody{records, c}
	var got []byte
	most := 0
	for p := make([]byte, chunk); ; {
		before := records.reads
		n, err := body.Read(p)
		got, most = append(got, p[:n]...), max(most, n)
		if c.ahead() == 0 && n <= tlsRecord && records.reads != before+1 {
			t.Errorf("read %d times for one record", records.reads-before)
		}
		if err == io.EOF {
			break
		}
	}
	if !bytes.Equal(got, data) || most <= 4*tlsRecord {
		t.Errorf("%d of %d bytes, at most %d at once", len(got), len(data), most)
	}
	few := ahead(t, &from, func(w io.WriteCloser) { _, _ = w.Write([]byte("x")) })
	slow := &recordBody{conn: few}
	if n, err := (&fullBody{slow, few}).Read(make([]byte, chunk)); n != 1 || err != nil || slow.reads != 1 {
		t.Errorf("waited for more: %d bytes by %d reads, %v", n, slow.reads, err)
	}
}
