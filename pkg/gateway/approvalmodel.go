// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"

	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
)

// approveModel has people decide about one request to a model, and gives what is
// in force after that: the request goes on as what it is then.
func (x *exchange) approveModel(ctx context.Context, q inference.Question) inference.Approved {
	sb := x.f.sb
	ask := ApprovalQuestion{Sandbox: sb.cfg.ID, Dialect: q.Dialect, Model: q.Model, Arguments: q.Arguments, Shown: q.Shown}
	decide := func() (*epoch, policy.Decision) {
		e := sb.epoch.Load()
		if e == nil {
			return nil, policy.Decision{}
		}
		return e, e.view.Inference(q.Dialect, q.Model)
	}
	w := sb.people(ctx, waiting{
		ask: func(ctx context.Context, waits string) (ApprovalAnswer, error) {
			ask.Waits = waits
			return sb.g.opt.Keeper.Approval(ctx, ask)
		},
		unasked: func() bool { e, d := decide(); return e != nil && d.Effect != policy.RequireApproval },
		there:   func() bool { return established(x.f.conn.TCPConn) }, hold: q.Hold,
	})
	out := inference.Approved{Decision: w.decided(q.Decision)}
	if w.code == codeApprovalWaits {
		out.Waits = w.id
	}
	if !w.passes {
		return out
	}
	e, now := decide()
	if e == nil || ctx.Err() != nil {
		return inference.Approved{}
	}
	out.View, out.Snapshot, out.Transport = e.view, e.view, e.provider
	switch {
	case now.Effect != policy.RequireApproval:
		out.Decision = now // allowed or denied meanwhile, without people
	case !approvedStill(out.Decision, now):
		now.Reason, now.ReasonCode = "the rules that ask have changed since it was approved: try again", codeApprovalChanged
		out.Decision = now
	default:
		out.Decision.Terms, out.Decision.Rule, out.Decision.Revision = now.Terms, now.Rule, now.Revision
	}
	return out
}
