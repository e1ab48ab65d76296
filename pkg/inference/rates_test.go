// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/inference/rates"
	"github.com/ringfence/ringfence/pkg/limit"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/test/doubles"
)

// stopped is a clock that tests move.
type stopped struct{ now atomic.Int64 }

func (c *stopped) Now() time.Duration { return time.Duration(c.now.Load()) }
func (c *stopped) After(time.Duration) (<-chan time.Time, func() bool) {
	panic("nobody waits by this clock")
}

// waits is a clock that counts who waits by it.
type waits struct {
	start time.Time
	n     atomic.Int64
}

func (c *waits) Now() time.Duration { return time.Since(c.start) }
func (c *waits) After(d time.Duration) (<-chan time.Time, func() bool) {
	c.n.Add(1)
	t := time.NewTimer(d)
	return t.C, t.Stop
}

// ruled is what the inference rules say to an agent of a team.
func ruled(t *testing.T, rules string) *policy.View { return ruledFor(t, "eng", "bot", rules) }

func ruledFor(t *testing.T, team, agent, rules string) *policy.View {
	t.Helper()
	docs, problems := policy.Parse("p.yaml", []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: acme}\nscope: org:acme\ninference:\n"+rules))
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	snap, problems := policy.Compile(7, docs)
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	return snap.View(scope.Principal{Org: "acme", Team: team, Agent: agent, Sandbox: "sb1"})
}

// withRates is a setup in which rates count by a clock.
func withRates(c limit.Clock) setup {
	return setup{opt: inference.Options{Tolls: []inference.Toll{rates.New(limit.Options{Clock: c})}}}
}

// as makes the fence that of an agent.
func (f *fence) as(team, agent, sandbox string, v inference.View) {
	f.call.View, f.call.Sandbox = v, sandbox
	f.call.Scope = fmt.Sprintf("org:acme/team:%s/agent:%s/sandbox:%s", team, agent, sandbox)
}

const allowAll = "  - {id: all, allow: \"*\"}\n"

func TestRateRefusesInTheDialect(t *testing.T) {
	c := &stopped{}
	f := newFence(t, withRates(c))
	f.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: slow, model: \"m*\", action: rate-limit, rate: {requests: 2/m, tokens: 1000/h, per: [agent]}}\n"))
	rows := map[string]struct {
		ask    func() (*http.Response, string)
		header map[string]string
		kind   string
		code   string
	}{
		"openai": {func() (*http.Response, string) { return f.chat(`{"model":"m1","messages":[]}`) }, map[string]string{
			"Retry-After": "30", "Retry-After-Ms": "30000", "X-Ratelimit-Limit-Requests": "2", "X-Ratelimit-Remaining-Requests": "0", "X-Ratelimit-Reset-Requests": "1m0s",
			"X-Ratelimit-Limit-Tokens": "1000", "X-Should-Retry": "", "X-Ringfence-Code": "rate_limit_exceeded"}, `"type":"requests"`, `"code":"rate_limit_exceeded"`},
		"anthropic": {func() (*http.Response, string) { return f.message(`{"model":"m1","max_tokens":9,"messages":[]}`) }, map[string]string{
			"Retry-After": "30", "Anthropic-Ratelimit-Requests-Limit": "2", "Anthropic-Ratelimit-Requests-Remaining": "0", "Anthropic-Ratelimit-Tokens-Limit": "1000",
			"X-Ratelimit-Limit-Requests": "", "X-Should-Retry": ""}, `"type":"rate_limit_error"`, `"type":"error"`},
	}
	for name, r := range rows {
		f.double.Reset()
		for i := range 2 {
			resp, body := r.ask()
			if e := f.event(); resp.StatusCode != 200 || e.Verdict != event.Allowed {
				t.Fatalf("%s %d: %d %s %+v", name, i, resp.StatusCode, body, e)
			}
			for k := range resp.Header {
				if strings.Contains(strings.ToLower(k), "ratelimit") {
					t.Errorf("%s: an answer of the provider got %s", name, k)
				}
			}
		}
		now := time.Now()
		resp, body := r.ask()
		e := f.event()
		if resp.StatusCode != 429 || !strings.Contains(body, r.kind) || !strings.Contains(body, r.code) || !strings.Contains(body, "Please try again in 30s.") || len(f.double.Received()) != 2 {
			t.Errorf("%s: %d %s; %d at the provider", name, resp.StatusCode, body, len(f.double.Received()))
		}
		if !json.Valid([]byte(body)) || strings.Contains(body, "slow") {
			t.Errorf("%s: %s", name, body)
		}
		for k, want := range r.header {
			if got := resp.Header.Get(k); got != want {
				t.Errorf("%s: %s: %q, want %q", name, k, got, want)
			}
		}
		if name == "anthropic" {
			reset, err := time.Parse(time.RFC3339, resp.Header.Get("Anthropic-Ratelimit-Requests-Reset"))
			if err != nil || reset.Sub(now) < 58*time.Second || reset.Sub(now) > 90*time.Second {
				t.Errorf("reset %v, %v", reset, err)
			}
		}
		if e.Verdict != event.Denied || e.ReasonCode != "rate-requests" || e.Rule != "acme/slow" || e.RuleAt != "p.yaml:7" || e.Status != 429 || e.Failed || e.Model != "m1" || !strings.Contains(e.Reason, "2 in 1m0s per agent") {
			t.Errorf("%s: %+v", name, e)
		}
		c.now.Add(int64(30*time.Second) - 1)
		if resp, _ := r.ask(); resp.StatusCode != 429 {
			t.Errorf("%s: too early: %d", name, resp.StatusCode)
		}
		f.event()
		c.now.Add(1)
		if resp, body := r.ask(); resp.StatusCode != 200 {
			t.Errorf("%s: when it was told: %d %s", name, resp.StatusCode, body)
		}
		f.event()
		c.now.Add(int64(10 * time.Hour))
	}
	// Controls: a model that the rule is not for, and no rule.
	for range 5 {
		if resp, body := f.chat(`{"model":"other","messages":[]}`); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		f.event()
	}
}

func TestTokensAreCountedWhenTheyAreKnown(t *testing.T) {
	c := &stopped{}
	f := newFence(t, withRates(c))
	f.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: t, model: \"*\", action: rate-limit, rate: {tokens: 100/m}}\n"))
	resp, body := f.chat(simple)
	used := f.event()
	if resp.StatusCode != 200 || used.TokensIn+used.TokensOut < 5 {
		t.Fatalf("%d %s %+v", resp.StatusCode, body, used)
	}
	n := int(used.TokensIn + used.TokensOut)
	calls := 1
	for ; calls < 100; calls++ {
		resp, body = f.chat(simple)
		e := f.event()
		if resp.StatusCode == 429 {
			if e.ReasonCode != "rate-tokens" || !strings.Contains(body, `"type":"tokens"`) || resp.Header.Get("X-Ratelimit-Limit-Tokens") != "100" || resp.Header.Get("Retry-After") == "" {
				t.Errorf("%s %+v %v", body, e, resp.Header)
			}
			break
		}
	}
	if most := 100/n + 1; calls > most || calls < most-1 {
		t.Errorf("%d calls of %d tokens under 100", calls, n)
	}
	c.now.Add(int64(time.Hour))
	resp, body = f.chat(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("words ", 200) + `"}]}`)
	if e := f.event(); resp.StatusCode != 429 || resp.Header.Get("X-Should-Retry") != "false" || resp.Header.Get("Retry-After") != "" || !strings.Contains(body, "Send less at once") || e.ReasonCode != "rate-tokens" {
		t.Errorf("more than the bucket: %d %v %s", resp.StatusCode, resp.Header, body)
	}
	// What was estimated and not used comes back: these fail at the provider.
	for i := range 20 {
		f.double.Fail(doubles.Fault{Status: 400, Body: `{"error":{}}`})
		resp, body = f.chat(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("words ", 30) + `"}]}`)
		if f.event(); resp.StatusCode != 400 {
			t.Fatalf("%d: %d %s", i, resp.StatusCode, body)
		}
	}
}

func TestCallsAtATime(t *testing.T) {
	f := newFence(t, withRates(&stopped{}))
	f.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: c, model: \"*\", action: rate-limit, rate: {concurrency: 2, per: [team]}}\n"))
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		f.double.Fail(doubles.Fault{Hang: true})
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "POST", "https://"+openAIHost+"/v1/chat/completions", strings.NewReader(simple))
			req.Header.Set("Content-Type", "application/json")
			if resp, err := f.client.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	wait, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	doubles.Eventually(wait, func() bool { return len(f.double.Received()) == 2 })
	resp, body := f.chat(simple)
	if e := f.event(); resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" || e.ReasonCode != "rate-concurrency" || !strings.Contains(body, "as many requests run as may at a time: 2 per team") {
		t.Errorf("%d %s %+v", resp.StatusCode, body, e)
	}
	cancel() // clients that go away give their place back
	wg.Wait()
	doubles.Eventually(wait, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.events) == 2 })
	f.mu.Lock()
	f.events = nil
	f.mu.Unlock()
	for range 5 {
		if resp, body := f.chat(simple); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		f.event()
	}
}

func TestRateCountsApart(t *testing.T) {
	for per, want := range map[string]string{
		"":           "1", // the first takes all
		"[org]":      "1",
		"[team]":     "1 4",
		"[agent]":    "1 3 4",
		"[sandbox]":  "1 2 3 4",
		"[model]":    "1 5",
		"[provider]": "1 6",
	} {
		c := &stopped{}
		f := newFence(t, withRates(c))
		rule := allowAll + "  - {id: slow, model: \"*\", action: rate-limit, rate: {requests: 1/m"
		if per != "" {
			rule += ", per: " + per
		}
		rule += "}}\n"
		var passed []string
		for i, who := range []struct{ team, agent, box, body, host string }{
			{"eng", "bot", "sb1", simple, openAIHost},
			{"eng", "bot", "sb2", simple, openAIHost},
			{"eng", "bat", "sb3", simple, openAIHost},
			{"ops", "bot", "sb4", simple, openAIHost},
			{"eng", "bot", "sb1", `{"model":"another","messages":[]}`, openAIHost},
			{"eng", "bot", "sb1", `{"model":"m","max_tokens":9,"messages":[]}`, claudeHost},
		} {
			f.as(who.team, who.agent, who.box, ruledFor(t, who.team, who.agent, rule))
			ask := f.chat
			if who.host == claudeHost {
				ask = f.message
			}
			if resp, _ := ask(who.body); resp.StatusCode == 200 {
				passed = append(passed, fmt.Sprint(i+1))
			}
			f.event()
		}
		if got := strings.Join(passed, " "); got != want {
			t.Errorf("per %s: %s passed, want %s", per, got, want)
		}
	}
}

func TestRateInShadowMode(t *testing.T) {
	f := newFence(t, withRates(&stopped{}))
	f.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: slow, model: \"*\", action: rate-limit, rate: {requests: 2/m}, mode: shadow}\n"))
	for i, want := range []string{"", "", "block by acme/slow (rate of requests)", "block by acme/slow (rate of requests)"} {
		resp, _ := f.chat(simple)
		if e := f.event(); resp.StatusCode != 200 || e.Shadow != want || e.Verdict != event.Allowed {
			t.Errorf("%d: %d, %q", i, resp.StatusCode, e.Shadow)
		}
	}
}

func TestWaivedRate(t *testing.T) {
	f := newFence(t, withRates(&stopped{}))
	f.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: slow, model: \"*\", action: rate-limit, rate: {requests: 1/m}}\n  - {id: free, allow: \"free-*\", waive: [rate]}\n"))
	for i, row := range []struct {
		model  string
		status int
	}{{"m", 200}, {"m", 429}, {"free-1", 200}, {"free-1", 200}} {
		if resp, body := f.chat(`{"model":"` + row.model + `","messages":[]}`); resp.StatusCode != row.status {
			t.Errorf("%d: %d %s", i, resp.StatusCode, body)
		}
		f.event()
	}
}

// TestRateOfAProviderLeavesItOut: the next one is asked, and when there is none the
// client is told of the rate.
func TestRateOfAProviderLeavesItOut(t *testing.T) {
	p := newPlaces(t, withRates(&stopped{}), "a", "b")
	p.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: slow, model: \"*\", action: rate-limit, rate: {requests: 1/m, per: [provider]}}\n"))
	for i, want := range []string{"a", "b"} {
		resp, body := p.chat(simple)
		if p.event(); resp.StatusCode != 200 || p.answeredBy(body) != want {
			t.Errorf("%d: %d by %s", i, resp.StatusCode, p.answeredBy(body))
		}
	}
	resp, body := p.chat(simple)
	if e := p.event(); resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "60" || e.ReasonCode != "rate-requests" || !strings.Contains(e.Tried, "a/") || !strings.Contains(e.Tried, "b/") {
		t.Errorf("%d %s %+v", resp.StatusCode, body, e)
	}
}

// TestRateOfWhatANameBecomes: a rule for a model holds also where another name
// leads to it, and what is attempted twice counts once where it can.
func TestRateOfWhatANameBecomes(t *testing.T) {
	p := newPlaces(t, withRates(&stopped{}), "a", "b")
	p.route().To[0].Model, p.route().To[1].Model = "big-1", "big-1"
	p.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: big, model: \"big-*\", action: rate-limit, rate: {requests: 2/m}}\n  - {id: name, model: \"fast\", action: rate-limit, rate: {requests: 3/m}}\n"))
	ask := func() (int, string) {
		resp, _ := p.chat(`{"model":"fast","messages":[]}`)
		return resp.StatusCode, p.event().Rule
	}
	for i, want := range []int{200, 200, 429} {
		if got, rule := ask(); got != want || want == 429 && rule != "acme/big" {
			t.Errorf("%d: %d %s", i, got, rule)
		}
	}
	q := newPlaces(t, withRates(&stopped{}), "a", "b")
	q.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: slow, model: \"*\", action: rate-limit, rate: {requests: 2/m}}\n"))
	for i, want := range []int{200, 200, 429} {
		q.of["a"].Fail(doubles.Fault{Status: 500, Body: `{}`})
		resp, body := q.chat(simple)
		if q.event(); resp.StatusCode != want || want == 200 && q.answeredBy(body) != "b" {
			t.Errorf("%d: %d by %s", i, resp.StatusCode, q.answeredBy(body))
		}
	}
}

// TestWhatWasNotSentIsNotCounted: nobody may use up a rate with requests that go
// nowhere, such as those that people deny or for which there is no money.
func TestWhatWasNotSentIsNotCounted(t *testing.T) {
	s := withRates(&stopped{})
	money := &fakeToll{request: true}
	s.opt.Tolls = append(s.opt.Tolls, money)
	f := newFence(t, s)
	f.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: slow, model: \"*\", action: rate-limit, rate: {requests: 1/m, concurrency: 1}}\n  - {id: ask, model: \"big\", action: require-approval}\n"))
	f.call.Approve = func(_ context.Context, q inference.Question) inference.Approved {
		q.Decision.Reason = "denied by a person"
		return inference.Approved{Decision: q.Decision, View: f.call.View, Snapshot: f.call.Snapshot, Transport: f.call.Transport}
	}
	for i := range 4 {
		model, status := "m", 429
		if i%2 == 0 {
			model, status = "big", 403
		}
		resp, body := f.chat(`{"model":"` + model + `","messages":[]}`)
		if e := f.event(); resp.StatusCode != status || strings.HasPrefix(e.ReasonCode, "rate-") {
			t.Errorf("%d: %d %s", i, resp.StatusCode, body)
		}
	}
	money.request = false
	if resp, body := f.chat(simple); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	f.event()
	if resp, _ := f.chat(simple); resp.StatusCode != 429 {
		t.Errorf("control: %d", resp.StatusCode)
	}
}

// TestWhatFailedIsCounted: it was sent.
func TestWhatFailedIsCounted(t *testing.T) {
	f := newFence(t, withRates(&stopped{}))
	f.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: slow, model: \"*\", action: rate-limit, rate: {requests: 2/m}}\n"))
	for i, want := range []int{400, 400, 429} {
		f.double.Fail(doubles.Fault{Status: 400, Body: `{"error":{}}`})
		if resp, body := f.chat(simple); resp.StatusCode != want {
			t.Errorf("%d: %d %s", i, resp.StatusCode, body)
		}
		f.event()
	}
}

// TestRateWaits: a rule with a queue lets requests wait, as many as may run at a
// time do, and each is answered; who goes away does not come to the provider.
func TestRateWaits(t *testing.T) {
	clock := &waits{start: time.Now()}
	f := newFence(t, withRates(clock))
	f.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: one, model: \"*\", action: rate-limit, rate: {concurrency: 1, queue: 5m}}\n"))
	f.double.Fail(doubles.Fault{Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	send := func(ctx context.Context) (int, error) {
		req, _ := http.NewRequestWithContext(ctx, "POST", "https://"+openAIHost+"/v1/chat/completions", strings.NewReader(simple))
		req.Header.Set("Content-Type", "application/json")
		resp, err := f.client.Do(req)
		if err != nil {
			return 0, err
		}
		_ = resp.Body.Close()
		return resp.StatusCode, nil
	}
	first := make(chan error, 1)
	go func() { _, err := send(ctx); first <- err }()
	wait, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	doubles.Eventually(wait, func() bool { return len(f.double.Received()) == 1 })
	gone, leave := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() { _, err := send(gone); second <- err }()
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if status, err := send(t.Context()); status != 200 || err != nil {
				t.Error(status, err)
			}
		})
	}
	doubles.Eventually(wait, func() bool { return clock.n.Load() >= 6 })
	leave()
	<-second
	if n := len(f.double.Received()); n != 1 {
		t.Errorf("%d at the provider at a time", n)
	}
	cancel()
	<-first
	wg.Wait()
	doubles.Eventually(wait, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.events) >= 6 })
	f.mu.Lock()
	defer f.mu.Unlock()
	waited := 0
	for _, e := range f.events {
		if strings.HasPrefix(e.Detail, "it waited ") {
			waited++
		}
		if e.ReasonCode == "client-gone" && e.Status == 429 {
			t.Errorf("%+v", e)
		}
	}
	if n := len(f.double.Received()); waited < 5 || n < 6 || n > 7 {
		t.Errorf("%d waited, %d at the provider", waited, n)
	}
}

// TestLargeRequestsDoNotWait: they would hold their bodies.
func TestLargeRequestsDoNotWait(t *testing.T) {
	s := withRates(&stopped{}) // it panics when anybody waits
	s.opt.MaxBuffered = 1 << 20
	f := newFence(t, s)
	f.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: one, model: \"*\", action: rate-limit, rate: {requests: 1/m, queue: 5m}}\n"))
	f.chat(simple)
	f.event()
	resp, body := f.chat(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 40<<10) + `"}]}`)
	if e := f.event(); resp.StatusCode != 429 || e.ReasonCode != "rate-requests" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// TestTrialIsRated: what is answered on the node is counted too.
func TestTrialIsRated(t *testing.T) {
	s := withRates(&stopped{})
	s.trial = true
	f := newFence(t, s)
	f.as("eng", "bot", "sb1", ruled(t, allowAll+"  - {id: slow, model: \"*\", action: rate-limit, rate: {requests: 2/m, per: [model, provider]}}\n"))
	for i, want := range []int{200, 200, 429} {
		if resp, body := f.chat(simple); resp.StatusCode != want {
			t.Errorf("%d: %d %s", i, resp.StatusCode, body)
		}
		f.event()
	}
}
