// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/store/sqlite"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// book opens the store of a daemon that does not run.
func book(t *testing.T, n *node.Node, use func(*approval.Book)) {
	t.Helper()
	st, err := sqlite.Open(context.Background(), sqlite.Options{Dir: filepath.Join(n.StateDir, "store"), Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // the daemon opens it next
	b, err := approval.NewBook(context.Background(), approval.Options{Store: st, Limits: approval.DefaultLimits, Now: time.Now,
		Lives: func(string) bool { return true }, Record: func(approval.Change) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	use(b)
}

func inboxOf(t *testing.T, n *node.Node, args ...string) map[string]api.Approval {
	t.Helper()
	r := n.CLI(t, append([]string{"approvals", "list", "-o", "json"}, args...)...)
	var list []api.Approval
	if err := json.Unmarshal([]byte(r.Stdout), &list); r.Code != 0 || err != nil {
		t.Fatalf("approvals list: exit %d %v %s", r.Code, err, r.Stderr)
	}
	out := map[string]api.Approval{}
	for _, a := range list {
		out[a.Target] = a
	}
	return out
}

// TestApprovalsAcrossKills: what was asked for and what people said outlives
// kill -9 of the daemon, and ends with its sandbox, also when that ends while no
// daemon runs. Requests are put into the store beside the daemon: no rule of this
// version demands approval.
func TestApprovalsAcrossKills(t *testing.T) {
	n := node.Start(t, node.Options{})
	for _, name := range []string{"asker", "other"} {
		if r := n.CLIIn(t, n.Workspace(t), "run", "--detach", "--name", name, "--", "sleep", "100000"); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	box, other := n.Sandbox(t, "asker"), n.Sandbox(t, "other")
	call := func(b api.Sandbox, target string) approval.Call {
		return approval.Call{Sandbox: b.ID, Scope: b.Scope, Launcher: b.Owner, Kind: approval.Egress, Target: target, Fingerprint: strings.Repeat("f", 64), Demands: []approval.Demand{{Rule: "test/ask", Quorum: 1, ExpiresAfter: time.Hour}}}
	}
	n.KillDaemon(t)
	book(t, n, func(b *approval.Book) {
		for _, c := range []approval.Call{call(box, "one.test:443/tcp"), call(box, "two.test:443/tcp"), call(box, "three.test:443/tcp"), call(other, "four.test:443/tcp")} {
			if a, err := b.AskAll(context.Background(), []*approval.Call{&c}); err != nil || a.Outcome != approval.Waiting {
				t.Fatalf("%+v %v", a, err)
			}
		}
	})
	n.StartDaemon(t)
	inbox := inboxOf(t, n)
	if len(inbox) != 4 || !inbox["one.test:443/tcp"].MayVote {
		t.Fatalf("%+v", inbox)
	}
	for _, args := range [][]string{{"approve", inbox["one.test:443/tcp"].ID, "--sandbox", "--comment", "it may"}, {"deny", inbox["two.test:443/tcp"].ID}} {
		if r := n.CLI(t, append([]string{"approvals"}, args...)...); r.Code != 0 {
			t.Errorf("%s: exit %d %s", args, r.Code, r.Stderr)
		}
	}
	if r := n.CLI(t, "approvals", "deny", inbox["one.test:443/tcp"].ID); r.Code != 1 || !strings.Contains(r.Stderr, "decided already") {
		t.Errorf("a second word: exit %d %s", r.Code, r.Stderr)
	}
	n.KillDaemon(t)
	n.StartDaemon(t)
	for target, state := range map[string]string{"one.test:443/tcp": "approved", "two.test:443/tcp": "denied", "three.test:443/tcp": "pending", "four.test:443/tcp": "pending"} {
		if got := inboxOf(t, n, "--all")[target].State; got != state {
			t.Errorf("%s is %s, not %s", target, got, state)
		}
	}
	for verb, actor := range map[string]string{"approve": "uid=0(root)", "deny": "uid=0(root)"} {
		n.WaitEvent(t, "the record of "+verb, func(e *event.Event) bool {
			return e.Kind == event.KindApproval && e.Activity == verb && e.Actor == actor && e.Sandbox == box.ID && e.RequestID != ""
		})
	}
	if r := n.CLI(t, "stop", "asker", "--timeout", "0s"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	ended := inboxOf(t, n, "--all")
	if ended["one.test:443/tcp"].State != "expired" || ended["three.test:443/tcp"].State != "cancelled" || ended["four.test:443/tcp"].State != "pending" {
		t.Errorf("after the end of its sandbox: %+v", ended)
	}
	n.KillDaemon(t) // the sandbox of the last one ends while no daemon runs
	need(t, syscall.Kill(other.PID, syscall.SIGKILL))
	n.StartDaemon(t)
	n.WaitEvent(t, "the end of what waited", func(e *event.Event) bool {
		return e.Kind == event.KindApproval && e.Activity == "cancel" && e.Sandbox == other.ID
	})
}

// TestAConnectionWaitsForAPerson: a rule demands approval, an agent connects and
// waits, a person lets it pass: once, then for a time.
func TestAConnectionWaitsForAPerson(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"asked.test", "open.test"} {
		w.site(t, name, doubles.Page(name))
	}
	n := w.start(t, node.Options{Policies: map[string]string{"ask.yaml": "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\negress:\n" +
		"  - {id: open, allow: \"open.test:443\"}\n  - {id: ask, to: \"asked.test:443\", action: require-approval, reason: \"ask first\"}\n"}})
	a := w.waitingAgent(t, n, "asker")
	a.expect(t, "https://open.test/", "200") // the control
	waiting := func() string {
		id := ""
		eventually(t, "a request in the inbox", func() bool {
			p := inboxOf(t, n)["asked.test:443/tcp"]
			if p.State == "pending" {
				id = p.ID
			}
			return id != ""
		})
		return id
	}
	during := func(do func()) { // what the agent's next connection waits for
		done := make(chan struct{})
		go func() { defer close(done); do() }()
		a.expect(t, "https://asked.test/", "200")
		<-done
	}
	during(func() {
		id := waiting()
		shown := n.CLI(t, "approvals", "show", id).Stdout
		contains(t, "who asks, and what for", regexp.MustCompile(" +").ReplaceAllString(shown, " "), " (asker)\n", "\nruns sh\n", "\nworkspace "+a.ws+"\n", "\nprofile coding\n",
			"\negress asked.test:443/tcp\n", "\nrule eng/ask "+filepath.Join(n.PolicyDir, "ask.yaml")+":7\n", "\nsays ask first\n", "\nneeds 1 of root, an approver or who launched it (1 lacking)\n")
		contains(t, "list", n.CLI(t, "approvals", "list").Stdout, "root, an approver or who launched it (rule eng/ask)")
		n.CLI(t, "approvals", "approve", id)
	})
	during(func() { n.CLI(t, "approvals", "approve", waiting(), "--for", "1h") }) // the first was for one connection
	a.expect(t, "https://asked.test/", "200")
	if list := inboxOf(t, n, "--all"); list["asked.test:443/tcp"].State == "" {
		t.Errorf("%+v", list)
	}
	for _, verb := range []string{"ask", "approve", "consume"} {
		n.WaitEvent(t, "the record of "+verb, func(e *event.Event) bool {
			return e.Kind == event.KindApproval && e.Activity == verb && e.Rule == "eng/ask" && e.Object == "egress asked.test:443/tcp"
		})
	}
	n.WaitEvent(t, "the connection that was approved", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.DstName == "asked.test" && e.Verdict == event.Allowed && e.ReasonCode == "approved"
	})
	if r := n.CLI(t, "stop", "asker", "--timeout", "0s"); r.Code != 0 {
		t.Error(r.Stderr)
	}
}
