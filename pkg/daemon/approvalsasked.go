// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/wire"
)

// What the gateway asks for a sandbox. The keeper decides itself, on the policy
// that the sandbox is under at this moment: the gateway says only what is wanted.

// egressApproval answers whether people let a connection to a name pass.
func (d *Daemon) egressApproval(ctx context.Context, s *sandbox.Sandbox, q *wire.ApprovalRequest) (wire.ApprovalReply, error) {
	if name, ok := policy.CanonicalHost(q.Name); !ok || name != q.Name {
		return wire.ApprovalReply{Reason: "the gateway asked about a name in another than its canonical form", ReasonCode: "approval-unavailable"}, nil
	}
	dec := s.View().At(time.Now()).Egress(q.Name, q.Port)
	if dec.Effect == policy.RequireApproval && dec.HTTP {
		return wire.ApprovalReply{Reason: "people cannot be asked about this: another rule looks into the requests of this host", ReasonCode: "approval-unavailable"}, nil
	}
	return d.askPeople(ctx, s, dec, &approval.Call{Kind: approval.Egress, Target: q.Name + ":" + strconv.Itoa(int(q.Port)) + "/tcp", Waits: q.Waits})
}

// modelApproval answers whether people let one request to a model pass.
func (d *Daemon) modelApproval(ctx context.Context, s *sandbox.Sandbox, q *wire.ModelApprovalRequest) (wire.ApprovalReply, error) {
	return d.askPeople(ctx, s, s.View().At(time.Now()).Inference(q.Dialect, q.Model), &approval.Call{Kind: approval.Model, Target: q.Dialect + "/" + q.Model,
		Arguments: hex.EncodeToString(q.Arguments[:]), Shown: q.Shown, Waits: q.Waits})
}

// askPeople asks for a call that was decided just now.
func (d *Daemon) askPeople(ctx context.Context, s *sandbox.Sandbox, dec policy.Decision, c *approval.Call) (wire.ApprovalReply, error) {
	r := &s.Record
	if dec.Effect != policy.RequireApproval {
		d.unasked(ctx, r.ID, c.Waits)
		return wire.ApprovalReply{Reason: "people are not asked about this any more: try again", ReasonCode: "approval-superseded"}, nil
	}
	c.Sandbox, c.Scope, c.Launcher, c.Asker = r.ID, r.Scope, r.Owner, askerOf(r)
	c.Fingerprint, c.Demands = hex.EncodeToString(dec.Terms.Fingerprint[:]), demandsOf(dec.Demands())
	a, err := d.approvals.Ask(ctx, c)
	if err != nil {
		d.logger.Error("approval", "sandbox", r.ID, "error", err)
		return wire.ApprovalReply{Reason: "the approval could not be made durable", ReasonCode: "approval-unavailable"}, nil
	}
	out := map[approval.Outcome]wire.ApprovalOutcome{approval.Waiting: wire.ApprovalWaits, approval.Released: wire.ApprovalReleased}[a.Outcome]
	return wire.ApprovalReply{Outcome: out, ID: a.ID, Reason: a.Reason, ReasonCode: a.Code, Fingerprint: dec.Terms.Fingerprint}, nil
}

// askerOf is what people know a sandbox by. The words of a command line after the
// program may hold secrets, and are not for every approver.
func askerOf(r *sandbox.Record) approval.Asker {
	a := approval.Asker{Name: r.Name, Workspace: r.Workspace, Profile: r.Profile}
	if len(r.Argv) > 0 {
		a.Program = r.Argv[0]
	}
	return a
}

func demandsOf(list []policy.Demand) (out []approval.Demand) {
	for _, p := range list {
		a := p.Approval
		out = append(out, approval.Demand{Rule: p.Rule.String(), At: ruleAt(p.Rule.File, p.Rule.Line), Reason: p.Reason, Approvers: a.Approvers, Quorum: a.Quorum, Separate: a.Separate, ExpiresAfter: a.ExpiresAfter, ValidFor: a.ValidFor})
	}
	return out
}
