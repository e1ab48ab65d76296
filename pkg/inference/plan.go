// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/policy"
)

// candidate is one place that could answer a request.
type candidate struct {
	prov            *policy.Provider
	model           string // as rules name it
	upstream        string // as the provider names it
	share, priority uint32
	price           int64           // where the route goes by it: nano-dollars at most
	decision        policy.Decision // the stricter one on what was asked and on model
	also            policy.Decision // the other one, whose obligations hold too; zero where both are one
	cross           *crossing       // how it is asked where its dialect is another
	out             string          // why it is not asked, for people; "" = it may be
}

// name is the candidate in records and for agents: no address, no key.
func (c *candidate) name() string {
	if c.upstream == "" {
		return c.prov.Name
	}
	return c.prov.Name + "/" + c.upstream
}

// maxCandidates bounds those of one request; what is beyond is not asked.
const maxCandidates = 64

// plan finds who could answer, has policy decide about each of them, and gives the
// verdict on the model: the loosest of theirs.
func (x *exchange) plan(v *verdicts) {
	x.list, x.way, x.trial, x.talks = nil, nil, false, false
	if x.route.model {
		x.way = x.c.Snapshot.RouteFor(x.asked.model)
	}
	if x.way != nil {
		x.expand(x.targets())
	} else {
		x.expand(policy.TargetsOf(nil))
	}
	if len(x.list) == 0 && x.way == nil && x.c.Host == policy.MainHost(x.d.name) && x.c.Snapshot.Trial(x.d.name) {
		x.trial = true
	}
	v.model = policy.Decision{Effect: policy.Allow}
	if !x.route.model {
		return
	}
	if len(x.list) == 0 {
		v.model = x.c.View.Inference(x.d.name, x.asked.model)
		return
	}
	for i := range x.list {
		c := &x.list[i]
		x.decideAt(c)
		if i == 0 || c.decision.Effect > v.model.Effect {
			v.model = c.decision
		}
	}
}

// decideAt has policy decide about a candidate: on what the agent asked for, as
// something that this provider answers, and on what it becomes there.
func (x *exchange) decideAt(c *candidate) {
	c.decision, c.also = x.c.View.InferenceAt(c.prov, x.asked.model), policy.Decision{}
	if c.model != x.asked.model {
		if c.also = x.c.View.InferenceAt(c.prov, c.model); c.also.Effect < c.decision.Effect {
			c.decision, c.also = c.also, c.decision
		}
	}
}

// expand adds the candidates that targets lead to.
func (x *exchange) expand(targets []policy.RouteTarget) {
	for _, r := range policy.Expand(x.c.Snapshot.Providers(), x.c.Host, x.d.name, x.asked.model, targets) {
		c := candidate{prov: r.Provider, model: r.Model, upstream: r.Upstream, share: r.Share, priority: r.Priority}
		if !x.route.model {
			c.model, c.upstream = "", ""
		}
		if len(x.list) < maxCandidates {
			x.list = append(x.list, c)
		}
	}
}

// settle leaves out what may not or cannot answer, once people have been asked: v
// is the verdict on the model. It reports whom to blame when nobody is left.
func (x *exchange) settle(v *verdicts) *refusal {
	if x.trial {
		return nil
	}
	need := x.needs()
	for i := range x.list {
		c := &x.list[i]
		switch {
		case !x.route.model:
		case c.decision.Effect == policy.RequireApproval && v.model.Allowed() && c.decision.Rule.String() == v.model.Rule.String():
			// people have let it pass
		case !c.decision.Allowed():
			c.out = cmp.Or(strings.TrimRight(c.decision.Reason, "."), "policy does not allow it")
		case x.people && c.upstream != x.served:
			c.out = "people approved tools of another model"
		}
		if c.out == "" && c.prov.Dialect != x.d.name {
			c.out = x.cross(c)
		}
		if c.out == "" {
			c.out = x.searches(c)
		}
		if c.out == "" {
			c.out = need.unmet(c)
		}
	}
	if slices.ContainsFunc(x.list, func(c candidate) bool { return c.out == "" }) {
		x.order()
		return nil
	}
	return x.nobody()
}

// peopleTools says whether people let a tool of the provider pass.
func (v *verdicts) peopleTools() bool {
	return slices.ContainsFunc(v.tools, func(d policy.Decision) bool { return d.ReasonCode == codeApproved })
}

// searches says why a candidate whose model searches the web by itself is left out.
func (x *exchange) searches(c *candidate) string {
	tool := searchModel(c.upstream)
	if tool == "" || c.upstream == x.served {
		return "" // judged with the request's tools
	}
	if d := x.c.View.ProviderTool(tool); !d.Allowed() {
		return "the model does " + tool + " on the provider's side"
	}
	return ""
}

// nobody is the refusal where no candidate is left.
func (x *exchange) nobody() *refusal {
	if len(x.list) == 0 {
		what := "no provider of the " + x.d.name + " API answers at " + x.c.Host
		if x.way != nil {
			what = "the route " + x.way.Doc + "/" + x.way.ID + " of the model " + quote(x.asked.model) + " leads to no provider that this sandbox may use"
		}
		if x.way == nil && x.c.Host != policy.MainHost(x.d.name) {
			return &refusal{status: http.StatusServiceUnavailable, code: codeConfig, reason: "no-provider", param: "model", message: what + " for this sandbox",
				remedy: "The operator can add a Provider with dialect: " + x.d.name + " and hosts: [" + x.c.Host + "]"}
		}
		return &refusal{status: http.StatusServiceUnavailable, code: codeConfig, reason: "no-provider", param: "model",
			message: what, remedy: "The operator can look with: " + x.explainCommand()}
	}
	ref := &refusal{status: http.StatusBadRequest, code: codeInvalid, reason: "no-candidate", param: "model",
		message: "nobody can answer this request for " + quote(x.asked.model) + ": " + x.leftOut(), remedy: "Ask for less, or for another model"}
	return ref
}

// leftOut says of each candidate why it is not asked.
func (x *exchange) leftOut() string {
	var parts []string
	for i := range x.list {
		if c := &x.list[i]; c.out != "" {
			parts = append(parts, c.name()+" ("+c.out+")")
		}
	}
	return strings.Join(parts, ", ")
}

func (x *exchange) explainCommand() string {
	return "ringfence explain --as " + x.c.Scope + " model " + x.asked.model
}
