// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"testing"
	"time"
)

// connection is a TCP connection on loopback.
func connection(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

type moved struct {
	n   int64
	err error
}

// moving moves from one connection to another; it returns their far ends.
func moving(t *testing.T, sb *sandbox) (source, sink *net.TCPConn, done chan moved) {
	t.Helper()
	source, src := connection(t)
	sink, dst := connection(t)
	done = make(chan moved, 1)
	go func() {
		n, err := sb.move(dst, src)
		_ = dst.CloseWrite()
		done <- moved{n, err}
	}()
	return source, sink, done
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// carries sends data through and compares.
func carries(t *testing.T, sb *sandbox, size int) {
	t.Helper()
	source, sink, done := moving(t, sb)
	data := make([]byte, size)
	_, _ = rand.Read(data)
	go func() {
		_, _ = source.Write(data)
		_ = source.CloseWrite()
	}()
	got, err := io.ReadAll(sink)
	if r := <-done; err != nil || r.err != nil || r.n != int64(size) || !bytes.Equal(got, data) {
		t.Errorf("%d bytes sent, %d moved (%v), %d came (%v), the same: %v", size, r.n, r.err, len(got), err, bytes.Equal(got, data))
	}
}

// stall fills a relay whose reader stands still, until it holds what it
// cannot write.
func stall(t *testing.T, sb *sandbox) (sink *net.TCPConn, done chan moved) {
	t.Helper()
	source, sink, done := moving(t, sb)
	go func() {
		buf := make([]byte, 1<<20)
		for {
			if _, err := source.Write(buf); err != nil {
				return
			}
		}
	}()
	return sink, done
}

// count is how many pipes there are, and how many of them are free.
func (p *pipes) count() (made, free int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made, len(p.free)
}

func TestMoveThroughPipesAndWithout(t *testing.T) {
	g := &Gateway{}
	defer g.pipes.close()
	sb := &sandbox{g: g}
	for _, size := range []int{0, 1, 100_000, 20 << 20} {
		carries(t, sb, size)
	}
	if made, free := g.pipes.count(); made == 0 || free != made || sb.pipes.Load() != 0 {
		t.Errorf("%d pipes made, %d free, %d held after all", made, free, sb.pipes.Load())
	}
	without := &Gateway{}
	without.pipes.closed = true
	carries(t, &sandbox{g: without}, 20<<20)
	if made, _ := without.pipes.count(); made != 0 || without.buffers.lent.Load() != 0 {
		t.Errorf("without pipes: %d made, %d buffers stay", made, without.buffers.lent.Load())
	}
}

// A relay that waits for bytes holds nothing: the kernel gives one user a few
// dozen pipes of this size.
func TestMoveHoldsNothingWhileItWaits(t *testing.T) {
	g := &Gateway{}
	defer g.pipes.close()
	sb := &sandbox{g: g}
	for range maxPipes + 20 {
		source, sink, _ := moving(t, sb)
		if _, err := source.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(sink, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all pipes are free", func() bool {
		made, free := g.pipes.count()
		return sb.pipes.Load() == 0 && made > 0 && free == made
	})
}

// Readers that stand still keep pipes full: of one sandbox a share of them,
// and what it can no longer have its neighbours still can. The end of the
// connection gives all of it back.
func TestMoveOfStalledReaders(t *testing.T) {
	g := &Gateway{}
	defer g.pipes.close()
	hog, neighbour := &sandbox{g: g}, &sandbox{g: g}
	type relay struct {
		sink *net.TCPConn
		done chan moved
	}
	var stalled []relay
	for range sandboxPipes + 4 {
		sink, done := stall(t, hog)
		stalled = append(stalled, relay{sink, done})
	}
	eventually(t, "the hog has its share and buffers", func() bool {
		return hog.pipes.Load() == sandboxPipes && g.buffers.lent.Load() == 4
	})
	carries(t, hog, 1<<20) // by buffers
	before, _ := g.pipes.count()
	carries(t, neighbour, 1<<20)
	if after, _ := g.pipes.count(); before != sandboxPipes || after != sandboxPipes+1 {
		t.Errorf("%d pipes with the hog alone, %d with its neighbour", before, after)
	}
	for _, r := range stalled {
		reset(r.sink)
	}
	for _, r := range stalled {
		if m := <-r.done; m.err == nil || m.n == 0 {
			t.Errorf("a relay that was cut: %d bytes, %v", m.n, m.err)
		}
	}
	if made, _ := g.pipes.count(); hog.pipes.Load() != 0 || g.buffers.lent.Load() != 0 || made != 1 {
		t.Errorf("after the end %d pipes are held, %d buffers lent, %d pipes made", hog.pipes.Load(), g.buffers.lent.Load(), made)
	}
}
