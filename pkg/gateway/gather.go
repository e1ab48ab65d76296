// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

const (
	// tlsRecord is the most that one TLS record carries (RFC 8446, section 5.1).
	tlsRecord = 16 << 10
	// chunk is how much of a body is moved at once where there is room for it.
	chunk = 128 << 10
	// sealed is what chunk may grow to in TLS records.
	sealed = chunk + 4<<10
	// maxChunks are lent at a time, 33 MB: a sandbox that asks for much and
	// reads nothing holds what it was lent. Without one everything works in
	// smaller steps.
	maxChunks  = 256
	smallChunk = 32 << 10
)

// lender lends buffers of sealed bytes, at most maxChunks at a time.
type lender struct {
	lent  atomic.Int64
	large sync.Pool
	small sync.Pool
}

// borrow returns nil when too many are out.
func (l *lender) borrow() []byte {
	if l.lent.Add(1) > maxChunks {
		l.lent.Add(-1)
		return nil
	}
	if b, ok := l.large.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, sealed)
}

// giveBack takes what borrow returned.
func (l *lender) giveBack(b []byte) {
	l.lent.Add(-1)
	b = b[:sealed]
	l.large.Put(&b)
}

// Get implements httputil.BufferPool.
func (l *lender) Get() []byte {
	if b := l.borrow(); b != nil {
		return b[:chunk]
	}
	if b, ok := l.small.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, smallChunk)
}

// Put implements httputil.BufferPool.
func (l *lender) Put(b []byte) {
	if len(b) == chunk {
		l.giveBack(b)
		return
	}
	l.small.Put(&b)
}

// gathering makes one write of those of a whole chunk: crypto/tls makes a
// system call for each record. Nothing overtakes what is kept, and nobody
// waits for another's write: what comes meanwhile is written after it.
type gathering struct {
	from *lender

	mu      sync.Mutex
	keeping bool
	kept    []byte
}

// begin keeps what is written from now on, if there is a buffer for it.
func (g *gathering) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b := g.from.borrow(); b != nil {
		g.keeping, g.kept = true, b[:0]
	}
}

// keep tells whether p was kept.
func (g *gathering) keep(p []byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.keeping {
		g.kept = append(g.kept, p...)
	}
	return g.keeping
}

// end writes what was kept since begin. After an error the rest is lost, as
// the connection is.
func (g *gathering) end(write func([]byte) (int, error)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.keeping {
		return nil
	}
	first := g.kept
	var err error
	for b := first; len(b) > 0 && err == nil; b = g.kept {
		g.kept = nil
		g.mu.Unlock()
		_, err = write(b)
		g.mu.Lock()
	}
	g.keeping, g.kept = false, nil
	if cap(first) == sealed {
		g.from.giveBack(first)
	} else {
		g.from.lent.Add(-1) // it has grown out of what was lent
	}
	return err
}

// fullBody is the body of an answer on HTTP/1.1 over TLS, of which a Read
// takes all records that have come and not one: what is read at once is
// written at once.
type fullBody struct {
	io.ReadCloser
	conn *readAhead
}

// recordMost is a whole TLS record (RFC 8446, section 5.2).
const recordMost = 5 + tlsRecord + 256

// Read implements io.Reader.
func (b *fullBody) Read(p []byte) (int, error) {
	n := 0
	for {
		m, err := b.ReadCloser.Read(p[n:])
		n += m
		// Before an error the connection is nobody else's.
		if err != nil || m == 0 || len(p)-n < tlsRecord || b.conn.ahead() < recordMost {
			return n, err
		}
	}
}

// bodyOf reads the body of an answer that came over c.
func bodyOf(body io.ReadCloser, c net.Conn) io.ReadCloser {
	if t, ok := c.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol != "h2" {
		if ahead, ok := t.NetConn().(*readAhead); ok {
			return &fullBody{body, ahead}
		}
	}
	return body
}
