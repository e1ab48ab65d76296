// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// draft counts a denial, if it came about because no rule is about the
// destination. That is decided here: the record's word is not enough. Denied for
// something else, such as an address that no name may have, a rule would not help.
func (d *Daemon) draft(e *event.Event) {
	target, ok := draftTarget(e)
	if !ok || e.ReasonCode != policy.CodeNoRule {
		return
	}
	owner, text, known := (&backend{d}).Owner(context.Background(), e.Sandbox)
	who, err := scope.ParsePrincipal(text)
	if !known || err != nil || !byDefault(d.viewFor(who), target) {
		return
	}
	who.Sandbox = ""
	d.drafts.Take(e.Sandbox, who.String(), owner, target.String(), max(e.Count, 1), time.Now().UTC())
	if _, lives := d.sandboxes.ByID(e.Sandbox); !lives {
		d.drafts.End(e.Sandbox, time.Now().UTC())
	}
}

// draftTarget is what a denial of the network was about. A name that was only
// looked up stands for its port 443.
func draftTarget(e *event.Event) (policy.Target, bool) {
	if e.Sandbox == "" || e.Verdict != event.Denied {
		return policy.Target{}, false
	}
	host, port, proto := e.DstName, e.DstPort, ""
	switch e.Kind {
	case event.KindDNS:
		port = 443
	case event.KindHTTP:
	case event.KindNetwork:
		if e.Proto == "udp" {
			proto = "/udp"
		}
		if a, err := netip.ParseAddrPort(e.DstAddr); err == nil && host == "" {
			host = a.Addr().String()
		}
	default:
		return policy.Target{}, false
	}
	if host == "" || port == 0 || len(host) > 255 {
		return policy.Target{}, false
	}
	t, err := policy.ParseTarget(net.JoinHostPort(host, strconv.Itoa(int(port))) + proto)
	if err != nil || t.Host.Kind != policy.HostExact && !t.Prefix.IsSingleIP() {
		return policy.Target{}, false // not in the one form that it has: nobody of ours said so
	}
	if t.Prefix.IsValid() {
		if _, special := policy.SpecialPurpose(t.Prefix.Addr()); special {
			return policy.Target{}, false // metadata, the host's networks: nothing to allow with one key
		}
	}
	return t, true
}

// byDefault says whether a destination is denied because no rule is about it, not
// even one that opens it at other times or on a condition: none is asked, for this
// is decided for whatever a sandbox was denied.
func byDefault(v *policy.View, t policy.Target) bool {
	dec := decide(v.Ahead(), t)
	return dec.Effect == policy.Block && dec.ReasonCode == policy.CodeNoRule
}

// Drafts lists what is denied by default still.
func (b *backend) Drafts(_ context.Context, sees func(launcher uint32, principal string) bool, id string) ([]api.Draft, error) {
	snap := b.d.library.Snapshot()
	var out []api.Draft
	for _, r := range b.d.drafts.List(func(sandbox, in string, launcher uint32) bool { return sees(launcher, in+"/sandbox:"+sandbox) }) {
		if id != "" && r.ID() != id {
			continue
		}
		who, err := scope.ParsePrincipal(r.Scope + "/sandbox:" + r.Sandbox)
		t, terr := policy.ParseTarget(r.Destination)
		if err != nil || terr != nil || !byDefault(snap.View(who), t) {
			b.d.drafts.Forget(&r)
			continue
		}
		out = append(out, api.Draft{ID: r.ID(), Scope: r.Scope, Destination: r.Destination, Count: r.Count, First: r.First, Last: r.Last,
			Sandboxes: []string{r.Sandbox}, More: r.More})
	}
	return out, nil
}

// LastDraft makes a rule of a draft, for the scope that it is of.
func (b *backend) LastDraft(ctx context.Context, c *api.Caller, draft *api.Draft, r *api.LastingRequest) (api.LastingRule, error) {
	who, err := scope.ParsePrincipal(draft.Scope)
	if err != nil {
		return api.LastingRule{}, err
	}
	target, err := policy.ParseTarget(draft.Destination)
	if err != nil {
		return api.LastingRule{}, err
	}
	l := &lasting{who: who, target: target, from: "the draft " + draft.ID}
	l.layers = []scope.Selector{l.whom()}
	res, err := b.write(ctx, c, l, r)
	if err != nil || res.Revision == 0 {
		return res, err
	}
	return res, b.inForce(ctx, &res)
}
