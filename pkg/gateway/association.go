// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/gateway/upstream"
	"github.com/ringfence/ringfence/pkg/policy"
)

// association is what a connection is for TCP: it is decided once, judged again
// on every policy revision, and has one record. It ends when nothing has passed
// for Limits.DatagramIdle, since datagrams have no end of their own. One that
// was refused stays for refusedFor, so that a flood of datagrams is not decided
// one by one.
type association struct {
	// Immutable after sandbox.associate.
	sb     *sandbox
	s      clientSide
	key    associationKey
	sender uint32 // tag of the process, see client.go
	start  time.Time
	ticket *ticket
	ctx    context.Context // ends when it is killed
	cancel context.CancelFunc

	grant heldGrant

	// mu guards what follows. Nothing under it waits, so that no datagram
	// passes after kill has returned.
	mu       sync.Mutex
	name     string // "" for a literal address
	decision policy.Decision
	decided  bool
	peer     netip.AddrPort
	up       *net.UDPConn
	upRaw    syscall.RawConn
	ready    bool // up takes datagrams
	waiting  [][]byte
	refused  bool // nothing leaves
	over     bool // it takes no datagrams any more
	last     time.Time
	killed   string // reason code
	why      string
	count    datagramCount
}

// datagramCount is what passed; in is towards the sandbox.
type datagramCount struct {
	in, out, bytesIn, bytesOut uint64
	lost                       uint64
	closed                     uint64 // the destination said that nobody is there
}

const (
	refusedFor = time.Second
	maxWaiting = 16      // datagrams of one that wait for the destination to be resolved
	maxHeld    = 1 << 20 // bytes that wait in all of a sandbox's
)

// run is the life of the association but for datagrams from the sandbox.
func (a *association) run() {
	e := a.sb.epoch.Load()
	if e == nil {
		a.refuse(codeNoSnapshot, "no policy is in force yet")
		return
	}
	t, ok := a.decide(e)
	if !ok {
		return
	}
	up, err := a.sb.g.dialer.DialUDP(a.ctx, t)
	if err != nil {
		a.dialFailed(err)
		return
	}
	defer up.Close()
	if a.open(up) {
		open := time.AfterFunc(a.sb.g.opt.Limits.TellOpen, a.stillOpen)
		defer open.Stop()
		a.inward()
	}
	a.finish()
}

// decide finds the destination and what policy says about it.
func (a *association) decide(e *epoch) (t upstream.Target, ok bool) {
	dst := a.key.dst
	name, named := a.sb.names.name(dst.Addr())
	if !named && upstream.VirtualPrefix.Contains(dst.Addr()) {
		a.refuse(codeUnknownAddr, "this address stands for no name of the sandbox")
		return t, false
	}
	d := e.datagrams(name, dst)
	if d.Allowed() && d.Rule.Once() {
		ev := a.event()
		ev.DstName = name
		d = a.grant.claimed(a.sb, ev, d)
	}
	a.mu.Lock()
	a.name, a.decision, a.decided = name, d, true
	a.mu.Unlock()
	switch {
	case !d.Allowed():
		a.denyByPolicy()
		return t, false
	case named:
		return e.named(name, dst.Port(), policy.UDP), true
	}
	return upstream.Target{Addr: dst.Addr(), Port: dst.Port(), Judged: true}, true
}

// datagrams decides UDP to a name or, without one, to a literal address.
func (e *epoch) datagrams(name string, dst netip.AddrPort) policy.Decision {
	if name != "" {
		return e.view.Datagrams(name, dst.Port())
	}
	return e.view.Addr(upstream.Judged(dst.Addr()), dst.Port(), policy.UDP)
}

// open takes the socket to the destination and sends what has waited for it.
// As with connections the association is judged once more first, so that a
// policy change in between is not missed.
func (a *association) open(up *net.UDPConn) bool {
	raw, err := up.SyscallConn()
	if err != nil {
		return false
	}
	a.mu.Lock()
	a.up, a.upRaw = up, raw
	if r, ok := up.RemoteAddr().(*net.UDPAddr); ok {
		a.peer = unmapped(r.AddrPort())
	}
	a.mu.Unlock()
	if e := a.sb.epoch.Load(); e != nil {
		if d, ok := a.stillAllowed(e); !ok {
			a.kill(codeRevoked, d.Reason)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.killed != "" {
		return false
	}
	a.ready = true
	for _, b := range a.takeWaitingLocked() {
		a.forwardLocked(b)
	}
	return true
}

// outward takes a datagram of the sandbox; false when the association is over.
func (a *association) outward(b []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return false
	}
	a.last = time.Now()
	switch {
	case a.refused:
		a.sb.g.metrics.lost(lostRefused, 1)
		a.s.unreachable(refusedHere, a.key)
	case a.ready:
		a.forwardLocked(b)
	case len(a.waiting) < maxWaiting && a.sb.associations.hold(len(b)):
		a.waiting = append(a.waiting, append([]byte(nil), b...))
	default:
		a.loseLocked(lostWaiting)
	}
	return true
}

// takeWaitingLocked empties the queue.
func (a *association) takeWaitingLocked() [][]byte {
	list := a.waiting
	a.waiting = nil
	for _, b := range list {
		a.sb.associations.held.Add(-int64(len(b)))
	}
	return list
}

// forwardLocked sends to the destination. An error that an earlier datagram
// met is told to the client, and the datagram sent all the same.
func (a *association) forwardLocked(b []byte) {
	err := sendNow(a.upRaw, b, nil)
	if errors.Is(err, syscall.ECONNREFUSED) {
		a.portClosedLocked()
		err = sendNow(a.upRaw, b, nil)
	}
	switch {
	case err == nil:
		a.count.out++
		a.count.bytesOut += uint64(len(b))
		a.sb.g.metrics.datagramsOut.Inc()
	case errors.Is(err, syscall.EMSGSIZE):
		a.loseLocked(lostSize)
	default:
		a.loseLocked(lostSend)
	}
}

// inward passes answers until the association ends.
func (a *association) inward() {
	idle := a.sb.g.opt.Limits.DatagramIdle
	_ = a.up.SetReadDeadline(time.Now().Add(idle)) // an error shows at the read
	for {
		b, n, err := receiveFrom(a.upRaw)
		switch {
		case err == nil:
			passed := a.answer(b[:headroom+n])
			packetBuffers.Put(b)
			if !passed {
				return
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			left, ended := a.idleFor(idle)
			if ended {
				return
			}
			_ = a.up.SetReadDeadline(time.Now().Add(left))
		case errors.Is(err, syscall.ECONNREFUSED):
			a.mu.Lock()
			a.portClosedLocked()
			a.mu.Unlock()
		case errors.Is(err, net.ErrClosed):
			return
		default:
			a.sb.g.metrics.lost(lostReceive, 1)
			time.Sleep(time.Millisecond) // no memory, or an ICMP error of another kind
		}
	}
}

// receiveFrom waits for a datagram of a connected socket. The caller gives the
// buffer back.
func receiveFrom(c syscall.RawConn) (b *buffer, n int, err error) {
	var rerr error
	err = c.Read(func(fd uintptr) bool {
		b = packetBuffers.Get().(*buffer)
		n, rerr = syscall.Read(int(fd), b[headroom:])
		if rerr == nil {
			return true
		}
		packetBuffers.Put(b)
		b = nil
		return rerr != syscall.EAGAIN
	})
	return b, n, errors.Join(err, rerr)
}

// answer passes one datagram to the client; false when the association is over.
func (a *association) answer(b []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return false
	}
	a.last = time.Now()
	switch err := a.s.answer(b, a.key); {
	case errors.Is(err, unix.EMSGSIZE):
		a.loseLocked(lostSize)
		return true
	case err != nil:
		a.loseLocked(lostSend)
		return true
	}
	a.count.in++
	a.count.bytesIn += uint64(len(b) - headroom)
	a.sb.g.metrics.datagramsIn.Inc()
	return true
}

// isOver says that it takes no datagrams any more.
func (a *association) isOver() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.over
}

// idleFor ends the association when nothing has passed for so long, or says how
// long that may still take.
func (a *association) idleFor(idle time.Duration) (left time.Duration, ended bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if left = idle - time.Since(a.last); left > 0 && !a.over {
		return left, false
	}
	a.over = true
	return 0, true
}

// portClosedLocked tells the client that nobody is there.
func (a *association) portClosedLocked() {
	a.count.closed++
	if !a.over {
		a.s.unreachable(portClosed, a.key)
	}
}

func (a *association) loseLocked(reason string) {
	a.count.lost++
	a.sb.g.metrics.lost(reason, 1)
}

// kill ends the association: no datagram passes after it.
func (a *association) kill(code, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.killed != "" {
		return
	}
	a.killed, a.why, a.over = code, why, true
	a.takeWaitingLocked()
	a.cancel()
	if a.up != nil {
		a.up.Close()
	}
}

// judgeAgain implements judged.
func (a *association) judgeAgain(e *epoch) {
	a.mu.Lock()
	refused, killed := a.refused, a.killed
	a.mu.Unlock()
	if killed != "" {
		return
	}
	if refused {
		a.kill(codeRevoked, "") // the next datagram is decided anew
		return
	}
	if d, ok := a.stillAllowed(e); !ok {
		a.kill(codeRevoked, d.Reason)
	}
}

func (a *association) stillAllowed(e *epoch) (policy.Decision, bool) {
	a.mu.Lock()
	name, decided, peer := a.name, a.decided, a.peer
	a.mu.Unlock()
	if !decided {
		return policy.Decision{}, true // open judges it
	}
	d := e.datagrams(name, a.key.dst)
	if d.Allowed() && name != "" && peer.IsValid() {
		if err := a.sb.g.dialer.JudgeAddr(e.named(name, a.key.dst.Port(), policy.UDP), peer.Addr()); err != nil {
			return policy.Decision{Reason: err.Error()}, false
		}
	}
	return d, d.Allowed()
}

// reject ends what waits and answers every further datagram with an error, for
// a while. The record is the caller's.
func (a *association) reject() {
	a.mu.Lock()
	a.refused = true
	for range a.takeWaitingLocked() {
		a.loseLocked(lostRefused)
	}
	if !a.over {
		a.s.unreachable(refusedHere, a.key)
	}
	a.mu.Unlock()
	select {
	case <-a.ctx.Done():
	case <-time.After(refusedFor):
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
}
