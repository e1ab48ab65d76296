// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// A destination that needs an approval resolves, and the gateway refuses it with
// its own code. The control beside it is open.
func TestWhatNeedsAnApprovalIsRefused(t *testing.T) {
	r := newRig(t, docHead+"egress:\n  - {id: ok, allow: \"db.test:5432\"}\n", rigOptions{})
	docs, problems := policy.ParseWhole("test.yaml", []byte(docHead+`egress:
  - {id: ok, allow: "db.test:5432"}
  - {id: ask, to: "web.test:443", action: require-approval, reason: "ask ops"}
  - {id: post, to: "api.test:443", action: require-approval, http: {methods: [POST]}}
  - {id: get, allow: "api.test:443", http: {methods: [GET]}, resolvesTo: [127.0.0.0/8]}
  - {id: net, to: "203.0.113.7:443", action: require-approval}
`))
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	s, problems := policy.Compile(2, docs)
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	r.keeper.mu.Lock()
	r.keeper.view = s.View(r.p)
	r.keeper.mu.Unlock()
	r.g.SetSnapshot(s)
	r.host("web.test")
	r.web("api.test", 443, func(http.ResponseWriter, *http.Request) {})
	a, err := r.lookup("web.test")
	if err != nil {
		t.Fatalf("the name does not resolve: %v", err)
	}
	r.wantReset(netip.AddrPortFrom(a, 443).String())
	r.event("the refusal", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.Verdict == event.Denied && e.ReasonCode == policy.CodeApproval && e.Rule == "test/ask" && e.Reason == "needs an approval; ask ops"
	})
	r.wantReset("203.0.113.7:443")
	r.event("the address", func(e *event.Event) bool { return e.ReasonCode == policy.CodeApproval && e.Rule == "test/net" })
	c := r.client(r.keeper.ca.pool(), false)
	if res, err := c.Get("https://api.test/"); err != nil || res.StatusCode != 200 {
		t.Errorf("the request that is allowed: %v %v", res, err)
	}
	if res, err := c.Post("https://api.test/", "text/plain", strings.NewReader("x")); err != nil || res.StatusCode != 403 {
		t.Errorf("the request that needs an approval: %v %v", res, err)
	}
	r.event("the request", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.Method == "POST" && e.Verdict == event.Denied && e.ReasonCode == policy.CodeApproval && e.Rule == "test/post"
	})
}

// askRig has one destination that needs an approval, one that is open, and a
// keeper that answers so.
func askRig(t *testing.T, o rigOptions, answer func(q ApprovalQuestion) (ApprovalAnswer, error)) (r *rig, put func(revision uint64, rules string)) {
	t.Helper()
	r = newRig(t, docHead+"egress:\n  - {id: ok, allow: \"open.test:443\", resolvesTo: [127.0.0.0/8]}\n", o)
	r.keeper.mu.Lock()
	r.keeper.approval = answer
	r.keeper.mu.Unlock()
	put = func(revision uint64, rules string) { r.setPolicy(revision, docHead+"egress:\n"+rules) }
	put(2, askRule)
	r.host("web.test")
	r.web("web.test", 443, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	return r, put
}

const askRule = "  - {id: ask, to: \"web.test:443\", action: require-approval, resolvesTo: [127.0.0.0/8]}\n"

func TestAnApprovedConnectionPasses(t *testing.T) {
	var asked atomic.Int32
	r, put := askRig(t, rigOptions{}, func(q ApprovalQuestion) (ApprovalAnswer, error) {
		if n := asked.Add(1); n < 3 {
			if want := map[int32]string{1: "", 2: "r1"}[n]; strings.Join(q.Waits, "") != want || q.Name != "web.test" || q.Port != 443 {
				return ApprovalAnswer{Reason: "a strange question"}, nil
			}
			return ApprovalAnswer{Waits: true, IDs: []string{"r1"}}, nil
		}
		return ApprovalAnswer{Released: true, IDs: []string{"r1"}}, nil
	})
	c := r.client(r.world.pool(), false)
	get := func() error {
		res, err := c.Get("https://web.test/")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	put(3, askRule+"  - {id: other, allow: \"else.test:443\"}\n") // the same rule decides: the connection stays
	if err := get(); err != nil || asked.Load() != 3 {
		t.Errorf("after an apply of something else: %v, asked %d times", err, asked.Load())
	}
	// A rule that looks into requests: the connection would go on unseen.
	put(4, askRule+"  - {id: post, deny: \"web.test:443\", http: {methods: [POST]}}\n")
	r.event("the end of the first", func(e *event.Event) bool { return e.Kind == event.KindNetwork && e.ReasonCode == codeRevoked })
	put(5, askRule)
	if err := get(); err != nil {
		t.Fatal(err)
	}
	r.keeper.mu.Lock()
	r.keeper.approval = nil
	r.keeper.mu.Unlock()
	put(6, strings.Replace(askRule, "443\"", "443\", reason: \"think first\"", 1)) // another text: it ends
	if err := get(); err == nil {
		t.Error("an approval outlived the rule that asked for it")
	}
	r.event("the end", func(e *event.Event) bool { return e.Kind == event.KindNetwork && e.ReasonCode == codeRevoked })
}

func TestWhatBecomesOfAConnectionThatWaits(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(q ApprovalQuestion) (ApprovalAnswer, error)
		code   string
		remedy string
	}{
		"nobody decides": {func(ApprovalQuestion) (ApprovalAnswer, error) {
			return ApprovalAnswer{Waits: true, IDs: []string{"r1"}}, nil
		}, codeApprovalWaits, "ringfence approvals approve r1"},
		"somebody denies": {func(q ApprovalQuestion) (ApprovalAnswer, error) {
			if q.Waits == nil {
				return ApprovalAnswer{Waits: true, IDs: []string{"r1"}}, nil
			}
			return ApprovalAnswer{IDs: []string{"r1"}, Reason: "denied by somebody", ReasonCode: "approval-denied"}, nil
		}, "approval-denied", ""},
		"the keeper fails": {func(ApprovalQuestion) (ApprovalAnswer, error) { return ApprovalAnswer{}, errors.New("away") }, codeApprovalNowhere, ""},
		"released on other rules": {func(ApprovalQuestion) (ApprovalAnswer, error) {
			return ApprovalAnswer{Released: true, IDs: []string{"r1"}, Fingerprints: [][32]byte{{1}}}, nil
		}, codeApprovalChanged, ""},
		"an empty answer": {func(ApprovalQuestion) (ApprovalAnswer, error) { return ApprovalAnswer{ReasonCode: "none"}, nil }, "none", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := askRig(t, rigOptions{limits: Limits{Approval: 700 * time.Millisecond}}, c.answer)
			a, err := r.lookup("web.test")
			if err != nil {
				t.Fatal(err)
			}
			r.wantReset(netip.AddrPortFrom(a, 443).String())
			r.event("the refusal", func(e *event.Event) bool {
				return e.Kind == event.KindNetwork && e.Verdict == event.Denied && e.ReasonCode == c.code && (c.remedy == "" || e.Remedy == c.remedy)
			})
		})
	}
}

// The keeper is a revision behind: it releases on the rules of its own view.
// Where the rule that asks is the same still, the connection passes; where it is
// another, or asks another person, it does not.
func TestAKeeperThatIsARevisionBehind(t *testing.T) {
	for name, c := range map[string]struct {
		now    string
		passes bool
	}{
		"something else was applied": {askRule + "  - {id: other, allow: \"else.test:443\"}\n", true},
		"the rule has another text":  {strings.Replace(askRule, "443\"", "443\", reason: \"think first\"", 1), false},
		"another person decides":     {strings.Replace(askRule, "approval,", "approval, approval: {approvers: [\"group:sre\"]},", 1), false},
		"another rule asks, too":     {askRule + "  - {id: more, to: \"**:443\", action: require-approval, mandatory: true}\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			var behind [32]byte
			r, put := askRig(t, rigOptions{}, func(ApprovalQuestion) (ApprovalAnswer, error) {
				return ApprovalAnswer{Released: true, IDs: []string{"r1"}, Fingerprints: [][32]byte{behind}}, nil
			})
			behind = compile(t, 2, docHead+"egress:\n"+askRule).View(r.p).Egress("web.test", 443).Terms.Fingerprint
			put(3, c.now)
			if c.passes {
				res, err := r.client(r.world.pool(), false).Get("https://web.test/")
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				return
			}
			a, err := r.lookup("web.test")
			if err != nil {
				t.Fatal(err)
			}
			r.wantReset(netip.AddrPortFrom(a, 443).String())
			r.event("the refusal", func(e *event.Event) bool {
				return e.Kind == event.KindNetwork && e.Verdict == event.Denied && e.ReasonCode == codeApprovalChanged
			})
		})
	}
}

// TestWhoLeavesUsesNothingUp: an approval that comes after the agent has given up
// is not asked for on its behalf.
func TestWhoLeavesUsesNothingUp(t *testing.T) {
	var asked atomic.Int32
	r, _ := askRig(t, rigOptions{}, func(ApprovalQuestion) (ApprovalAnswer, error) {
		asked.Add(1)
		return ApprovalAnswer{Waits: true, IDs: []string{"r1"}}, nil
	})
	c := r.mustDial("web.test", 443)
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = c.Close()
	r.event("the refusal", func(e *event.Event) bool { return e.ReasonCode == codeApprovalWaits })
	n := asked.Load()
	time.Sleep(2 * approvalEvery)
	if asked.Load() != n {
		t.Error("it is asked for somebody who has left")
	}
}

const askModels = docHead + "inference:\n  - {id: big, model: \"big-*\", action: require-approval}\ntools:\n  - {id: search, match: \"server:provider/tool:web_search\", action: require-approval}\n"

// toolRig is a gateway on those rules, whose keeper answers so.
func toolRig(t *testing.T, answer func(q ApprovalQuestion) (ApprovalAnswer, error)) (r *rig, ask func(model string) (int, string)) {
	t.Helper()
	r = newRig(t, closedPolicy, rigOptions{limits: Limits{Approval: 1200 * time.Millisecond}})
	r.keeper.mu.Lock()
	r.keeper.approval = answer
	r.keeper.mu.Unlock()
	r.setPolicy(2, askModels)
	c := r.client(r.keeper.ca.pool(), false)
	return r, func(model string) (int, string) {
		t.Helper()
		res, err := c.Post("https://api.openai.com/v1/responses", "application/json", strings.NewReader(`{"model":"`+model+`","input":"hi","tools":[{"type":"web_search","max":5}]}`))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
}

// TestAToolAndItsModelAreOneQuestion, asked again with the ids that wait, until all
// of it is released.
func TestAToolAndItsModelAreOneQuestion(t *testing.T) {
	var asked atomic.Int32
	r, ask := toolRig(t, func(q ApprovalQuestion) (ApprovalAnswer, error) {
		want := map[int32]string{1: "", 2: "m1 t1", 3: " t1"}[asked.Add(1)]
		if strings.Join(q.Waits, " ") != want || q.Model != "big-1" || len(q.Tools) != 1 || q.Tools[0].Name != "web_search" || q.Tools[0].Settings[0].Path != "max" {
			return ApprovalAnswer{Reason: "a strange question"}, nil
		}
		return map[string]ApprovalAnswer{"": {Waits: true, IDs: []string{"m1", "t1"}}, "m1 t1": {Waits: true, IDs: []string{"", "t1"}}, " t1": {Released: true, IDs: []string{"m1", "t1"}}}[want], nil
	})
	if status, text := ask("big-1"); status != 200 || asked.Load() != 3 {
		t.Errorf("%d %s, asked %d times", status, text, asked.Load())
	}
	r.event("what was approved", func(e *event.Event) bool {
		return e.Kind == event.KindInference && e.Verdict == event.Allowed && e.ReasonCode == codeApproved && e.Rule == "test/search" && e.Reason == "people have approved it (m1, t1)"
	})
}

// TestAToolIsReleasedOnTheRulesOfNow: with the fingerprint of the rules of each thing
// that was asked about.
func TestAToolIsReleasedOnTheRulesOfNow(t *testing.T) {
	r, ask := toolRig(t, nil)
	view := compile(t, 2, askModels).View(r.p)
	model, tool := view.Inference("openai", "big-1").Terms.Fingerprint, view.ProviderTool("web_search").Terms.Fingerprint
	for name, c := range map[string]struct {
		model  string
		a      ApprovalAnswer
		status int
		says   string
	}{
		"both":               {"big-1", ApprovalAnswer{Released: true, Fingerprints: [][32]byte{model, tool}}, 200, ""},
		"the tool alone":     {"small", ApprovalAnswer{Released: true, Fingerprints: [][32]byte{{}, tool}}, 200, ""},
		"the model alone":    {"big-1", ApprovalAnswer{Released: true, Fingerprints: [][32]byte{model, {}}}, 403, "have changed since"},
		"exchanged":          {"big-1", ApprovalAnswer{Released: true, Fingerprints: [][32]byte{tool, model}}, 403, "have changed since"},
		"one is missing":     {"big-1", ApprovalAnswer{Released: true, Fingerprints: [][32]byte{model}}, 403, "have changed since"},
		"none":               {"small", ApprovalAnswer{Released: true, Fingerprints: [][32]byte{}}, 403, "have changed since"},
		"a refusal":          {"small", ApprovalAnswer{Reason: "people have denied it (t1)", ReasonCode: codeApprovalDenied}, 403, "people have denied it (t1)"},
		"nobody comes":       {"big-1", ApprovalAnswer{Waits: true, IDs: []string{"m1", "t1"}}, 503, "(m1, t1)"},
		"nobody, for a tool": {"big-1", ApprovalAnswer{Waits: true, IDs: []string{"", "t1"}}, 503, "what the provider would do as web_search, and nobody has yet (t1)"},
	} {
		r.keeper.mu.Lock()
		r.keeper.approval = func(ApprovalQuestion) (ApprovalAnswer, error) { return c.a, nil }
		r.keeper.mu.Unlock()
		if status, text := ask(c.model); status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
}
