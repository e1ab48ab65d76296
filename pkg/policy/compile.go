// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Snapshot is compiled policy: immutable, safe for concurrent use, and all
// that is needed to decide. Make one with [Compile] or [UnmarshalSnapshot].
type Snapshot struct {
	rev       uint64
	rules     []crule // sorted by (scope, document, id): the index is the order of winners
	groups    []scope.Selector
	ofAgent   map[string][]uint32 // groups for one agent, by its name; ascending
	ofMany    []uint32            // the others; ascending
	providers []Provider
	routes    []Route
	budgets   []Budget // sorted by (scope, document, id)
	profiles  map[string]*Profile
	access    []Access

	toolServers map[string]*ToolServer // by name; only of documents that are asked about

	hosts  hostIndex
	cidrs  cidrIndex
	models nameIndex
	tools  toolIndex

	windows  []Window // of egress rules, each time of day once
	minutely bool     // an egress rule has an expression on now
	timed    []uint32 // groups of these rules

	conds map[condKey]*condition // only while it is made: conditions of the rules, each once

	mu    sync.Mutex
	views map[scope.Principal]*View // guarded by mu
}

// maxViews bounds the cache of views; it is emptied when full.
const maxViews = 8192

// crule is one rule as decisions use it. What most decisions look at stands
// together in front.
type crule struct {
	section    Section
	effect     Effect
	mandatory  bool
	delegable  bool
	silent     bool // no effect: see Rule.NoEffect
	shadow     bool
	oblige     Kinds
	waive      Kinds
	level      scope.Level // layer: level of the document's scope
	proto      Proto       // as written; see carries
	port       uint16
	risk       Risk
	group      uint32 // index of scope ∩ for in Snapshot.groups
	spec       int32  // strictly greater for anything this rule strictly contains
	http       *HTTPMatch
	when       *condition // interned: equal conditions are one
	ref        RuleRef
	words      string // what a decision by it says
	host       HostPattern
	prefix     netip.Prefix
	server     scope.Pattern // tools only
	name       scope.Pattern // model or tool
	resolvesTo []netip.Prefix
	reason     string  // the rule's own, or ""
	duties     *duties // nil when oblige is 0
	approval   *Approval
	digest     [32]byte
}

// Compile joins documents into a snapshot of revision rev. The snapshot is
// never nil: documents that clash with others are reported, and what they deny
// stays in force. Profiles are
// kept for [Snapshot.Profile], and so is who operates what for [Snapshot.Access].
func Compile(rev uint64, docs []Document) (*Snapshot, []Problem) {
	docs = slices.Clone(docs)
	slices.SortStableFunc(docs, func(a, b Document) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	problems := duplicateDocuments(docs)
	s := newSnapshot(rev)
	names := map[string]*Provider{}
	for i := range docs {
		d := &docs[i]
		switch {
		case d.Profile != nil:
			if s.profiles[d.Name] == nil {
				s.profiles[d.Name] = d.Profile
			}
		case d.ToolServer != nil:
			if s.toolServers[d.Name] == nil {
				s.toolServers[d.Name] = d.ToolServer
			}
		case d.Access != nil:
			s.access = append(s.access, *d.Access)
		case d.Provider != nil:
			if names[d.Name] == nil { // a second one has been reported with the duplicates
				names[d.Name] = d.Provider
				s.providers = append(s.providers, *d.Provider)
			}
		case d.Policy != nil:
			for _, rules := range [][]Rule{d.Policy.Egress, d.Policy.Inference, d.Policy.Tools} {
				for j := range rules {
					s.add(d, &rules[j])
				}
			}
			s.routes = append(s.routes, d.Policy.Routes...)
			s.addBudgets(d)
		}
	}
	s.build()
	problems = append(problems, s.configuredHostsInEgress(docs)...)
	problems = append(problems, s.toolHostsInEgress(docs)...)
	sortProblems(problems)
	return s, problems
}

func newSnapshot(rev uint64) *Snapshot {
	return &Snapshot{rev: rev, profiles: map[string]*Profile{}, toolServers: map[string]*ToolServer{}, conds: map[condKey]*condition{}}
}

func (s *Snapshot) add(d *Document, r *Rule) {
	sel := d.Scope
	if r.For != nil {
		var ok bool
		if sel, ok = sel.Intersect(*r.For); !ok {
			return // selects nobody; Parse refuses it
		}
	}
	c := crule{
		ref:     RuleRef{Doc: d.Name, ID: r.ID, File: d.File, Line: r.Line, Scope: d.Scope.String()},
		section: r.Section, effect: r.Effect, mandatory: r.Mandatory, delegable: r.Delegable,
		level: d.Scope.Level(), group: s.group(sel), port: r.Port, proto: r.Proto, host: r.Host, prefix: r.Prefix,
		server: r.Server, name: ruleName(r), risk: r.Risk, http: r.HTTP, when: s.condition(r.Section, r.When),
		resolvesTo: r.ResolvesTo, reason: r.Reason, silent: r.NoEffect, shadow: r.Shadow,
		waive: r.Waive, approval: r.Approval, digest: r.Digest,
	}
	if o := (duties{r.Rate, r.PII, r.Redact, r.Audit}); o.kinds() != 0 {
		c.oblige, c.duties = o.kinds(), &o
	}
	if c.effect == RequireApproval && c.approval == nil {
		c.approval = &Approval{Quorum: 1, ExpiresAfter: DefaultExpiresAfter}
	}
	if c.silent {
		c.effect = Block
	}
	s.rules = append(s.rules, c)
}

// covers says whether the rule is for a port and protocol.
func (r *crule) covers(port uint16, proto Proto) bool {
	return (r.port == 0 || r.port == port) && r.carries(proto)
}

// carries says whether the rule is for a protocol: without one written, an allow
// is for TCP and what restricts for both. The protocol takes no part in which of two
// rules is narrower: a deny of a port and an allow of that port's datagrams are
// equals, and the stricter stands.
func (r *crule) carries(proto Proto) bool {
	if r.proto == 0 {
		return r.effect != Allow || proto == TCP
	}
	return r.proto == proto
}

// grants says whether the rule can open anything, by itself or with an approval.
func (r *crule) grants() bool { return r.effect != Block && !r.shadow }

// opens is the protocol that a rule opens.
func (r *crule) opens() Proto {
	if r.proto == UDP {
		return UDP
	}
	return TCP
}

func ruleName(r *Rule) scope.Pattern {
	if r.Section == SectionTools {
		return r.Tool
	}
	return r.Model
}

// group interns a selector. Compile calls it often with few values, so the
// last ones are looked at first; build replaces it with sorted groups.
func (s *Snapshot) group(sel scope.Selector) uint32 {
	for i := len(s.groups) - 1; i >= 0 && i >= len(s.groups)-8; i-- {
		if s.groups[i] == sel {
			return uint32(i)
		}
	}
	s.groups = append(s.groups, sel)
	return uint32(len(s.groups) - 1)
}

// build interns the groups, orders and numbers the rules and makes the indexes.
func (s *Snapshot) build() {
	ids := make(map[scope.Selector]uint32, len(s.groups))
	var groups []scope.Selector
	for i := range s.rules {
		sel := s.groups[s.rules[i].group]
		id, ok := ids[sel]
		if !ok {
			id = uint32(len(groups))
			ids[sel] = id
			groups = append(groups, sel)
		}
		s.rules[i].group = id
	}
	s.groups, s.ofAgent = groups, map[string][]uint32{}
	for i, g := range groups {
		if g.Agent.Wild {
			s.ofMany = append(s.ofMany, uint32(i))
		} else {
			s.ofAgent[g.Agent.Text] = append(s.ofAgent[g.Agent.Text], uint32(i))
		}
	}
	slices.SortStableFunc(s.rules, func(a, b crule) int {
		return cmp.Or(cmp.Compare(a.ref.Scope, b.ref.Scope), cmp.Compare(a.ref.Doc, b.ref.Doc), cmp.Compare(a.ref.ID, b.ref.ID),
			cmp.Compare(a.ref.File, b.ref.File), cmp.Compare(a.ref.Line, b.ref.Line))
	})
	slices.SortStableFunc(s.budgets, func(a, b Budget) int {
		return cmp.Or(cmp.Compare(a.Ref.Scope, b.Ref.Scope), cmp.Compare(a.Ref.Doc, b.Ref.Doc), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(s.providers, func(a, b Provider) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.routes, func(a, b Route) int {
		return cmp.Or(cmp.Compare(a.Scope.String(), b.Scope.String()), cmp.Compare(a.Doc, b.Doc), cmp.Compare(a.ID, b.ID))
	})
	s.views, s.conds = map[scope.Principal]*View{}, nil
	s.hosts.init(s.providers)
	for i := range s.rules {
		r := &s.rules[i]
		r.ref.Num = uint32(i) + 1
		r.spec = s.specificity(r)
		r.setWords()
		e := entry{r.group, uint32(i)}
		switch {
		case r.section == SectionInference:
			s.models.add(r.name, e)
		case r.section == SectionTools:
			s.tools.add(r.server, r.name, e)
		case r.prefix.IsValid():
			s.cidrs.add(r.prefix, e)
		default:
			s.hosts.add(r.host, e)
		}
	}
	s.hosts.sort()
	s.cidrs.sort()
	s.models.sort()
	s.tools.sort()
	s.collectTimes()
}

func duplicateDocuments(docs []Document) []Problem {
	type key struct {
		kind, name string
		scope      scope.Selector
	}
	seen := map[key]*Document{}
	var out []Problem
	for i := range docs {
		d := &docs[i]
		k := key{kind: d.Kind, name: d.Name}
		if d.Kind == KindPolicy || d.Kind == KindAccess {
			k.scope = d.Scope
		}
		if first := seen[k]; first != nil {
			out = append(out, Problem{File: d.File, Line: d.Line, Col: 1,
				Msg:  "a " + d.Kind + " named " + quote(d.Name) + " for the same scope exists already in " + place(first.File, first.Line),
				Hint: "give one of them another name"})
			continue
		}
		seen[k] = d
	}
	return out
}

// configuredHostsInEgress reports egress rules on a host that a Provider
// document made a provider's.
func (s *Snapshot) configuredHostsInEgress(docs []Document) []Problem {
	var out []Problem
	for i := range docs {
		if docs[i].Policy == nil {
			continue
		}
		for _, r := range docs[i].Policy.Egress {
			if r.Host.Kind != HostExact {
				continue
			}
			if h := s.hosts.provider(r.Host.Name); h != nil {
				out = append(out, Problem{File: docs[i].File, Line: r.Line, Col: r.Col,
					Msg:  quote(r.Host.Name) + " is the host of a Provider and never plain egress: no egress rule matches it",
					Hint: providerHint(*h)})
			}
		}
	}
	return out
}

// Revision is the number given to Compile.
func (s *Snapshot) Revision() uint64 { return s.rev }

// Rules is how many rules the snapshot holds.
func (s *Snapshot) Rules() int { return len(s.rules) }

// Rule finds a rule by its number in this snapshot (RuleRef.Num).
func (s *Snapshot) Rule(num uint32) (ref RuleRef, reason string, ok bool) {
	if num == 0 || int(num) > len(s.rules) {
		return RuleRef{}, "", false
	}
	r := &s.rules[num-1]
	return r.ref, r.words, true
}

// Described is one rule for people.
type Described struct {
	Ref      RuleRef
	Section  string // "egress", "inference", "tools"
	Effect   Effect
	NoEffect bool // obligations alone
	Shadow   bool
	Target   string
}

// Builtin is the one rule of the builtin layer, which no document has.
func Builtin() Described {
	return Described{Ref: RuleRef{Doc: "builtin", ID: "models", Scope: "builtin"}, Section: SectionInference.String(), Effect: Allow, Target: "models of the configured providers"}
}

// Learn is what lets through, in a view that learns, what no rule speaks of. No
// document has it.
func Learn() Described {
	return Described{Ref: RuleRef{Doc: "builtin", ID: "learn", Scope: "builtin"}, Section: SectionEgress.String(), Effect: Allow, Target: "what no rule speaks of, for sandboxes that learn"}
}

// Describe finds a rule by its number, like Rule.
func (s *Snapshot) Describe(num uint32) (Described, bool) {
	if num == 0 || int(num) > len(s.rules) {
		return Described{}, false
	}
	r := &s.rules[num-1]
	return Described{Ref: r.ref, Section: r.section.String(), Effect: r.effect, NoEffect: r.silent, Shadow: r.shadow, Target: r.target()}, true
}

// Profile finds a profile by name among the compiled documents.
func (s *Snapshot) Profile(name string) (*Profile, bool) {
	p, ok := s.profiles[name]
	return p, ok
}

// Providers are all configured providers, by name.
func (s *Snapshot) Providers() []Provider { return slices.Clone(s.providers) }

// ProviderHosts are the hosts at which agents address model providers: the
// table and the hosts of Provider documents.
func (s *Snapshot) ProviderHosts() []ProviderHost { return s.hosts.allProviders() }

// UpstreamPrefix is an address range that compiled policy lets the gateway
// dial although it is private, or that an address rule allows.
type UpstreamPrefix struct {
	Prefix netip.Prefix
	Port   uint16
	Proto  Proto
}

// UpstreamPrefixes lists what the gateway's own fence must let through beyond
// public addresses: resolvesTo of rules and providers, address allows, and
// providers at literal addresses. Sorted, without repeats.
func (s *Snapshot) UpstreamPrefixes() []UpstreamPrefix {
	var out []UpstreamPrefix
	for i := range s.rules {
		r := &s.rules[i]
		if r.section != SectionEgress || r.effect == Block || r.shadow {
			continue
		}
		if r.prefix.IsValid() && r.effect == Allow {
			out = append(out, UpstreamPrefix{r.prefix, r.port, r.opens()})
		}
		for _, p := range r.resolvesTo { // of a name that people may open, too: they have to find a way then
			out = append(out, UpstreamPrefix{p, r.port, r.opens()})
		}
	}
	for i := range s.providers {
		_, addr, port := s.providers[i].endpoint()
		if addr.IsValid() {
			out = append(out, UpstreamPrefix{netip.PrefixFrom(addr, addr.BitLen()), port, TCP})
		}
		for _, p := range s.providers[i].ResolvesTo {
			out = append(out, UpstreamPrefix{p, port, TCP})
		}
	}
	slices.SortFunc(out, func(a, b UpstreamPrefix) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto))
	})
	return slices.Compact(out)
}

// DatagramPorts lists the ports at which rules open UDP to names, sorted: only
// there does the gateway's own fence let datagrams out to public addresses.
func (s *Snapshot) DatagramPorts() []uint16 {
	var out []uint16
	for i := range s.rules {
		r := &s.rules[i]
		if r.section == SectionEgress && r.effect == Allow && !r.shadow && r.opens() == UDP && !r.prefix.IsValid() {
			out = append(out, r.port)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
