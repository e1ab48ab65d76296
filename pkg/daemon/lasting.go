// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
)

// approvedDocument begins the names of the documents that hold what people let
// pass for good, one for each scope.
const approvedDocument = "approved"

// lasting is a rule that is to stay: what it allows, to whom, and in which
// layers, because each of them asks.
type lasting struct {
	who    scope.Principal
	target policy.Target
	admit  []netip.Prefix // private addresses that the rules that ask admit
	layers []scope.Selector
	from   string // "the approval ID", for the history
}

// whom are all sandboxes of the agent: what it is allowed outlives the one that
// asked, and no other agent gets it.
func (l *lasting) whom() scope.Selector {
	p := l.who
	p.Sandbox = ""
	return p.Selector()
}

// LastApproval makes a rule of a request: in the layer of each rule that asks,
// narrower than that rule, so that it gives way and still asks about all else.
func (b *backend) LastApproval(ctx context.Context, c *api.Caller, id string, r *api.LastingRequest) (api.LastingRule, error) {
	q, err := b.d.approvals.Get(ctx, id)
	if err != nil {
		return api.LastingRule{}, approvalError(&q, err)
	}
	l, err := b.d.lastingOf(&q)
	if err != nil {
		return api.LastingRule{}, err
	}
	res, err := b.write(ctx, c, l, r)
	if err != nil || res.Revision == 0 {
		return res, err
	}
	late := b.inForce(ctx, &res) // first: who waits goes on by the rule, and does not ask again
	by := b.d.voter(c).person(&q)
	err = b.d.approvals.Supersede(context.WithoutCancel(ctx), id, "a rule of "+namesOf(res.Documents)+" allows it now", &by)
	if late == nil && err != nil {
		late = api.Errorf(api.CodeUnavailable, "the rule is in force, as policy revision %d, but that the request is over with it could not be stored: %v", res.Revision, err).
			WithRemedy("nothing has to be approved any more: the request ends by itself")
	}
	return res, late
}

// inForce waits until a rule that was written is in force everywhere. Nobody else's
// change waits with it.
func (b *backend) inForce(ctx context.Context, res *api.LastingRule) error {
	wctx, cancel := context.WithTimeout(ctx, enforceTime)
	defer cancel()
	if err := b.d.policy.wait(wctx, res.Revision); err != nil {
		return api.Errorf(api.CodeUnavailable, "the rule is written (%s), but %v", namesOf(res.Documents), err).
			WithRemedy("it need not be written again; `ringfence doctor` says what it waits for, and `ringfence policy delete` takes it away")
	}
	return nil
}

func namesOf(docs []api.DocumentChange) string {
	var out []string
	for _, d := range docs {
		out = append(out, d.Name)
	}
	return strings.Join(out, ", ")
}

// lastingOf decides again: only what is asked about at this moment becomes a rule,
// and of a request that is open. What people denied, one voice does not turn into
// a rule.
func (d *Daemon) lastingOf(q *approval.Request) (*lasting, error) {
	if !q.State.Open() {
		return nil, approvalError(q, approval.ErrDecided)
	}
	who, err := scope.ParsePrincipal(q.Scope)
	if err != nil {
		return nil, err
	}
	l := &lasting{who: who, from: "the approval " + q.ID}
	if q.Kind != approval.Egress {
		return nil, api.Errorf(api.CodeBadRequest, "only a destination becomes a rule this way, and this is about a %s", q.Kind).
			WithRemedy("write the rule into a document, and apply it with `ringfence policy apply`")
	}
	if l.target, err = policy.ParseTarget(q.Target); err != nil {
		return nil, err
	}
	l.target.Proto = 0 // as an allow says TCP
	v := d.library.Snapshot().View(who).At(time.Now())
	dec := decide(v, l.target)
	if dec.Effect != policy.RequireApproval || dec.HTTP {
		return nil, api.Errorf(api.CodeConflict, "no rule asks about %s any more: %s", q.Target, dec.Reason)
	}
	l.admit = v.ResolvesTo(l.target.Host.Name, l.target.Port, policy.TCP)
	for _, demand := range dec.Demands() {
		in, err := scope.ParseSelector(demand.Rule.Scope)
		if err != nil {
			return nil, err
		}
		if in.Sandbox != scope.Any {
			return nil, api.Errorf(api.CodeConflict, "the rule %s that asks is of one sandbox and ends with it: nothing lasting can be written beside it", demand.Rule)
		}
		if !slices.Contains(l.layers, in) {
			l.layers = append(l.layers, in)
		}
	}
	return l, nil
}

// mayLast says whether a caller may make a rule of a request.
func (d *Daemon) mayLast(c *api.Caller, q *approval.Request) bool {
	l, err := d.lastingOf(q)
	return err == nil && !slices.ContainsFunc(l.layers, func(in scope.Selector) bool { return !c.Rights.Writes(policy.KindPolicy, in) })
}

// write shows what a rule would change, and with Apply puts it into force by the
// way of every document: a revision with its author and comment.
func (b *backend) write(ctx context.Context, c *api.Caller, l *lasting, r *api.LastingRequest) (api.LastingRule, error) {
	for _, in := range l.layers {
		if !c.Rights.Writes(policy.KindPolicy, in) {
			return api.LastingRule{}, (&api.Error{Code: api.CodeDenied, Message: "a rule for good in " + in.String() + " needs root, or the role policy-author there"}).
				WithRemedy("approve it once, --for a time or for the --sandbox, or ask who may write policy there")
		}
	}
	b.d.applying.Lock()
	defer b.d.applying.Unlock()
	docs, res, err := b.d.propose(l)
	if err != nil || !r.Apply {
		return res, err
	}
	if r.Expect != "" && r.Expect != res.Digest {
		return res, api.Errorf(api.CodeConflict, "the documents have changed since this was looked at; nothing was applied").WithRemedy("look at it again")
	}
	var list []applied
	for _, d := range docs {
		list = append(list, applied{doc: d, file: documents.AppliedFile(d.Kind, d.Name), text: string(d.Raw), read: documents.ReadPolicy(d)})
	}
	change, err := b.applyLocked(ctx, c, cmp.Or(r.Comment, l.from), list)
	if err != nil {
		return api.LastingRule{}, err
	}
	res.Revision = change.Revision
	return res, nil
}

// propose authors the rule in each layer, and sees that it would do what it is
// for: a mandatory rule, or one that asks about exactly this, it does not open.
func (d *Daemon) propose(l *lasting) (docs []policy.Document, res api.LastingRule, err error) {
	rule, err := policy.NewEgressRule(policy.Allow, l.target.String())
	if err != nil {
		return nil, res, api.Errorf(api.CodeBadRequest, "%v", err)
	}
	rule.ResolvesTo = l.admit
	whom := l.whom()
	res.For, res.Allows = whom.String(), l.target.String()
	have, applied := d.documentsHere()
	for _, in := range l.layers {
		rule.For = &whom
		if in == whom {
			rule.For = nil
		}
		before, after, err := policy.Into(have, approvedDocument, in, rule)
		if err != nil {
			return nil, res, api.Errorf(api.CodeBadRequest, "%v", err)
		}
		if len(before.Raw) > 0 && !applied[before.Name] {
			return nil, res, api.Errorf(api.CodeConflict, "the Policy %q stands in %s, which was not applied", before.Name, before.File)
		}
		docs = append(docs, after)
		res.Documents = append(res.Documents, differences(texts(before), texts(after))...)
	}
	snap, err := d.library.Trial(docs...)
	if err != nil {
		return nil, res, api.Errorf(api.CodeBadRequest, "%v", err)
	}
	if dec := decide(snap.View(l.who).At(time.Now()), l.target); !dec.Allowed() {
		return nil, res, api.Errorf(api.CodeConflict, "a rule beside the others would not open %s: %s (rule %s)", l.target, dec.Reason, dec.Rule).
			WithRemedy("change that rule itself, or approve it --for a time")
	}
	if len(res.Documents) == 0 {
		return nil, res, api.Errorf(api.CodeConflict, "the rule stands there already")
	}
	var all []string
	for _, d := range docs {
		all = append(all, d.Name, string(d.Raw))
	}
	res.Digest = store.Hash(strings.Join(all, "\x00"))
	return docs, res, nil
}

// documentsHere are all of the node but those of single sandboxes, and the names
// of those that were applied.
func (d *Daemon) documentsHere() (docs []policy.Document, applied map[string]bool) {
	applied = map[string]bool{}
	for _, it := range d.library.Items() {
		if it.Kind != policy.KindPolicy {
			continue
		}
		docs = append(docs, it.Document)
		if isApplied(&it) {
			applied[it.Name] = true
		}
	}
	return docs, applied
}

// texts is a document as the history keeps one, none where it has no text.
func texts(d policy.Document) []store.Document {
	if len(d.Raw) == 0 {
		return nil
	}
	key := store.Key{Owner: store.OwnerAPI, File: documents.AppliedFile(d.Kind, d.Name), Kind: d.Kind, Name: d.Name, Scope: d.Scope.String()}
	return []store.Document{{Key: key, Text: string(d.Raw)}}
}

// unasked ends what a sandbox waits as once nobody asks about it any more.
func (d *Daemon) unasked(ctx context.Context, sandbox, waits string) {
	if waits == "" {
		return
	}
	q, err := d.approvals.Get(ctx, waits)
	if err != nil || q.Sandbox != sandbox || !q.State.Open() {
		return
	}
	if err := d.approvals.Supersede(ctx, waits, "the rules that decide have changed", nil); err != nil {
		d.logger.Error("approval", "sandbox", sandbox, "error", err)
	}
}
