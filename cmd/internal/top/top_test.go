// SPDX-License-Identifier: Apache-2.0

package top

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	lines := strings.Split(got, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	got = strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s\nwant:\n%s", name, got, want)
	}
}

// busy is a node on which something happens.
func busy(t *testing.T) *node {
	n := newNode()
	n.boxes = append(n.boxes, api.Sandbox{ID: "77aa0102", Name: "triage", Scope: "org:acme/team:sre/agent:triage/sandbox:77aa0102", Profile: "default", State: api.StateRunning, Enforcement: api.Degraded,
		Parts: []api.Part{{Name: "memory", State: api.Unenforced, Detail: "no memory controller"}}, Created: began.Add(-20 * time.Minute), Revision: 42},
		api.Sandbox{ID: "90ab12cd", Name: "import", Scope: "org:acme/team:data/agent:import/sandbox:90ab12cd", Profile: "default", State: api.StateStopping, Created: began.Add(-3 * time.Minute)},
		api.Sandbox{ID: "deadbeef", Name: "over", State: api.StateStopped})
	n.add(t, event.Event{Kind: event.KindNetwork, Verdict: event.Denied, Proto: "tcp", DstName: "evil.example", DstPort: 443, DstAddr: "198.18.0.9:443", Comm: "node", PID: 4711, Reason: "no rule allows it"})
	n.add(t, event.Event{Kind: event.KindNetwork, Verdict: event.Allowed, Proto: "tcp", DstName: "registry.npmjs.org", DstPort: 443, DstAddr: "198.18.0.2:443", Comm: "npm", PID: 4702, Count: 18})
	n.add(t, event.Event{Kind: event.KindInference, Verdict: event.Allowed, Provider: "anthropic", Model: "claude-opus-4", Operation: "messages", Status: 200, TokensIn: 18000, TokensOut: 730, TokensCached: 12000})
	n.add(t, event.Event{Kind: event.KindNetwork, Verdict: event.Allowed, Failed: true, Proto: "tcp", DstName: "db.internal", DstPort: 5432, DstAddr: "198.18.0.3:5432", Reason: "it refused the connection", Sandbox: "77aa0102", Scope: "org:acme/team:sre/agent:triage"})
	n.add(t, event.Event{Kind: event.KindDNS, Verdict: event.Denied, DstName: "pastebin.com", QueryType: "A", RCode: "NXDOMAIN", Count: 12, Reason: "pastes leak data", Time: began.Add(-3 * time.Second), Sandbox: "77aa0102", Scope: "org:acme/team:sre/agent:triage"})
	n.add(t, event.Event{Kind: event.KindExec, Verdict: event.Observed, Args: "npm run build", Comm: "npm", PID: 4702, Time: began.Add(-2 * time.Second)})
	n.asks = append(n.asks, api.Approval{ID: "00000000000000aa", Sandbox: "77aa0102", Scope: "org:acme/team:sre/agent:triage/sandbox:77aa0102", Kind: "egress", Target: "example.com:443/tcp", State: "approved", Count: 1,
		Binding: "c", Fingerprint: "g", Created: began, Expires: began.Add(time.Hour), Grant: &api.ApprovalGrant{Covers: "target", Lasts: "for", Says: "for 1h0m0s: this target", Until: ptr(began.Add(time.Hour))}})
	return n
}

func ptr[T any](v T) *T { return &v }

// TestScreens: what is seen at 80 times 24, and the document that shows it.
func TestScreens(t *testing.T) {
	u := newUser(t, busy(t))
	golden(t, "sandboxes.txt", u.text())
	u.types("2")
	golden(t, "events.txt", u.text())
	u.types("3")
	golden(t, "approvals.txt", u.text())
	u.types("a")
	golden(t, "approve.txt", u.text())
	u.types("esc", "1", "enter")
	golden(t, "sandbox.txt", u.text())
	u.types("esc", "?")
	golden(t, "help.txt", u.text())
	u.width, u.height = 160, 14
	u.types("esc")
	golden(t, "wide.txt", u.text())
	u.width = minWidth
	golden(t, "narrow.txt", u.text())
	u.width = minWidth - 1
	golden(t, "small.txt", u.text())
	u.types("3", "a", "y", "d", "?")
	u.voted()
	if u.page != nil || u.tab != tabBoxes {
		t.Error("a key did something that the screen could not show")
	}
}

// TestDocumentShowsScreens: the screens in docs/OPERATIONS.md are these, with one
// empty line for many.
func TestDocumentShowsScreens(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sandboxes.txt", "approve.txt"} {
		shown, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		want := "```text\n" + regexp.MustCompile("\n{4,}").ReplaceAllString(string(shown), "\n\n") + "```\n"
		if !strings.Contains(string(doc), want) {
			t.Errorf("docs/OPERATIONS.md does not show %s:\n%s", name, want)
		}
	}
}

// TestNothingIsWiderThanTheScreen, whatever the size, in every place.
func TestNothingIsWiderThanTheScreen(t *testing.T) {
	n := busy(t)
	n.boxes[0].Name = strings.Repeat("漢字", 30)
	n.asks[0].Arguments = strings.Repeat("漢\x1b[2J字 ", 100)
	u := newUser(t, n)
	for _, keys := range [][]string{{"1"}, {"2"}, {"3"}, {"a"}, {"esc", "enter"}, {"esc", "1", "enter"}, {"esc", "4", "a"}, {"esc", "?"}, {"esc", "/", "漢", "x"}} {
		u.width, u.height = 80, 24
		u.types(keys...)
		for _, u.width = range []int{1, 2, 11, 49, 50, 51, 66, 79, 80, 121, 160} {
			for _, u.height = range []int{1, 5, 12, 24, 60} {
				rows := strings.Split(u.text(), "\n")
				if len(rows) > u.height {
					t.Fatalf("%q, %dx%d: %d rows", keys, u.width, u.height, len(rows))
				}
				for _, r := range rows {
					if cells(r) > u.width {
						t.Fatalf("%q, %dx%d: %d cells in %q", keys, u.width, u.height, cells(r), r)
					}
				}
			}
		}
	}
}

// TestApprove: a key shows all of what is asked for, another approves that.
func TestApprove(t *testing.T) {
	n := newNode()
	n.asks[0].Args = []api.ApprovalArgument{{Path: "amount", Text: "5", Kept: true}, {Path: "token"}}
	u := newUser(t, n)
	u.types("3", "a")
	u.sees("server:bank/tool:pay", "to: mallory", "amount=5", "token (not shown)", "org:acme/team:shop/agent:npm, sandbox b0a1c2d3 (shop)", "shop/money Policy/shop:7", "who is it for?", "2 of group:sre (1 lacking)", "/home/ada/shop", "coding", "one use of it", "y approve")
	u.types("y")
	u.voted() // typed ahead: it was not on the screen yet
	u.sees("read it first")
	u.tick()
	u.types("t")
	u.sees("it for an hour, with the same arguments only")
	u.types("c", "r", "e", "l", "space", "d", "a", "y", "enter")
	u.sees("rel day")
	_, first := u.Update(tea.KeyPressMsg{Code: 'y', Text: "y"})
	u.types("y") // before there is an answer
	u.answer(first)
	u.voted(api.VoteRequest{Approve: true, Lasts: api.ApproveFor, For: api.Duration(time.Hour), Comment: "rel day"})
	u.sees("approved 4be21f0a97c3d518: tool server:bank/tool:pay", "[3 Approvals 0]")
}

// TestApprovalIsReadToItsEnd: what does not fit is shown before it can be approved.
func TestApprovalIsReadToItsEnd(t *testing.T) {
	n := newNode()
	n.asks[0].Arguments = strings.Repeat("harmless ", 300) + "to: mallory"
	u := newUser(t, n)
	u.types("3", "a")
	u.tick()
	u.lacks("mallory")
	u.types("y")
	u.voted()
	u.sees("read it first, to its end")
	for range 9 {
		u.types("space")
	}
	u.sees("to: mallory")
	u.types("g", "y") // and once read it may be looked at from its beginning
	u.voted(api.VoteRequest{Approve: true})
}

func TestDeny(t *testing.T) {
	n := newNode()
	u := newUser(t, n)
	u.types("d") // no list of requests is shown
	u.types("3", "d")
	u.voted(api.VoteRequest{})
	u.sees("denied 4be21f0a97c3d518", "[3 Approvals 0]")
	u.types("d")
	u.voted(api.VoteRequest{})

	n = newNode()
	u = newUser(t, n)
	u.types("3", "D", "n", "o", "esc", "D", "n", "o", "enter")
	u.voted(api.VoteRequest{Comment: "no"})
}

// TestVoteRefused: the daemon's reason is shown, all of it.
func TestVoteRefused(t *testing.T) {
	n := newNode()
	n.refuse = api.Errorf(api.CodeDenied, "the rule shop/money counts group:sre, and you are \x1b[2Jnot one").WithRemedy("ask group:sre")
	u := newUser(t, n)
	u.types("3", "a")
	u.tick()
	u.types("y")
	u.sees("Not taken", "the rule shop/money counts group:sre", `\x1b[2Jnot one`, "ask group:sre")
	u.lacks("not known")
	n.refuse = errors.New("connection reset")
	u.types("esc", "d")
	u.sees("Not taken", "connection reset", "whether it counts is not known")
}

// TestSelectionIsNotReplaced: when the selected request ends, the next key is not
// for the one that is in its place.
func TestSelectionIsNotReplaced(t *testing.T) {
	n := newNode()
	second := pay()
	second.ID, second.Target, second.Expires = "00000000000000bb", "server:bank/tool:close", began.Add(time.Hour)
	n.asks = append(n.asks, second)
	u := newUser(t, n)
	u.types("3")
	first := pay()
	first.State = "expired"
	u.st.setAsk(first)
	u.tick()
	u.sees("4be21f0a97c3d518 is expired", "[3 Approvals 1]")
	u.types("d")
	u.voted()
	u.sees("nothing was sent")
	u.types("d")
	u.voted(api.VoteRequest{})
	u.sees("denied 00000000000000bb")
	third := pay()
	third.ID = "00000000000000cc"
	u.st.setAsk(third)
	u.tick()
	u.lacks("> ")
	for range hold { // when nothing was selected for a while, the next is
		u.tick()
	}
	u.types("d")
	u.voted(api.VoteRequest{}, api.VoteRequest{})
}

// TestConfirmationOfWhatIsGone: an approval is for what is on the screen or not
// sent at all.
func TestConfirmationOfWhatIsGone(t *testing.T) {
	for name, change := range map[string]func(a *api.Approval){
		"denied": func(a *api.Approval) { a.State = "denied" }, "approved by others": func(a *api.Approval) { a.State = "approved" }, "another call": func(a *api.Approval) { a.Binding = "x" }, "other rules": func(a *api.Approval) { a.Fingerprint = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, newNode())
			u.types("3", "a")
			u.tick()
			a := pay()
			a.Count = 9
			u.st.setAsk(a)
			u.tick()
			u.sees("y approve") // folded in: the same
			change(&a)
			u.st.setAsk(a)
			u.tick()
			u.types("y")
			u.voted()
		})
	}
}

// TestPasteIsText: what is pasted is never keys.
func TestPasteIsText(t *testing.T) {
	u := newUser(t, newNode())
	u.types("3")
	u.Update(tea.PasteMsg{Content: "d"})
	u.Update(tea.PasteMsg{Content: "a"})
	u.tick()
	u.Update(tea.PasteMsg{Content: "y"})
	u.voted()
	if u.page != nil {
		t.Error("a page was opened")
	}
	u.types("/")
	u.Update(tea.PasteMsg{Content: "pay\nq\x1b[2J"})
	u.sees(`only rows with: pay q\x1b[2J_`)
}

// TestHostile: nothing that a sandbox or a document chose reaches the terminal as
// anything but visible characters.
func TestHostile(t *testing.T) {
	const evil = "a\x1b[2J\u202eb\u200dc\x07\xff\u0301\u0628\u05d0" + "\U0001f468\u200d\U0001f469" + "e\u0301\u0301\u0301"
	n := busy(t)
	n.boxes[0].Name, n.boxes[0].Scope, n.boxes[0].Workspace, n.boxes[0].Argv = evil, evil, evil, []string{evil}
	n.boxes[0].Profile, n.boxes[1].State, n.boxes[1].Parts[0].Detail = evil, evil, evil
	n.status.State, n.status.Parts = evil, []api.Part{{Name: evil, State: evil, Detail: evil}}
	a := &n.asks[0]
	a.Target, a.Arguments, a.Scope, a.Kind, a.Needs, a.Name, a.Program, a.Workspace, a.Profile = evil, evil, evil, evil, evil, evil, evil, evil, evil
	a.Demands[0] = api.ApprovalDemand{Rule: evil, RuleAt: evil, Reason: evil, Who: evil}
	a.Votes = []api.ApprovalVote{{Name: evil, Comment: evil}}
	n.add(t, event.Event{Kind: event.KindFile, Path: evil, Comm: evil, PID: 1, Reason: evil, Scope: "org:a/team:b/agent:" + evil, Sandbox: "b0a1c2d3"})
	n.log = append(n.log, []byte("no record"+evil))
	n.drafts = []api.Draft{{ID: evil, Scope: evil, Destination: evil, Sandboxes: []string{evil}}}
	u := newUser(t, n)
	u.st.link(linkEvents, errors.New(evil), began)
	look := func(where string) {
		t.Helper()
		s := u.text()
		if !strings.Contains(s, `\x1b[2J`) && where != "" {
			t.Errorf("%s does not show it:\n%s", where, s)
		}
		for _, r := range s {
			if r != '\n' && r >= 0x7f && !strings.ContainsRune("\ufffd\U0001f468\U0001f469~", r) || r < 0x20 && r != '\n' {
				t.Errorf("%s: %q is on the screen", where, r)
			}
		}
	}
	look("sandboxes")
	u.types("2")
	look("events")
	u.types("3")
	look("approvals")
	u.types("enter")
	look("request")
	u.types("a")
	look("confirmation")
	u.types("esc", "1", "enter")
	look("sandbox")
	u.types("G")
	u.sees(`\u202e`)
	look("")
	u.types("esc", "2", "end", "enter")
	look("")
	u.types("esc", "4")
	look("drafts")
	u.types("a")
	look("proposal")
}

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain ~ text":         "plain ~ text",
		"漢字 한국어 Ünï":           "漢字 한국어 Ünï", // composed letters of one or two cells
		"e\u0301":              `e\u0301`,
		"100 \u05d0 200":       `100 \u05d0 200`,
		"\U0001f1e9\U0001f1ea": `\U0001f1e9\U0001f1ea`, // two letters or one flag
		"\U0001f44d\U0001f3fd": `\U0001f44d\U0001f3fd`,
		"\u1100\u1161":         `\u1100\u1161`,
	} {
		if got := safe(in, 0); got != want {
			t.Errorf("safe(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestBounds: whatever comes, what is kept has a limit.
func TestBounds(t *testing.T) {
	n := newNode()
	st := newState()
	for i := range maxTallies + 500 {
		e := event.Event{Kind: event.KindFile, Verdict: event.Denied, Path: strings.Repeat("\x01", 300), Comm: strings.Repeat("\x01", 60), Reason: strings.Repeat("\x01", 300), Sandbox: fmt.Sprintf("%08x", i), Time: began.Add(time.Duration(i))}
		st.addEvent(n.add(t, e), began)
		n.log = nil
		a := pay()
		a.ID = fmt.Sprint(i)
		st.setAsk(a)
	}
	var boxes []api.Sandbox
	for i := range maxBoxes + 7 {
		boxes = append(boxes, api.Sandbox{ID: fmt.Sprintf("%08x", i), State: api.StateRunning})
	}
	st.setNode(api.Status{}, boxes)
	s := st.snapshot(began)
	if len(s.events[seeDenied]) != maxEvents || len(s.events[seeAll]) != maxEvents || len(s.asks) != maxApprovals || len(s.box) > maxTallies || len(s.boxes) != maxBoxes || s.more != 7 || cap(st.events[seeAll]) > 2*maxEvents {
		t.Errorf("%d events (room for %d), %d requests, %d tallies, %d sandboxes, %d more", len(s.events[seeAll]), cap(st.events[seeAll]), len(s.asks), len(s.box), len(s.boxes), s.more)
	}
	if got := len(s.events[seeAll][0].text); got > 4*maxText {
		t.Errorf("a line of %d bytes", got)
	}
	st.watch("00000001")
	for i := range 3 * maxDenials {
		st.addEvent(n.add(t, event.Event{Kind: event.KindFile, Path: "/x", Sandbox: "00000001", Time: began.Add(time.Hour + time.Duration(i))}), began)
	}
	if got := len(st.snapshot(began).denials); got != maxDenials {
		t.Errorf("%d denials", got)
	}
}

// TestCounts: rates are of the time of the records, and nothing counts twice.
func TestCounts(t *testing.T) {
	n := busy(t)
	u := newUser(t, n)
	u.feed() // as after the stream began again
	s := u.st.snapshot(began)
	want := tally{allowed: 19, denied: 13, failed: 1, calls: 1, in: 18000, out: 730, cached: 12000}
	if s.total != want {
		t.Errorf("%+v, want %+v", s.total, want)
	}
	if s.recent.denied != 12 || s.recent.allowed != 0 { // of the others it is a minute
		t.Errorf("recent: %+v", s.recent)
	}
	if got := s.box["77aa0102"]; got.denied != 12 || got.failed != 1 {
		t.Errorf("of one sandbox: %+v", got)
	}
	u.st.addEvent(n.add(t, event.Event{Kind: event.KindApproval, Verdict: event.Denied, Time: began}), began)
	u.st.addEvent(n.add(t, event.Event{Kind: event.KindInference, Verdict: event.Allowed, TokensIn: 1, Estimated: true, Time: began}), began)
	s = u.st.snapshot(began)
	if s.total.denied != 13 || s.total.calls != 2 || s.total.spent() != "~18k" {
		t.Errorf("%+v, %s", s.total, s.total.spent())
	}
}

// TestListAndStream: a list that was asked for before something was heard does
// not bring back what was before.
func TestListAndStream(t *testing.T) {
	st := newState()
	old := pay()
	mark := st.mark()
	approved := pay()
	approved.State = "approved"
	st.setAsk(approved)
	other := pay()
	other.ID = "other"
	st.setAsks(mark, []api.Approval{old, other})
	s := st.snapshot(began)
	if len(s.asks) != 2 || s.asks[0].ID != "other" || s.asks[1].State != "approved" {
		t.Errorf("%+v", s.asks)
	}
	st.setAsks(st.mark(), []api.Approval{other})
	if s := st.snapshot(began); len(s.asks) != 1 || s.asks[0].ID != "other" {
		t.Errorf("%+v", s.asks)
	}
}

func TestFilter(t *testing.T) {
	u := newUser(t, busy(t))
	u.types("2", "/", "P", "a", "s", "t", "e", "enter")
	u.sees("pastebin.com", "only: Paste")
	u.lacks("evil.example")
	u.types("esc", "v")
	u.sees("evil.example", "pastebin.com", "only what was refused")
	u.lacks("registry.npmjs.org", "npm run build")
	u.types("v")
	u.sees("npm run build", "everything")
	u.types("/", "x", "x", "enter")
	u.sees("No row is let through")
	u.types("esc")
	u.sees("registry.npmjs.org")
	u.lacks("npm run build")
}

func TestSort(t *testing.T) {
	u := newUser(t, busy(t))
	order := func(first, second string) {
		t.Helper()
		if s := u.text(); strings.Index(s, first) > strings.Index(s, second) {
			t.Errorf("%s is not before %s:\n%s", first, second, s)
		}
	}
	order("web", "triage")
	u.types("s")
	u.sees("sorted by denied", "> b0a1c2d3") // the same is selected
	order("triage", "web")
	u.types("s")
	u.sees("sorted by tokens")
	order("web", "triage")
	u.types("s")
	u.lacks("sorted by")
}

// TestBehind: more records than are read is said; the old ones of the beginning
// are no reason.
func TestBehind(t *testing.T) {
	n := newNode()
	u := newUser(t, n)
	now := began
	u.now = func() time.Time { return now }
	for i := range 9 {
		u.st.addEvent(n.add(t, event.Event{Kind: event.KindFile, Path: "/x", Time: now.Add(-time.Hour + time.Duration(i))}), now)
		u.tick()
		if said := strings.Contains(u.text(), "events: 1h0m behind"); said != (i > 5) {
			t.Errorf("after %d s: %v", i, said)
		}
		now = now.Add(time.Second)
	}
	now = now.Add(pause)
	u.tick()
	u.lacks("behind")
}

func BenchmarkDraw(b *testing.B) {
	st := newState()
	var boxes []api.Sandbox
	for i := range maxBoxes {
		boxes = append(boxes, api.Sandbox{ID: fmt.Sprintf("%08x", i), Name: "agent", Scope: "org:acme/team:shop/agent:npm", State: api.StateRunning, Enforcement: api.Enforced, Created: began})
		a := pay()
		a.ID, a.Arguments = fmt.Sprint(i), strings.Repeat("x", 4096)
		st.setAsk(a)
	}
	st.setNode(api.Status{Started: began}, boxes)
	m := &model{ctx: b.Context(), st: st, now: time.Now, width: 200, height: 60}
	for b.Loop() {
		m.refresh()
		_ = m.screen()
	}
}

func TestSandboxPage(t *testing.T) {
	n := busy(t)
	u := newUser(t, n)
	u.types("enter")
	u.sees("web", "evil.example", "Documents in force at revision 42", "1 call, tokens 18k in")
	u.st.addEvent(n.add(t, event.Event{Kind: event.KindNetwork, Proto: "tcp", DstName: "late.example", DstPort: 1}), began)
	u.tick()
	u.sees("late.example")
	u.types("G")
	u.sees(`{id: a, allow: "a.example:443"}`, "npm test", "/home/ada/shop")
	n.set(func() { n.status.Revision, n.boxes[0].Revision = 43, 43 })
	u.feed()
	_, cmd := u.Update(tickMsg{})
	u.answer(batched(cmd))
	u.sees("Documents in force at revision 43")
	n.set(func() { n.boxes = n.boxes[1:] })
	u.feed()
	u.tick()
	u.types("g")
	u.sees("It has ended")
}

// batched leaves the next tick out.
func batched(cmd tea.Cmd) tea.Cmd {
	batch, ok := cmd().(tea.BatchMsg)
	if !ok {
		return nil
	}
	return batch[len(batch)-1]
}

func TestExplain(t *testing.T) {
	u := newUser(t, busy(t))
	u.types("2", "end", "enter")
	u.sees("Event 1", `tcp \x1b[2Jevil.example:443 was refused`, "shop/no (shop.yaml:7)", "ringfence allow evil.example:443 --once")
	u.types("esc", "g", "enter")
	u.sees(`no event "5"`)
}

func TestMonochrome(t *testing.T) {
	u := newUser(t, busy(t))
	u.color = true
	if s := u.screen(); !strings.Contains(s, "\x1b[31m") || !strings.Contains(s, "\x1b[32m") {
		t.Errorf("no colours: %q", s)
	}
	u.color = false
	for _, keys := range []string{"1", "2", "3"} {
		u.types(keys)
		if s := u.screen(); strings.Contains(s, "\x1b[3") {
			t.Errorf("colours: %q", s)
		}
		u.sees("> ", "["+keys+" ")
	}
}

// FuzzSafe: whatever the text, what is shown of it fills as many cells on every
// terminal, and breaking it into rows loses nothing.
func FuzzSafe(f *testing.F) {
	for _, s := range []string{"plain", "漢字", "e\u0301", "\u05d0 1", "\x1b[2J", "\xff", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd", "\u1100\u1161"} {
		f.Add(s, 7)
	}
	f.Fuzz(func(t *testing.T, in string, width int) {
		width = 2 + max(0, width%80)
		s := safe(in, 0)
		if event.Printable(s, 0) != s || ansi.StringWidth(s) != ansi.StringWidthWc(s) || cells(s) != ansi.StringWidth(s) {
			t.Errorf("%q: %q is %d cells or %d", in, s, ansi.StringWidth(s), ansi.StringWidthWc(s))
		}
		rows := wrap(s, width)
		for _, r := range rows {
			if cells(r) > width {
				t.Errorf("%q has more than %d cells", r, width)
			}
		}
		if strings.Join(rows, "") != s {
			t.Errorf("%q became %q", s, rows)
		}
		if got := cells(fill(s, width)); got != width {
			t.Errorf("%q fills %d of %d cells", s, got, width)
		}
	})
}
