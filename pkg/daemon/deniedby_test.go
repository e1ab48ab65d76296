// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/netip"
	"testing"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// A record names a rule of the revision that it names, or none.
func TestADenialNamesARuleOfItsRevision(t *testing.T) {
	docs, problems := policy.Parse("p.yaml", []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:local\negress:\n"+
		"  - {id: name, deny: a.test}\n  - {id: addr, deny: \"203.0.114.7\"}\n"))
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	snap, problems := policy.Compile(7, docs)
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	view := snap.View(scope.Principal{Org: "local", Team: "default", Agent: "a"})
	num := uint32(0)
	for _, e := range view.CIDRTable() {
		num = max(num, e.Rule.Num)
	}
	for what, c := range map[string]struct {
		generation uint32
		name       string
		reason     kernel.Reason
		rule       uint32
		want       string
	}{
		"a name":                        {7, "a.test", kernel.ReasonNoRule, 0, "p/name"},
		"a name, before":                {6, "a.test", kernel.ReasonNoRule, 0, ""},
		"an address":                    {7, "", kernel.ReasonRule, num, "p/addr"},
		"an address, before":            {6, "", kernel.ReasonRule, num, ""},
		"an address that no rule names": {7, "", kernel.ReasonNoRule, 0, ""},
		"a number that there is not":    {7, "", kernel.ReasonRule, 99, ""},
	} {
		v := &kernel.Verdict{Head: kernel.Head{Generation: c.generation}, Proto: uint16(policy.TCP), Dst: netip.MustParseAddrPort("203.0.114.7:443"), Judged: netip.MustParseAddr("203.0.114.7"), Reason: c.reason, Rule: c.rule}
		if got := deniedBy(view, c.name, v).Rule.String(); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}
