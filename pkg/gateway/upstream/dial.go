// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Target is one destination and what policy says about its addresses.
type Target struct {
	Host  string // name to resolve; "" when Addr is the destination
	Addr  netip.Addr
	Port  uint16
	Admit []netip.Prefix // addresses of closed classes that the rule admits
	// Denied tells whether a CIDR rule denies an address, and the rule's words.
	Denied func(netip.Addr) (reason string, denied bool)
	// Judged is set when address rules have opened Addr itself, whatever its
	// class. The node's own addresses, multicast and virtual ones stay closed.
	Judged bool
}

// RefusedError means that every address of a name was refused.
type RefusedError struct {
	Host  string
	Addr  netip.Addr // the first refused address
	Class Class      // why, or "" when a CIDR rule denied it
	Rule  string     // the words of that rule
}

// Error implements error.
func (e *RefusedError) Error() string {
	if e.Class == Public {
		return fmt.Sprintf("%s has the address %s, which policy denies: %s", e.Host, e.Addr, e.Rule)
	}
	return fmt.Sprintf("%s has the address %s, which is a %s address; only a rule with resolvesTo opens those (ringfence allow --resolves-to)", e.Host, e.Addr, e.Class)
}

// Code is the stable reason code of the refusal.
func (e *RefusedError) Code() string {
	if e.Class == Public {
		return "cidr-denied"
	}
	return string(e.Class) + "-address"
}

// ResolveError means that a name could not be resolved on the host's side.
type ResolveError struct{ Err error }

// Error implements error.
func (e *ResolveError) Error() string { return e.Err.Error() }

// Unwrap gives the resolver's error.
func (e *ResolveError) Unwrap() error { return e.Err }

// Dialer connects to judged addresses. It is safe for concurrent use.
type Dialer struct {
	// Immutable after New.
	resolver Resolver
	net      net.Dialer
	stagger  time.Duration
	total    time.Duration

	own atomic.Pointer[[]netip.Addr]
}

// DialerConfig configures a [Dialer].
type DialerConfig struct {
	Resolver Resolver
	// OwnAddrs are the node's own addresses: reaching a service of the node
	// through its public address needs the same rule as through loopback.
	OwnAddrs []netip.Addr
	// Timeout bounds resolution and all attempts together, 0 = 15 s.
	Timeout time.Duration
}

const (
	dialTotal   = 15 * time.Second
	dialStagger = 250 * time.Millisecond // RFC 8305, section 5
	maxAddrs    = 8                      // attempts for one name
)

// NewDialer returns a dialer.
func NewDialer(c DialerConfig) *Dialer {
	d := &Dialer{resolver: c.Resolver, stagger: dialStagger, total: c.Timeout}
	if d.total <= 0 {
		d.total = dialTotal
	}
	d.SetOwnAddrs(c.OwnAddrs)
	d.net = net.Dialer{KeepAlive: -1} // KeepAlive is for connections that turn out to last
	d.net.SetMultipathTCP(false)
	return d
}

// SetOwnAddrs replaces the node's own addresses.
func (d *Dialer) SetOwnAddrs(addrs []netip.Addr) {
	own := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		own[i] = Judged(a)
	}
	d.own.Store(&own)
}

// Judge returns the addresses of t that may be dialled, in the order of
// resolution with families interleaved (RFC 8305, section 4).
func (d *Dialer) Judge(ctx context.Context, t Target) ([]netip.Addr, error) {
	if t.Host == "" {
		return []netip.Addr{Judged(t.Addr)}, d.judgeOne(&t, t.Addr)
	}
	found, err := d.resolver.Lookup(ctx, t.Host)
	if err != nil {
		return nil, &ResolveError{err}
	}
	var refused error
	var v4, v6 []netip.Addr
	for _, a := range found {
		if err := d.judgeOne(&t, a); err != nil {
			if refused == nil {
				refused = err
			}
			continue
		}
		if a = a.Unmap().WithZone(""); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	if len(v4)+len(v6) == 0 {
		if refused == nil {
			refused = &ResolveError{fmt.Errorf("resolve %s: no address", t.Host)}
		}
		return nil, refused
	}
	return interleave(v6, v4), nil
}

// judgeOne returns why a may not be dialled, nil if it may.
func (d *Dialer) judgeOne(t *Target, a netip.Addr) error {
	judged := Judged(a)
	if t.Denied != nil {
		if why, denied := t.Denied(judged); denied {
			return &RefusedError{Host: t.name(), Addr: a, Rule: why}
		}
	}
	class := Classify(judged)
	if class != Loopback && slices.Contains(*d.own.Load(), judged) {
		class = Host
	}
	if t.Judged && class != Host && class != Virtual && class != Multicast && class != Invalid {
		return nil
	}
	if class == Public || Admits(t.Admit, judged) {
		return nil
	}
	return &RefusedError{Host: t.name(), Addr: a, Class: class}
}

func (t *Target) name() string {
	if t.Host != "" {
		return t.Host
	}
	return t.Addr.String()
}

func interleave(a, b []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(a)+len(b))
	for i := 0; i < max(len(a), len(b)); i++ {
		if i < len(a) {
			out = append(out, a[i])
		}
		if i < len(b) {
			out = append(out, b[i])
		}
	}
	return out[:min(len(out), maxAddrs)]
}

// KeepAlive makes the kernel notice a peer that is gone. Dial leaves it to the
// caller: it takes four system calls, and most connections end before it means
// anything.
func KeepAlive(c *net.TCPConn) {
	_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4})
}

// Dial connects to t: judged addresses only, the first that answers wins. The
// error is a *RefusedError when policy or an address class is the reason.
func (d *Dialer) Dial(ctx context.Context, t Target) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.total)
	defer cancel()
	addrs, err := d.Judge(ctx, t)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 1 {
		return d.dialOne(ctx, addrs[0], t.Port)
	}
	return d.race(ctx, addrs, t.Port)
}

// DialUDP makes a UDP socket whose peer is a judged address of t: the first
// that this host has a way to, as no answer tells which of them is alive. The
// error is a *RefusedError when policy or an address class is the reason.
func (d *Dialer) DialUDP(ctx context.Context, t Target) (*net.UDPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.total)
	defer cancel()
	addrs, err := d.Judge(ctx, t)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, t.Port)))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

type attempt struct {
	conn *net.TCPConn
	err  error
}

func (d *Dialer) dialOne(ctx context.Context, a netip.Addr, port uint16) (*net.TCPConn, error) {
	c, err := d.net.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// race starts an attempt per address, each a stagger after the one before or
// as soon as that one failed, and keeps the first connection.
func (d *Dialer) race(ctx context.Context, addrs []netip.Addr, port uint16) (*net.TCPConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt)
	start := func(a netip.Addr) {
		go func() {
			c, err := d.dialOne(ctx, a, port)
			r := attempt{c, err}
			select {
			case results <- r:
			case <-ctx.Done():
				if r.conn != nil {
					r.conn.Close()
				}
			}
		}()
	}
	var errs []error
	timer := time.NewTimer(0)
	defer timer.Stop()
	started := 0
	for len(errs) < len(addrs) {
		select {
		case <-timer.C:
			if started < len(addrs) {
				start(addrs[started])
				started++
				timer.Reset(d.stagger)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			errs = append(errs, r.err)
			timer.Reset(0)
		case <-ctx.Done():
			return nil, errors.Join(append(errs, ctx.Err())...)
		}
	}
	return nil, errors.Join(errs...)
}

// JudgeAddr judges an address that is connected already, against a target
// whose rules may have changed since.
func (d *Dialer) JudgeAddr(t Target, a netip.Addr) error { return d.judgeOne(&t, a) }
