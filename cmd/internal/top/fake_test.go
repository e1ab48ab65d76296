// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

var began = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)

// node is a daemon with one sandbox and one request.
type node struct {
	mu     sync.Mutex // guards what follows
	down   error
	status api.Status
	boxes  []api.Sandbox
	log    [][]byte
	asks   []api.Approval
	more   chan api.Approval // what the watch brings besides
	cut    chan struct{}     // closed when the daemon goes away
	refuse error             // a vote
	votes  []api.VoteRequest
	asked  []string
	drafts []api.Draft
	wrote  []api.LastingRequest
	seq    uint64
}

func newNode() *node {
	return &node{
		status: api.Status{Started: began.Add(-26 * time.Hour), State: api.Enforced, Revision: 42},
		boxes: []api.Sandbox{{ID: "b0a1c2d3", Name: "web", Scope: "org:acme/team:shop/agent:npm/sandbox:b0a1c2d3", Profile: "coding", State: api.StateRunning, Enforcement: api.Enforced,
			Created: began.Add(-time.Hour), Argv: []string{"npm", "test"}, Workspace: "/home/ada/shop", Owner: 1000, Revision: 42, Denials: 9}},
		asks: []api.Approval{pay()},
		more: make(chan api.Approval), cut: make(chan struct{}),
	}
}

func pay() api.Approval {
	return api.Approval{ID: "4be21f0a97c3d518", Sandbox: "b0a1c2d3", Name: "shop", Program: "npm", Workspace: "/home/ada/shop", Profile: "coding", Scope: "org:acme/team:shop/agent:npm/sandbox:b0a1c2d3", Launcher: 1000, Kind: "tool", Target: "server:bank/tool:pay", Arguments: "to: mallory",
		Binding: "b", Fingerprint: "f", State: "pending", Count: 3, Created: began.Add(-time.Minute), Expires: began.Add(14 * time.Minute), MayVote: true, Needs: "group:sre (rule shop/money)",
		Demands: []api.ApprovalDemand{{Rule: "shop/money", RuleAt: "Policy/shop:7", Reason: "who is it for?", Who: "group:sre", Approvers: []string{"group:sre"}, Quorum: 2, Lacks: 1}}}
}

func (n *node) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *node) note(what string) error {
	n.asked = append(n.asked, what)
	return n.down
}

func (n *node) Status(context.Context) (api.Status, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status, n.note("status")
}

func (n *node) Sandboxes(context.Context) ([]api.Sandbox, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.boxes, n.note("sandboxes")
}

func (n *node) Events(ctx context.Context, q api.EventQuery, yield func([]byte) error) error {
	n.mu.Lock()
	err, lines, cut := n.note("events"), append([][]byte(nil), n.log...), n.cut
	n.mu.Unlock()
	if err != nil {
		return err
	}
	for _, l := range lines {
		h, err := event.PeekOCSF(l)
		if err == nil && (q.Sandbox != "" && h.Sandbox != q.Sandbox || q.Denied && !h.Denial()) {
			continue
		}
		if err := yield(l); err != nil {
			return err
		}
	}
	if q.Follow {
		select {
		case <-ctx.Done():
		case <-cut:
		}
	}
	return ctx.Err()
}

func (n *node) Explain(_ context.Context, id string) (api.Explanation, error) {
	if id == "1" {
		return api.Explanation{ID: "c-1", Kind: "network", Verdict: "denied", Summary: "tcp \x1b[2Jevil.example:443 was refused", Rule: "shop/no", RuleAt: "shop.yaml:7", Remedy: "ringfence allow evil.example:443 --once"}, nil
	}
	return api.Explanation{}, api.Errorf(api.CodeNotFound, "no event %q", id)
}

func (n *node) Policy(context.Context, string) (api.PolicyView, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return api.PolicyView{Revision: n.status.Revision, Documents: []api.PolicyDocument{{Kind: "Policy", Name: "shop", Scope: "org:acme/team:shop", File: "shop.yaml", Text: "egress:\n  - {id: a, allow: \"a.example:443\"} # \u202e\n"}}}, n.note("policy")
}

func (n *node) Approvals(context.Context, bool) ([]api.Approval, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]api.Approval(nil), n.asks...), n.note("approvals")
}

func (n *node) WatchApprovals(ctx context.Context, yield func(api.Approval) error) error {
	n.mu.Lock()
	err, more, cut := n.note("watch"), n.more, n.cut
	n.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		select {
		case <-cut:
			return nil
		case a := <-more:
			if err := yield(a); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *node) Vote(_ context.Context, id string, r api.VoteRequest) (api.Approval, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		return api.Approval{}, n.refuse
	}
	n.votes = append(n.votes, r)
	a := pay()
	a.ID, a.State = id, "approved"
	if !r.Approve {
		a.State = "denied"
	}
	return a, nil
}

func (n *node) Drafts(context.Context) ([]api.Draft, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.drafts, n.note("drafts")
}

func (n *node) LastDraft(ctx context.Context, id string, r api.LastingRequest) (api.LastingRule, error) {
	return n.LastApproval(ctx, id, r)
}

func (n *node) LastApproval(_ context.Context, id string, r api.LastingRequest) (api.LastingRule, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		return api.LastingRule{}, n.refuse
	}
	out := api.LastingRule{For: "org:acme/team:shop/agent:npm", Allows: "evil.example:443", Digest: "digest of " + id,
		Documents: []api.DocumentChange{{Kind: "Policy", Name: "approved", Scope: "org:acme/team:shop", Change: "changed", Before: "kind: Policy\negress:\n  - {id: a}\n", After: "kind: Policy\negress:\n  - {id: a}\n  - {id: b, allow: \"evil.example:443\"} # \x1b[2J\n"}}}
	if r.Apply {
		n.wrote = append(n.wrote, r)
		out.Revision = 43
	}
	return out, nil
}

// add writes one record into the log.
func (n *node) add(t *testing.T, e event.Event) []byte {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seq++
	e.Sequence, e.ID = n.seq, "c-"+string(rune('0'+n.seq%10))
	if e.Time.IsZero() {
		e.Time = began.Add(-time.Minute + time.Duration(n.seq)*time.Second)
	}
	if e.Sandbox == "" {
		e.Sandbox, e.Scope = "b0a1c2d3", "org:acme/team:shop/agent:npm"
	}
	l, err := e.AppendOCSF(nil, event.Node{})
	if err != nil {
		t.Fatal(err)
	}
	n.log = append(n.log, l)
	return l
}

// user is somebody before the view.
type user struct {
	t *testing.T
	*model
	n *node
}

func newUser(t *testing.T, n *node) *user {
	m := &model{ctx: t.Context(), node: n, st: newState(), now: func() time.Time { return began }, host: "node7", width: 80, height: 24, opened: began.Add(-10 * time.Minute)}
	u := &user{t, m, n}
	u.feed()
	m.Init()
	return u
}

// feed brings what the node has.
func (u *user) feed() {
	u.t.Helper()
	f := &feed{node: u.n, st: u.st}
	if err := errors.Join(f.ask(u.t.Context()), f.list(u.t.Context()), f.askDrafts(u.t.Context())); err != nil {
		u.t.Fatal(err)
	}
	u.n.mu.Lock()
	lines := append([][]byte(nil), u.n.log...)
	u.n.mu.Unlock()
	for _, l := range lines {
		u.st.addEvent(l, began)
	}
}

// tick lets the screen be drawn.
func (u *user) tick() { u.Update(tickMsg{}) }

// types presses keys, and has what they ask for answered.
func (u *user) types(keys ...string) {
	u.t.Helper()
	for _, k := range keys {
		msg := tea.KeyPressMsg{Text: k}
		if r := []rune(k); len(r) == 1 {
			msg.Code = r[0]
		}
		if code, ok := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "down": tea.KeyDown, "up": tea.KeyUp, "space": tea.KeySpace, "backspace": tea.KeyBackspace, "end": tea.KeyEnd, "pgdown": tea.KeyPgDown}[k]; ok {
			msg = tea.KeyPressMsg{Code: code}
		}
		if k == "ctrl+c" {
			msg = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
		}
		_, cmd := u.Update(msg)
		u.answer(cmd)
	}
}

func (u *user) answer(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	switch msg := cmd().(type) {
	case tea.BatchMsg:
		for _, c := range msg {
			u.answer(c)
		}
	case nil:
	default:
		u.Update(msg)
	}
}

var styles = regexp.MustCompile("\x1b\\[[0-9]*m")

// text is the screen without its styles.
func (u *user) text() string { return styles.ReplaceAllString(u.screen(), "") }

// sees fails unless all of it is on the screen; lacks, if one of it is.
func (u *user) sees(want ...string) {
	u.t.Helper()
	for _, w := range want {
		if !strings.Contains(u.text(), w) {
			u.t.Errorf("%q is not on the screen:\n%s", w, u.text())
		}
	}
}

func (u *user) lacks(bad ...string) {
	u.t.Helper()
	for _, w := range bad {
		if strings.Contains(u.text(), w) {
			u.t.Errorf("%q is on the screen:\n%s", w, u.text())
		}
	}
}

func (u *user) voted(want ...api.VoteRequest) {
	u.t.Helper()
	u.n.mu.Lock()
	defer u.n.mu.Unlock()
	if len(u.n.votes) != len(want) {
		u.t.Fatalf("votes: %+v, want %+v", u.n.votes, want)
	}
	for i := range want {
		if !reflect.DeepEqual(u.n.votes[i], want[i]) {
			u.t.Errorf("vote %+v, want %+v", u.n.votes[i], want[i])
		}
	}
}
