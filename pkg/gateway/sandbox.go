// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// sandbox is the serving state of one sandbox.
type sandbox struct {
	// Immutable after newSandbox.
	g      *Gateway
	owner  *owner
	cfg    Sandbox
	id     string // in events
	scope  string
	tls    *tls.Config // of terminated connections
	names  nameTable
	leaves leafCache
	dns    chan struct{} // one token per DNS question under way
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	epoch   atomic.Pointer[epoch]
	settled atomic.Uint64 // the newest revision on which all that is open was decided; 0: none
	pipes   atomic.Int64  // held by relays
	held    atomic.Int64  // connections that wait for people
	asking  chan struct{} // a place for each question about approvals that is on its way

	datagrams    []*datagramSockets  // set by prepare
	redirected   []*redirectedSocket // likewise
	associations associations

	judging bool  // of judges: it waits for a turn, or has one
	round   round // of who has the turn

	// mu guards what follows.
	mu     sync.Mutex
	flows  map[*flow]struct{}
	closed bool
}

func newSandbox(g *Gateway, c Sandbox) *sandbox {
	sb := &sandbox{g: g, owner: g.owners.join(c.Owner), cfg: c, asking: make(chan struct{}, asksAtOnce), id: c.Name, scope: c.Principal.String(), flows: map[*flow]struct{}{},
		dns: make(chan struct{}, g.opt.Limits.SandboxDNS)}
	if sb.id == "" {
		sb.id = strconv.FormatUint(uint64(c.ID), 10)
	}
	sb.ctx, sb.cancel = context.WithCancel(g.ctx)
	sb.leaves.init()
	sb.tls = sb.newTLSConfig()
	for a, n := range c.Names {
		sb.names.learn(a, n)
	}
	return sb
}

// prepare sets the socket options that replies to datagrams need.
func (sb *sandbox) prepare() error {
	for _, c := range []*net.UDPConn{sb.cfg.DNSUDP4, sb.cfg.DNSUDP6} {
		if c != nil {
			if err := askForDestination(c); err != nil {
				return err
			}
		}
	}
	for _, p := range []struct {
		in  *net.UDPConn
		out *net.IPConn
	}{{sb.cfg.UDP4, sb.cfg.Reply4}, {sb.cfg.UDP6, sb.cfg.Reply6}} {
		if p.in == nil || p.out == nil {
			continue
		}
		s, err := newDatagramSockets(p.in, p.out)
		if err != nil {
			return err
		}
		sb.datagrams = append(sb.datagrams, s)
	}
	for _, c := range sb.cfg.Datagrams {
		s, err := newRedirectedSocket(c, sb.cfg.ID)
		if err != nil {
			return err
		}
		sb.redirected = append(sb.redirected, s)
	}
	return nil
}

// start runs the accept loops.
func (sb *sandbox) start() {
	run := func(f func()) {
		sb.wg.Add(1)
		go func() { defer sb.wg.Done(); f() }()
	}
	for _, l := range []net.Listener{sb.cfg.TCP4, sb.cfg.TCP6} {
		if l != nil {
			run(func() { sb.accept(l, sb.serveConn) })
		}
	}
	for _, l := range []net.Listener{sb.cfg.DNSTCP4, sb.cfg.DNSTCP6} {
		if l != nil {
			run(func() { sb.accept(l, sb.serveDNSConn) })
		}
	}
	for _, c := range []*net.UDPConn{sb.cfg.DNSUDP4, sb.cfg.DNSUDP6} {
		if c != nil {
			run(func() { sb.serveDNSPackets(c) })
		}
	}
	for _, s := range sb.datagrams {
		run(func() { sb.relayDatagrams(s) })
	}
	for _, s := range sb.redirected {
		run(func() { sb.relayRedirected(s) })
	}
	run(sb.sweep)
}

// stopListening ends the loops that take what arrives. Sockets that are kept
// stay open, and every read from them, going on or to come, ends at once.
func (sb *sandbox) stopListening() {
	for _, l := range []net.Listener{sb.cfg.TCP4, sb.cfg.TCP6, sb.cfg.DNSTCP4, sb.cfg.DNSTCP6} {
		t, ok := l.(*net.TCPListener)
		switch {
		case l == nil:
		case sb.cfg.Kept && ok:
			_ = t.SetDeadline(past) // fails for one that was closed: then nobody reads
		default:
			l.Close()
		}
	}
	for _, c := range []*net.UDPConn{sb.cfg.DNSUDP4, sb.cfg.DNSUDP6, sb.cfg.UDP4, sb.cfg.UDP6} {
		switch {
		case c == nil:
		case sb.cfg.Kept:
			_ = c.SetReadDeadline(past) // as above; answers go on
		default:
			c.Close()
		}
	}
	for _, s := range sb.redirected { // answers go on while the gateway drains
		s.stop()
	}
}

// noMore says that a socket was closed or is not to be read from any more.
func noMore(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

// close ends everything of the sandbox, once; wg tells when it is over.
func (sb *sandbox) close(code string) {
	sb.stopListening()
	sb.mu.Lock()
	sb.closed = true
	for f := range sb.flows {
		f.kill(code, "")
	}
	sb.mu.Unlock()
	sb.associations.close(code)
	if !sb.cfg.Kept { // answers went on while the gateway drained
		for _, c := range sb.cfg.Datagrams {
			c.Close()
		}
		for _, c := range []*net.IPConn{sb.cfg.Reply4, sb.cfg.Reply6} {
			if c != nil {
				c.Close()
			}
		}
	}
	sb.cancel()
	if e := sb.epoch.Load(); e != nil {
		go e.close() // as in setSnapshot
	}
	sb.g.owners.leave(sb.owner)
}

// setSnapshot puts s in force for what begins; see judges for what is open.
func (sb *sandbox) setSnapshot(s *policy.Snapshot) {
	if old := sb.epoch.Swap(newEpoch(sb, s)); old != nil {
		go old.close() // a server that reads nothing may keep it for seconds
	}
}

// track registers a flow; false when the sandbox is closed or full.
func (sb *sandbox) track(f *flow) (code string, ok bool) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	switch {
	case sb.closed:
		return codeStopped, false
	case len(sb.flows) >= sb.g.opt.Limits.SandboxConns, !sb.g.owners.take(sb.owner, sb.g.opt.Limits.Conns):
		return codeConnections, false
	}
	sb.flows[f] = struct{}{}
	sb.g.conns.Add(1)
	sb.g.metrics.active.Inc()
	sb.g.metrics.accepted.Inc()
	return "", true
}

func (sb *sandbox) untrack(f *flow) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if _, ok := sb.flows[f]; ok {
		delete(sb.flows, f)
		sb.g.owners.give(sb.owner)
		sb.g.conns.Add(-1)
		sb.g.metrics.active.Dec()
	}
}

// endIdle closes connections that wait for a request, when the gateway ends.
func (sb *sandbox) endIdle() {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	for f := range sb.flows {
		if s := f.straight.Load(); s != nil {
			s.endIdle()
		}
	}
}

// sweep closes connections that have been silent for too long.
func (sb *sandbox) sweep() {
	every := max(sb.g.opt.Limits.RelayIdle/20, 10*time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-sb.ctx.Done():
			return
		case now := <-tick.C:
			sb.mu.Lock()
			for f := range sb.flows {
				if f.silentSince(now) > sb.g.opt.Limits.RelayIdle {
					f.kill(codeIdle, "")
				}
			}
			sb.mu.Unlock()
		}
	}
}

// event starts an event of this sandbox.
func (sb *sandbox) event(kind event.Kind, layer string) event.Event {
	ev := event.Event{Kind: kind, Time: time.Now().UTC(), Source: "gateway", Layer: layer,
		Sandbox: sb.id, Scope: sb.scope, Direction: "outbound", Proto: "tcp"}
	if e := sb.epoch.Load(); e != nil {
		ev.Revision = e.snap.Revision()
	}
	return ev
}

// nameTable maps virtual addresses to names. An address stands for one name
// for the life of the sandbox, so the table only grows; the keeper bounds it.
type nameTable struct {
	mu     sync.RWMutex
	byAddr map[netip.Addr]string
}

func (t *nameTable) learn(a netip.Addr, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byAddr == nil {
		t.byAddr = map[netip.Addr]string{}
	}
	t.byAddr[a] = name
}

func (t *nameTable) name(a netip.Addr) (string, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok := t.byAddr[a]
	return n, ok
}
