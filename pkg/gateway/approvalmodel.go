// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"slices"

	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
)

// approveModel has people decide about one request, its model and the tools that the
// provider would run, and gives what is in force after that: the request goes on as
// what it is then.
func (x *exchange) approveModel(ctx context.Context, q inference.Question) inference.Approved {
	sb := x.f.sb
	ask := ApprovalQuestion{Sandbox: sb.cfg.ID, Dialect: q.Dialect, Model: q.Model, Arguments: q.Arguments, Shown: q.Shown, Tools: q.Tools}
	before := append([]policy.Decision{q.Decision}, q.Decisions...)
	decide := func() (*epoch, []policy.Decision) {
		e := sb.epoch.Load()
		if e == nil {
			return nil, nil
		}
		now := []policy.Decision{q.Decision}
		if q.Model != "" {
			now[0] = e.view.Inference(q.Dialect, q.Model)
		}
		for _, t := range q.Tools {
			now = append(now, e.view.ProviderTool(t.Name))
		}
		return e, now
	}
	w := sb.people(ctx, waiting{
		ask: func(ctx context.Context, waits []string) (ApprovalAnswer, error) {
			ask.Waits = waits
			return sb.g.opt.Keeper.Approval(ctx, ask)
		},
		unasked: func() bool { e, now := decide(); return e != nil && !slices.ContainsFunc(now, demanded) },
		there:   func() bool { return established(x.f.conn.TCPConn) }, hold: q.Hold,
	})
	out := inference.Approved{}
	if !w.passes {
		if w.code == codeApprovalWaits {
			out.Waits = w.ids
		}
		for i, d := range before {
			if demanded(d) {
				before[i] = w.decided(i, d)
			}
		}
		out.Decision, out.Decisions = before[0], before[1:]
		return out
	}
	e, now := decide()
	if e == nil || ctx.Err() != nil {
		return inference.Approved{}
	}
	for i := range now {
		now[i] = settled(w.decided(i, before[i]), now[i])
	}
	out.View, out.Snapshot, out.Transport = e.view, e.view, e.provider
	out.Decision, out.Decisions = now[0], now[1:]
	return out
}

func demanded(d policy.Decision) bool { return d.Effect == policy.RequireApproval }

// settled is the decision about what people have let pass, by the rules of now.
func settled(then, now policy.Decision) policy.Decision {
	switch {
	case !demanded(now):
		return now // allowed or denied meanwhile, without people
	case !approvedStill(then, now):
		now.Reason, now.ReasonCode = "the rules that ask have changed since it was approved: try again", codeApprovalChanged
		return now
	}
	then.Terms, then.Rule, then.Revision = now.Terms, now.Rule, now.Revision
	return then
}
