// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
)

// ApprovalQuestion is what policy has people decide: a connection to a name, or,
// with Dialect, one request: about its model, and about tools that the provider
// would run.
type ApprovalQuestion struct {
	Sandbox uint32
	Name    string
	Port    uint16

	Dialect, Model string
	Arguments      [32]byte // hash of the whole request
	Shown          string   // what people read of it
	Tools          []inference.Tool

	Waits []string // the ids of an answer that said so
}

// ApprovalAnswer is the keeper's word. The zero value refuses.
type ApprovalAnswer struct {
	Waits, Released    bool
	IDs                []string // of a connection one; of a request the model's, then each tool's; "" where none is
	Reason, ReasonCode string   // of a refusal

	// Fingerprints are of the rules on which each was released: it opens nothing that
	// others demand.
	Fingerprints [][32]byte
}

// Reason codes of what people decide, beside the keeper's.
const (
	codeApproved        = "approved"
	codeApprovalWaits   = "approval-waits"
	codeApprovalDenied  = "approval-denied" // the keeper's
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
// it. Connections to port 80 are not asked about: there each request says itself
// where it wants to go.
func (f *flow) approve(name string, d policy.Decision) policy.Decision {
	if f.dst.Port() == 80 {
		d.Reason += "; nobody can be asked about plain HTTP: use port 443"
		return d
	}
	q := ApprovalQuestion{Sandbox: f.sb.cfg.ID, Name: name, Port: f.dst.Port()}
	w := f.sb.people(f.ctx, waiting{
		ask: func(ctx context.Context, waits []string) (ApprovalAnswer, error) {
			q.Waits = waits
			return f.sb.g.opt.Keeper.Approval(ctx, q)
		},
		unasked: func() bool {
			e := f.sb.epoch.Load()
			return e != nil && e.byName(name, q.Port).decision.Effect != policy.RequireApproval
		},
		there: func() bool { return established(f.conn.TCPConn) }, hold: true,
	})
	if w.code == codeApprovalWaits {
		f.setWaits(w.first())
	}
	return w.decided(0, d)
}

// waiting is something that policy has people decide.
type waiting struct {
	ask     func(ctx context.Context, waits []string) (ApprovalAnswer, error)
	unasked func() bool // the policy of now demands nobody for it
	there   func() bool // somebody is at the other end still
	hold    bool        // it may wait; else it is asked for once
}

// word is what people, or nobody, said. The zero value refuses.
type word struct {
	passes       bool
	ids          []string // of the requests that it waits as, or was approved as
	code, reason string
	more         bool // the reason follows that of the rule
	fingerprints [][32]byte
}

// first is the id of what is one, or the first of several.
func (w *word) first() string {
	for _, id := range w.ids {
		if id != "" {
			return id
		}
	}
	return ""
}

// named are the ids that there are.
func (w *word) named() []string {
	return slices.DeleteFunc(slices.Clone(w.ids), func(id string) bool { return id == "" })
}

// decided is the word as a decision about one of the things that were asked about.
// Where nobody had to be asked any more it passes by terms on which nothing is
// approved: who asked decides again.
func (w *word) decided(nth int, d policy.Decision) policy.Decision {
	reason := w.reason
	if w.more {
		reason = d.Reason + "; " + reason
	}
	d.Reason, d.ReasonCode = reason, w.code
	if w.passes {
		d.Effect, d.Terms = policy.Allow, &policy.Terms{}
		if nth < len(w.fingerprints) {
			d.Terms.Fingerprint = w.fingerprints[nth]
		}
	}
	return d
}

// people waits until people have decided. It waits at most for Limits.Approval,
// and not longer than somebody is at the other end: what was approved for one
// time must not be used up by who is gone. The keeper may know a newer policy
// than the gateway, on which nobody is asked: that will be here soon.
func (sb *sandbox) people(ctx context.Context, w waiting) word {
	ctx, cancel := context.WithTimeout(ctx, sb.g.opt.Limits.Approval)
	defer cancel()
	held := w.hold && sb.hold()
	if held {
		defer sb.letGo()
	}
	var waits []string
	last := word{}
	for {
		a, err := sb.askKeeper(ctx, waits, w.ask)
		switch {
		case err != nil && waits == nil:
			return word{code: codeApprovalNowhere, reason: "the daemon could not be asked: " + err.Error(), more: true}
		case err == nil && a.Released:
			out := word{passes: true, ids: a.IDs, code: codeApproved, fingerprints: a.Fingerprints}
			out.reason = "people have approved it (" + strings.Join(out.named(), ", ") + ")"
			return out
		case err == nil && a.Waits:
			waits, last = a.IDs, word{ids: a.IDs, code: codeApprovalWaits, more: true}
			last.reason = "it waits for people as " + strings.Join(last.named(), ", ") + ": try again"
		case err == nil && a.ReasonCode == codeApprovalChanged && w.unasked():
			return word{passes: true, code: a.ReasonCode, reason: a.Reason}
		case err == nil:
			waits, last = nil, word{code: a.ReasonCode, reason: a.Reason}
		}
		again := last.code == codeApprovalWaits || last.code == codeApprovalChanged
		if !again || !held || !pause(ctx, approvalEvery) || !w.there() {
			return last
		}
	}
}

// pause waits; false: ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
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

// askKeeper asks, few times of one sandbox at once: the keeper decides one after
// the other, and all sandboxes share the way to it.
func (sb *sandbox) askKeeper(ctx context.Context, waits []string, ask func(context.Context, []string) (ApprovalAnswer, error)) (ApprovalAnswer, error) {
	select {
	case sb.asking <- struct{}{}:
		defer func() { <-sb.asking }()
	case <-ctx.Done():
		return ApprovalAnswer{}, ctx.Err()
	}
	done, err := sb.owner.ask(ctx)
	if err != nil {
		return ApprovalAnswer{}, err
	}
	defer done()
	return ask(ctx, waits)
}

// hold takes one of the places for what waits.
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
