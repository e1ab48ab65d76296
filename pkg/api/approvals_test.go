// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"
)

type fakeVote struct {
	uid  uint32
	id   string
	role bool
}

// approvals are one of each sandbox; that of root's names memberUID.
func (f *fake) approvals(c *Caller) (out []Approval) {
	for _, b := range f.boxes {
		out = append(out, Approval{ID: "a-" + b.ID, Sandbox: b.ID, Scope: b.Scope + "/sandbox:" + b.ID, Launcher: b.Owner, State: "pending", Named: b.ID == boxRoot && c.UID == memberUID})
	}
	return out
}

func (f *fake) scopeOf(approval string) string {
	for _, b := range f.boxes {
		if approval == "a-"+b.ID {
			return b.Scope + "/sandbox:" + b.ID
		}
	}
	return ""
}

func (f *fake) Approvals(_ context.Context, c *Caller, _ bool) iter.Seq2[Approval, error] {
	return func(yield func(Approval, error) bool) {
		for range f.crowd { // of a sandbox that only its owner sees
			if !yield(Approval{ID: "crowd", Sandbox: boxRoot, Scope: f.boxes[0].Scope, Launcher: 0}, nil) {
				return
			}
		}
		for _, a := range f.approvals(c) {
			if !yield(a, nil) {
				return
			}
		}
	}
}

func (f *fake) Approval(_ context.Context, c *Caller, id string) (Approval, error) {
	for _, a := range f.approvals(c) {
		if a.ID == id {
			return a, nil
		}
	}
	return Approval{}, Errorf(CodeNotFound, "words that only the backend has")
}

func (f *fake) WatchApprovals(_ context.Context, c *Caller) iter.Seq2[Approval, error] {
	return func(yield func(Approval, error) bool) {
		for _, a := range f.approvals(c) {
			if !yield(a, nil) {
				return
			}
		}
		if f.eventsErr != nil {
			yield(Approval{}, f.eventsErr)
		}
	}
}

func (f *fake) Vote(_ context.Context, c *Caller, id string, r *VoteRequest) (Approval, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.votes = append(f.votes, fakeVote{c.UID, id, c.Rights.Approves(f.scopeOf(id))})
	return Approval{ID: id, State: "approved"}, nil
}

func (f *fake) LastApproval(_ context.Context, c *Caller, id string, r *LastingRequest) (LastingRule, error) {
	f.note("last uid=%d %s %v", c.UID, id, *r)
	return LastingRule{Allows: "x.test:443", Digest: "d"}, nil
}

// Drafts are two of each sandbox: one that all have, and one of its own.
func (f *fake) Drafts(_ context.Context, sees func(uint32, string) bool, only string) (out []Draft, err error) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i, b := range f.boxes {
		for _, id := range []string{"draft-all", "draft-" + b.ID} {
			if !sees(b.Owner, b.Scope+"/sandbox:"+b.ID) || only != "" && only != id {
				continue
			}
			out = append(out, Draft{ID: id, Scope: b.Scope, Destination: "x.test:443", Count: 2, More: 1, First: at.Add(time.Duration(-i) * time.Hour), Last: at.Add(time.Duration(i) * time.Hour), Sandboxes: []string{b.ID}})
		}
	}
	return out, nil
}

func (f *fake) LastDraft(_ context.Context, c *Caller, d *Draft, r *LastingRequest) (LastingRule, error) {
	f.note("last uid=%d %s %v", c.UID, d.ID, *r)
	return LastingRule{For: d.Scope, Allows: d.Destination, Digest: "d"}, nil
}

// TestDraftsAreFolded: of those that the caller sees, and of no others.
func TestDraftsAreFolded(t *testing.T) {
	needRootTest(t)
	f := newFake()
	socket := serve(t, f, Options{})
	list, err := NewClient(socket).Drafts(context.Background())
	if err != nil || len(list) != len(f.boxes)+1 {
		t.Fatalf("%d %v", len(list), err)
	}
	for _, d := range list {
		if d.ID == "draft-all" && (d.Count != 2*uint64(len(f.boxes)) || d.More != uint64(len(f.boxes)) || len(d.Sandboxes) != len(f.boxes) || d.Last.Sub(d.First) != 6*time.Hour) {
			t.Errorf("%+v", d)
		}
	}
	out := asPeer(t, socket, memberUID, memberGID, nil, -1, []attempt{
		{"list", "GET", "/v1/approvals/drafts", "", false}, {"write", "POST", "/v1/approvals/drafts/draft-" + boxMember + "/rule", `{"apply":true}`, false},
	})
	if b := out[0].Body; !strings.Contains(b, "draft-"+boxMember) || strings.Contains(b, boxOther) || strings.Contains(b, boxRoot) || !strings.Contains(b, `"count":2`) || strings.Contains(b, `"count":4`) {
		t.Errorf("the member sees %s", b)
	}
	if out[1].Status != 403 {
		t.Errorf("a launcher writes a rule: %+v", out[1])
	}
	c := NewClient(socket)
	if res, err := c.LastDraft(context.Background(), "draft-"+boxOther, LastingRequest{Apply: true, Expect: "d", Comment: "why"}); err != nil || res.Allows != "x.test:443" {
		t.Errorf("%+v %v", res, err)
	}
	if _, err := c.LastDraft(context.Background(), "draft-nosuch", LastingRequest{}); CodeOf(err) != CodeNotFound {
		t.Error(err)
	}
	if _, err := c.LastApproval(context.Background(), "a-"+boxOther, LastingRequest{Comment: "two\nlines"}); CodeOf(err) != CodeBadRequest {
		t.Error(err)
	}
	if res, err := c.LastApproval(context.Background(), "a-"+boxOther, LastingRequest{}); err != nil || res.Digest != "d" {
		t.Errorf("%+v %v", res, err)
	}
}

// TestInboxShowsOnesOwn: what others ask for is neither listed nor streamed, and
// asked for by its id it is as if it were not there, to the byte.
func TestInboxShowsOnesOwn(t *testing.T) {
	needRootTest(t)
	socket := serve(t, newFake(), Options{})
	out := asPeer(t, socket, memberUID, memberGID, nil, -1, []attempt{
		{"list", "GET", "/v1/approvals", "", false}, {"watch", "GET", "/v1/approvals/watch", "", false},
		{"another's", "GET", "/v1/approvals/a-" + boxOther, "", false}, {"nobody's", "GET", "/v1/approvals/a-" + strings.Repeat("0", 8), "", false},
	})
	for _, o := range out[:2] {
		for id, sees := range map[string]bool{boxMember: true, boxRoot: true, boxOther: false, boxScoped: false} {
			if strings.Contains(o.Body, "a-"+id) != sees {
				t.Errorf("%s in %s: %v", id, o.Body, !sees)
			}
		}
	}
	if one, none := strings.ReplaceAll(out[2].Body, boxOther, "X"), strings.ReplaceAll(out[3].Body, strings.Repeat("0", 8), "X"); one != none {
		t.Errorf("another's reads %s, nobody's %s", one, none)
	}
}

// TestInboxIsNotCrowdedOut: what others ask for counts nothing against the bound
// of a list, and one's own does.
func TestInboxIsNotCrowdedOut(t *testing.T) {
	needRootTest(t)
	f := newFake()
	f.crowd = maxApprovals + 1
	socket := serve(t, f, Options{})
	out := asPeer(t, socket, memberUID, memberGID, nil, -1, []attempt{{"list", "GET", "/v1/approvals", "", false}})
	if !strings.Contains(out[0].Body, "a-"+boxMember) || strings.Contains(out[0].Body, "crowd") {
		t.Errorf("the member's list is %.200s", out[0].Body)
	}
	list, err := NewClient(socket).Approvals(context.Background(), false) // root sees the crowd
	if err != nil || len(list) != maxApprovals {
		t.Errorf("root is listed %d (%v)", len(list), err)
	}
}

func TestClientReadsTheInbox(t *testing.T) {
	needRootTest(t)
	f := newFake()
	c := NewClient(serve(t, f, Options{}))
	ctx := context.Background()
	list, err := c.Approvals(ctx, true)
	if err != nil || len(list) != len(f.boxes) {
		t.Errorf("%d %v", len(list), err)
	}
	if a, err := c.Approval(ctx, "a-"+boxOther); err != nil || a.Sandbox != boxOther {
		t.Errorf("%+v %v", a, err)
	}
	for _, v := range []VoteRequest{{Approve: true, Args: []string{"a=*"}}, {Approve: true, Lasts: ApproveOnce, Args: []string{"a=*"}}, {Args: []string{"a=*"}}} {
		if _, err := c.Vote(ctx, "a-"+boxOther, v); CodeOf(err) != CodeBadRequest {
			t.Errorf("%+v: %v", v, err)
		}
	}
	if a, err := c.Vote(ctx, "a-"+boxOther, VoteRequest{Approve: true, Lasts: ApproveSandbox, Args: []string{"a=*"}}); err != nil || a.State != "approved" {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := c.Vote(ctx, "a-"+boxOther, VoteRequest{Approve: true}); err != nil || a.State != "approved" {
		t.Errorf("%+v %v", a, err)
	}
	n := 0
	count := func(Approval) error { n++; return nil }
	if err := c.WatchApprovals(ctx, count); err != nil || n != len(f.boxes) {
		t.Errorf("%d %v", n, err)
	}
	f.eventsErr = Errorf(CodeUnavailable, "too slow")
	if err := c.WatchApprovals(ctx, count); CodeOf(err) != CodeUnavailable {
		t.Error(err)
	}
	stop := errors.New("enough")
	if err := c.WatchApprovals(ctx, func(Approval) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}
