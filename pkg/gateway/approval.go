// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/policy"
)

// ApprovalQuestion is a connection to a name that policy has people decide.
type ApprovalQuestion struct {
	Sandbox uint32
	Name    string
	Port    uint16
	Waits   string // the id of an answer that said so
}

// ApprovalAnswer is the keeper's word. The zero value refuses.
type ApprovalAnswer struct {
	Waits, Released    bool
	ID                 string // of the request
	Reason, ReasonCode string // of a refusal

	// Fingerprint is of the rules on which it was released: it opens nothing that
	// others demand.
	Fingerprint [32]byte
}

// Reason codes of what people decide, beside the keeper's.
const (
	codeApproved        = "approved"
	codeApprovalWaits   = "approval-waits"
	codeApprovalNowhere = "approval-unavailable"
	codeApprovalChanged = "approval-superseded"
)

const (
	approvalEvery   = 500 * time.Millisecond // how often somebody who waits asks again
	maxAsking       = 256                    // connections of all sandboxes that wait for people
	maxAskingOfOne  = 16                     // of one sandbox
	asksAtOnce      = 4                      // questions of one sandbox on their way to the keeper
	approvalCommand = "ringfence approvals approve "
)

// approve waits until people have decided about a connection to a name, and
// turns the decision into an allow, or into a denial that says what became of
// it. It waits at most for Limits.Approval, and not longer than somebody is at
// the other end: what was approved for one time must not be used up by who is
// gone. Connections to port 80 are not asked about: there each request says
// itself where it wants to go.
func (f *flow) approve(name string, d policy.Decision) policy.Decision {
	if f.dst.Port() == 80 {
		d.Reason += "; nobody can be asked about plain HTTP: use port 443"
		return d
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.sb.g.opt.Limits.Approval)
	defer cancel()
	held := f.sb.hold()
	if held {
		defer f.sb.letGo()
	}
	q := ApprovalQuestion{Sandbox: f.sb.cfg.ID, Name: name, Port: f.dst.Port()}
	for {
		a, err := f.sb.askKeeper(ctx, q)
		switch {
		case err != nil && q.Waits == "":
			d.Reason, d.ReasonCode = d.Reason+"; the daemon could not be asked: "+err.Error(), codeApprovalNowhere
			return d
		case err == nil && a.Released:
			d.Effect, d.Reason, d.ReasonCode = policy.Allow, "people have approved it ("+a.ID+")", codeApproved
			d.Terms = &policy.Terms{Fingerprint: a.Fingerprint}
			return d
		case err == nil && !a.Waits:
			d.Reason, d.ReasonCode = a.Reason, a.ReasonCode
			return d
		case err == nil:
			q.Waits = a.ID
		}
		if !held || !f.pause(ctx, approvalEvery) {
			d.Reason, d.ReasonCode = d.Reason+"; it waits for people as "+q.Waits+": try again", codeApprovalWaits
			f.setWaits(q.Waits)
			return d
		}
	}
}

// pause waits; false: there is nobody to wait for any more.
func (f *flow) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return established(f.conn.TCPConn)
	case <-ctx.Done():
		return false
	}
}

// established says whether the other end has closed neither side.
func established(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		ok = err == nil && info.State == unix.BPF_TCP_ESTABLISHED
	})
	return ok
}

func (f *flow) setWaits(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waits = id
}

// approvalRemedy is the command that approves what the connection waited for, ""
// if it did not wait.
func (f *flow) approvalRemedy() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waits == "" {
		return ""
	}
	return approvalCommand + f.waits
}

// askKeeper asks for a connection, few of one sandbox at a time: the keeper
// decides one after the other, and all sandboxes share the way to it.
func (sb *sandbox) askKeeper(ctx context.Context, q ApprovalQuestion) (ApprovalAnswer, error) {
	select {
	case sb.asking <- struct{}{}:
		defer func() { <-sb.asking }()
	case <-ctx.Done():
		return ApprovalAnswer{}, ctx.Err()
	}
	return sb.g.opt.Keeper.Approval(ctx, q)
}

// hold takes one of the places for connections that wait.
func (sb *sandbox) hold() bool {
	if sb.g.held.Add(1) <= maxAsking {
		if sb.held.Add(1) <= maxAskingOfOne {
			return true
		}
		sb.held.Add(-1)
	}
	sb.g.held.Add(-1)
	return false
}

func (sb *sandbox) letGo() {
	sb.held.Add(-1)
	sb.g.held.Add(-1)
}

// asked waits for people and returns the policy and the treatment of the moment
// after that: of what they let pass bytes are passed, and on port 443 a
// ClientHello must name the name. nil: the connection has ended meanwhile.
func (f *flow) asked(e *epoch, name string, r route) (*epoch, route) {
	d := f.approve(name, r.decision)
	if d.Effect != policy.Allow {
		return e, route{decision: d}
	}
	if e = f.sb.epoch.Load(); e == nil || f.ctx.Err() != nil {
		return nil, route{}
	}
	now := e.byName(name, f.dst.Port())
	if now.decision.Effect != policy.RequireApproval {
		return e, now // allowed or denied meanwhile, without people
	}
	if !approvedStill(d, now.decision) {
		now.decision.Reason, now.decision.ReasonCode = "the rules that ask have changed since it was approved: try again", codeApprovalChanged
		return e, route{decision: now.decision}
	}
	d.Terms, d.Rule, d.Revision = now.decision.Terms, now.decision.Rule, now.decision.Revision
	return e, route{mode: modeRelay, decision: d, approved: true}
}

// approvedStill says whether a connection that was approved is decided by the
// same rules as then, and none looks into its requests: nobody would see them.
func approvedStill(then, now policy.Decision) bool {
	return now.Effect == policy.RequireApproval && !now.HTTP && then.Terms != nil && now.Terms != nil && then.Terms.Fingerprint == now.Terms.Fingerprint
}
