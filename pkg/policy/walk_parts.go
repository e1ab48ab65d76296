// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ringfence/ringfence/pkg/scope"
)

// rulesOf are the rules of a section, of each side.
func (w *walk) rulesOf(s Section, keep func(*crule) bool) *target {
	t := &target{}
	for side, snap := range w.sides {
		for i := range snap.rules {
			if r := &snap.rules[i]; r.section == s && keep(r) {
				t.rules[side] = append(t.rules[side], r)
			}
		}
	}
	return t
}

func ofNames(r *crule) bool     { return !r.prefix.IsValid() }
func ofAddresses(r *crule) bool { return r.prefix.IsValid() }
func everyRule(*crule) bool     { return true }

// names compares connections, requests and datagrams to names.
func (w *walk) names() error {
	all, literal := w.rulesOf(SectionEgress, ofNames), w.rulesOf(SectionEgress, ofAddresses)
	byName := map[string]*target{}
	var names []string
	for side, rules := range all.rules {
		for _, r := range rules {
			if byName[r.host.Name] == nil {
				byName[r.host.Name] = &target{}
			}
			byName[r.host.Name].rules[side] = append(byName[r.host.Name].rules[side], r)
			names = append(names, r.host.Name)
		}
		for _, h := range w.sides[side].ProviderHosts() {
			names = append(names, h.Host.Name)
		}
	}
	hosts := hostCells(names)
	for i, host := range hosts {
		w.what = TooLargeError{What: "names of hosts", Done: i, Of: len(hosts)}
		t := &target{}
		for _, suffix := range append(suffixes(host), "") {
			if at := byName[suffix]; at != nil {
				here := at.of(func(r *crule) bool { return r.host.Matches(host) })
				for side := range here.rules {
					t.rules[side] = append(t.rules[side], here.rules[side]...)
				}
			}
		}
		if !w.matters(t) {
			continue
		}
		if err := w.name(host, t, literal); err != nil || w.found != nil {
			return err
		}
	}
	return nil
}

// suffixes of a name are itself and what stands behind each of its dots.
func suffixes(host string) (out []string) {
	out = append(out, host)
	for i := range len(host) {
		if host[i] == '.' {
			out = append(out, host[i+1:])
		}
	}
	return out
}

// name compares all ports of a name for everybody.
func (w *walk) name(host string, t, literal *target) error {
	both := *t
	if w.addressesMatter(t, literal) {
		for side := range both.rules {
			both.rules[side] = append(slices.Clone(t.rules[side]), literal.rules[side]...)
		}
	} else {
		literal = nil
	}
	everybody, err := w.principals(&both)
	if err != nil {
		return err
	}
	for _, who := range everybody {
		for _, port := range t.ports() {
			for _, proto := range []Proto{TCP, UDP} {
				of := w.narrowed(t, who, func(r *crule) bool { return r.covers(port, proto) })
				if !w.matters(of) {
					continue
				}
				if err := w.door(host, port, proto, who, of, literal); err != nil || w.found != nil {
					return err
				}
			}
		}
	}
	return nil
}

// ports are those that the rules name, and one that none does.
func (t *target) ports() []uint16 {
	other := uint16(443)
	var out []uint16
	for _, rules := range t.rules {
		for _, r := range rules {
			if r.port != 0 {
				out = append(out, r.port)
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	for slices.Contains(out, other) {
		other++
	}
	return append(out, other)
}

// door compares one port of a name for somebody.
func (w *walk) door(host string, port uint16, proto Proto, who scope.Principal, t, literal *target) error {
	views, us := w.views(who), w.conditions(t)
	q := Question{Section: SectionEgress, Host: host, Port: port, Proto: proto}
	requests := []request{{}}
	if proto == TCP {
		more, err := w.requests(t)
		if err != nil {
			return err
		}
		requests = append(more, requests...) // a request says more than its connection
	}
	for _, x := range requests {
		q.Method, q.Path = x.method, x.path
		if found, err := w.pose(who, us, func() *Counterexample { return w.question(views, q, t) }); found || err != nil {
			return err
		}
	}
	if literal == nil {
		return nil
	}
	return w.resolved(q, who, us, literal)
}

// onRequests says whether only a request can tell if the rule matches.
func (r *crule) onRequests() bool { return r.http != nil || r.when != nil && r.when.Request }

// requests are those that the conditions of the rules on requests tell apart;
// none when there are no such conditions.
func (w *walk) requests(t *target) ([]request, error) {
	var matches []*HTTPMatch
	asked := false
	for _, rules := range t.rules {
		for _, r := range rules {
			asked = asked || r.onRequests()
			if r.http != nil {
				matches = append(matches, r.http)
			}
		}
	}
	if !asked {
		return nil, nil
	}
	out, ok := requestCells(matches, maxPathStates)
	if !ok {
		return nil, w.tooLarge(maxPathStates, "states of the path patterns of one of them")
	}
	return out, nil
}

// addressesMatter says whether it could make a difference to which address a
// name resolves: the older side refuses some, or the newer admits private ones.
func (w *walk) addressesMatter(t, literal *target) bool {
	return w.whole || slices.ContainsFunc(literal.rules[1], func(r *crule) bool { return r.effect != Allow }) ||
		slices.ContainsFunc(t.rules[0], func(r *crule) bool { return len(r.resolvesTo) > 0 })
}

// resolved compares the addresses that a name may have where both sides let it.
func (w *walk) resolved(q Question, who scope.Principal, us []*unknown, literal *target) error {
	views := w.views(who)
	for _, a := range w.ranges(literal) {
		of := w.narrowed(w.literal[a], who, func(r *crule) bool { return r.covers(q.Port, q.Proto) })
		all := slices.Clone(us)
		for _, u := range w.conditions(of) {
			if !slices.Contains(all, u) {
				all = append(all, u)
			}
		}
		found, err := w.pose(who, all, func() *Counterexample { return w.address(views, q, a, of) })
		if found || err != nil {
			return err
		}
	}
	return nil
}

// ranges are the addresses that rules tell apart, with the address rules of each.
func (w *walk) ranges(literal *target) []netip.Addr {
	if w.literal != nil {
		return w.addrs
	}
	var prefixes []netip.Prefix
	for side := range w.sides {
		for _, r := range literal.rules[side] {
			prefixes = append(prefixes, r.prefix)
		}
		for i := range w.sides[side].rules {
			prefixes = append(prefixes, w.sides[side].rules[i].resolvesTo...)
		}
	}
	w.addrs, w.literal = addrCells(prefixes), map[netip.Addr]*target{}
	for _, a := range w.addrs {
		w.literal[a] = literal.of(func(r *crule) bool { return r.prefix.Contains(a) })
	}
	return w.addrs
}

// of keeps some of the rules.
func (t *target) of(keep func(*crule) bool) *target {
	out := &target{}
	for side, rules := range t.rules {
		for _, r := range rules {
			if keep(r) {
				out.rules[side] = append(out.rules[side], r)
			}
		}
	}
	return out
}

// addresses compares connections and datagrams to literal addresses.
func (w *walk) addresses() error {
	all := w.rulesOf(SectionEgress, ofAddresses)
	var prefixes []netip.Prefix
	for _, rules := range all.rules {
		for _, r := range rules {
			prefixes = append(prefixes, r.prefix)
		}
	}
	cells := addrCells(prefixes)
	for i, a := range cells {
		w.what = TooLargeError{What: "ranges of addresses", Done: i, Of: len(cells)}
		t := all.of(func(r *crule) bool { return r.prefix.Contains(a) })
		if !w.matters(t) {
			continue
		}
		if err := w.name(a.String(), t, &target{}); err != nil || w.found != nil {
			return err
		}
	}
	return nil
}

// models compares calls of models.
func (w *walk) models() error {
	all := w.rulesOf(SectionInference, everyRule)
	var patterns []scope.Pattern
	for side, rules := range all.rules {
		for _, r := range rules {
			patterns = append(patterns, r.name)
		}
		for i := range w.sides[side].providers {
			for _, m := range w.sides[side].providers[i].Models {
				patterns = append(patterns, m.Match)
			}
		}
	}
	cells := valueCells(patterns, false)
	for i, model := range cells {
		w.what = TooLargeError{What: "models", Done: i, Of: len(cells)}
		t := all.of(func(r *crule) bool { return r.name.Matches(model) })
		for _, s := range w.sides {
			for i := range s.providers {
				t.extra = append(t.extra, s.providers[i].Scope)
			}
		}
		everybody, err := w.principals(t)
		if err != nil {
			return err
		}
		for _, who := range everybody {
			if err := w.model(model, who, w.narrowed(t, who, everyRule)); err != nil || w.found != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walk) model(model string, who scope.Principal, t *target) error {
	views, us := w.views(who), w.conditions(t)
	for _, dialect := range Dialects() {
		q := Question{Section: SectionInference, Dialect: dialect, Model: model}
		if found, err := w.pose(who, us, func() *Counterexample { return w.question(views, q, t) }); found || err != nil {
			return err
		}
	}
	return nil
}

// tools compares calls of tools.
func (w *walk) tools() error {
	all := w.rulesOf(SectionTools, everyRule)
	var servers []scope.Pattern
	for side, rules := range all.rules {
		for _, r := range rules {
			servers = append(servers, r.server)
		}
		for name := range w.sides[side].toolServers {
			servers = append(servers, scope.Pattern{Text: name})
		}
	}
	cells := valueCells(servers, false)
	for i, server := range cells {
		w.what = TooLargeError{What: "servers of tools", Done: i, Of: len(cells)}
		of := all.of(func(r *crule) bool { return r.server.Matches(server) })
		var names []scope.Pattern
		for side, rules := range of.rules {
			for _, r := range rules {
				names = append(names, r.name)
			}
			if s := w.sides[side].toolServers[server]; s != nil {
				of.extra = append(of.extra, s.Scope)
				for i := range s.Tools {
					names = append(names, s.Tools[i].Name)
				}
			}
		}
		for _, tool := range valueCells(names, false) {
			t := of.of(func(r *crule) bool { return r.name.Matches(tool) })
			if t.extra = of.extra; !w.matters(t) {
				continue
			}
			if err := w.tool(server, tool, t); err != nil || w.found != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walk) tool(server, tool string, t *target) error {
	everybody, err := w.principals(t)
	if err != nil {
		return err
	}
	for _, who := range everybody {
		of := w.narrowed(t, who, everyRule)
		if !w.matters(of) {
			continue
		}
		views, us := w.views(who), w.conditions(of)
		q := Question{Section: SectionTools, Server: server, Tool: tool}
		for _, q.Risk = range of.risks() {
			if found, err := w.pose(who, us, func() *Counterexample { return w.question(views, q, of) }); found || err != nil {
				return err
			}
		}
		if err := w.classified(server, tool, who, of); err != nil || w.found != nil {
			return err
		}
	}
	return nil
}

// classified compares a call that has the classes that documents give its tool.
// Where these are the same on both sides, it is the call that says them itself.
func (w *walk) classified(server, tool string, who scope.Principal, t *target) error {
	views := w.views(who)
	n, o := views[0].classes(server, tool).classified(), views[1].classes(server, tool).classified()
	if n == o {
		return nil
	}
	us, rejoin := w.apart(t)
	defer rejoin()
	_, err := w.pose(who, us, func() *Counterexample {
		c := w.question(views, Question{Section: SectionTools, Server: server, Tool: tool}, t)
		if c != nil {
			c.Difference += fmt.Sprintf(" (by the documents, its risk is %s and was %s)", n, o)
		}
		return c
	})
	return err
}

// apart are the conditions of the target's rules where a call has other classes
// on each side: one that names risk may be something else on the older side.
// rejoin undoes that.
func (w *walk) apart(t *target) (us []*unknown, rejoin func()) {
	us = w.conditions(t)
	joined := map[*condition]*truth{}
	for _, r := range t.rules[1] {
		if c := r.when; c != nil && joined[c] == nil && c.names("risk") {
			u := &unknown{text: c.String() + " (older)", value: condTrue}
			joined[c], c.assumed = c.assumed, &u.value
			us = append(us, u)
		}
	}
	return us, func() {
		for c, was := range joined {
			c.assumed = was
		}
	}
}

// risks gives one set of classes for each that the rules tell apart.
func (t *target) risks() (out []Risk) {
	var sets []Risk
	for _, rules := range t.rules {
		for _, r := range rules {
			if r.risk != 0 && !slices.Contains(sets, r.risk) {
				sets = append(sets, r.risk)
			}
		}
	}
	seen := map[string]bool{}
	for n := range 256 {
		call := Risk(n).classified() // 0 is for the documents to classify
		var key []byte
		for _, r := range sets {
			some, all := r.covers(call)
			key = fmt.Appendf(key, "%t %t,", some, all)
		}
		if !seen[string(key)] {
			seen[string(key)] = true
			out = append(out, call)
		}
	}
	return out
}
