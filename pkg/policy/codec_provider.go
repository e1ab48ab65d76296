// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"time"
)

func (e *encoder) provider(p *Provider) {
	for _, s := range []string{p.Name, p.Dialect, p.Platform, p.BaseURL, p.Region, p.Credential, p.File} {
		e.str(s)
	}
	e.num(uint64(p.Line))
	e.selector(p.Scope)
	e.flag(p.AllowPlaintext)
	e.strs(p.Hosts)
	e.num(uint64(p.Weight))
	e.num(uint64(p.UnknownPrice))
	for _, t := range []time.Duration{p.Timeouts.FirstByte, p.Timeouts.Idle, p.Timeouts.Total} {
		e.num(uint64(t))
	}
	e.num(uint64(len(p.Keys)))
	for _, k := range p.Keys {
		e.str(k.Secret)
		e.num(uint64(k.Weight))
	}
	e.num(uint64(len(p.Models)))
	for _, m := range p.Models {
		e.pattern(m.Match)
		e.str(m.Upstream)
		e.num(uint64(m.Context))
		e.num(uint64(m.MaxOutput))
		e.num(uint64(m.Features))
		e.flag(m.Declared)
	}
	e.prefixes(p.ResolvesTo)
}

func (d *reader) provider() (p Provider) {
	for _, s := range []*string{&p.Name, &p.Dialect, &p.Platform, &p.BaseURL, &p.Region, &p.Credential, &p.File} {
		*s = d.str()
	}
	p.Line = int(d.below(1<<31, "a line"))
	p.Scope = d.selector()
	p.AllowPlaintext = d.flag()
	p.Hosts = d.strs()
	p.Weight = uint32(d.below(maxWeight+1, "a weight"))
	p.UnknownPrice = UnknownPrice(d.below(uint64(len(unknownPrices)), "what happens without a price"))
	for _, t := range []*time.Duration{&p.Timeouts.FirstByte, &p.Timeouts.Idle, &p.Timeouts.Total} {
		*t = time.Duration(d.below(math.MaxInt64, "a time"))
	}
	for n := d.count(2); n > 0 && d.err == nil; n-- {
		k := Key{Secret: d.str()}
		k.Weight = uint32(d.below(maxWeight+1, "a weight"))
		p.Keys = append(p.Keys, k)
	}
	for n := d.count(7); n > 0 && d.err == nil; n-- {
		m := ModelEntry{Match: d.pattern()}
		m.Upstream = d.str()
		m.Context = uint32(d.below(1<<32, "a context"))
		m.MaxOutput = uint32(d.below(1<<32, "an output"))
		m.Features = Features(d.below(1<<len(featureNames), "features"))
		m.Declared = d.flag()
		p.Models = append(p.Models, m)
	}
	p.ResolvesTo = d.prefixes()
	if d.err == nil && (!builtDialect(p.Dialect) || p.Weight == 0) {
		d.fail("a provider has no built dialect or no weight")
	}
	return p
}

func (e *encoder) route(r *Route) {
	for _, s := range []string{r.ID, r.Doc, r.File} {
		e.str(s)
	}
	e.num(uint64(r.Line))
	e.selector(r.Scope)
	e.num(uint64(len(r.Models)))
	for _, p := range r.Models {
		e.pattern(p)
	}
	e.num(uint64(r.Balance))
	e.flag(r.Sticky)
	e.flag(r.Override)
	for _, list := range [][]RouteTarget{r.To, r.TooLong, r.Refused} {
		e.targets(list)
	}
	e.num(uint64(len(r.Tiers)))
	for i := range r.Tiers {
		e.str(r.Tiers[i].Name)
		e.num(uint64(r.Tiers[i].Below))
		e.targets(r.Tiers[i].To)
	}
}

func (e *encoder) targets(list []RouteTarget) {
	e.num(uint64(len(list)))
	for _, t := range list {
		e.str(t.Provider)
		e.str(t.Model)
		e.num(uint64(t.Weight))
		e.num(uint64(t.Priority))
	}
}

func (d *reader) route() (r Route) {
	for _, s := range []*string{&r.ID, &r.Doc, &r.File} {
		*s = d.str()
	}
	r.Line = int(d.below(1<<31, "a line"))
	r.Scope = d.selector()
	for n := d.count(2); n > 0 && d.err == nil; n-- {
		r.Models = append(r.Models, d.pattern())
	}
	r.Balance = Balance(d.below(uint64(len(balances)), "a balance"))
	r.Sticky = d.flag()
	r.Override = d.flag()
	for _, list := range []*[]RouteTarget{&r.To, &r.TooLong, &r.Refused} {
		*list = d.targets()
	}
	for n := d.count(3); n > 0 && d.err == nil; n-- {
		t := Tier{Name: d.str()}
		t.Below = uint32(d.below(1001, "a bound"))
		t.To = d.targets()
		r.Tiers = append(r.Tiers, t)
	}
	return r
}

func (d *reader) targets() (list []RouteTarget) {
	for n := d.count(4); n > 0 && d.err == nil; n-- {
		t := RouteTarget{Provider: d.str()}
		t.Model = d.str()
		t.Weight = uint32(d.below(maxWeight+1, "a weight"))
		t.Priority = uint32(d.below(maxRouteTargets+1, "a priority"))
		list = append(list, t)
	}
	return list
}
