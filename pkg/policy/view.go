// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

// View is what a snapshot says to one principal. It is immutable and safe for
// concurrent use; keep it as long as the snapshot.
type View struct {
	s      *Snapshot
	p      scope.Principal
	groups []uint32                   // groups of rules that are for the principal, ascending
	bits   []uint64                   // the same as a bit set
	provs  []*Provider                // those that the principal may use, by name
	routes []*Route                   // those that are for it
	opens  func() map[string]Decision // could any model of the dialect be allowed
	now    time.Time                  // see At
	clock  func() time.Time           // see Live
	ahead  bool                       // see Ahead
	learns bool                       // see Learning
	known  *termsCache
}

// View makes the view of a principal; views are cached.
func (s *Snapshot) View(p scope.Principal) *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.views[p]; v != nil {
		return v
	}
	v := &View{s: s, p: p, bits: make([]uint64, (len(s.groups)+63)/64), known: &termsCache{}}
	for _, some := range [][]uint32{s.ofMany, s.ofAgent[p.Agent]} {
		for _, i := range some {
			if s.groups[i].Matches(p, "", "") {
				v.groups = append(v.groups, i)
				v.bits[i>>6] |= 1 << (i & 63)
			}
		}
	}
	slices.Sort(v.groups)
	for i := range s.providers {
		if q := &s.providers[i]; q.Scope.Matches(p, "", "") {
			v.provs = append(v.provs, q)
		}
	}
	for i := range s.routes {
		if r := &s.routes[i]; r.Scope.Matches(p, "", "") {
			v.routes = append(v.routes, r)
		}
	}
	v.opens = sync.OnceValue(v.openDialects)
	if len(s.views) >= maxViews {
		clear(s.views)
	}
	s.views[p] = v
	return v
}

// At is the view at a time. Without one, windows and expressions on now are
// errors: what restricts counts, what loosens does not.
func (v *View) At(t time.Time) *View {
	w := *v
	w.now, w.clock, w.ahead = t, nil, false
	return &w
}

// Live is the view at the time of each decision. The clock is asked only where
// a condition wants the time.
func (v *View) Live(clock func() time.Time) *View {
	w := *v
	w.now, w.clock, w.ahead = time.Time{}, clock, false
	return &w
}

// Ahead is the view for all times: conditions of egress rules are not asked but
// left open, and a connection gets the best that they could give it. It
// evaluates no expression. Name and CIDRTable always decide so, for what they say
// stands until the policy changes; who lets a connection pass decides again.
func (v *View) Ahead() *View {
	w := *v
	w.now, w.clock, w.ahead = time.Time{}, nil, true
	return &w
}

// Principal is whose view it is.
func (v *View) Principal() scope.Principal { return v.p }

// Snapshot is what it is a view of.
func (v *View) Snapshot() *Snapshot { return v.s }

// Revision is the revision of the snapshot.
func (v *View) Revision() uint64 { return v.s.rev }

// condMode is how conditions count that cannot be asked yet: those on requests
// when there is only a connection, and all when the view is ahead. The modes are
// tried in order. What only some other choice among several open conditions would
// give (one that displaces a rule, without another that binds) is not found, and
// refused.
type condMode uint8

const (
	condOpen condMode = iota // what the luckiest could get: only allows count
	condAsk                  // the next best: allows and approvals count
	condAll                  // all count
)

// counts says whether a rule of which a condition is open counts.
func (mode condMode) counts(r *crule) bool {
	switch mode {
	case condOpen:
		return r.effect == Allow
	case condAsk:
		return r.effect != Block
	}
	return true
}

// undecided tells of rules in force whose conditions were left open.
type undecided struct {
	any      bool
	requests bool // some of them on requests
}

// filter keeps the rules of m that cover port and protocol and whose conditions
// hold, or are left open and count in the mode.
func (v *View) filter(m []hit, f *facts, proto Proto, mode condMode) (_ []hit, left undecided) {
	f.crowded = v.crowded(m)
	k := 0
	for _, h := range m {
		r := v.s.rule(h)
		if !r.covers(f.port, proto) {
			continue
		}
		if r.http != nil || r.when != nil {
			var counts bool
			if h, counts = r.conditions(h, f, mode, &left); !counts {
				continue
			}
		}
		if r.proto == 0 && proto != TCP {
			h |= r.narrows()
		}
		m[k] = h
		k++
	}
	return m[:k], left
}

// conditions says what its conditions make of a match of which no request is
// known. Rules in shadow mode leave nothing undecided: a connection is not looked
// into for their sake.
func (r *crule) conditions(h hit, f *facts, mode condMode, left *undecided) (_ hit, counts bool) {
	requests := r.http != nil || r.when != nil && r.when.Request
	if r.when != nil && !f.ahead {
		if h, counts = r.weigh(h, r.when.known(f)); !counts {
			return h, false
		}
	}
	if requests && f.opaque {
		if h, counts = r.unsure(h | r.narrows()); !counts {
			return h, false
		}
		requests = false
	}
	if !requests && (r.when == nil || !f.ahead) {
		return h, true
	}
	if !r.shadow {
		left.any, left.requests = true, left.requests || requests
	}
	return h, mode.counts(r)
}

// narrows marks an approval that must not open what it meets here.
func (r *crule) narrows() hit {
	if r.effect == RequireApproval {
		return hitNarrows
	}
	return 0
}

// weigh is what a condition makes of a match.
func (r *crule) weigh(h hit, t truth) (_ hit, counts bool) {
	switch t {
	case condTrue:
		return h, true
	case condError:
		return r.unsure(h)
	}
	return h, false
}

// named decides a host and port on name rules. hosts are the rules that match
// the host; it is not changed.
func (v *View) named(hosts []hit, f *facts, proto Proto) Decision {
	var buf [32]hit
	m, left := v.filter(append(buf[:0], hosts...), f, proto, condOpen)
	d := v.verdict(m, v.silent(proto))
	for mode := condAsk; left.any && d.Effect != Allow && mode <= condAll; mode++ {
		m, _ = v.filter(append(buf[:0], hosts...), f, proto, mode)
		if next := v.verdict(m, v.silent(proto)); next.Effect > d.Effect || d.Effect == Block {
			d = next
		}
	}
	d.HTTP = left.requests && d.Effect != Block
	return d
}

func (v *View) facts(host string, port uint16) facts {
	return facts{principal: &v.p, now: v.now, clock: v.clock, ahead: v.ahead, host: host, port: port}
}

// hostRules finds the rules of a host, or the decision when there is
// nothing to decide on: literal addresses, bad names, provider hosts.
func (v *View) hostRules(m []hit, host string) (_ []hit, name string, prov *ProviderHost, ok bool) {
	name, ok = lookupHost(host)
	if !ok {
		return m, name, nil, false
	}
	m, prov = v.s.hosts.match(m, v, name)
	return m, name, prov, true
}

// unnamed decides a host that is not a name: a literal address on the address
// rules, everything else is refused.
func (v *View) unnamed(host string, port uint16, proto Proto) Decision {
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		return v.Addr(a, port, proto)
	}
	return v.s.refuse(CodeBadName, reasonBadName)
}

func (v *View) providerRefusal(h *ProviderHost) Decision {
	if !h.Supported() {
		return v.s.refuse(CodeProviderUnsupported, h.unsupported())
	}
	return v.s.refuse(CodeProviderHost, reasonProvider)
}

// Egress decides a TCP connection to a host and port. Allowed with HTTP set
// means that the flow must be inspected and each request asked with View.HTTP.
// The host is a name, case and a trailing dot do not matter; a literal address
// is decided as by Addr. Hosts of providers are always refused here: Name says
// whether an inference rule opens them.
func (v *View) Egress(host string, port uint16) Decision {
	var buf [32]hit
	m, name, prov, ok := v.hostRules(buf[:0], host)
	switch {
	case !ok:
		return v.unnamed(host, port, TCP)
	case prov != nil:
		return v.providerRefusal(prov)
	}
	m, plain := v.covering(m, port, TCP)
	if plain {
		return v.verdict(m, v.silent(TCP))
	}
	f := v.facts(name, port)
	return v.named(m, &f, TCP)
}

// covering keeps the rules of m that cover port and protocol, as filter does;
// plain says that none of them has a condition.
func (v *View) covering(m []hit, port uint16, proto Proto) (_ []hit, plain bool) {
	k := 0
	for i, h := range m {
		r := v.s.rule(h)
		if !r.covers(port, proto) {
			continue
		}
		if r.http != nil || r.when != nil {
			return append(m[:k], m[i:]...), false
		}
		if r.proto == 0 && proto != TCP {
			h |= r.narrows()
		}
		m[k] = h
		k++
	}
	return m[:k], true
}

// Opaque decides a flow that cannot be inspected: conditions on HTTP count as
// matched for rules that block and as not matched for rules that allow.
func (v *View) Opaque(host string, port uint16) Decision { return v.unseen(host, port, TCP) }

// Datagrams decides UDP to a host and port. Nothing looks into datagrams, so
// conditions on HTTP count as for Opaque; hosts of providers are refused.
func (v *View) Datagrams(host string, port uint16) Decision { return v.unseen(host, port, UDP) }

func (v *View) unseen(host string, port uint16, proto Proto) Decision {
	var buf [32]hit
	m, name, prov, ok := v.hostRules(buf[:0], host)
	switch {
	case !ok:
		return v.unnamed(host, port, proto)
	case prov != nil:
		return v.providerRefusal(prov)
	}
	m, plain := v.covering(m, port, proto)
	if plain {
		return v.verdict(m, v.silent(proto))
	}
	f := v.facts(name, port)
	f.opaque = true
	return v.named(m, &f, proto)
}

// HTTP decides one request. path is the request target as received, still
// escaped; a query is ignored. Method and path must be exactly what will be
// forwarded. A path that servers read in different ways (dot segments, "//",
// an escaped slash) makes conditions on paths errors: block counts as matched,
// allow does not.
func (v *View) HTTP(host string, port uint16, method, path string) Decision {
	var buf [32]hit
	m, name, prov, ok := v.hostRules(buf[:0], host)
	switch {
	case !ok:
		return v.unnamed(host, port, TCP)
	case prov != nil:
		return v.providerRefusal(prov)
	}
	f := v.facts(name, port)
	silent := v.silent(TCP)
	if silent != noRule && len(v.resolvesTo(m, &f, TCP)) > 0 {
		silent = noRule // the connection may lead to what is not public, for the sake of other requests
	}
	return v.verdict(v.request(m, &f, method, path), silent)
}

// request keeps the rules of m that match the port and the request.
func (v *View) request(m []hit, f *facts, method, path string) []hit {
	f.crowded = v.crowded(m)
	canonical, checked := false, false
	k := 0
	for _, h := range m {
		r := v.s.rule(h)
		if !r.covers(f.port, TCP) {
			continue
		}
		if (r.http != nil || r.when != nil) && !checked {
			path, canonical = canonicalPath(path)
			f.method, f.path, f.request, checked = method, path, canonical && method != "", true
		}
		counts := true
		if r.http != nil {
			h, counts = r.weigh(h, r.http.match(method, path, canonical))
		}
		if counts && r.when != nil {
			h, counts = r.weigh(h, r.when.holds(f))
		}
		if !counts {
			continue
		}
		m[k] = h
		k++
	}
	return m[:k]
}

// ResolvesTo lists the private prefixes that a host may resolve to when the
// port is spoken to by the protocol: those of every rule that shares in the winning
// word. nil when there are none, or the host is not allowed, not even with an
// approval.
func (v *View) ResolvesTo(host string, port uint16, proto Proto) []netip.Prefix {
	var buf [32]hit
	m, name, prov, ok := v.hostRules(buf[:0], host)
	if !ok || prov != nil {
		return nil
	}
	f := v.facts(name, port)
	f.opaque = proto == UDP
	return v.resolvesTo(m, &f, proto)
}

func (v *View) resolvesTo(hosts []hit, f *facts, proto Proto) []netip.Prefix {
	var out []netip.Prefix
	best := Block
	for mode := condOpen; mode <= condAll; mode++ {
		m, _ := v.filter(slices.Clone(hosts), f, proto, mode)
		live, _ := v.s.live(m)
		m = m[:live]
		o := v.s.decide(m, v.silent(proto))
		if o.effect <= best || o.winner < 0 {
			continue
		}
		best, out = o.effect, nil
		for _, h := range m {
			r := v.s.rule(h)
			if r.level == o.layer && r.effect == o.effect && r.speaks(h) && v.s.givesWay(m, r) < 0 {
				out = append(out, r.resolvesTo...)
			}
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// NameDecision says what a DNS question for a name gets.
type NameDecision struct {
	Name     string // canonical
	Resolves bool
	// Ports are the ports that are allowed or wait for an approval, ascending,
	// TCP before UDP: each Decision says which. Port 0 is every port that has no
	// entry, of a view that learns. What is not listed is refused; ask Egress or
	// Datagrams why.
	Ports []PortDecision
	// Decision is why not when Resolves is false, else that of the first port.
	Decision Decision
	// Provider is set when the name is a host of a provider whose dialect is
	// built, whether it resolves or not.
	Provider *ProviderRoute
	// Wildcard: only a pattern allows the name, no rule spells it out. The
	// resolver holds such names to its budgets of length and number.
	Wildcard bool
}

// PortDecision is one port of a name that is allowed or wants an approval.
type PortDecision struct {
	Port       uint16
	Proto      Proto
	Decision   Decision
	HTTP       bool // must be terminated and inspected; same as Decision.HTTP
	ResolvesTo []netip.Prefix
}

// ProviderRoute is how a provider's host is answered.
type ProviderRoute struct {
	Host      string
	Dialect   string
	Providers []*Provider // who answers without a route; see View.Trial where there are none
}

// Name decides whether a name resolves: whether any of its ports could be
// allowed or sent to approval at some time, or, for a provider's host, whether any
// model could. See Ahead.
func (v *View) Name(host string) NameDecision {
	var buf [32]hit
	m, name, prov, ok := v.hostRules(buf[:0], host)
	nd := NameDecision{Name: name}
	switch {
	case !ok:
		nd.Decision = v.s.refuse(CodeBadName, reasonBadName)
		return nd
	case prov != nil:
		v.providerName(&nd, prov)
		return nd
	}
	nd.Wildcard = true
	var doors []PortDecision
	if v.learns {
		doors = append(doors, PortDecision{Proto: TCP})
	}
	for _, h := range m {
		r := v.s.rule(h)
		if !r.grants() {
			continue
		}
		if r.host.Kind == HostExact {
			nd.Wildcard = false
		}
		if !slices.ContainsFunc(doors, func(d PortDecision) bool { return d.Port == r.port && d.Proto == r.opens() }) {
			doors = append(doors, PortDecision{Port: r.port, Proto: r.opens()})
		}
	}
	slices.SortFunc(doors, func(a, b PortDecision) int { return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto)) })
	first := true
	for _, door := range doors {
		f := facts{principal: &v.p, ahead: true, opaque: door.Proto == UDP, host: name, port: door.Port}
		d := v.named(m, &f, door.Proto)
		if d.Effect != Block {
			door.Decision, door.HTTP, door.ResolvesTo = d, d.HTTP, v.resolvesTo(m, &f, door.Proto)
			nd.Ports = append(nd.Ports, door)
		}
		if first || d.Effect > nd.Decision.Effect {
			nd.Decision = d
		}
		first = false
	}
	nd.Resolves = len(nd.Ports) > 0
	if first {
		nd.Decision = v.closed(m, name)
	}
	if !nd.Resolves {
		nd.Wildcard = false
	}
	return nd
}

// closed is the decision on a name that no rule in force opens. Of the ports
// that one in shadow mode would open it is the first such one's, so that this is
// recorded.
func (v *View) closed(hosts []hit, name string) Decision {
	f := facts{principal: &v.p, ahead: true, host: name}
	for _, h := range hosts {
		if r := v.s.rule(h); r.shadow && r.effect != Block && r.opens() == TCP {
			f.port = r.port
			break
		}
	}
	return v.named(hosts, &f, TCP)
}

func (v *View) providerName(nd *NameDecision, h *ProviderHost) {
	if !h.Supported() {
		nd.Decision = v.s.refuse(CodeProviderUnsupported, h.unsupported())
		return
	}
	nd.Provider = &ProviderRoute{Host: nd.Name, Dialect: h.Dialect, Providers: v.ProvidersAt(nd.Name, h.Dialect)}
	nd.Decision = v.opens()[h.Dialect]
	if nd.Decision.Effect != Block {
		nd.Resolves = true
		nd.Ports = []PortDecision{{Port: h.Port, Proto: TCP, Decision: nd.Decision, HTTP: true}}
	}
}

// ProviderHost reports whether a host is a provider's; the entry's Dialect is
// "" when calls to it are refused.
func (v *View) ProviderHost(host string) (ProviderHost, bool) {
	name, ok := lookupHost(host)
	if !ok {
		return ProviderHost{}, false
	}
	h := v.s.hosts.provider(name)
	if h == nil {
		return ProviderHost{}, false
	}
	return *h, true
}

// Providers are those that the principal may use, by name. They must not be
// changed.
func (v *View) Providers() []*Provider { return v.provs }

// ProvidersAt are those of them that agents reach at a canonical host, by name.
func (v *View) ProvidersAt(host, dialect string) (out []*Provider) {
	for _, p := range v.provs {
		if p.Dialect == dialect && p.At(host) {
			out = append(out, p)
		}
	}
	return out
}

// Trial says whether the built-in trial provider answers calls of a dialect: the
// principal has no provider of it.
func (v *View) Trial(dialect string) bool {
	return !slices.ContainsFunc(v.provs, func(p *Provider) bool { return p.Dialect == dialect })
}
