// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/ringfence/ringfence/pkg/gateway/upstream"
	"github.com/ringfence/ringfence/pkg/policy"
)

// mode is the treatment of a connection. The zero value refuses it.
type mode uint8

const (
	modeDeny      mode = iota
	modeRelay          // bytes are passed; a ClientHello must name the name
	modeLiteral        // bytes are passed to a literal address
	modeWeb            // port 80: HTTP with the Host checked
	modeInspect        // HTTP that policy looks into, TLS terminated
	modeInference      // a provider host: TLS terminated, requests go to pkg/inference
	modeRefusal        // the refusal address: every request is answered 403
)

// route is the treatment of one destination and the decision behind it.
type route struct {
	mode     mode
	decision policy.Decision
	dialect  string // modeInference
	approved bool   // by people
}

// epoch is what one sandbox sees of one policy revision, with the upstream
// connections that were judged on it: a new revision starts with none.
type epoch struct {
	sb   *sandbox
	snap *policy.Snapshot
	view *policy.View

	// A request goes on in the version it came in: what a client asked for on
	// many connections is not squeezed through the windows of a single one.
	web1 *http.Transport // HTTP/1.1
	web2 *http.Transport // HTTP/2, or HTTP/1.1 where the server has nothing else
	web  func(ctx context.Context, network, addr string) (net.Conn, error)
	kept keptConns // of straight

	mu        sync.Mutex
	providers map[string]*http.Transport // by provider document
}

func newEpoch(sb *sandbox, s *policy.Snapshot) *epoch {
	view := s.View(sb.cfg.Principal)
	if sb.cfg.Learns {
		view = view.Learning()
	}
	e := &epoch{sb: sb, snap: s, view: view.Live(sb.g.opt.Clock), providers: map[string]*http.Transport{}}
	dial := e.dialer(func(host string, port uint16) []netip.Prefix { return e.view.ResolvesTo(host, port, policy.TCP) })
	e.web = dial
	e.web1 = sb.g.newTransport(dial, false)
	e.web2 = sb.g.newTransport(dial, true)
	return e
}

// close lets go of idle upstream connections; running requests keep theirs.
func (e *epoch) close() {
	e.web1.CloseIdleConnections()
	e.web2.CloseIdleConnections()
	e.kept.close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.providers {
		t.CloseIdleConnections()
	}
}

// provider is the transport to a provider: its document says which private
// addresses its host may have. An address in the base URL admits itself.
func (e *epoch) provider(p *policy.Provider) http.RoundTripper {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.providers[p.Name]
	if t == nil {
		admit := p.ResolvesTo
		t = e.sb.g.newTransport(e.dialer(func(host string, _ uint16) []netip.Prefix {
			if a, err := netip.ParseAddr(host); err == nil {
				a = upstream.Judged(a)
				return append(admit[:len(admit):len(admit)], netip.PrefixFrom(a, a.BitLen()))
			}
			return admit
		}), true)
		e.providers[p.Name] = t
	}
	return t
}

// byName decides on a name and a port.
func (e *epoch) byName(name string, port uint16) route {
	if h, ok := e.view.ProviderHost(name); ok && h.Supported() {
		n := e.view.Name(name)
		switch {
		case n.Provider == nil || !n.Resolves:
			return route{decision: n.Decision}
		case len(n.Ports) == 0 || n.Ports[0].Port != port:
			return route{decision: policy.Decision{ReasonCode: codeProviderPlain, Revision: e.snap.Revision(),
				Reason: name + " is a model provider; it is reached over TLS on its own port only"}}
		}
		return route{mode: modeInference, dialect: n.Provider.Dialect, decision: n.Decision}
	}
	d := e.view.Egress(name, port)
	switch {
	case !d.Allowed():
		return route{decision: d}
	case d.HTTP:
		return route{mode: modeInspect, decision: d}
	case port == 80:
		return route{mode: modeWeb, decision: d}
	}
	return route{mode: modeRelay, decision: d}
}

// byAddr decides on a literal address: address rules only.
func (e *epoch) byAddr(a netip.Addr, port uint16) route {
	d := e.view.Addr(upstream.Judged(a), port, policy.TCP)
	if !d.Allowed() {
		return route{decision: d}
	}
	return route{mode: modeLiteral, decision: d}
}

// target is where a relay or transport may dial for a name.
func (e *epoch) target(host string, port uint16, proto policy.Proto, admit []netip.Prefix) upstream.Target {
	return upstream.Target{Host: host, Port: port, Admit: admit, Denied: func(a netip.Addr) (string, bool) {
		d, denied := e.view.AddrDenied(a, proto, port)
		return d.Reason, denied
	}}
}

// named is the target of a name that egress rules open.
func (e *epoch) named(name string, port uint16, proto policy.Proto) upstream.Target {
	return e.target(name, port, proto, e.view.ResolvesTo(name, port, proto))
}

// stillAllowed decides a running flow again on a new revision.
func (f *flow) stillAllowed(e *epoch) (policy.Decision, bool) {
	f.mu.Lock()
	name, m, peer, t := f.name, f.mode, f.peer, f.tunnel
	approved, then := f.approved, f.decision
	f.mu.Unlock()
	switch {
	case m == modeRefusal, m == modeDeny && name == "":
		return policy.Decision{}, true // nothing leaves, or not decided yet
	case m == modeLiteral:
		r := e.byAddr(f.dst.Addr(), f.dst.Port())
		return r.decision, r.mode == modeLiteral
	}
	port := f.dst.Port()
	r := e.byName(name, port)
	if approved && approvedStill(then, r.decision) {
		r.mode = m
	}
	if r.mode != m {
		return r.decision, false
	}
	if m == modeRelay && peer.IsValid() {
		tgt := e.named(name, port, policy.TCP)
		if err := e.sb.g.dialer.JudgeAddr(tgt, peer.Addr()); err != nil {
			return policy.Decision{Reason: err.Error()}, false
		}
	}
	if t != nil {
		d := e.upgradeDecision(name, port, t.path)
		return d, d.Allowed()
	}
	return r.decision, true
}

// methodWebSocket is the pseudo-method that opens a WebSocket on a host whose
// methods policy restricts: a rule for GET alone means reading, and a WebSocket
// writes.
const methodWebSocket = "WEBSOCKET"

func (e *epoch) upgradeDecision(name string, port uint16, path string) policy.Decision {
	d := e.view.HTTP(name, port, http.MethodGet, path)
	if !d.Allowed() {
		return d
	}
	return e.view.HTTP(name, port, methodWebSocket, path)
}

// remedy is the one command that would open a destination, or, where none
// would, the sentence that says which rule stands above it.
func (sb *sandbox) remedy(name string, dst netip.AddrPort, proto policy.Proto) string {
	host := name
	if host == "" {
		host = dst.Addr().String()
	}
	if e := sb.epoch.Load(); e != nil {
		if r := e.view.Remedy(host, dst.Port(), proto); r != "" && !isCommand(r) {
			return r
		}
	}
	suffix := ""
	if proto != policy.TCP {
		suffix = "/" + proto.String()
	}
	if name == "" {
		return "ringfence allow " + dst.String() + suffix
	}
	return "ringfence allow " + name + ":" + strconv.Itoa(int(dst.Port())) + suffix
}

// isCommand tells a command from a sentence; only commands are for agents.
func isCommand(remedy string) bool { return strings.HasPrefix(remedy, "ringfence ") }

func ruleAt(r policy.RuleRef) string { return r.File + ":" + strconv.Itoa(r.Line) }
