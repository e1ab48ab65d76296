// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Route says who answers for models that agents ask for. It opens nothing: each
// target is decided on by the rules, and one that they refuse is left out.
type Route struct {
	ID       string
	Models   []scope.Pattern // what agents ask for: a name of the operator's own, or a pattern of models
	To       []RouteTarget   // empty only with Tiers
	Tiers    []Tier          // by how hard a request is; ascending, the last has no bound
	Balance  Balance
	Sticky   bool          // a conversation stays where it is, and goes up in tiers only
	TooLong  []RouteTarget // asked when a target says that the request is too long for it
	Refused  []RouteTarget // asked when a target says that it does not answer such content
	Override bool          // stands above the other routes of its scope

	Doc   string
	Scope scope.Selector
	File  string
	Line  int
}

// RouteTarget is one place that could answer.
type RouteTarget struct {
	Provider string // name of a Provider; "" = each that agents reach at the host they asked and that has the model
	Model    string // "" = the one that was asked for
	Weight   uint32 // share beside the others of its priority, 1 or more; times the provider's
	Priority uint32 // lower is asked first; 1 where nothing is said
}

// Tier is the targets of requests up to a complexity.
type Tier struct {
	Name  string
	Below uint32 // in thousandths of the score; 0 = no bound
	To    []RouteTarget
}

// Balance chooses among targets of one priority. The zero value is by weight.
type Balance uint8

// Ways to choose.
const (
	BalanceWeight  Balance = iota // by lot, in proportion to weights
	BalanceLatency                // the better of two drawn by lot, by latency and load
	BalancePrice                  // the cheapest for the request
)

var balances = []string{"weight", "latency", "price"}

// String is the word of documents.
func (b Balance) String() string {
	if int(b) < len(balances) {
		return balances[b]
	}
	return balances[BalanceWeight]
}

// RouteFor is the route of a model for the view's principal: of those that name the
// model, one that overrides, then the one of the deepest scope, then the one whose
// pattern is narrowest, then by name. nil: there is none, and the providers that
// have the model answer.
func (v *View) RouteFor(model string) *Route {
	var best *Route
	var by scope.Pattern
	for _, r := range v.routes {
		for _, p := range r.Models {
			if p.Matches(model) && (best == nil || r.before(p, best, by)) {
				best, by = r, p
			}
		}
	}
	return best
}

// before says whether a route, by a pattern, stands above another by its pattern.
func (r *Route) before(p scope.Pattern, o *Route, by scope.Pattern) bool {
	if r.Override != o.Override {
		return r.Override
	}
	if c := cmp.Compare(r.Scope.Level(), o.Scope.Level()); c != 0 {
		return c > 0
	}
	if p != by {
		return by.Contains(p)
	}
	return cmp.Or(cmp.Compare(r.Doc, o.Doc), cmp.Compare(r.ID, o.ID)) < 0
}

// Targets are all targets that a route names, of whatever kind.
func (r *Route) Targets() []RouteTarget {
	var out []RouteTarget
	out = append(out, r.To...)
	for i := range r.Tiers {
		out = append(out, r.Tiers[i].To...)
	}
	out = append(out, r.TooLong...)
	return append(out, r.Refused...)
}

// Reach is one place that a target of a route leads to.
type Reach struct {
	Provider *Provider
	Model    string // as rules name it
	Upstream string // as the provider names it
	Share    uint32 // weight of target and provider together
	Priority uint32
	Has      bool // the provider has the model, by its document
}

// Expand tells where targets lead for a model that was asked for, each place once.
// A target that names no provider leads to those of the dialect that agents reach
// at the host and that have the model, or, when none has it, to all of them there;
// and, where it names a model, to providers of other dialects that list it. Host ""
// stands for any.
func Expand(providers []*Provider, host, dialect, asked string, targets []RouteTarget) (out []Reach) {
	for _, t := range targets {
		model := cmp.Or(t.Model, asked)
		here := func(p *Provider) bool { return p.Dialect == dialect && (host == "" || p.At(host)) }
		someHas := slices.ContainsFunc(providers, func(p *Provider) bool { _, has := p.Model(model); return has && here(p) })
		for _, p := range providers {
			upstream, has := p.Model(model)
			listed := t.Model != "" && p.Dialect != dialect && p.Entry(model) != nil
			switch {
			case t.Provider != "" && t.Provider != p.Name:
				continue
			case t.Provider == "" && !listed && !(here(p) && has == someHas):
				continue
			case slices.ContainsFunc(out, func(r Reach) bool { return r.Provider == p && r.Model == model }):
				continue
			}
			out = append(out, Reach{Provider: p, Model: model, Upstream: upstream, Share: t.Weight * p.Weight, Priority: t.Priority, Has: has})
		}
	}
	return out
}

// anyTarget is where a model without a route goes.
var anyTarget = []RouteTarget{{Weight: 1, Priority: 1}}

// TargetsOf are those of a route; of none the providers that have the model.
func TargetsOf(r *Route) []RouteTarget {
	if r == nil {
		return anyTarget
	}
	return r.Targets()
}

// ReachOf is everybody who could answer a call of a model, by its route.
func (v *View) ReachOf(host, dialect, model string) []Reach {
	return Expand(v.provs, host, dialect, model, TargetsOf(v.RouteFor(model)))
}

// DecideAt decides a call of a model that a place would answer: on what was asked
// for and on what it becomes there the stricter one stands.
func (v *View) DecideAt(r *Reach, asked string) Decision {
	d := v.InferenceAt(r.Provider, asked)
	if r.Model != asked {
		if as := v.InferenceAt(r.Provider, r.Model); as.Effect < d.Effect {
			return as
		}
	}
	return d
}

// Answered decides a call of a model as whoever would answer it makes it: the
// loosest decision about those that its targets lead to from the dialect's own host,
// and who that is. nil: nobody but the trial provider, if anybody.
func (v *View) Answered(dialect, model string) (best Decision, at *Provider) {
	for _, r := range v.ReachOf(mainHost(dialect), dialect, model) {
		if d := v.DecideAt(&r, model); at == nil || d.Effect > best.Effect {
			best, at = d, r.Provider
		}
	}
	if at == nil {
		best = v.Inference(dialect, model)
	}
	return best, at
}

// WouldAnswer is who could answer a call of a model that an agent of the view makes
// at a dialect's own host, each with the decision about it.
func (v *View) WouldAnswer(dialect, model string) (r *Route, places []Reach, decisions []Decision) {
	r = v.RouteFor(model)
	places = v.ReachOf(mainHost(dialect), dialect, model)
	for i := range places {
		decisions = append(decisions, v.DecideAt(&places[i], model))
	}
	return r, places, decisions
}
