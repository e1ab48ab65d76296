// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"testing"

	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Nobody is asked about a request of which policy denies a part, wherever in it that
// stands: it could not go on whatever they say.
func TestNobodyIsAskedWhereOneIsDenied(t *testing.T) {
	b, told := inbox(t)
	rules(t, b, "house org:local   - {id: ask, to: \"ask.test:443\", action: require-approval}\n  - {id: no, deny: \"no.test:443\"}\n  - {id: yes, allow: \"yes.test:443\"}\n")
	who, _ := scope.ParsePrincipal(asker)
	s := &sandbox.Sandbox{Principal: who, Record: sandbox.Record{ID: who.Sandbox, Scope: asker, Owner: 64001}}
	part := func(name string, want policy.Effect) decided {
		t.Helper()
		dec := b.d.library.Snapshot().View(who).Egress(name, 443)
		if dec.Effect != want {
			t.Fatalf("%s: %+v", name, dec)
		}
		return decided{dec, &approval.Call{Kind: approval.Egress, Target: name + ":443/tcp"}}
	}
	ask := func() decided { return part("ask.test", policy.RequireApproval) }
	no := func() decided { return part("no.test", policy.Block) }
	yes := func() decided { return part("yes.test", policy.Allow) }
	for _, list := range [][]decided{{no(), ask()}, {ask(), no()}, {ask(), no(), yes()}, {no(), yes(), ask()}, {yes()}} {
		a, err := b.d.askPeople(context.Background(), s, list)
		if err != nil || a.Outcome != 0 || a.ReasonCode != "approval-superseded" || len(*told) != 0 {
			t.Errorf("%+v, %v, %d events", a, err, len(*told))
		}
	}
	if a, err := b.d.askPeople(context.Background(), s, []decided{yes(), ask()}); err != nil || a.Outcome != wire.ApprovalWaits || a.IDs[1] == "" {
		t.Errorf("control: %+v %v", a, err)
	}
}
