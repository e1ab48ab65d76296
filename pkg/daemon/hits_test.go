// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

func compiled(t *testing.T, revision uint64, rules ...string) *policy.Snapshot {
	t.Helper()
	text := "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:local\negress:\n"
	for _, r := range rules {
		text += fmt.Sprintf("  - {id: %s, allow: \"%s.example:443\"}\n", r, r)
	}
	docs, problems := policy.Parse("p.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	snap, problems := policy.Compile(revision, docs)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return snap
}

// keyOf is that of the rule with an id.
func keyOf(t *testing.T, snap *policy.Snapshot, id string) sandbox.RuleKey {
	t.Helper()
	for num := range uint32(snap.Rules()) {
		if ref, _, ok := snap.Rule(num + 1); ok && sandbox.KeyOf(ref).Rule == "p/"+id {
			return sandbox.KeyOf(ref)
		}
	}
	t.Fatalf("no rule %q", id)
	return sandbox.RuleKey{}
}

// A gateway that is taken over invents no rules and takes no count away.
func TestHitsAreOfRulesThatThereAre(t *testing.T) {
	var h ruleHits
	snap := compiled(t, 1, "a", "b")
	a := keyOf(t, snap, "a")
	say := func(snap *policy.Snapshot, k sandbox.RuleKey) {
		h.take(&event.Event{Kind: event.KindHTTP, Verdict: event.Allowed, Rule: k.Rule, RuleAt: k.At}, snap)
	}
	say(snap, a)
	say(snap, a)
	for i := range 1000 {
		say(snap, sandbox.RuleKey{Rule: fmt.Sprint("forged", i)})
	}
	if got := h.get(a); got != 2 || len(h.of) != snap.Rules()+1 {
		t.Errorf("%d hits, %d rules are counted of %d and the built-in one", got, len(h.of), snap.Rules())
	}
	next := compiled(t, 2, "a")
	say(next, keyOf(t, next, "a"))
	if got := h.get(a); got != 3 || len(h.of) != next.Rules()+1 {
		t.Errorf("after a change: %d hits, %d rules", got, len(h.of))
	}
}
