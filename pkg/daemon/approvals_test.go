// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"math"
	"os/user"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/event"
)

// inbox is a backend with a book on a real store, and what was recorded of it.
func inbox(t *testing.T) (*backend, *[]*event.Event) {
	t.Helper()
	st, err := openStore(t.TempDir(), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	var told []*event.Event
	book, err := approval.NewBook(context.Background(), approval.Options{Store: st, Limits: approval.DefaultLimits, Now: time.Now, Lives: func(string) bool { return true },
		Record: func(c approval.Change) error {
			told = append(told, approvalEvent(&c, time.Now(), "test"))
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	lib, err := documents.Open(documents.Options{Dir: t.TempDir(), StateDir: t.TempDir(), Store: newStore(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{&Daemon{approvals: book, people: newPeople(lib.Snapshot), library: lib, policy: newPolicyFeed()}}
	b.d.policy.done(math.MaxUint64) // whatever is written is in force
	return b, &told
}

// answer is that to one call.
type answer struct {
	Outcome approval.Outcome
	ID      string
}

// calls asks for one call.
func calls(t *testing.T, b *backend, c *approval.Call) answer {
	t.Helper()
	a, err := b.d.approvals.AskAll(context.Background(), []*approval.Call{c})
	if err != nil {
		t.Fatal(err)
	}
	return answer{a.Outcome, a.IDs[0]}
}

// wants asks for a destination as a sandbox of uid 64001 does.
func wants(t *testing.T, b *backend, target string, demands ...approval.Demand) answer {
	t.Helper()
	for i := range demands {
		demands[i].ExpiresAfter = 15 * time.Minute
	}
	return calls(t, b, &approval.Call{Sandbox: "00000001", Scope: "org:local/team:default/agent:x/sandbox:00000001", Launcher: 64001, Kind: approval.Egress,
		Target: target, Fingerprint: strings.Repeat("a", 64), Demands: demands})
}

func aMember(uid, gid uint32, groups ...uint32) *api.Caller {
	return &api.Caller{UID: uid, GID: gid, Groups: groups, Role: api.RoleMember}
}

func TestVotesOfCallers(t *testing.T) {
	b, told := inbox(t)
	ctx := context.Background()
	const gid = 0 // a group that every machine has
	g, err := user.LookupGroupId(strconv.Itoa(gid))
	if err != nil {
		t.Fatal(err)
	}
	a := wants(t, b, "db.internal:5432/tcp", approval.Demand{Rule: "eng/ask", Quorum: 1, Separate: true, Approvers: []string{"group:" + g.Name, "group:no-such-group", "uid:64001"}})
	for name, c := range map[string]*api.Caller{"the launcher, who is named": aMember(64001, 64001), "somebody": aMember(64002, 64002), "somebody in other groups": aMember(64002, 64002, 5, 6)} {
		if _, err := b.Vote(ctx, c, a.ID, &api.VoteRequest{Approve: true}); api.CodeOf(err) != api.CodeDenied {
			t.Errorf("%s: %v", name, err)
		}
		v, err := b.Approval(ctx, c, a.ID)
		if err != nil || v.MayVote || v.Named != (c.UID == 64001) {
			t.Errorf("%s: %+v %v", name, v, err)
		}
	}
	c := aMember(64003, 64003, 5, gid)
	if v, err := b.Approval(ctx, c, a.ID); err != nil || !v.MayVote || !v.Named {
		t.Errorf("%+v %v", v, err)
	}
	v, err := b.Vote(ctx, c, a.ID, &api.VoteRequest{Approve: true, Lasts: api.ApproveSandbox, Comment: "fine"})
	if err != nil || v.State != "approved" || v.Grant.Covers != "target" || v.Grant.Lasts != "sandbox" || v.Grant.Until != nil {
		t.Fatalf("%+v %v", v, err)
	}
	_, err = b.Vote(ctx, &api.Caller{Role: api.RoleRoot}, a.ID, &api.VoteRequest{})
	if e := (*api.Error)(nil); api.CodeOf(err) != api.CodeConflict || !asAPI(err, &e) || !strings.Contains(e.Detail, "approved") {
		t.Errorf("%v", err)
	}
	if again := wants(t, b, "db.internal:5432/tcp", approval.Demand{Rule: "eng/ask", Quorum: 1}); again.Outcome != approval.Released {
		t.Errorf("%+v", again)
	}
	if last := (*told)[len(*told)-1]; last.Activity != "approve" || last.Verdict != event.Allowed || last.Actor != "uid=64003" || last.Detail != "fine" || last.RequestID != a.ID {
		t.Errorf("%+v", last)
	}
	if first := (*told)[0]; first.Activity != "ask" || first.Verdict != event.Observed || !strings.Contains(first.Reason, "group:"+g.Name) || first.Remedy != "ringfence approvals approve "+a.ID {
		t.Errorf("%+v", first)
	}
}

// TestTermsOfATool: for a time a tool is approved with its arguments, and with what
// an approver frees; nothing else has arguments.
func TestTermsOfATool(t *testing.T) {
	b, _ := inbox(t)
	ctx, root := context.Background(), &api.Caller{Role: api.RoleRoot}
	hashed := func(c string) string { return strings.Repeat(c, 64) }
	tool := func(request, value string) *approval.Call {
		return &approval.Call{Sandbox: "00000001", Scope: "org:local/team:default/agent:x/sandbox:00000001", Launcher: 64001, Kind: approval.Tool, Target: "server:provider/tool:web_search", Fingerprint: hashed("a"),
			Definition: hashed("b"), Arguments: hashed(request), Listed: true, Args: []approval.Argument{{Path: "max_uses", Kind: "number", Hash: hashed(value), Text: value, Kept: true}, {Path: "token", Kind: "string", Hash: hashed("e")}},
			Demands: []approval.Demand{{Rule: "eng/ask", Quorum: 1, ExpiresAfter: time.Minute}}}
	}
	ask := func(c *approval.Call) answer { t.Helper(); return calls(t, b, c) }
	one := ask(tool("1", "5"))
	for _, args := range [][]string{{"max_use=*"}, {"max_uses=6"}, {"token=x"}, {"max_uses"}, {"max_uses=*", "max_uses=5"}} {
		if _, err := b.Vote(ctx, root, one.ID, &api.VoteRequest{Approve: true, Lasts: api.ApproveSandbox, Args: args}); api.CodeOf(err) != api.CodeBadRequest {
			t.Errorf("%q: %v", args, err)
		}
	}
	v, err := b.Vote(ctx, root, one.ID, &api.VoteRequest{Approve: true, Lasts: api.ApproveSandbox})
	if err != nil || v.Grant.Covers != "arguments" || len(v.Args) != 2 || v.Args[0].Text != "5" || v.Args[1].Kept {
		t.Fatalf("%+v %v", v, err)
	}
	if a := ask(tool("2", "5")); a.Outcome != approval.Released || a.ID != one.ID {
		t.Errorf("the same settings in another request: %+v", a)
	}
	two := ask(tool("2", "6"))
	if two.Outcome != approval.Waiting {
		t.Fatalf("other settings: %+v", two)
	}
	if v, err = b.Vote(ctx, root, two.ID, &api.VoteRequest{Approve: true, Lasts: api.ApproveSandbox, Args: []string{"max_uses=*"}}); err != nil || v.Grant.Says != "until the sandbox ends: this target with max_uses=*, all other arguments the same" || v.Votes[0].Gives != v.Grant.Says {
		t.Fatalf("%+v %v", v, err)
	}
	if a := ask(tool("3", "7")); a.Outcome != approval.Released || a.ID != two.ID {
		t.Errorf("what was freed: %+v", a)
	}
	host := wants(t, b, "db.internal:5432/tcp", approval.Demand{Rule: "eng/ask", Quorum: 1})
	if _, err := b.Vote(ctx, root, host.ID, &api.VoteRequest{Approve: true, Lasts: api.ApproveSandbox, Args: []string{"max_uses=*"}}); api.CodeOf(err) != api.CodeBadRequest {
		t.Errorf("arguments of a destination: %v", err)
	}
}

func asAPI(err error, into **api.Error) bool {
	e, ok := err.(*api.Error)
	*into = e
	return ok
}

func TestApprovalAnswers(t *testing.T) {
	b, told := inbox(t)
	ctx := context.Background()
	root := &api.Caller{Role: api.RoleRoot}
	if _, err := b.Approval(ctx, root, "nosuch"); api.CodeOf(err) != api.CodeNotFound {
		t.Error(err)
	}
	bounded := wants(t, b, "a.example:443/tcp", approval.Demand{Rule: "eng/ask", Quorum: 2, ValidFor: time.Minute})
	if _, err := b.Vote(ctx, root, bounded.ID, &api.VoteRequest{Approve: true, Lasts: api.ApproveFor, For: api.Duration(time.Hour)}); api.CodeOf(err) != api.CodeBadRequest || !strings.Contains(err.Error(), "eng/ask") {
		t.Error(err)
	}
	v, err := b.Vote(ctx, root, bounded.ID, &api.VoteRequest{Approve: true})
	if err != nil || v.State != "pending" || v.Demands[0].Lacks != 1 || v.MayVote {
		t.Errorf("%+v %v", v, err)
	}
	if _, err := b.Vote(ctx, root, bounded.ID, &api.VoteRequest{Approve: true}); api.CodeOf(err) != api.CodeConflict {
		t.Error(err)
	}
	if v, err = b.Vote(ctx, aMember(64001, 64001), bounded.ID, &api.VoteRequest{Comment: "no"}); err != nil || v.State != "denied" || v.Why != "denied by uid=64001" {
		t.Errorf("%+v %v", v, err)
	}
	n := 0
	for a, err := range b.Approvals(ctx, root, true) {
		if n++; err != nil || n > 1 || len(a.Votes) != 2 {
			t.Errorf("%+v %v", a, err)
		}
	}
	wants(t, b, "b.example:443/tcp", approval.Demand{Rule: "eng/ask", Quorum: 1})
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for a, err := range b.WatchApprovals(wctx, root) {
		if err != nil || a.Target != "b.example:443/tcp" || !a.MayVote {
			t.Errorf("%+v %v", a, err)
		}
		cancel()
	}
	var verbs []string
	for _, e := range *told {
		verbs = append(verbs, e.Activity+" "+e.Verdict.String())
	}
	if got, want := strings.Join(verbs, ", "), "ask observed, vote observed, deny denied, ask observed"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

// TestApprovalEventsAreWhole: each verb becomes a record that reads back.
func TestApprovalEventsAreWhole(t *testing.T) {
	r := approval.Request{ID: "0011223344556677", Sandbox: "00000001", Scope: "org:local/team:default/agent:x/sandbox:00000001", Kind: approval.Tool, Target: "server:a/tool:b\x1b[2J", Count: 2,
		Demands: []approval.Demand{{Rule: "eng/ask", Quorum: 1}}}
	for verb, state := range map[approval.Verb]approval.State{approval.VerbAsk: approval.Pending, approval.VerbVote: approval.Pending, approval.VerbApprove: approval.Approved, approval.VerbDeny: approval.Denied,
		approval.VerbExpire: approval.Expired, approval.VerbCancel: approval.Cancelled, approval.VerbSupersede: approval.Superseded, approval.VerbConsume: approval.Consumed} {
		r.State, r.Grant = state, &approval.Grant{}
		e := approvalEvent(&approval.Change{Verb: verb, Request: r}, time.Now(), "test")
		line, err := e.AppendOCSF(nil, event.Node{UID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		back, err := event.ParseOCSF(line)
		if err != nil || back.RequestID != r.ID || back.Activity != string(verb) || back.Rule != "eng/ask" || strings.Contains(back.Compact(false), "\x1b") {
			t.Errorf("%s: %+v %v", verb, back, err)
		}
		open := verb == approval.VerbAsk || verb == approval.VerbVote
		if passes := verb == approval.VerbApprove || verb == approval.VerbConsume; back.IsDenial() != (!open && !passes) {
			t.Errorf("%s is a denial: %v", verb, back.IsDenial())
		}
	}
}
