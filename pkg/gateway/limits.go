// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
)

// Limits bound what sandboxes can make the gateway hold. Zero fields take
// their defaults.
type Limits struct {
	Conns        int // connections and datagram flows of all sandboxes, default from RLIMIT_NOFILE; shared out by owner (owners.take)
	SandboxConns int // connections of one sandbox, default 1,024 and at most a quarter of Conns
	SandboxDNS   int // DNS questions of one sandbox at a time, default 64
	Events       int // events held for the keeper, default 65,536
	HeaderBytes  int // of one request, default 64 KiB

	SandboxDatagrams int           // datagram flows of one sandbox, default 512 and at most an eighth of Conns
	DatagramIdle     time.Duration // without a datagram in either direction, default 2 min (RFC 4787, REQ-5: not less)

	Hello      time.Duration // until the ClientHello is complete, default 10 s
	Header     time.Duration // until a request's header is complete, default 20 s
	HTTPIdle   time.Duration // between requests, default 3 min
	RelayIdle  time.Duration // without a byte in either direction, default 2 h
	Dial       time.Duration // resolution and connection, default 15 s
	Keeper     time.Duration // one question to the keeper, default 5 s
	Approval   time.Duration // how long a connection waits for people, default 1 min
	Flush      time.Duration // handing over the last events at the end, default 5 s
	TellOpen   time.Duration // after which a relay that is still open gets an event of its own, default 5 s
	Patience   time.Duration // how long somebody must have waited in vain for its end to count as the destination's failure, default 1 s
	ClockLook  time.Duration // how long it sleeps at most towards a window's edge: the node's clock can be set, default 15 s
	FoldWindow time.Duration // within which alike events are folded into one, default 5 s
	Share      *event.Share  // of the log, for each sandbox; default event.NewShare()
}

func (l Limits) withDefaults() Limits {
	def(&l.Conns, connsByDescriptors())
	def(&l.SandboxConns, min(1024, max(16, l.Conns/4)))
	def(&l.SandboxDNS, 64)
	def(&l.SandboxDatagrams, min(512, max(16, l.Conns/8)))
	def(&l.DatagramIdle, 2*time.Minute)
	def(&l.Events, 65536)
	def(&l.HeaderBytes, 64<<10)
	def(&l.Hello, 10*time.Second)
	def(&l.Header, 20*time.Second)
	def(&l.HTTPIdle, 3*time.Minute)
	def(&l.RelayIdle, 2*time.Hour)
	def(&l.Dial, 15*time.Second)
	def(&l.Keeper, 5*time.Second)
	def(&l.Approval, time.Minute)
	def(&l.Flush, 5*time.Second)
	def(&l.TellOpen, 5*time.Second)
	def(&l.Patience, time.Second)
	def(&l.ClockLook, 15*time.Second)
	def(&l.FoldWindow, 5*time.Second)
	if l.Share == nil {
		l.Share = event.NewShare()
	}
	return l
}

func def[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// connsByDescriptors leaves room for one upstream connection (or splice pipe)
// per client connection, and three fifths of the descriptors for listeners: the
// keeper, with the same limit, stops at ten eighteenths (sandbox.DescriptorsEach).
func connsByDescriptors() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 256
	}
	return int(min(max(r.Cur, 1024), 1<<20)) / 5
}
