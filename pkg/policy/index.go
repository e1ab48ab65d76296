// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"hash/maphash"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// entry is one rule in an index, with the group of principals it is for.
type entry struct{ group, rule uint32 }

// postings are the rules of one key, sorted by group and rule.
type postings []entry

func (p postings) sort() {
	slices.SortFunc(p, func(a, b entry) int { return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.rule, b.rule)) })
}

// collect appends the rules whose group the view is in. A short list is
// scanned; in a long one each of the view's groups is searched.
func (p postings) collect(m []hit, v *View) []hit {
	if len(p) <= 8+4*len(v.groups) {
		for _, e := range p {
			if v.bits[e.group>>6]&(1<<(e.group&63)) != 0 {
				m = append(m, hit(e.rule))
			}
		}
		return m
	}
	for _, g := range v.groups {
		lo, hi := 0, len(p)
		for lo < hi {
			if mid := int(uint(lo+hi) >> 1); p[mid].group < g {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		for ; lo < len(p) && p[lo].group == g; lo++ {
			m = append(m, hit(p[lo].rule))
		}
	}
	return m
}

// hostNode is what rules say about one name.
type hostNode struct {
	name                          string
	exact, star, deep             postings
	provExact, provStar, provDeep *ProviderHost
	regional                      bool // hosts with a region inside may lie below, see regionalProvider
}

// hostIndex finds the patterns that match a host: one look-up for each label,
// from the last label to the whole name, for as long as rules speak of names
// below what was found; and the root. The names are in a hash table of their own:
// a suffix is hashed and compared once, and most of what is not in it is seen by
// the hash alone. The seed is random, so nobody can choose names that collide.
type hostIndex struct {
	nodes map[string]*hostNode
	root  postings // "**"
	seed  maphash.Seed
	slots []hostSlot // open addressing; a power of two, at most half of them taken
}

type hostSlot struct {
	hash uint64
	node *hostNode // nil: free
}

// find is the node of a name, nil if no rule speaks of it or of what is below.
func (x *hostIndex) find(name string) *hostNode {
	h := maphash.String(x.seed, name)
	for i := h; ; i++ {
		slot := &x.slots[i&uint64(len(x.slots)-1)]
		if slot.node == nil || slot.hash == h && slot.node.name == name {
			return slot.node
		}
	}
}

// index fills the slots, with every name above one that is in.
func (x *hostIndex) index() {
	for _, name := range slices.Collect(maps.Keys(x.nodes)) {
		for i := strings.IndexByte(name, '.'); i >= 0; i = strings.IndexByte(name, '.') {
			name = name[i+1:]
			x.node(name)
		}
	}
	x.seed = maphash.MakeSeed()
	x.slots = make([]hostSlot, 1<<bits.Len(uint(2*len(x.nodes))))
	for name, n := range x.nodes {
		h := maphash.String(x.seed, name)
		i := h
		for x.slots[i&uint64(len(x.slots)-1)].node != nil {
			i++
		}
		x.slots[i&uint64(len(x.slots)-1)] = hostSlot{h, n}
	}
}

func (x *hostIndex) node(name string) *hostNode {
	n := x.nodes[name]
	if n == nil {
		n = &hostNode{name: name}
		x.nodes[name] = n
	}
	return n
}

// init makes the index and enters the provider hosts: the table, and the hosts
// of configured providers unless the table has them with a dialect.
func (x *hostIndex) init(configured []Provider) {
	x.nodes = map[string]*hostNode{}
	enter := func(h ProviderHost) {
		n := x.node(h.Host.Name)
		switch h.Host.Kind {
		case HostExact:
			n.provExact = &h
		case HostStar:
			n.provStar = &h
		case HostDeep:
			n.provDeep = &h
		}
	}
	for _, h := range providerTable {
		enter(h)
	}
	for _, r := range regionalProviders {
		_, below, _ := strings.Cut(r.suffix, ".")
		x.node(below).regional = true
	}
	for i := range configured {
		p := &configured[i]
		name, _, port := p.endpoint()
		if name == "" || name == "localhost" {
			continue
		}
		if h := x.provider(name); h != nil && h.Supported() {
			continue
		}
		enter(ProviderHost{Host: HostPattern{HostExact, name}, Port: port, Dialect: p.Dialect, Provider: p.Name})
	}
	for i := range configured {
		for _, name := range configured[i].Hosts {
			if h := x.provider(name); h == nil || !h.Supported() {
				enter(ProviderHost{Host: HostPattern{HostExact, name}, Port: 443, Dialect: configured[i].Dialect, Provider: configured[i].Name})
			}
		}
	}
}

func (x *hostIndex) add(h HostPattern, e entry) {
	if h.Kind == HostDeep && h.Name == "" {
		x.root = append(x.root, e)
		return
	}
	n := x.node(h.Name)
	switch h.Kind {
	case HostExact:
		n.exact = append(n.exact, e)
	case HostStar:
		n.star = append(n.star, e)
	case HostDeep:
		n.deep = append(n.deep, e)
	}
}

func (x *hostIndex) sort() {
	x.root.sort()
	for _, n := range x.nodes {
		n.exact.sort()
		n.star.sort()
		n.deep.sort()
	}
	x.index()
}

// provider is the provider entry of a canonical host, nil if it is none.
func (x *hostIndex) provider(host string) *ProviderHost {
	suffix := host
	for depth := 0; ; depth++ {
		if n := x.nodes[suffix]; n != nil {
			if h := n.provider(depth); h != nil {
				return h
			}
		}
		i := strings.IndexByte(suffix, '.')
		if i < 0 {
			return regionalProvider(host)
		}
		suffix = suffix[i+1:]
	}
}

func (n *hostNode) provider(depth int) *ProviderHost {
	switch {
	case depth == 0 && n.provExact != nil:
		return n.provExact
	case depth == 1 && n.provStar != nil:
		return n.provStar
	}
	return n.provDeep
}

func (x *hostIndex) allProviders() []ProviderHost {
	var out []ProviderHost
	for _, n := range x.nodes {
		for _, h := range []*ProviderHost{n.provExact, n.provStar, n.provDeep} {
			if h != nil {
				out = append(out, *h)
			}
		}
	}
	slices.SortFunc(out, func(a, b ProviderHost) int {
		return cmp.Or(cmp.Compare(a.Host.Name, b.Host.Name), cmp.Compare(a.Host.Kind, b.Host.Kind))
	})
	return out
}

// match appends the rules of the view whose host pattern matches, whatever
// their port. prov is set, and no rules are, when the host is a provider's.
func (x *hostIndex) match(m []hit, v *View, host string) (_ []hit, prov *ProviderHost) {
	from, regional := len(m), false
	m = x.root.collect(m, v)
	for end := len(host); ; {
		start := strings.LastIndexByte(host[:end], '.') + 1
		n := x.find(host[start:])
		if n == nil {
			break
		}
		m = n.deep.collect(m, v)
		if p := n.provDeep; p != nil {
			prov = p
		}
		regional = regional || n.regional
		if start == 0 {
			m = n.exact.collect(m, v)
			if p := n.provExact; p != nil {
				prov = p
			}
			break
		}
		end = start - 1
		if (len(n.star) > 0 || n.provStar != nil) && strings.IndexByte(host[:end], '.') < 0 {
			m = n.star.collect(m, v)
			if p := n.provStar; p != nil {
				prov = p
			}
		}
	}
	if prov == nil && regional {
		prov = regionalProvider(host)
	}
	if prov != nil {
		return m[:from], prov
	}
	return m, nil
}

// cidrIndex finds the prefixes that hold an address: one look-up for each
// length that is in use.
type cidrIndex struct {
	nodes      map[netip.Prefix]postings
	byGroup    map[uint32][]uint32 // rules of each group of principals
	len4, len6 []int               // lengths in use, ascending
}

func (x *cidrIndex) add(p netip.Prefix, e entry) {
	if x.nodes == nil {
		x.nodes, x.byGroup = map[netip.Prefix]postings{}, map[uint32][]uint32{}
	}
	x.nodes[p] = append(x.nodes[p], e)
	x.byGroup[e.group] = append(x.byGroup[e.group], e.rule)
	l := &x.len6
	if p.Addr().Is4() {
		l = &x.len4
	}
	if !slices.Contains(*l, p.Bits()) {
		*l = append(*l, p.Bits())
	}
}

func (x *cidrIndex) sort() {
	slices.Sort(x.len4)
	slices.Sort(x.len6)
	for _, p := range x.nodes {
		p.sort()
	}
}

// match appends the rules of the view whose prefix holds all of p.
func (x *cidrIndex) match(m []hit, v *View, p netip.Prefix) []hit {
	lens := x.len6
	if p.Addr().Is4() {
		lens = x.len4
	}
	for _, l := range lens {
		if l > p.Bits() {
			break
		}
		if q, err := p.Addr().Prefix(l); err == nil {
			m = x.nodes[q].collect(m, v)
		}
	}
	return m
}

// texts has the postings of texts. A few are compared one by one, which takes
// less time than to hash what is looked for.
type texts struct {
	of  map[string]postings
	few []fewText // all of them, if they are few
}

type fewText struct {
	text string
	postings
}

const maxFewTexts = 4

func (x *texts) add(text string, e entry) {
	if x.of == nil {
		x.of = map[string]postings{}
	}
	x.of[text] = append(x.of[text], e)
}

func (x *texts) sort() {
	for text, p := range x.of {
		p.sort()
		if len(x.of) <= maxFewTexts {
			x.few = append(x.few, fewText{text, p})
		}
	}
}

func (x *texts) find(text string) postings {
	if len(x.of) > maxFewTexts {
		return x.of[text]
	}
	for i := range x.few {
		if x.few[i].text == text {
			return x.few[i].postings
		}
	}
	return nil
}

// nameIndex finds patterns of models or of one server's tools: the exact one, and one look-up for
// each length of prefix in use.
type nameIndex struct {
	exact  texts
	prefix texts    // but for the empty one
	any    postings // of the empty one: "*"
	lens   []int
	all    []uint32 // every rule, in order of entry
}

func (x *nameIndex) add(p scope.Pattern, e entry) {
	x.all = append(x.all, e.rule)
	if !p.Wild {
		x.exact.add(p.Text, e)
		return
	}
	if p.Text == "" {
		x.any = append(x.any, e)
		return
	}
	x.prefix.add(p.Text, e)
	if !slices.Contains(x.lens, len(p.Text)) {
		x.lens = append(x.lens, len(p.Text))
	}
}

func (x *nameIndex) sort() {
	slices.Sort(x.lens)
	x.any.sort()
	x.exact.sort()
	x.prefix.sort()
}

func (x *nameIndex) match(m []hit, v *View, name string) []hit {
	m = x.any.collect(m, v)
	m = x.exact.find(name).collect(m, v)
	for _, l := range x.lens {
		if l > len(name) {
			break
		}
		m = x.prefix.find(name[:l]).collect(m, v)
	}
	return m
}

// toolIndex finds patterns of servers and tools: of each server pattern that
// matches, the tool patterns.
type toolIndex struct {
	exact  map[string]*nameIndex
	prefix map[string]*nameIndex // but for the empty one
	any    *nameIndex            // of the empty one: every server
	lens   []int
}

func (x *toolIndex) add(server, tool scope.Pattern, e entry) {
	if x.exact == nil {
		x.exact, x.prefix = map[string]*nameIndex{}, map[string]*nameIndex{}
	}
	of := x.exact
	switch {
	case server == scope.Any:
		if x.any == nil {
			x.any = &nameIndex{}
		}
		x.any.add(tool, e)
		return
	case server.Wild:
		of = x.prefix
		if !slices.Contains(x.lens, len(server.Text)) {
			x.lens = append(x.lens, len(server.Text))
		}
	}
	n := of[server.Text]
	if n == nil {
		n = &nameIndex{}
		of[server.Text] = n
	}
	n.add(tool, e)
}

func (x *toolIndex) sort() {
	slices.Sort(x.lens)
	if x.any != nil {
		x.any.sort()
	}
	for n := range maps.Values(x.exact) {
		n.sort()
	}
	for n := range maps.Values(x.prefix) {
		n.sort()
	}
}

func (x *toolIndex) match(m []hit, v *View, server, tool string) []hit {
	if x.any != nil {
		m = x.any.match(m, v, tool)
	}
	if n := x.exact[server]; n != nil {
		m = n.match(m, v, tool)
	}
	for _, l := range x.lens {
		if l > len(server) {
			break
		}
		if n := x.prefix[server[:l]]; n != nil {
			m = n.match(m, v, tool)
		}
	}
	return m
}
