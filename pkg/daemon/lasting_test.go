// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

const asker = "org:local/team:default/agent:x/sandbox:00000001"

// rules puts Policy documents into force.
func rules(t *testing.T, b *backend, docs ...string) {
	t.Helper()
	files := map[string]string{}
	for _, d := range docs {
		name, rest, _ := strings.Cut(d, " ")
		in, list, _ := strings.Cut(rest, " ")
		files[fmt.Sprintf("applied-policy-%s.yaml", name)] = fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: %s\negress:\n%s", name, in, list)
	}
	if _, _, err := b.d.library.PutAll(byRoot, files); err != nil {
		t.Fatal(err)
	}
}

func author(t *testing.T, uid uint32, in string) *api.Caller {
	t.Helper()
	sel, err := scope.ParseSelector(in)
	if err != nil {
		t.Fatal(err)
	}
	c := aMember(uid, uid)
	c.Rights = api.RightsOf(c, api.Access{Scopes: []scope.Selector{sel}, Bindings: []api.RoleBinding{{Scope: sel, Role: policy.RolePolicyAuthor, UIDs: []uint32{uid}}}})
	return c
}

// asks is the request of the sandbox of asker, as the rules in force have it ask.
func asks(t *testing.T, b *backend, name string) answer {
	t.Helper()
	who, _ := scope.ParsePrincipal(asker)
	dec := b.d.library.Snapshot().View(who).Egress(name, 443)
	if dec.Effect != policy.RequireApproval {
		t.Fatalf("control: %+v", dec)
	}
	return calls(t, b, &approval.Call{Sandbox: who.Sandbox, Scope: asker, Launcher: 64001, Kind: approval.Egress, Target: name + ":443/tcp",
		Fingerprint: hex.EncodeToString(dec.Terms.Fingerprint[:]), Demands: demandsOf(dec.Demands())})
}

func TestARuleInEachLayerThatAsks(t *testing.T) {
	b, _ := inbox(t)
	ctx := context.Background()
	rules(t, b, "house org:local   - {id: ask, to: \"**.test:443\", action: require-approval, resolvesTo: [10.0.0.0/8]}\n",
		"team org:local/team:default   - {id: ask, to: \"*.db.test:443\", action: require-approval}\n")
	a := asks(t, b, "a.db.test")
	root := &api.Caller{Role: api.RoleRoot}
	root.Rights = api.RightsOf(root, api.Access{})
	res, err := b.LastApproval(ctx, root, a.ID, &api.LastingRequest{})
	if err != nil || len(res.Documents) != 2 || res.For != "org:local/team:default/agent:x" || res.Revision != 0 {
		t.Fatalf("%+v %v", res, err)
	}
	for i, name := range []string{"approved-org-local", "approved-org-local-team-default"} {
		if d := res.Documents[i]; d.Name != name || d.Change != "added" || !strings.Contains(d.After, "10.0.0.0/8") || !strings.Contains(d.After, "for: \"org:local/team:default/agent:x\"") {
			t.Errorf("%+v", d)
		}
	}
	if _, err := b.LastApproval(ctx, root, a.ID, &api.LastingRequest{Apply: true, Expect: "another"}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("what was not looked at: %v", err)
	}
	for in, may := range map[string]bool{"org:local/team:default": false, "org:local": true, "org:*": true, "org:other": false} {
		c := author(t, 64002, in)
		_, err := b.LastApproval(ctx, c, a.ID, &api.LastingRequest{})
		if (err == nil) != may || !may && api.CodeOf(err) != api.CodeDenied {
			t.Errorf("the author of %s: %v", in, err)
		}
		if v, _ := b.Approval(ctx, c, a.ID); v.MayLast != may {
			t.Errorf("it is offered to the author of %s: %v", in, v.MayLast)
		}
	}
	rules(t, b, "house org:local   - {id: open, allow: \"**.test:443\"}\n", "team org:local/team:default   - {id: open, allow: \"**.test:443\"}\n")
	if _, err := b.LastApproval(ctx, root, a.ID, &api.LastingRequest{}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("nobody asks any more: %v", err)
	}
}

// TestNothingLastingOfWhatIsDecided: who may write policy cannot turn what people
// denied into a rule; while it waits, and while it is approved and can be used, it can.
func TestNothingLastingOfWhatIsDecided(t *testing.T) {
	ctx := context.Background()
	root := &api.Caller{Role: api.RoleRoot}
	root.Rights = api.RightsOf(root, api.Access{})
	for name, as := range map[string]struct {
		vote, approve, may bool
	}{"waits": {may: true}, "approved": {vote: true, approve: true, may: true}, "denied": {vote: true}} {
		b, _ := inbox(t)
		rules(t, b, "house org:local   - {id: ask, to: \"**.test:443\", action: require-approval}\n")
		a := asks(t, b, "a.test")
		if as.vote {
			if _, err := b.Vote(ctx, root, a.ID, &api.VoteRequest{Approve: as.approve}); err != nil {
				t.Fatal(err)
			}
		}
		if v, err := b.Approval(ctx, root, a.ID); err != nil || v.MayLast != as.may {
			t.Errorf("%s: it is offered: %v %v", name, v.MayLast, err)
		}
		before := b.d.library.Snapshot().Revision()
		for _, r := range []api.LastingRequest{{}, {Apply: true}} {
			_, err := b.LastApproval(ctx, root, a.ID, &r)
			if (err == nil) != as.may || !as.may && (api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "decided already")) {
				t.Errorf("%s: %+v: %v", name, r, err)
			}
		}
		if wrote := b.d.library.Snapshot().Revision() != before; wrote != as.may {
			t.Errorf("%s: a rule was written: %v", name, wrote)
		}
	}
}

// TestARuleThatIsNotInForceYet: who waits for it holds up nobody else's change, and
// when it stops waiting it is told which revision has the rule, which ended the
// request.
func TestARuleThatIsNotInForceYet(t *testing.T) {
	b, _ := inbox(t)
	b.d.policy = newPolicyFeed() // nothing is ever in force
	rules(t, b, "house org:local   - {id: ask, to: \"**.test:443\", action: require-approval}\n")
	a := asks(t, b, "a.test")
	root := &api.Caller{Role: api.RoleRoot}
	root.Rights = api.RightsOf(root, api.Access{})
	before := b.d.library.Snapshot().Revision()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err = b.LastApproval(ctx, root, a.ID, &api.LastingRequest{Apply: true})
	}()
	for b.d.library.Snapshot().Revision() == before {
		select {
		case <-done:
			t.Fatalf("it does not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	b.d.applying.Lock()
	select {
	case <-done:
		t.Error("others waited for it")
	default:
	}
	b.d.applying.Unlock()
	stop()
	<-done
	if api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), fmt.Sprintf("policy revision %d is stored", b.d.library.Snapshot().Revision())) {
		t.Errorf("%v", err)
	}
	if v, err := b.Approval(context.Background(), root, a.ID); err != nil || v.State != "superseded" || !strings.Contains(v.Why, "approved-org-local allows it now") {
		t.Errorf("%+v %v", v, err)
	}
}

// TestNothingLastingBesideAnExactRule: what would not open anything is not
// written.
func TestNothingLastingBesideAnExactRule(t *testing.T) {
	b, _ := inbox(t)
	who, _ := scope.ParsePrincipal(asker)
	for name, rule := range map[string]string{
		"the same agent and destination": "exact org:local/team:default/agent:x   - {id: ask, to: \"a.test:443\", action: require-approval}\n",
		"a mandatory rule":               "exact org:local   - {id: ask, to: \"**.test:443\", action: require-approval, mandatory: true}\n  - {id: some, allow: \"**.test:443\"}\n",
		"a rule that looks into it":      "exact org:local   - {id: ask, to: \"a.test:443\", action: require-approval}\n  - {id: no, deny: \"a.test:443\", http: {methods: [POST]}}\n",
	} {
		rules(t, b, rule)
		target, _ := policy.ParseTarget("a.test:443")
		if dec := decide(b.d.library.Snapshot().View(who), target); dec.Effect != policy.RequireApproval {
			t.Fatalf("control: %s: %+v", name, dec)
		}
		q := &approval.Request{ID: "x", Scope: asker, Kind: approval.Egress, Target: "a.test:443/tcp", State: approval.Pending}
		l, err := b.d.lastingOf(q)
		if err == nil {
			_, _, err = b.d.propose(l)
		}
		if api.CodeOf(err) != api.CodeConflict {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDraftTargets: what a record of the gateway may be about; it is hostile.
func TestDraftTargets(t *testing.T) {
	base := event.Event{Kind: event.KindNetwork, Verdict: event.Denied, Sandbox: "00000001", DstAddr: "198.18.0.5:443", DstPort: 443}
	for want, change := range map[string]func(*event.Event){
		"x.test:443":           func(e *event.Event) { e.DstName = "x.test" },
		"y.test:443":           func(e *event.Event) { e.Kind, e.DstName, e.DstPort = event.KindDNS, "y.test", 53 },
		"u.test:123/udp":       func(e *event.Event) { e.DstName, e.DstPort, e.Proto = "u.test", 123, "udp" },
		"8.8.4.4:22":           func(e *event.Event) { e.DstAddr, e.DstPort = "8.8.4.4:22", 22 },
		"[2606:4700::1111]:22": func(e *event.Event) { e.DstAddr, e.DstPort = "[2606:4700::1111]:22", 22 },
		"none: metadata":       func(e *event.Event) { e.DstAddr, e.DstPort = "169.254.169.254:80", 80 },
		"none: private":        func(e *event.Event) { e.DstAddr, e.DstPort = "10.0.0.1:22", 22 },
		"none: allowed":        func(e *event.Event) { e.DstName, e.Verdict = "x.test", event.Allowed },
		"none: a wildcard":     func(e *event.Event) { e.DstName = "*.test" },
		"none: everything":     func(e *event.Event) { e.DstName = "**" },
		"none: another kind":   func(e *event.Event) { e.Kind, e.DstName = event.KindInference, "x.test" },
		"none: nobody's":       func(e *event.Event) { e.DstName, e.Sandbox = "x.test", "" },
		"none: no port":        func(e *event.Event) { e.DstName, e.DstPort = "x.test", 0 },
		"none: a rule of text": func(e *event.Event) { e.DstName = "a.test\" , allow: \"b.test" },
		"none: a line end":     func(e *event.Event) { e.DstName = "a.test\nb" },
		"none: a prefix":       func(e *event.Event) { e.DstName = "10.0.0.0/8" },
	} {
		e := base
		change(&e)
		got, ok := draftTarget(&e)
		if strings.HasPrefix(want, "none") == ok || ok && got.String() != want {
			t.Errorf("%s: %v %v", want, got, ok)
		}
	}
}
