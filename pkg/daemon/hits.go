// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"sync"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// ruleHits counts what rules of the policy in force decided in the gateway. A
// rule that the policy has no more loses its count. The zero value is ready.
type ruleHits struct {
	mu sync.Mutex
	at uint64 // revision of the policy whose rules are the keys
	of map[sandbox.RuleKey]uint64
}

// take counts a record of the gateway: a question, a connection, a request, a
// model call. A connection that lasts is told of more than once. What names no
// rule of the policy is not counted: the gateway may say anything.
func (h *ruleHits) take(e *event.Event, snap *policy.Snapshot) {
	switch {
	case e.Rule == "", !e.Decides(),
		e.Activity == event.ActivityClaim, e.Activity == event.ActivityRelease,
		e.Kind == event.KindNetwork && e.Verdict == event.Allowed && e.Activity == "open":
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.follow(snap)
	key := sandbox.RuleKey{Rule: e.Rule, At: e.RuleAt}
	if n, is := h.of[key]; is {
		h.of[key] = n + max(e.Count, 1)
	}
}

// follow makes the keys those of a policy.
func (h *ruleHits) follow(snap *policy.Snapshot) {
	if h.of != nil && h.at == snap.Revision() {
		return
	}
	old := h.of
	h.at, h.of = snap.Revision(), make(map[sandbox.RuleKey]uint64, snap.Rules()+1)
	builtin := sandbox.KeyOf(policy.Builtin().Ref)
	h.of[builtin] = old[builtin]
	for num := range uint32(snap.Rules()) {
		if ref, _, ok := snap.Rule(num + 1); ok {
			key := sandbox.KeyOf(ref)
			h.of[key] = old[key]
		}
	}
}

func (h *ruleHits) get(k sandbox.RuleKey) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of[k]
}

// PolicyUse tells of each rule in force, the built-in one among them, what it has
// in the kernel and how often it decided, and which documents there are.
func (b *backend) PolicyUse(context.Context) (api.PolicyUse, error) {
	d := b.d
	uses, err := d.sandboxes.RuleUses()
	if err != nil {
		return api.PolicyUse{}, err
	}
	name, cidr, err := d.fence.EntryBytes()
	if err != nil {
		return api.PolicyUse{}, err
	}
	memory, err := d.fence.Memory()
	if err != nil {
		return api.PolicyUse{}, fmt.Errorf("kernel memory: %w", err)
	}
	snap := d.library.Snapshot()
	out := api.PolicyUse{Revision: snap.Revision(), Documents: []api.PolicyDocument{}, Since: d.started, Sandboxes: len(d.sandboxes.List()), NameBytes: name, AddressBytes: cidr}
	for _, m := range memory {
		out.Maps = append(out.Maps, api.KernelMap{Name: m.Name, Bytes: m.Bytes})
		out.KernelBytes += m.Bytes
	}
	for _, it := range d.library.Items() {
		out.Documents = append(out.Documents, api.PolicyDocument{Kind: it.Kind, Name: it.Name, Scope: it.Scope.String(), File: it.File})
	}
	out.Problems = d.unknownPeople()
	rules := []policy.Described{policy.Builtin()}
	if d.ruleHits.get(sandbox.KeyOf(policy.Learn().Ref)) > 0 {
		rules = append(rules, policy.Learn())
	}
	for num := range uint32(snap.Rules()) {
		if r, ok := snap.Describe(num + 1); ok {
			rules = append(rules, r)
		}
	}
	for _, r := range rules {
		key := sandbox.KeyOf(r.Ref)
		u := uses[key]
		out.Rules = append(out.Rules, api.RuleUse{
			Rule: key.Rule, At: key.At, Scope: r.Ref.Scope, Section: r.Section, Effect: r.Effect.String(), Target: r.Target,
			Sandboxes: u.Sandboxes, Entries: u.Names + u.CIDRs, KernelBytes: uint64(u.Names)*name + uint64(u.CIDRs)*cidr,
			KernelHits: u.Hits, GatewayHits: d.ruleHits.get(key),
		})
	}
	return out, nil
}
