// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
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
	return d.askPeople(ctx, s, []decided{{dec, &approval.Call{Kind: approval.Egress, Target: q.Name + ":" + strconv.Itoa(int(q.Port)) + "/tcp", Waits: q.Waits}}})
}

// modelApproval answers whether people let one request to a model pass, with the
// tools that the provider would run for it.
func (d *Daemon) modelApproval(ctx context.Context, s *sandbox.Sandbox, q *wire.ModelApprovalRequest) (wire.ApprovalReply, error) {
	view, arguments := s.View().At(time.Now()), hex.EncodeToString(q.Arguments[:])
	waits := func(nth int) string {
		if nth < len(q.Waits) {
			return q.Waits[nth]
		}
		return ""
	}
	model := decided{policy.Decision{Effect: policy.Allow}, &approval.Call{Kind: approval.Model, Target: q.Dialect + "/" + q.Model, Arguments: arguments, Shown: q.Shown, Waits: waits(0)}}
	if q.Model != "" {
		model.Decision = view.Inference(q.Dialect, q.Model)
	}
	list := []decided{model}
	for i := range q.Tools {
		t := &q.Tools[i]
		target := scope.All()
		target.Server, target.Tool = scope.Exact(scope.ServerProvider), scope.Exact(t.Name)
		c := &approval.Call{Kind: approval.Tool, Target: target.String(), Definition: hex.EncodeToString(t.Definition[:]), Arguments: arguments,
			Shown: q.Dialect + " " + q.Shown + ": " + t.Shown, Listed: true, Waits: waits(1 + i)}
		for _, set := range t.Settings {
			c.Args = append(c.Args, approval.Argument{Path: set.Path, Kind: set.Kind, Hash: hex.EncodeToString(set.Hash[:]), Text: set.Text, Kept: set.Kept})
		}
		list = append(list, decided{view.ProviderTool(t.Name), c})
	}
	return d.askPeople(ctx, s, list)
}

// decided is a call, and what policy said to it just now.
type decided struct {
	policy.Decision
	call *approval.Call
}

// askPeople asks for the calls that demand people, all together. Where policy denies
// one, or demands people for none, nobody is asked: the gateway has an older policy.
func (d *Daemon) askPeople(ctx context.Context, s *sandbox.Sandbox, list []decided) (wire.ApprovalReply, error) {
	r := &s.Record
	var calls []*approval.Call
	blocked := false
	out := wire.ApprovalReply{IDs: make([]string, len(list)), Fingerprints: make([][32]byte, len(list))}
	for i, l := range list {
		if l.Effect != policy.RequireApproval {
			blocked = blocked || l.Effect == policy.Block
			d.unasked(ctx, r.ID, l.call.Waits)
			continue
		}
		c := l.call
		c.Sandbox, c.Scope, c.Launcher, c.Asker = r.ID, r.Scope, r.Owner, askerOf(r)
		c.Fingerprint, c.Demands = hex.EncodeToString(l.Terms.Fingerprint[:]), demandsOf(l.Demands())
		calls, out.Fingerprints[i] = append(calls, c), l.Terms.Fingerprint
	}
	if blocked || len(calls) == 0 {
		return wire.ApprovalReply{Reason: "people are not asked about this any more: try again", ReasonCode: "approval-superseded"}, nil
	}
	a, err := d.approvals.AskAll(ctx, calls)
	if errors.Is(err, approval.ErrCall) {
		return wire.ApprovalReply{Reason: "people cannot be asked about this: " + err.Error(), ReasonCode: "approval-unavailable"}, nil
	}
	if err != nil {
		d.logger.Error("approval", "sandbox", r.ID, "error", err)
		return wire.ApprovalReply{Reason: "the approval could not be made durable", ReasonCode: "approval-unavailable"}, nil
	}
	for i, l := range list {
		if k := slices.Index(calls, l.call); k >= 0 {
			out.IDs[i] = a.IDs[k]
		}
	}
	out.Outcome = map[approval.Outcome]wire.ApprovalOutcome{approval.Waiting: wire.ApprovalWaits, approval.Released: wire.ApprovalReleased}[a.Outcome]
	out.Reason, out.ReasonCode = a.Reason, a.Code
	return out, nil
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
