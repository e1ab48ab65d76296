// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/gateway/clienthello"
	"github.com/ringfence/ringfence/pkg/policy"
)

// flow is one accepted connection.
type flow struct {
	// Immutable after newFlow.
	sb     *sandbox
	start  time.Time
	conn   *clienthello.Conn
	dst    netip.AddrPort // as the sandbox asked for it
	client uint32         // tag of the process at the other end; 0: not known
	ticket *ticket
	ctx    context.Context // ends when the flow is killed
	cancel context.CancelFunc

	grant heldGrant

	straight atomic.Pointer[straight] // while requests are served in place
	requests atomic.Int64             // terminated: complete requests
	in, out  atomic.Uint64            // terminated: raw bytes towards and from the sandbox

	// mu guards what follows.
	mu       sync.Mutex
	name     string // "" for a literal address
	mode     mode
	decision policy.Decision
	approved bool           // the decision is people's
	waits    string         // the id that it waited for people as
	peer     netip.AddrPort // what a relay dialled
	upstream *net.TCPConn
	tunnel   *tunnel // an upgraded request
	from, to string  // the ends as events have them, once there was one
	killed   string  // reason code
	why      string
	seen     uint64 // byte counters at the last look
	since    time.Time
}

// tunnel is the request that a flow was upgraded by.
type tunnel struct{ method, path string }

func newFlow(sb *sandbox, c *net.TCPConn, from origin, t *ticket) *flow {
	f := &flow{sb: sb, start: time.Now(), conn: clienthello.NewConn(c), dst: from.dst, client: from.client, ticket: t}
	f.since = f.start
	f.ctx, f.cancel = context.WithCancel(sb.ctx)
	return f
}

// set records how the flow is treated, for the next policy revision.
func (f *flow) set(name string, r route) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.name, f.mode, f.decision, f.approved = name, r.mode, r.decision, r.approved
}

// setUpstream takes a relay's upstream; false when the flow is dead already.
// It judges the flow once more, so that a policy change between the decision
// and the connection is not missed.
func (f *flow) setUpstream(c *net.TCPConn) bool {
	f.mu.Lock()
	f.upstream = c
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		f.peer = unmapped(a.AddrPort())
	}
	dead := f.killed != ""
	f.mu.Unlock()
	if dead {
		return false
	}
	if e := f.sb.epoch.Load(); e != nil {
		f.judgeAgain(e)
	}
	code, _ := f.wasKilled()
	return code == ""
}

// judgeAgain implements judged.
func (f *flow) judgeAgain(e *epoch) {
	if code, _ := f.wasKilled(); code != "" {
		return
	}
	if d, ok := f.stillAllowed(e); !ok {
		f.kill(codeRevoked, d.Reason)
	}
}

// kill ends the flow at once; both sides see a reset.
func (f *flow) kill(code, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.killed != "" {
		return
	}
	f.killed, f.why = code, why
	f.cancel()
	reset(f.conn.TCPConn)
	if f.upstream != nil {
		reset(f.upstream)
	}
}

func (f *flow) wasKilled() (code, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.killed, f.why
}

// silentSince is how long no byte has passed.
func (f *flow) silentSince(now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.in.Load() + f.out.Load()
	if f.upstream != nil {
		n = tcpBytes(f.conn.TCPConn) + tcpBytes(f.upstream)
	}
	if n != f.seen {
		f.seen, f.since = n, now
	}
	return now.Sub(f.since)
}

// tcpBytes is what a connection has carried, in both directions. Splice moves
// bytes without showing them to us, the kernel counts them.
func tcpBytes(c *net.TCPConn) (n uint64) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Bytes_acked + info.Bytes_received
		}
	})
	return n
}

// reset closes c so that the peer sees RST, not an orderly end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// event tells of the whole connection.
func (f *flow) event(kind event.Kind) event.Event {
	ev := f.sb.event(kind, "gateway")
	f.mu.Lock()
	defer f.mu.Unlock()
	ev.Time, ev.End = f.start.UTC(), ev.Time
	ev.Duration = time.Since(f.start)
	ev.Activity = "open"
	if f.to == "" {
		f.to = f.dst.String()
		if a := f.conn.RemoteAddr(); a != nil {
			f.from = a.String()
		}
	}
	ev.SrcAddr, ev.DstAddr, ev.DstPort, ev.DstName = f.from, f.to, f.dst.Port(), f.name
	ev.PID = f.client
	if f.peer.IsValid() {
		ev.PeerAddr = f.peer.String()
	}
	applyDecision(&ev, f.decision)
	return ev
}

// deny records that the connection was refused and why.
func (f *flow) deny(code, reason string) {
	if c, why := f.wasKilled(); c != "" {
		f.ended(c, why)
		return
	}
	ev := f.event(event.KindNetwork)
	ev.Verdict, ev.ReasonCode, ev.Reason = event.Denied, code, reason
	if f.decision.Allowed() {
		ev.Rule, ev.RuleAt, ev.Shadow = "", "", "" // the rule allowed it; something else refused
	}
	f.ticket.postFolded(ev)
}

// denyByPolicy records the decision as it stands, with its remedy.
func (f *flow) denyByPolicy() {
	ev := f.event(event.KindNetwork)
	if ev.Remedy = f.approvalRemedy(); ev.Remedy == "" {
		ev.Remedy = f.sb.remedy(ev.DstName, f.dst, policy.TCP)
	}
	f.ticket.postFolded(ev)
}

// applyDecision copies a policy decision into an event.
func applyDecision(ev *event.Event, d policy.Decision) {
	ev.Verdict = event.Denied
	if d.Allowed() {
		ev.Verdict = event.Allowed
	}
	ev.Reason, ev.ReasonCode, ev.Rule, ev.Shadow = d.Reason, d.ReasonCode, d.Rule.String(), d.WouldBe()
	if d.Rule.File != "" {
		ev.RuleAt = ruleAt(d.Rule)
	}
	if d.Revision != 0 {
		ev.Revision = d.Revision
	}
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
