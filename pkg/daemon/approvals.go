// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"iter"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/scope"
)

// openApprovals opens the book of what people decide.
func (d *Daemon) openApprovals() (err error) {
	d.approvals, err = approval.NewBook(context.Background(), approval.Options{Store: d.store, Limits: approval.DefaultLimits, Now: time.Now,
		Lives: func(id string) bool { _, ok := d.sandboxes.ByID(id); return ok }, Record: d.recordApproval, Announce: d.announce})
	return err
}

// endApprovals ends what a sandbox asked for that nobody has decided, and what
// was given to it. What fails here the next sweep does.
func (d *Daemon) endApprovals(sandbox string) {
	if err := d.approvals.End(context.Background(), sandbox); err != nil {
		d.logger.Warn("approvals of a sandbox that has ended", "sandbox", sandbox, "error", err)
	}
}

// approvalVerdicts are what the verbs mean for what was asked for.
var approvalVerdicts = map[approval.Verb]event.Verdict{
	approval.VerbAsk: event.Observed, approval.VerbVote: event.Observed, approval.VerbApprove: event.Allowed, approval.VerbConsume: event.Allowed,
}

// recordApproval makes the event of a change durable.
func (d *Daemon) recordApproval(c approval.Change) error {
	return d.appendErr(approvalEvent(&c, time.Now().UTC(), d.version))
}

func approvalEvent(c *approval.Change, now time.Time, version string) *event.Event {
	r := &c.Request
	e := &event.Event{Kind: event.KindApproval, Time: now, Source: "keeper", Verdict: approvalVerdicts[c.Verb], Activity: string(c.Verb), Sandbox: r.Sandbox, Scope: r.Scope,
		Layer: "approval", Rule: r.Demands[0].Rule, RequestID: r.ID, Object: string(r.Kind) + " " + r.Target, Count: r.Count, ReasonCode: "approval-" + r.State.String(), Reason: r.Why, Version: version}
	if r.State == approval.Pending {
		e.Reason, e.Remedy = "waits for "+r.Needs(), "ringfence approvals approve "+r.ID
	}
	if r.State == approval.Approved {
		e.Reason = "approved " + r.Grant.Says()
	}
	if r.State == approval.Consumed {
		e.Reason = "the approval for one time was used"
	}
	if c.By != nil {
		e.Actor, e.UID = scope.Operator(c.By.UID, c.By.Name), c.By.UID
	}
	if n := len(r.Votes); c.By != nil && n > 0 && c.Verb != approval.VerbSupersede {
		e.Detail = r.Votes[n-1].Comment
	}
	return e
}

// voter is a caller as rules name people: by what the kernel says of it, and the
// names that this machine has now for its uid and for the groups of rules.
type voter struct {
	c    *api.Caller
	name string
	in   map[string]bool // groups that were looked up
}

func (d *Daemon) voter(c *api.Caller) *voter {
	return &voter{c: c, name: d.people.name(c.UID), in: map[string]bool{}}
}

// person is the voter before one request.
func (v *voter) person(r *approval.Request) approval.Person {
	p := approval.Person{Known: true, UID: v.c.UID, Name: v.name, Role: v.c.Rights.Approves(r.Scope), GIDs: append([]uint32{v.c.GID}, v.c.Groups...)}
	for _, name := range r.Groups() {
		if v.isIn(name) {
			p.Groups = append(p.Groups, name)
		}
	}
	return p
}

// isIn looks a group up. One that is not there has no members.
func (v *voter) isIn(group string) bool {
	in, known := v.in[group]
	if known {
		return in
	}
	if g, err := user.LookupGroup(group); err == nil {
		gid, err := strconv.ParseUint(g.Gid, 10, 32)
		in = err == nil && (uint32(gid) == v.c.GID || slices.Contains(v.c.Groups, uint32(gid)))
	}
	v.in[group] = in
	return in
}

// Approvals lists them as a caller sees them.
func (b *backend) Approvals(ctx context.Context, c *api.Caller, all bool) iter.Seq2[api.Approval, error] {
	return b.d.voter(c).views(b.d.approvals.List(ctx, all))
}

// Approval is one of them.
func (b *backend) Approval(ctx context.Context, c *api.Caller, id string) (api.Approval, error) {
	r, err := b.d.approvals.Get(ctx, id)
	if err != nil {
		return api.Approval{}, approvalError(&r, err)
	}
	v := b.d.voter(c).view(&r)
	v.MayLast = b.d.mayLast(c, &r)
	return v, nil
}

// WatchApprovals yields them.
func (b *backend) WatchApprovals(ctx context.Context, c *api.Caller) iter.Seq2[api.Approval, error] {
	return b.d.voter(c).views(b.d.approvals.Watch(ctx))
}

// views are requests as the voter sees them.
func (v *voter) views(list iter.Seq2[approval.Request, error]) iter.Seq2[api.Approval, error] {
	return func(yield func(api.Approval, error) bool) {
		for r, err := range list {
			if err != nil {
				yield(api.Approval{}, approvalError(&r, err))
				return
			}
			if !yield(v.view(&r), nil) {
				return
			}
		}
	}
}

// Vote is a caller's word.
func (b *backend) Vote(ctx context.Context, c *api.Caller, id string, v *api.VoteRequest) (api.Approval, error) {
	r, err := b.d.approvals.Get(ctx, id)
	if err != nil {
		return api.Approval{}, approvalError(&r, err)
	}
	t, err := termsOf(&r, v)
	if err != nil {
		return api.Approval{}, approvalError(&r, err)
	}
	r, err = b.d.approvals.Vote(ctx, id, b.d.voter(c).person(&r), v.Approve, t, v.Comment)
	if err != nil {
		return api.Approval{}, approvalError(&r, err)
	}
	return b.d.voter(c).view(&r), nil
}

// termsOf are what a vote gives. For a time, or until the sandbox ends, an approval
// of a destination or a model is for whatever is asked there; of a tool for the
// same arguments, but for those that the vote frees.
func termsOf(r *approval.Request, v *api.VoteRequest) (t approval.Terms, err error) {
	switch v.Lasts {
	case api.ApproveFor:
		t.Lasts, t.For = approval.LastsFor, time.Duration(v.For)
	case api.ApproveSandbox:
		t.Lasts = approval.LastsSandbox
	}
	switch {
	case t.Lasts == approval.LastsOnce:
	case len(v.Args) > 0, r.Kind == approval.Tool && r.Listed:
		t.Covers = approval.CoversArguments
	case r.Kind != approval.Tool:
		t.Covers = approval.CoversTarget
	}
	for _, text := range v.Args {
		p, err := approval.ParsePattern(text)
		if err != nil {
			return approval.Terms{}, err
		}
		t.Args = append(t.Args, p)
	}
	return t, nil
}

// approvalErrors say which code an error has, and what to do.
var approvalErrors = []struct {
	err    error
	code   api.Code
	remedy string
}{
	{approval.ErrNotFound, api.CodeNotFound, ""},
	{approval.ErrDecided, api.CodeConflict, "`ringfence approvals show` says what became of it; what is needed still is asked for again"},
	{approval.ErrTwice, api.CodeConflict, "another approver has to agree"},
	{approval.ErrNotApprover, api.CodeDenied, "`ringfence approvals show` says who is one"},
	{approval.ErrTerms, api.CodeBadRequest, "`ringfence approvals show` says what it is about: approve it --once, --for a shorter time, or with other --args"},
	{approval.ErrBehind, api.CodeUnavailable, "begin to watch again"},
}

func approvalError(r *approval.Request, err error) error {
	for _, e := range approvalErrors {
		if !errors.Is(err, e.err) {
			continue
		}
		detail := ""
		if e.err == approval.ErrDecided {
			if detail = r.State.String(); r.Why != "" {
				detail += ", " + r.Why
			}
		}
		return &api.Error{Code: e.code, Message: err.Error(), Detail: detail, Remedy: e.remedy}
	}
	return &api.Error{Code: api.CodeUnavailable, Message: "the approval could not be read, or not be made durable", Detail: err.Error(),
		Remedy: "look with `ringfence approvals show` what became of it, and make room on the disk if it is full"}
}

func (v *voter) view(r *approval.Request) api.Approval {
	p := v.person(r)
	a := api.Approval{ID: r.ID, Sandbox: r.Sandbox, Name: r.Asker.Name, Program: r.Asker.Program, Workspace: r.Asker.Workspace, Profile: r.Asker.Profile, Scope: r.Scope, Launcher: r.Launcher, Kind: string(r.Kind), Target: r.Target, Arguments: r.Shown, Binding: r.Binding,
		Fingerprint: r.Fingerprint, State: r.State.String(), Why: r.Why, Count: r.Count, Created: r.Created, Expires: r.Expires, Decided: when(r.Decided), Ended: when(r.Ended),
		MayVote: r.State == approval.Pending && r.May(&p) && !r.HasApproved(p.UID), Named: r.Names(&p)}
	if r.State == approval.Pending {
		a.Needs = r.Needs()
	}
	for _, g := range r.Args {
		a.Args = append(a.Args, api.ApprovalArgument{Path: g.Path, Text: g.Text, Kept: g.Kept})
	}
	lacks := map[string]int{}
	for _, l := range r.Lacks() {
		lacks[l.Demand.Rule] = l.People
	}
	for _, d := range r.Demands {
		a.Demands = append(a.Demands, api.ApprovalDemand{Rule: d.Rule, RuleAt: d.At, Reason: d.Reason, Who: d.Who(), Approvers: d.Approvers, Quorum: d.Quorum, Separate: d.Separate, Lacks: lacks[d.Rule]})
	}
	for _, w := range r.Votes {
		vote := api.ApprovalVote{UID: w.UID, Name: w.Name, Approve: w.Approve, Comment: w.Comment, At: w.At}
		if w.Approve {
			vote.Gives = w.Terms.Says()
		}
		a.Votes = append(a.Votes, vote)
	}
	if g := r.Grant; g != nil {
		a.Grant = &api.ApprovalGrant{Covers: g.Covers.String(), Lasts: g.Lasts.String(), Says: g.Says(), Until: when(g.Until)}
	}
	return a
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
