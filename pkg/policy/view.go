// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"github.com/ringfence/ringfence/pkg/scope"
)

// View is what a snapshot says to one principal. It is immutable and safe for
// concurrent use; keep it as long as the snapshot.
type View struct {
	s      *Snapshot
	p      scope.Principal
	groups []uint32 // groups of rules that are for the principal, ascending
	bits   []uint64 // the same as a bit set
	prov   map[string]*Provider
	opens  func() map[string]Decision // could any model of the dialect be allowed
}

// View makes the view of a principal; views are cached.
func (s *Snapshot) View(p scope.Principal) *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.views[p]; v != nil {
		return v
	}
	v := &View{s: s, p: p, bits: make([]uint64, (len(s.groups)+63)/64), prov: map[string]*Provider{}}
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
			v.prov[q.Dialect] = q
		}
	}
	v.opens = sync.OnceValue(v.openDialects)
	if len(s.views) >= maxViews {
		clear(s.views)
	}
	s.views[p] = v
	return v
}

// Principal is whose view it is.
func (v *View) Principal() scope.Principal { return v.p }

// Snapshot is what it is a view of.
func (v *View) Snapshot() *Snapshot { return v.s }

// Revision is the revision of the snapshot.
func (v *View) Revision() uint64 { return v.s.rev }

// How conditions on HTTP requests count when there is no request yet.
type condMode uint8

const (
	condOpaque condMode = iota // the flow cannot be inspected: blocks count, allows do not
	condOpen                   // what some request could get: allows count, blocks do not
	condAll                    // all count
)

// filter keeps the rules of m that cover port and protocol and count in the
// mode. conditional reports whether any rule that covers them has a condition.
func (v *View) filter(m []uint32, port uint16, proto Proto, mode condMode) (_ []uint32, conditional bool) {
	k := 0
	for _, i := range m {
		r := &v.s.rules[i]
		if !r.covers(port, proto) {
			continue
		}
		if r.http != nil {
			conditional = true
			if mode == condOpaque && r.effect == Allow || mode == condOpen && r.effect == Block {
				continue
			}
		}
		m[k] = i
		k++
	}
	return m[:k], conditional
}

// named decides a host and TCP port on name rules. hosts are the rules that match
// the host; it is not changed.
func (v *View) named(hosts []uint32, port uint16) Decision {
	var buf [32]uint32
	m, conditional := v.filter(append(buf[:0], hosts...), port, TCP, condOpen)
	out := v.s.decide(m, false)
	if conditional && out.effect != Allow {
		m, _ = v.filter(append(buf[:0], hosts...), port, TCP, condAll)
		out = v.s.decide(m, false)
	}
	d := v.s.decision(out)
	d.HTTP = conditional && d.Allowed
	return d
}

// hostRules finds the rules of a host, or the decision when there is
// nothing to decide on: literal addresses, bad names, provider hosts.
func (v *View) hostRules(m []uint32, host string) (_ []uint32, name string, prov *ProviderHost, ok bool) {
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
		return v.s.refuse(CodeProviderUnsupported, reasonUnsupported)
	}
	return v.s.refuse(CodeProviderHost, reasonProvider)
}

// Egress decides a TCP connection to a host and port. Allowed with HTTP set
// means that the flow must be inspected and each request asked with View.HTTP.
// The host is a name, case and a trailing dot do not matter; a literal address
// is decided as by Addr. Hosts of providers are always refused here: Name says
// whether an inference rule opens them.
func (v *View) Egress(host string, port uint16) Decision {
	var buf [32]uint32
	m, _, prov, ok := v.hostRules(buf[:0], host)
	switch {
	case !ok:
		return v.unnamed(host, port, TCP)
	case prov != nil:
		return v.providerRefusal(prov)
	}
	return v.named(m, port)
}

// Opaque decides a flow that cannot be inspected: conditions on HTTP count as
// matched for rules that block and as not matched for rules that allow.
func (v *View) Opaque(host string, port uint16) Decision { return v.unseen(host, port, TCP) }

// Datagrams decides UDP to a host and port. Nothing looks into datagrams, so
// conditions on HTTP count as for Opaque; hosts of providers are refused.
func (v *View) Datagrams(host string, port uint16) Decision { return v.unseen(host, port, UDP) }

func (v *View) unseen(host string, port uint16, proto Proto) Decision {
	var buf [32]uint32
	m, _, prov, ok := v.hostRules(buf[:0], host)
	switch {
	case !ok:
		return v.unnamed(host, port, proto)
	case prov != nil:
		return v.providerRefusal(prov)
	}
	m, _ = v.filter(m, port, proto, condOpaque)
	return v.s.decision(v.s.decide(m, false))
}

// HTTP decides one request. path is the request target as received, still
// escaped; a query is ignored. Method and path must be exactly what will be
// forwarded. A path that servers read in different ways (dot segments, "//",
// an escaped slash) makes conditions on paths errors: block counts as matched,
// allow does not.
func (v *View) HTTP(host string, port uint16, method, path string) Decision {
	var buf [32]uint32
	m, _, prov, ok := v.hostRules(buf[:0], host)
	switch {
	case !ok:
		return v.unnamed(host, port, TCP)
	case prov != nil:
		return v.providerRefusal(prov)
	}
	m = v.request(m, port, method, path)
	return v.s.decision(v.s.decide(m, false))
}

// request keeps the rules of m that match the port and the request.
func (v *View) request(m []uint32, port uint16, method, path string) []uint32 {
	canonical, checked := false, false
	k := 0
	for _, i := range m {
		r := &v.s.rules[i]
		if !r.covers(port, TCP) {
			continue
		}
		if r.http != nil {
			if !checked {
				path, canonical = canonicalPath(path)
				checked = true
			}
			if t := r.http.match(method, path, canonical); t == condFalse || t == condError && r.effect == Allow {
				continue
			}
		}
		m[k] = i
		k++
	}
	return m[:k]
}

// ResolvesTo lists the private prefixes that a host may resolve to when the
// port is spoken to by the protocol: those of every allow rule that shares in the winning
// word. nil when there are none, or the host is not allowed.
func (v *View) ResolvesTo(host string, port uint16, proto Proto) []netip.Prefix {
	var buf [32]uint32
	m, _, prov, ok := v.hostRules(buf[:0], host)
	if !ok || prov != nil {
		return nil
	}
	return v.resolvesTo(m, port, proto)
}

func (v *View) resolvesTo(hosts []uint32, port uint16, proto Proto) []netip.Prefix {
	modes := []condMode{condOpen, condAll}
	if proto == UDP {
		modes = []condMode{condOpaque}
	}
	for _, mode := range modes {
		m, _ := v.filter(slices.Clone(hosts), port, proto, mode)
		o := v.s.decide(m, false)
		if o.effect != Allow || o.winner < 0 {
			continue
		}
		var out []netip.Prefix
		for _, i := range m {
			r := &v.s.rules[i]
			if r.level == o.layer && r.effect == Allow && v.s.givesWay(m, r) < 0 {
				out = append(out, r.resolvesTo...)
			}
		}
		slices.SortFunc(out, netip.Prefix.Compare)
		return slices.Compact(out)
	}
	return nil
}

// NameDecision says what a DNS question for a name gets.
type NameDecision struct {
	Name     string // canonical
	Resolves bool
	// Ports are the ports that are allowed, ascending, TCP before UDP: each
	// Decision is an allow. What is not listed is refused; ask Egress or
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

// PortDecision is one allowed port of a name.
type PortDecision struct {
	Port       uint16
	Proto      Proto
	Decision   Decision
	HTTP       bool // must be terminated and inspected; same as Decision.HTTP
	ResolvesTo []netip.Prefix
}

// ProviderRoute is how a provider's host is answered.
type ProviderRoute struct {
	Host     string
	Dialect  string
	Provider *Provider // nil: the built-in trial provider answers
}

// Name decides whether a name resolves: whether any of its ports could be
// allowed, or, for a provider's host, whether any model could.
func (v *View) Name(host string) NameDecision {
	var buf [32]uint32
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
	for _, i := range m {
		r := &v.s.rules[i]
		if r.effect != Allow {
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
		d := v.door(m, door.Port, door.Proto)
		if d.Allowed {
			door.Decision, door.HTTP, door.ResolvesTo = d, d.HTTP, v.resolvesTo(m, door.Port, door.Proto)
			nd.Ports = append(nd.Ports, door)
		}
		if d.Allowed && !nd.Resolves || first {
			nd.Decision = d
		}
		nd.Resolves = nd.Resolves || d.Allowed
		first = false
	}
	if first {
		nd.Decision = v.named(m, 0)
	}
	if !nd.Resolves {
		nd.Wildcard = false
	}
	return nd
}

// door decides one port of a name. hosts is not changed.
func (v *View) door(hosts []uint32, port uint16, proto Proto) Decision {
	if proto == TCP {
		return v.named(hosts, port)
	}
	m, _ := v.filter(slices.Clone(hosts), port, proto, condOpaque)
	return v.s.decision(v.s.decide(m, false))
}

func (v *View) providerName(nd *NameDecision, h *ProviderHost) {
	if !h.Supported() {
		nd.Decision = v.s.refuse(CodeProviderUnsupported, reasonUnsupported)
		return
	}
	p := v.prov[h.Dialect]
	nd.Provider = &ProviderRoute{Host: nd.Name, Dialect: h.Dialect, Provider: p}
	nd.Decision = v.opens()[h.Dialect]
	if nd.Decision.Allowed {
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

// Provider is the configured provider of a dialect that the principal may use;
// without one the trial provider answers.
func (v *View) Provider(dialect string) (*Provider, bool) {
	p, ok := v.prov[dialect]
	return p, ok
}

// builtin reports whether the builtin layer allows a model: it is configured,
// or there is no provider and the trial provider answers.
func (v *View) builtin(dialect, model string) bool {
	p := v.prov[dialect]
	if p == nil {
		return true
	}
	_, ok := p.Model(model)
	return ok
}

func builtDialect(d string) bool { return d == DialectOpenAI || d == DialectAnthropic }

// Inference decides a call of a model.
func (v *View) Inference(dialect, model string) Decision {
	if !builtDialect(dialect) {
		return v.s.refuse(CodeDialect, reasonDialect)
	}
	var buf [32]uint32
	m := v.s.models.match(buf[:0], v, model)
	return v.s.decision(v.s.decide(m, v.builtin(dialect, model)))
}

// ProviderTool decides a tool that the provider would run on its side, such as
// "web_search". Nothing allows one by default.
func (v *View) ProviderTool(tool string) Decision {
	var buf [32]uint32
	m := v.s.tools.match(buf[:0], v, tool)
	return v.s.decision(v.s.decide(m, false))
}

// openDialects decides for each dialect whether any model could be allowed. A
// witness of every region of the model patterns is tried: each exact name, and
// each prefix followed by a byte that no pattern holds, so the answer is exact.
func (v *View) openDialects() map[string]Decision {
	out := map[string]Decision{}
	for _, dialect := range []string{DialectOpenAI, DialectAnthropic} {
		patterns := []scope.Pattern{scope.Any}
		if p := v.prov[dialect]; p != nil {
			for _, e := range p.Models {
				patterns = append(patterns, e.Match)
			}
		}
		for _, i := range v.s.models.all {
			if r := &v.s.rules[i]; v.bits[r.group>>6]&(1<<(r.group&63)) != 0 {
				patterns = append(patterns, r.name)
			}
		}
		slices.SortFunc(patterns, func(a, b scope.Pattern) int { return cmp.Compare(a.String(), b.String()) })
		for i, p := range slices.Compact(patterns) {
			w := p.Text
			if p.Wild {
				w += "\x00"
			}
			d := v.Inference(dialect, w)
			if i == 0 || d.Allowed {
				out[dialect] = d
			}
			if d.Allowed {
				break
			}
		}
	}
	return out
}
