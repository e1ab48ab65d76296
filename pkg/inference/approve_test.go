// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
)

// asking is a policy that demands people for one model.
type asking struct{ view }

func (a asking) Inference(dialect, model string) policy.Decision {
	if model == "big" {
		return policy.Decision{Effect: policy.RequireApproval, Reason: "needs an approval", ReasonCode: policy.CodeApproval, Rule: policy.RuleRef{Doc: "eng", ID: "ask"}, Revision: 3}
	}
	return a.view.Inference(dialect, model)
}

func (a asking) InferenceAt(p *policy.Provider, model string) policy.Decision {
	return a.Inference(p.Dialect, model)
}

// askFence is a fence whose people say that.
func askFence(t *testing.T, o inference.Options, people func(q inference.Question) inference.Approved) (*fence, *[]inference.Question) {
	f := newFence(t, setup{opt: o})
	var asked []inference.Question
	f.call.View = asking{}
	f.call.Approve = func(_ context.Context, q inference.Question) inference.Approved {
		asked = append(asked, q)
		return people(q)
	}
	return f, &asked
}

const big = `{"model":"big","messages":[{"role":"user","content":"a secret plan"}]}`

func TestNobodyToAskRefuses(t *testing.T) {
	f, _ := askFence(t, inference.Options{}, nil)
	f.call.Approve = nil
	if resp, body := f.chat(big); resp.StatusCode != 403 || len(f.double.Received()) != 0 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	f, _ = askFence(t, inference.Options{}, func(inference.Question) inference.Approved { return inference.Approved{} })
	if resp, body := f.chat(big); resp.StatusCode != 403 || len(f.double.Received()) != 0 {
		t.Errorf("the zero answer: %d %s", resp.StatusCode, body)
	}
}

func TestARequestThatWaitsIsAnsweredInTheDialect(t *testing.T) {
	f, asked := askFence(t, inference.Options{}, func(q inference.Question) inference.Approved {
		d := q.Decision
		d.ReasonCode = "approval-waits"
		return inference.Approved{Decision: d, Waits: []string{"4be21f0a97c3d518"}}
	})
	resp, body := f.chat(big)
	var e struct {
		Error struct{ Message, Type, Code string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 503 || e.Error.Code != "ringfence_approval" || !strings.Contains(e.Error.Message, "ringfence approvals approve 4be21f0a97c3d518") ||
		resp.Header.Get("Retry-After") == "" || resp.Header.Get("X-Should-Retry") != "" {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
	if ev := f.event(); ev.Verdict != event.Denied || ev.ReasonCode != "approval-waits" || ev.Rule != "eng/ask" || ev.Remedy != "ringfence approvals approve 4be21f0a97c3d518" {
		t.Errorf("%+v", ev)
	}
	if q := (*asked)[0]; q.Dialect != "openai" || q.Model != "big" || !q.Hold || strings.Contains(q.Shown, "secret") || !strings.Contains(q.Shown, "bytes") {
		t.Errorf("%+v", q)
	}
	if resp, body = f.message(`{"model":"big","max_tokens":1,"messages":[]}`); resp.StatusCode != 503 || !strings.Contains(body, `"overloaded_error"`) || !strings.Contains(body, "4be21f0a97c3d518") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if len(f.double.Received()) != 0 {
		t.Error("something reached the provider")
	}
	if resp, _ := f.chat(`{"model":"small","messages":[]}`); resp.StatusCode != 200 || len(*asked) != 2 {
		t.Errorf("control: %d, asked %d times", resp.StatusCode, len(*asked))
	}
}

// TestWhatIsApprovedIsWhatIsSent: the hash is of the whole request, and what goes
// on is what is in force after people were asked.
func TestWhatIsApprovedIsWhatIsSent(t *testing.T) {
	now := asking{view{tools: map[string]bool{}}}
	var f *fence
	f, asked := askFence(t, inference.Options{}, func(q inference.Question) inference.Approved {
		d := q.Decision
		d.Effect, d.ReasonCode = policy.Allow, "approved"
		return inference.Approved{Decision: d, View: now, Snapshot: providers{"openai": {Name: "newer", Dialect: "openai", BaseURL: "https://provider.example/v1", Keys: []policy.Key{{Secret: "openai", Weight: 1}}, Weight: 1, Credential: policy.CredentialInject}}, Transport: f.call.Transport}
	})
	f.call.View = asking{view{tools: map[string]bool{"web_search": true}}} // allowed before people were asked, and not after
	if resp, body := f.chat(`{"model":"big","messages":[],"tools":[{"type":"web_search"}]}`); resp.StatusCode != 403 {
		t.Errorf("the policy of before decides about tools: %d %s", resp.StatusCode, body)
	}
	f.event()
	for _, body := range []string{big, big, strings.Replace(big, "plan", "play", 1)} {
		if resp, text := f.chat(body); resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, text)
		}
		if ev := f.event(); ev.Verdict != event.Allowed || ev.ReasonCode != "approved" || ev.Provider != "newer" || ev.Rule != "eng/ask" {
			t.Errorf("%+v", ev)
		}
	}
	if q := *asked; q[1].Arguments != q[2].Arguments || q[2].Arguments == q[3].Arguments || q[0].Arguments == q[1].Arguments {
		t.Error("the hash is not of the request")
	}
	if got := f.double.Received(); len(got) != 3 || string(got[0].Body) != big {
		t.Errorf("%d at the provider", len(got))
	}
}

// TestALargeRequestDoesNotWait: it would keep the room of others' bodies.
func TestALargeRequestDoesNotWait(t *testing.T) {
	release := make(chan struct{})
	waits := make(chan bool, 100)
	f, _ := askFence(t, inference.Options{MaxBuffered: 64 << 20}, nil)
	f.call.Approve = func(_ context.Context, q inference.Question) inference.Approved {
		waits <- q.Hold
		<-release
		return inference.Approved{}
	}
	text := func(n int) string { return strings.Replace(big, "plan", strings.Repeat("x", n), 1) }
	done := make(chan struct{})
	sendOf := func(box string, n int) {
		go func() {
			req, err := http.NewRequest("POST", "https://"+openAIHost+"/v1/chat/completions", strings.NewReader(text(n)))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Test-Sandbox", box)
			resp, err := f.client.Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			done <- struct{}{}
		}()
	}
	send := func(n int) { sendOf("sb1", n) }
	send(2 << 20)
	if <-waits {
		t.Error("a request with more than its part waits")
	}
	sent, held := 1, 0
	fill := func(box func(n int) string) (n int) {
		for n < 100 {
			sendOf(box(n), 700<<10)
			sent++
			if !<-waits {
				break
			}
			n++
		}
		held += n
		return n
	}
	if n := fill(func(int) string { return "sb1" }); n < 2 || n > 5 { // a quarter of all that may wait
		t.Errorf("%d of one sandbox wait", n)
	}
	if n := fill(func(n int) string { return "other" + strconv.Itoa(n) }); n < 4 || held > 23 { // a quarter of 64 MiB, in all
		t.Errorf("%d of others wait beside it", n)
	}
	close(release)
	for range sent {
		<-done
	}
	send(700 << 10)
	if !<-waits {
		t.Error("what waited gave no room back")
	}
	<-done
}
