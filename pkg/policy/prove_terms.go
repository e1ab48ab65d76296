// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// looser says in one sentence what a decision lets pass that the other does
// not; "" when there is nothing.
func looser(n, o *Decision) string {
	switch {
	case n.Effect == Block:
		return ""
	case n.permits() > o.permits():
		return fmt.Sprintf("%s instead of %s", n.Verdict(), o.Verdict())
	case n.Effect == Allow && o.Rule.Once() && !n.Rule.Once():
		return "every connection is allowed instead of one"
	}
	have := n.Obligations()
	for _, x := range o.Obligations() {
		if !slices.ContainsFunc(have, func(y Obligation) bool { return y.fulfils(&x) }) && !(x.Kind == KindPII && piiFulfilled(have, x.PII)) {
			return fmt.Sprintf("%s without the %s of %s", n.Verdict(), x.Kind, x.Rule)
		}
	}
	if n.Effect != o.Effect {
		return "" // an approval instead of none
	}
	for _, x := range o.Demands() {
		if !slices.ContainsFunc(n.Demands(), func(y Demand) bool { return y.Approval.fulfils(&x.Approval) }) {
			return fmt.Sprintf("an approval that need not be the one that %s demands", x.Rule)
		}
	}
	return ""
}

// permits orders verdicts: what is looked into is stricter.
func (d *Decision) permits() int {
	n := 2 * int(d.Effect)
	if d.Effect != Block && !d.HTTP {
		n++
	}
	return n
}

// fulfils says whether doing o does x too.
func (o *Obligation) fulfils(x *Obligation) bool {
	if o.Kind != x.Kind {
		return false
	}
	switch o.Kind {
	case KindRate:
		return o.Rate.fulfils(x.Rate)
	case KindPII:
		return piiFulfilled([]Obligation{*o}, x.PII)
	case KindRedact:
		return covers(o.Redact.Entities, x.Redact.Entities)
	}
	return o.Audit >= x.Audit
}

// fulfils: as few in the same time, counted together at least as widely.
func (r *Rate) fulfils(x *Rate) bool {
	less := func(n, m uint64) bool { return m == 0 || n != 0 && n <= m }
	return less(r.Requests, x.Requests) && less(r.Tokens, x.Tokens) &&
		(x.Requests == 0 || r.RequestsWindow == x.RequestsWindow) && (x.Tokens == 0 || r.TokensWindow == x.TokensWindow) &&
		less(r.Concurrency, x.Concurrency) &&
		r.Queue <= x.Queue && !slices.ContainsFunc(r.Per, func(s string) bool { return !x.apart(s) })
}

// apart says whether a rate counts a segment apart, by itself or by one below it.
func (r *Rate) apart(segment string) bool {
	at := slices.Index(perWho, segment)
	return slices.ContainsFunc(r.Per, func(p string) bool {
		return p == segment || at >= 0 && slices.Index(perWho, p) > at
	})
}

// covers says whether one list of entities names all of another; none is all.
func covers(have, want []string) bool {
	return len(have) == 0 || len(want) > 0 && !slices.ContainsFunc(want, func(s string) bool { return !slices.Contains(have, s) })
}

// piiFulfilled: arguments and results may be treated by different rules.
func piiFulfilled(have []Obligation, want *PII) bool {
	treated := func(how string, of func(*PII) string) bool {
		return how == "" || slices.ContainsFunc(have, func(o Obligation) bool {
			if o.Kind != KindPII || of(o.PII) == "" {
				return false
			}
			return slices.Index(piiActions, of(o.PII)) <= slices.Index(piiActions, how) && covers(o.PII.Entities, want.Entities)
		})
	}
	return treated(want.In, func(p *PII) string { return p.In }) && treated(want.Out, func(p *PII) string { return p.Out })
}

// fulfils says whether nobody could approve by a whom x does not let, and no
// longer.
func (a *Approval) fulfils(x *Approval) bool {
	among := len(x.Approvers) == 0 && len(a.Approvers) == 0 ||
		len(x.Approvers) > 0 && len(a.Approvers) > 0 && covers(x.Approvers, a.Approvers)
	return among && a.Quorum >= x.Quorum && (a.Separate || !x.Separate) && a.ExpiresAfter <= x.ExpiresAfter &&
		(x.ValidFor == 0 || a.ValidFor != 0 && a.ValidFor <= x.ValidFor)
}

// limits follows for each rate of the older side which rates of the newer limit
// everything that it limits: two rates of 10 in the place of one let 20 pass.
func (p *prover) limits(n, o *Decision) string {
	if n.Effect == Block {
		return ""
	}
	for _, x := range o.Obligations() {
		if x.Kind != KindRate {
			continue
		}
		here := map[RuleRef]bool{}
		for _, y := range n.Obligations() {
			if before, known := p.rates[x.Rule]; y.fulfils(&x) && (!known || before[y.Rule]) {
				here[y.Rule] = true
			}
		}
		if len(here) == 0 {
			return fmt.Sprintf("no rate counts together all that the rate of %s counts", x.Rule)
		}
		p.rates[x.Rule] = here
	}
	return ""
}

// resolvedTo compares whether a connection to a name goes on when the name has
// an address.
func (p *prover) resolvedTo(views [2]*View, q Question, a netip.Addr, _ *target) *Counterexample {
	n := views[0].Ask(&q)
	if n.Effect == Block || !views[0].Dials(&q, a) || views[1].Dials(&q, a) {
		return nil
	}
	return &Counterexample{Question: q, Resolved: a, New: n, Old: views[1].Ask(&q),
		Difference: fmt.Sprintf("%s where the name resolves to %s, which the older documents refuse", n.Verdict(), a)}
}

// elsewhere says in one sentence where else an allowed call of a model goes.
func elsewhere(views [2]*View, q *Question, n *Decision) string {
	if n.Effect == Block {
		return ""
	}
	was := views[1].ReachOf("", q.Dialect, q.Model)
	for _, to := range views[0].ReachOf("", q.Dialect, q.Model) {
		i := slices.IndexFunc(was, func(r Reach) bool { return r.Provider.Name == to.Provider.Name && r.Model == to.Model })
		switch {
		case len(was) == 0:
			return fmt.Sprintf("the call goes to %s and has been answered on the node before", to.Provider.BaseURL)
		case i < 0:
			return fmt.Sprintf("the call can go to %s as %s, where it did not go before", to.Provider.Name, to.Model)
		}
		if d := to.Provider.differs(was[i].Provider, to.Model); d != "" {
			return fmt.Sprintf("the provider %s has another %s than before", to.Provider.Name, d)
		}
	}
	return ""
}

// differs names what of a provider is not the same, for a model.
func (p *Provider) differs(q *Provider, model string) string {
	a, _ := p.Model(model)
	b, _ := q.Model(model)
	switch {
	case p.BaseURL != q.BaseURL:
		return "base URL"
	case !slices.Equal(p.Secrets(), q.Secrets()) || p.Credential != q.Credential:
		return "credential"
	case a != b:
		return "model upstream"
	case p.AllowPlaintext && !q.AllowPlaintext:
		return "permission for plain text"
	}
	for _, r := range p.ResolvesTo {
		if !slices.ContainsFunc(q.ResolvesTo, func(o netip.Prefix) bool { return o.Bits() <= r.Bits() && o.Contains(r.Addr()) }) {
			return "range of private addresses"
		}
	}
	return ""
}
