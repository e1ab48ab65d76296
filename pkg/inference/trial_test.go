// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
)

// The official libraries decode the trial answers in test/clients; here is
// what they say and that policy holds for them too.
func TestTrialProviderIsHonest(t *testing.T) {
	f := newFence(t, setup{trial: true, view: view{deniedModel: "big"}})
	const o, a = "https://" + openAIHost, "https://" + claudeHost
	honest := []string{"built-in trial provider", "No model was called", "ringfence provider add "}
	for _, c := range []struct {
		name, method, url, body string
		status                  int
		want                    []string
	}{
		{"chat", "POST", o + "/v1/chat/completions", simple, 200, append(honest, `"model":"m"`, "OPENAI_API_KEY", `"completion_tokens":`)},
		{"responses", "POST", o + "/v1/responses", `{"model":"m","input":"x"}`, 200, append(honest, `"model":"m"`, `"output_tokens":`)},
		{"messages", "POST", a + "/v1/messages", `{"model":"m","max_tokens":1,"messages":[]}`, 200, append(honest, `"model":"m"`, "ANTHROPIC_API_KEY")},
		{"models", "GET", o + "/v1/models", "", 200, []string{"ringfence-trial"}},
		{"model", "GET", o + "/v1/models/gpt-4o", "", 200, []string{`"id":"gpt-4o"`}},
		{"Anthropic models", "GET", a + "/v1/models", "", 200, []string{"ringfence-trial"}},
		{"count", "POST", a + "/v1/messages/count_tokens", `{"model":"m","messages":[{"role":"user","content":"12345678"}]}`, 200, []string{`"input_tokens":`}},
		{"embeddings", "POST", o + "/v1/embeddings", `{"model":"m","input":"x"}`, 501, []string{"ringfence provider add openai --key-env OPENAI_API_KEY", "ringfence_not_configured"}},
		{"denied model", "POST", o + "/v1/chat/completions", `{"model":"big","messages":[]}`, 403, []string{"ringfence_denied"}},
		{"provider tool", "POST", o + "/v1/responses", `{"model":"m","input":"x","tools":[{"type":"mcp"}]}`, 403, []string{"ringfence_denied"}},
		{"path", "GET", o + "/v1/files", "", 403, []string{"ringfence_denied"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := f.ask(c.method, c.url, c.body)
			if resp.StatusCode != c.status || !json.Valid([]byte(body)) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			for _, w := range c.want {
				if !strings.Contains(body, w) {
					t.Errorf("%s lacks %q", body, w)
				}
			}
			if ev := f.event(); (ev.Verdict == event.Allowed) != (c.status == 200) || ev.Status != uint32(c.status) || ev.Kind != event.KindInference {
				t.Errorf("event %+v", ev)
			}
		})
	}
	if n := len(f.double.Received()); n != 0 {
		t.Errorf("%d requests left", n)
	}
}
