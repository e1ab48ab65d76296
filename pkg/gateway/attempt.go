// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"io"
	"strconv"
	"time"

	"github.com/ringfence/ringfence/pkg/gateway/http1"
	"github.com/ringfence/ringfence/pkg/policy"
)

// attempt is one request of straight that policy allows, on its way.
type attempt struct {
	s     *straight
	d     policy.Decision
	head  int // length of the request's head in s.in
	total int // the same with the body

	k    *kept
	bufs *straightBufs
	got  []byte // of the answer, in bufs.in
	in   uint64 // bytes of the answer's body
}

// straightBufs are lent while an answer is waited for and passed on.
type straightBufs struct {
	in  [straightOut]byte
	out []byte
}

// serve sends the request and passes the answer on.
func (a *attempt) serve() step {
	pool := &a.s.f.sb.g.straightBufs
	a.bufs, _ = pool.Get().(*straightBufs)
	if a.bufs == nil {
		a.bufs = &straightBufs{out: make([]byte, 0, straightOut+2<<10)}
	}
	defer pool.Put(a.bufs)
	for {
		if st := a.connect(); st != goOn {
			return st
		}
		again, st := a.ask()
		if again {
			continue
		}
		if st != goOn {
			a.s.asking(nil)
			return st
		}
		return a.answer()
	}
}

// connect takes a connection that is kept, or makes one.
func (a *attempt) connect() step {
	s := a.s
	if a.k = s.x.e.kept.get(s.to); a.k == nil {
		d := s.x.e.dial(s.f.ctx, s.to)
		t := time.NewTimer(grace)
		select {
		case <-d.done:
		case <-t.C:
		}
		t.Stop()
		select {
		case <-d.done:
		default:
			return a.toServer(&begun{dial: d, send: a.request(nil)})
		}
		d.cancel()
		if d.err != nil {
			if a.killed("") {
				return over
			}
			return a.toServer(&begun{err: d.err})
		}
		a.k = d.kept
	}
	if !s.asking(a.k) {
		s.asking(nil)
		a.k.Close()
		a.killed(a.k.peer)
		return over
	}
	return goOn
}

// killed records the request of a flow that was killed before an answer came.
func (a *attempt) killed(peer string) bool {
	code, _ := a.s.f.wasKilled()
	if code != "" {
		a.s.resp.Status = statusClientLeft
		a.s.told(a.d, peer, 0, true, true)
	}
	return code != ""
}

// request appends the request as it is sent.
func (a *attempt) request(dst []byte) []byte {
	dst = a.s.req.AppendTo(dst)
	return append(dst, a.s.in[a.head:a.total]...)
}

// toServer leaves the request and its connection to the HTTP server.
func (a *attempt) toServer(b *begun) step {
	x := &a.s.x
	b.method, b.target = a.s.req.Method, string(a.s.req.Target)
	b.ticket, x.ticket = x.ticket, nil
	if b.sent != nil {
		a.s.resp.Status = statusClientLeft
		b.sent.unclaimed = a.s.event(a.d, b.sent.peer, 0, true, true)
	}
	a.s.hc.begun.Store(b)
	return toServer
}

// ask sends the request and waits for the head of the answer. again: the
// connection had ended before, and another may be tried.
func (a *attempt) ask() (again bool, st step) {
	s, k := a.s, a.k
	a.bufs.out = a.request(a.bufs.out[:0])
	k.wire.hold()
	_, err := k.Write(a.bufs.out)
	k.wire.unhold()
	have := 0
	for err == nil {
		var n int
		n, err = k.Read(a.bufs.in[have:])
		have += n
		a.got = a.bufs.in[:have]
		switch {
		case n > 0:
			n, err = s.resp.Parse(a.got, s.req.Method)
			if err == nil {
				a.got = a.got[n:]
				return false, goOn
			}
			if err != http1.ErrIncomplete || have == len(a.bufs.in) {
				return false, a.toServer(a.sent(&begun{kept: k, read: append([]byte(nil), a.got...)}))
			}
			err = nil
		case isTimeout(err):
			if s.goesOn(); s.clientLeft() {
				return false, a.toServer(a.sent(&begun{kept: k, read: append([]byte(nil), a.got...)}))
			}
			err = nil
		}
	}
	k.Close()
	if a.killed(k.peer) {
		return false, over
	}
	if k.used && have == 0 && s.replayable() {
		s.asking(nil)
		return true, goOn
	}
	return false, a.toServer(a.sent(&begun{err: err}))
}

// sent says of what was begun that the server may have it.
func (a *attempt) sent(b *begun) *begun {
	b.sent = &sent{decision: a.d, peer: a.k.peer}
	return b
}

// answer passes the answer on, whose head has been read.
func (a *attempt) answer() step {
	s, k := a.s, a.k
	ends := s.req.Close || s.x.g.ending.Load()
	out := s.resp.AppendTo(a.bufs.out[:0], s.x.start, ends)
	var left bool // the client has
	var err error
	if s.resp.Length == http1.Chunked {
		left, err = a.chunks(out)
	} else {
		left, err = a.length(out)
	}
	s.asking(nil) // before anybody else has the connection
	s.in = s.in[a.total:]
	s.told(a.d, k.peer, a.in, err != nil, left)
	switch {
	case err != nil:
		k.Close()
		return over
	case s.resp.Close || len(a.got) > 0: // what comes behind an answer answers nothing
		k.Close()
	default:
		s.x.e.kept.put(s.to, k, s.x.start)
	}
	if ends {
		return over
	}
	return goOn
}

// length passes on a body whose length is known, behind out.
func (a *attempt) length(out []byte) (left bool, err error) {
	s := a.s
	n := min(int64(len(a.got)), s.resp.Length)
	out = append(out, a.got[:n]...)
	a.bufs.out, a.got = out[:0], a.got[n:]
	if err := s.write(out); err != nil {
		return true, err
	}
	a.in = uint64(n)
	rest := s.resp.Length - n
	if rest == 0 {
		return false, nil
	}
	buf := s.x.g.buffers.Get()
	defer s.x.g.buffers.Put(buf)
	body := fullBody{a.k, a.k.wire}
	for rest > 0 {
		n, err := a.more(&body, buf[:min(rest, int64(len(buf)))])
		if err != nil {
			return s.clientLeft(), err
		}
		if err := s.write(buf[:n]); err != nil {
			return true, err
		}
		rest -= int64(n)
		a.in += uint64(n)
	}
	return false, nil
}

// chunkRoom is more than the framing of a chunk takes on either side of it,
// with the end of a body behind it.
const chunkRoom = 24

// chunks passes on a body that comes in chunks, behind out.
func (a *attempt) chunks(out []byte) (left bool, err error) {
	s := a.s
	var c http1.Chunks
	n, used, err := c.Decode(a.got)
	if err != nil {
		return false, err
	}
	out = appendChunk(out, a.got[:n], c.Done())
	a.bufs.out, a.got = out[:0], a.got[used:]
	a.in = uint64(n)
	if err := s.write(out); err != nil {
		return true, err
	}
	if c.Done() {
		return false, nil
	}
	buf := s.x.g.buffers.Get()
	defer s.x.g.buffers.Put(buf)
	body := fullBody{a.k, a.k.wire}
	for !c.Done() {
		part := buf[chunkRoom : len(buf)-chunkRoom]
		n, err := a.more(&body, part)
		if err != nil {
			return s.clientLeft(), err
		}
		m, used, err := c.Decode(part[:n])
		if err != nil {
			return false, err
		}
		if used < n {
			a.got = part[used:n]
		}
		if err := s.write(framed(buf, m, c.Done())); err != nil {
			return true, err
		}
		a.in += uint64(m)
	}
	return false, nil
}

// appendChunk appends data as a chunk, and the end of the body.
func appendChunk(dst, data []byte, done bool) []byte {
	if len(data) > 0 {
		dst = strconv.AppendInt(dst, int64(len(data)), 16)
		dst = append(dst, '\r', '\n')
		dst = append(dst, data...)
		dst = append(dst, '\r', '\n')
	}
	if done {
		dst = append(dst, "0\r\n\r\n"...)
	}
	return dst
}

// framed puts the framing of a chunk around the n bytes at chunkRoom of buf.
func framed(buf []byte, n int, done bool) []byte {
	from, to := chunkRoom, chunkRoom+n
	if n > 0 {
		var size [chunkRoom]byte
		head := append(strconv.AppendInt(size[:0], int64(n), 16), '\r', '\n')
		from -= copy(buf[chunkRoom-len(head):], head)
		to += copy(buf[to:], "\r\n")
	}
	if done {
		to += copy(buf[to:], "0\r\n\r\n")
	}
	return buf[from:to]
}

// more reads what comes next of a body, for as long as the client is there.
func (a *attempt) more(body io.Reader, p []byte) (int, error) {
	for {
		n, err := body.Read(p)
		if n > 0 {
			a.s.goesOn()
			return n, nil
		}
		switch {
		case err == io.EOF:
			return 0, io.ErrUnexpectedEOF
		case err == nil:
			return 0, io.ErrNoProgress
		case !isTimeout(err) || a.s.clientLeft():
			return 0, err
		}
		a.s.goesOn()
	}
}

// statusClientLeft is what upstreamFailed tells where nobody waits any more.
const statusClientLeft = 499
