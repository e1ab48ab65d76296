// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
)

// approvals are what the fake node has: one that waits, in a hostile sandbox's
// words, and one that is approved.
func approvals() []api.Approval {
	until := created.Add(time.Hour)
	return []api.Approval{
		{ID: "4be21f0a97c3d518", Sandbox: "b0a1c2d3", Name: "web", Program: "np\x1bm", Workspace: "/srv/\x07shop", Profile: "coding", Scope: "org:local/team:default/agent:npm/sandbox:b0a1c2d3", Launcher: 1000, Kind: "tool", Target: "server:bank/tool:pay",
			Arguments: "to: \x1b[2Jmallory \u202e", Args: []api.ApprovalArgument{{Path: "amount", Text: "5\x07", Kept: true}, {Path: "token"}}, Binding: strings.Repeat("a", 64), Fingerprint: strings.Repeat("b", 64), State: "pending", Count: 3, Created: created, Expires: created.Add(15 * time.Minute),
			Demands: []api.ApprovalDemand{{Rule: "eng/money", RuleAt: "Policy/eng:12", Reason: "say what\u202e for", Who: "group:sre or uid:7", Approvers: []string{"group:sre", "uid:7"}, Quorum: 2, Lacks: 1},
				{Rule: "org/four-eyes", Who: "root or an approver, not who launched it", Quorum: 1, Separate: true, Lacks: 1}},
			Needs: "group:sre or uid:7 (rule eng/money), and root or an approver, not who launched it (rule org/four-eyes)",
			Votes: []api.ApprovalVote{{UID: 7, Name: "seven", Approve: true, Gives: "once: this call", Comment: "fine\x07", At: created.Add(time.Minute)}}, MayVote: true},
		{ID: "00000000000000aa", Sandbox: "b0a1c2d3", Scope: "org:local/team:default/agent:npm/sandbox:b0a1c2d3", Kind: "egress", Target: "example.com:443/tcp", State: "approved", Count: 1,
			Binding: strings.Repeat("c", 64), Fingerprint: strings.Repeat("d", 64), Created: created, Expires: created.Add(15 * time.Minute), Decided: &until, Demands: []api.ApprovalDemand{{Rule: "eng/ask", Who: "root, an approver or who launched it", Quorum: 1}},
			Grant: &api.ApprovalGrant{Covers: "target", Lasts: "for", Says: "for 1h0m0s: this target", Until: &until}},
	}
}

func (n *fakeNode) Approvals(ctx context.Context, c *api.Caller, _ bool) iter.Seq2[api.Approval, error] {
	return n.WatchApprovals(ctx, c)
}

func (n *fakeNode) Approval(_ context.Context, _ *api.Caller, id string) (api.Approval, error) {
	for _, a := range approvals() {
		if a.ID == id {
			a.Named = true
			return a, nil
		}
	}
	return api.Approval{}, api.Errorf(api.CodeNotFound, "none")
}

func (n *fakeNode) WatchApprovals(context.Context, *api.Caller) iter.Seq2[api.Approval, error] {
	return func(yield func(api.Approval, error) bool) {
		for _, a := range approvals() {
			a.Named = true
			if !yield(a, nil) {
				return
			}
		}
	}
}

func (n *fakeNode) Vote(_ context.Context, _ *api.Caller, id string, r *api.VoteRequest) (api.Approval, error) {
	n.set(func() { n.votes = append(n.votes, *r) })
	a := approvals()[0]
	switch {
	case id != a.ID:
		return api.Approval{}, api.Errorf(api.CodeConflict, "this request is decided already").WithRemedy("look")
	case !r.Approve:
		a.State = "denied"
	case r.Lasts != "":
		a.State = "approved"
	}
	return a, nil
}

func TestApprovalCommands(t *testing.T) {
	n := startNode(t)
	for _, c := range []struct {
		file string
		args []string
	}{
		{"approvals-show.txt", []string{"show", "4be21f0a97c3d518"}},
		{"approvals-show.json", []string{"show", "4be21f0a97c3d518", "-o", "json"}},
		{"approvals-given.txt", []string{"show", "00000000000000aa"}},
		{"approvals-list.json", []string{"list", "-o", "json"}},
		{"approvals-approve.txt", []string{"approve", "4be21f0a97c3d518"}},
		{"approvals-approve-for.txt", []string{"approve", "4be21f0a97c3d518", "--for", "1h"}},
		{"approvals-approve-args.txt", []string{"approve", "4be21f0a97c3d518", "--sandbox", "--args", "amount=*", "--args", "token=*"}},
		{"approvals-deny.txt", []string{"deny", "4be21f0a97c3d518", "--comment", "no"}},
		{"approvals-watch.txt", []string{"watch"}},
		{"approvals-watch.json", []string{"watch", "-o", "json"}},
	} {
		r := finish(t, tool(t, n.socket, append([]string{"approvals"}, c.args...)...))
		if r.code != 0 || r.errOut != "" || strings.ContainsAny(r.out, "\x1b\x07\u202e") {
			t.Errorf("%s: exit code %d, %q, %s", c.file, r.code, r.errOut, r.out)
		}
		golden(t, c.file, r.out)
	}
	r := finish(t, tool(t, n.socket, "approvals", "list")) // it shows an age
	for _, want := range []string{"NEEDS", "4be21f0a97c3d518", `\x1b[2Jmallory`, "agent:npm b0a1c2d3 (web) ", "group:sre or uid:7 (rule eng/money), and root or an approver, not who launched it (rule org/", "example.com:443/tcp"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in %s", want, r.out)
		}
	}
	votes := []api.VoteRequest{{Approve: true}, {Approve: true, Lasts: "for", For: api.Duration(time.Hour)}, {Approve: true, Lasts: "sandbox", Args: []string{"amount=*", "token=*"}}, {Comment: "no"}}
	for i, v := range votes {
		if got := n.votes[i]; !reflect.DeepEqual(got, v) {
			t.Errorf("%+v, not %+v", got, v)
		}
	}
}

func TestApprovalExitCodes(t *testing.T) {
	n := startNode(t)
	for _, c := range []struct {
		args   []string
		code   int
		errOut string
	}{
		{nil, 2, "list|show|approve|deny|watch"},
		{[]string{"show"}, 2, ""},
		{[]string{"show", "nosuch"}, 3, "no approval"},
		{[]string{"approve", "00000000000000aa"}, 1, "decided already"},
		{[]string{"approve", "4be21f0a97c3d518", "--once", "--sandbox"}, 2, ""},
		{[]string{"approve", "4be21f0a97c3d518", "--for", "0s"}, 2, "above zero"},
		{[]string{"approve", "4be21f0a97c3d518", "--args", "a=*"}, 2, "--args goes with --for or --sandbox"},
		{[]string{"approve", "4be21f0a97c3d518", "--args", "a=*", "--persist"}, 2, "a rule that stays has no end"},
		{[]string{"list", "-o", "xml"}, 2, "unknown format"},
	} {
		r := finish(t, tool(t, n.socket, append([]string{"approvals"}, c.args...)...))
		if r.code != c.code || !strings.Contains(r.errOut, c.errOut) {
			t.Errorf("%q: exit code %d, %s", c.args, r.code, r.errOut)
		}
	}
}

func (n *fakeNode) LastApproval(_ context.Context, _ *api.Caller, id string, r *api.LastingRequest) (api.LastingRule, error) {
	return n.last(id, r)
}

func (n *fakeNode) LastDraft(_ context.Context, _ *api.Caller, d *api.Draft, r *api.LastingRequest) (api.LastingRule, error) {
	return n.last(d.ID, r)
}

// proposalDigest is of what the fake node would write.
var proposalDigest = strings.Repeat("d1", 32)

func (n *fakeNode) last(id string, r *api.LastingRequest) (api.LastingRule, error) {
	n.set(func() { n.lasting = append(n.lasting, id+" "+r.Expect+" "+r.Comment) })
	res := api.LastingRule{For: "org:local/team:default/agent:npm", Allows: "example.com:443", Digest: proposalDigest,
		Documents: []api.DocumentChange{{Kind: "Policy", Name: "approved-org-local", Scope: "org:local", Owner: "api", File: "approved", Change: "changed", Before: "a: 1\n", After: "a: 1\nb: \x1b[2J\n"}}}
	if r.Apply {
		res.Revision = 7
	}
	return res, nil
}

func (n *fakeNode) Drafts(_ context.Context, _ func(uint32, string) bool, id string) ([]api.Draft, error) {
	if id != "" && id != "draft-0011223344ff" {
		return nil, nil
	}
	return []api.Draft{{ID: "draft-0011223344ff", Scope: "org:local/team:default/agent:npm", Destination: "x\x1b.example:443", Count: 3, More: 2, First: created, Last: created.Add(time.Minute), Sandboxes: []string{"b0a1c2d3"}}}, nil
}

func TestLastingCommands(t *testing.T) {
	n := startNode(t)
	for _, c := range []struct {
		file   string
		errOut string
		args   []string
	}{
		{"approvals-persist.txt", "nothing was changed. To write it: ringfence approvals approve 4be21f0a97c3d518 --persist --yes=d1d1d1d1d1d1d1d1\n", []string{"approve", "4be21f0a97c3d518", "--persist"}},
		{"approvals-persist-yes.txt", "", []string{"approve", "4be21f0a97c3d518", "--persist", "--yes", "--comment", "why"}},
		{"approvals-persist.json", "", []string{"approve", "4be21f0a97c3d518", "--persist", "-o", "json"}},
		{"approvals-draft.txt", "nothing was changed. To write it: ringfence approvals approve draft-0011223344ff --yes=d1d1d1d1d1d1d1d1\n", []string{"approve", "draft-0011223344ff"}},
		{"approvals-draft-show.txt", "", []string{"show", "draft-0011223344ff"}},
		{"approvals-drafts.json", "", []string{"list", "--drafts", "-o", "json"}},
	} {
		r := finish(t, tool(t, n.socket, append([]string{"approvals"}, c.args...)...))
		if r.code != 0 || r.errOut != c.errOut || strings.ContainsAny(r.out, "\x1b") {
			t.Errorf("%s: exit code %d, %q, %s", c.file, r.code, r.errOut, r.out)
		}
		golden(t, c.file, r.out)
	}
	want := []string{"4be21f0a97c3d518  ", "4be21f0a97c3d518  why", "4be21f0a97c3d518 " + proposalDigest + " why", "4be21f0a97c3d518  ", "draft-0011223344ff  "}
	asked := func() (list []string) {
		n.set(func() { list = slices.Clone(n.lasting) })
		return list
	}
	if got := asked(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	r := finish(t, tool(t, n.socket, "approvals", "list", "--drafts")) // it shows an age
	if !strings.Contains(r.out, `x\x1b.example:443`) || !strings.Contains(r.errOut, "more than has room") {
		t.Errorf("%s %s", r.out, r.errOut)
	}
	for _, args := range [][]string{{"approve", "draft-0011223344ff", "--once"}, {"approve", "4be21f0a97c3d518", "--persist", "--for", "1h"}, {"approve", "4be21f0a97c3d518", "--yes"}, {"deny", "draft-0011223344ff"}, {"list", "--drafts", "--all"}} {
		if r := finish(t, tool(t, n.socket, append([]string{"approvals"}, args...)...)); r.code != 2 {
			t.Errorf("%q: exit code %d, %s", args, r.code, r.errOut)
		}
	}
	// What was shown is written, and nothing that came in its place.
	if r := finish(t, tool(t, n.socket, "approvals", "approve", "draft-0011223344ff", "--yes=d1d1d1d1d1d1d1d1")); r.code != 0 || !strings.Contains(r.out, "revision 7") {
		t.Errorf("exit code %d, %s", r.code, r.errOut)
	}
	for _, digest := range []string{"d2d2d2d2d2d2d2d2", "d1", proposalDigest + "d1"} {
		before := len(asked())
		r := finish(t, tool(t, n.socket, "approvals", "approve", "draft-0011223344ff", "--yes="+digest))
		if r.code != 1 || !strings.Contains(r.errOut, "nothing was changed") || len(asked()) != before+1 {
			t.Errorf("--yes=%s: exit code %d, %s, %q", digest, r.code, r.errOut, asked()[before:])
		}
	}
	if r := finish(t, tool(t, n.socket, "approvals", "show", "draft-nosuch")); r.code != 3 {
		t.Errorf("exit code %d, %s", r.code, r.errOut)
	}
}
