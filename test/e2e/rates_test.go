// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
)

// withHeaders has curl tell the head of the answer too.
func withHeaders(script string) string {
	return strings.ReplaceAll(script, "curl -sS", "curl -sS --http1.1 -D -")
}

// TestARateOfModels: two requests pass, of whatever dialect; the third is refused in
// its own, with when to try again. The rate is the agent's: another sandbox of it
// is under the same, another team's under one of its own. A revision of the policy
// is no new bucket, and a higher number holds at once.
func TestARateOfModels(t *testing.T) {
	a := newAgents(t)
	atProvider := func() int { return len(a.double.Received()) }
	if r := sandboxed(t, a.n, a.ws, "default", strings.Repeat(chat("m-1", "hi"), 4)); strings.Count(r.Stdout, "status=200") != 4 {
		t.Fatalf("control: without a rule: %s %s", r.Stdout, r.Stderr)
	}
	apply := func(name, rules string) {
		t.Helper()
		doc := put(t, a.ws, name+".yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: "+name+"}\nscope: org:local\ninference:\n"+rules)
		if r := a.n.CLI(t, "policy", "apply", doc, "--wait"); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	const slow = "  - {id: slow, model: \"*\", action: rate-limit, rate: {requests: 2/h, per: [agent]}}\n"
	apply("eng", slow)
	a.double.Reset()
	r := sandboxed(t, a.n, a.ws, "default", withHeaders(chat("m-1", "one")+message("m-2", "two")+chat("m-3", "three")+message("m-4", "four")))
	contains(t, "the answers", r.Stdout, "status=200", `"type":"requests"`, `"code":"rate_limit_exceeded"`, `"type":"rate_limit_error"`)
	if strings.Count(r.Stdout, "status=200") != 2 || strings.Count(r.Stdout, "status=429") != 2 || atProvider() != 2 {
		t.Fatalf("%s %s; %d at the provider", r.Stdout, r.Stderr, atProvider())
	}
	head := strings.ToLower(r.Stdout)
	contains(t, "the headers", head, "x-ratelimit-limit-requests: 2", "x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: ",
		"anthropic-ratelimit-requests-limit: 2", "anthropic-ratelimit-requests-remaining: 0", "anthropic-ratelimit-requests-reset: 2")
	for _, name := range []string{"retry-after", "retry-after-ms"} {
		m := regexp.MustCompile(`\n` + name + `: (\d+)\r`).FindStringSubmatch(head)
		if m == nil {
			t.Fatalf("no %s: %s", name, head)
		}
		n, err := strconv.Atoi(m[1])
		if name == "retry-after-ms" {
			n /= 1000
		}
		if err != nil || n > 1800 || n < 1 {
			t.Errorf("%s: %s", name, m[1])
		}
	}
	for _, model := range []string{"m-3", "m-4"} {
		a.n.WaitEvent(t, "the refusal of "+model, func(e *event.Event) bool {
			return e.Kind == event.KindInference && e.Verdict == event.Denied && e.Model == model && e.Status == 429 &&
				e.ReasonCode == "rate-requests" && e.Rule == "eng/slow" && strings.Contains(e.Reason, "2 in 1h0m0s per agent")
		})
	}
	if n := a.n.Metrics(t)[`ringfence_inference_limited_total{reason="requests"}`]; n != 2 {
		t.Errorf("%v calls are counted as refused by a rate", n)
	}

	apply("other", "  - {id: small, deny: \"small-*\"}\n")
	if r := sandboxed(t, a.n, a.ws, "default", chat("m-1", "again")); !strings.Contains(r.Stdout, "status=429") {
		t.Errorf("another sandbox of the agent, after a new revision: %s", r.Stdout)
	}
	if r := sandboxed(t, a.n, a.ws, "other", chat("m-1", "hi")); !strings.Contains(r.Stdout, "status=200") {
		t.Errorf("control: an agent of another team: %s", r.Stdout)
	}
	apply("eng", strings.ReplaceAll(slow, "2/h", "3/h"))
	if r := sandboxed(t, a.n, a.ws, "default", chat("m-1", "third")+chat("m-1", "fourth")); strings.Count(r.Stdout, "status=200") != 1 || strings.Count(r.Stdout, "status=429") != 1 {
		t.Errorf("with a higher number: %s", r.Stdout)
	}

	// In shadow mode it is told and nothing else.
	apply("eng", strings.ReplaceAll(slow, "per: [agent]}", "per: [agent]}, mode: shadow"))
	if r := sandboxed(t, a.n, a.ws, "default", chat("m-9", "hi")); !strings.Contains(r.Stdout, "status=200") {
		t.Errorf("in shadow mode: %s", r.Stdout)
	}
	a.n.WaitEvent(t, "what the rule would have done", func(e *event.Event) bool {
		return e.Kind == event.KindInference && e.Verdict == event.Allowed && e.Model == "m-9" && e.Shadow == "block by eng/slow (rate of requests)"
	})

	// Where nothing counts, a rate is no rule to rely on.
	doc := put(t, a.ws, "egress.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eg}\nscope: org:local\negress:\n  - {id: a, allow: \"x.org:443\", rate: {requests: 2/m}}\n")
	if r := a.n.CLI(t, "policy", "apply", doc); r.Code == 0 || !strings.Contains(r.Stderr, "is not enforced by this version") {
		t.Errorf("a rate of an egress rule: %d %s", r.Code, r.Stderr)
	}
}

// TestSDKsWaitForARate: the official libraries, as they are, take our refusal for
// their provider's, wait as long as it says and try again.
func TestSDKsWaitForARate(t *testing.T) {
	a := newAgents(t)
	doc := put(t, a.ws, "slow.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\ninference:\n  - {id: slow, model: \"*\", action: rate-limit, rate: {requests: 6/m}}\n")
	if r := a.n.CLI(t, "policy", "apply", doc, "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	for name, mode := range map[string]string{"openai-go": "chat", "anthropic-go": "messages-stream"} {
		t.Run(name, func(t *testing.T) {
			p := a.clientProgram(t, name)
			refused := false
			for range 3 { // a slow machine may let ten seconds pass before it asks
				if r := sandboxed(t, a.n, a.ws, "default", strings.Repeat(chat("m-1", "hi"), 7)); !strings.Contains(r.Stdout, "status=429") {
					continue
				}
				seq := a.sequence(t)
				if r := a.call(t, p, mode); !r.OK || r.Text != a.double.Text {
					t.Fatalf("the client says %+v", r)
				}
				a.n.WaitEvent(t, "the answer", func(e *event.Event) bool {
					return e.Sequence > seq && e.Model == "some-model-1" && e.Verdict == event.Allowed
				})
				for _, e := range a.n.Events(t) {
					refused = refused || e.Sequence > seq && e.Model == "some-model-1" && e.ReasonCode == "rate-requests" && e.Status == 429
				}
				if refused {
					break
				}
			}
			if !refused {
				t.Error("the client was never refused: this shows nothing")
			}
		})
	}
}
