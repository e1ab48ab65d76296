// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/test/doubles"
)

// newCrossed is two providers, one of each dialect: "gpt" and "claude".
func newCrossed(t *testing.T, first string, o inference.Options) *places {
	p := newPlaces(t, setup{opt: o, change: func(p *policy.Provider) {
		if p.Name == "claude" {
			p.Dialect, p.BaseURL, p.Hosts = "anthropic", "https://claude.example", nil
		}
	}}, "gpt", "claude")
	r := p.route()
	for i := range r.To {
		r.To[i].Model = "model-of-" + r.To[i].Provider
		r.To[i].Priority = 2
		if r.To[i].Provider == first {
			r.To[i].Priority = 1
		}
	}
	return p
}

// The official clients get answers of their own dialect from a provider of the
// other one: whole, as streams, and as errors.
func TestClientsOfOneDialectProvidersOfTheOther(t *testing.T) {
	ctx := context.Background()
	t.Run("openai", func(t *testing.T) {
		p := newCrossed(t, "claude", inference.Options{})
		c := openai.NewClient(option.WithHTTPClient(p.client), option.WithAPIKey(placeholder), option.WithBaseURL("https://"+openAIHost+"/v1"), option.WithMaxRetries(0))
		ask := openai.ChatCompletionNewParams{Model: "fast", Messages: []openai.ChatCompletionMessageParamUnion{openai.SystemMessage("be brief"), openai.UserMessage("hello")}}
		r, err := c.Chat.Completions.New(ctx, ask)
		if err != nil || len(r.Choices) != 1 || r.Choices[0].Message.Content != "from claude" || r.Model != "fast" || r.Usage.CompletionTokens != 7 {
			t.Fatalf("%+v %v", r, err)
		}
		got := p.of["claude"].Last()
		if got.Target != "/v1/messages" || got.Header.Get("X-Api-Key") != "sk-secret-of-key-claude" || got.Header.Get("Anthropic-Version") != "2023-06-01" ||
			got.Header.Get("Authorization") != "" || !strings.Contains(string(got.Body), `"model":"model-of-claude"`) || !strings.Contains(string(got.Body), `"max_tokens":8192`) {
			t.Errorf("%s %v %s", got.Target, got.Header, got.Body)
		}
		if ev := p.event(); ev.Provider != "claude" || ev.TokensOut != 7 || ev.Estimated || !strings.Contains(ev.Detail, "translated from OpenAI chat completions") {
			t.Errorf("%+v", ev)
		}
		s := c.Chat.Completions.NewStreaming(ctx, ask)
		var text strings.Builder
		for s.Next() {
			for _, ch := range s.Current().Choices {
				text.WriteString(ch.Delta.Content)
			}
		}
		if s.Err() != nil || text.String() != "from claude" {
			t.Fatalf("%q %v", text.String(), s.Err())
		}
		if ev := p.event(); !ev.Stream || ev.TokensOut != 7 || ev.Estimated {
			t.Errorf("%+v", ev)
		}
		p.of["claude"].Fail(doubles.Fault{Status: 400, Body: `{"type":"error","error":{"type":"invalid_request_error","message":"too hot"}}`})
		_, err = c.Chat.Completions.New(ctx, ask)
		var e *openai.Error
		if !asError(err, &e) || e.StatusCode != 400 || !strings.Contains(e.Message, "too hot") {
			t.Errorf("%v", err)
		}
		p.event()
	})
	t.Run("anthropic", func(t *testing.T) {
		p := newCrossed(t, "gpt", inference.Options{})
		c := anthropic.NewClient(anthropicoption.WithHTTPClient(p.client), anthropicoption.WithAPIKey(placeholder), anthropicoption.WithBaseURL("https://"+claudeHost), anthropicoption.WithMaxRetries(0))
		ask := anthropic.MessageNewParams{Model: "fast", MaxTokens: 100, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("hello"))}}
		m, err := c.Messages.New(ctx, ask)
		if err != nil || len(m.Content) != 1 || m.Content[0].Text != "from gpt" || m.Usage.OutputTokens != 7 || m.StopReason != "end_turn" {
			t.Fatalf("%+v %v", m, err)
		}
		if got := p.of["gpt"].Last(); got.Target != "/v1/chat/completions" || got.Header.Get("Authorization") != "Bearer sk-secret-of-key-gpt" || got.Header.Get("X-Api-Key") != "" || got.Header.Get("Anthropic-Version") != "" {
			t.Errorf("%s %v", got.Target, got.Header)
		}
		p.event()
		s := c.Messages.NewStreaming(ctx, ask)
		var whole anthropic.Message
		for s.Next() {
			if err := whole.Accumulate(s.Current()); err != nil {
				t.Fatal(err)
			}
		}
		if s.Err() != nil || len(whole.Content) != 1 || whole.Content[0].Text != "from gpt" {
			t.Fatalf("%+v %v", whole, s.Err())
		}
		if ev := p.event(); ev.TokensOut != 7 || ev.Estimated {
			t.Errorf("%+v", ev)
		}
		p.of["gpt"].Fail(doubles.Fault{Status: 429, Body: `{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded"}}`})
		p.of["claude"].Fail(doubles.Fault{Status: 500, Body: `{}`})
		_, err = c.Messages.New(ctx, ask)
		var e *anthropic.Error
		if !asError(err, &e) || e.StatusCode != 429 || !strings.Contains(e.RawJSON(), `"rate_limit_error"`) {
			t.Errorf("%v", err)
		}
		p.event()
	})
}

func asError[E error](err error, to *E) bool {
	e, ok := err.(E)
	*to = e
	return ok
}

// A failure of the first provider is made up for by one of the other dialect.
func TestFailoverCrossesDialects(t *testing.T) {
	p := newCrossed(t, "gpt", inference.Options{})
	p.of["gpt"].Fail(doubles.Fault{Status: 503, Body: `{"error":{"message":"x"}}`})
	resp, body := p.chat(`{"model":"fast","messages":[{"role":"user","content":"hello"}]}`)
	if resp.StatusCode != 200 || !strings.Contains(body, "from claude") || !strings.Contains(body, `"chat.completion"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if ev := p.event(); ev.Tried != "gpt/model-of-gpt: 503" || ev.Provider != "claude" {
		t.Errorf("%+v", ev)
	}
}

func TestWhatIsNotTranslatedIsSaid(t *testing.T) {
	p := newCrossed(t, "claude", inference.Options{})
	r := p.route()
	r.To = r.To[1:]
	for body, want := range map[string]string{
		`{"model":"fast","n":3,"messages":[{"role":"user","content":"x"}]}`:                    "n:",
		`{"model":"fast","logit_bias":{"1":2},"messages":[{"role":"user","content":"hello"}]}`: "logit_bias",
	} {
		if resp, text := p.chat(body); resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, want) || len(p.of["claude"].Received()) != 0 {
			t.Errorf("%s: %d %s", body, resp.StatusCode, text)
		}
		p.event()
	}
	if resp, text := p.ask("POST", "https://"+openAIHost+"/v1/embeddings", `{"model":"fast","input":"x"}`); resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, "embeddings of openai is not translated") {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	p.event()
}

// A stream that breaks off ends with an error of the client's dialect, told once.
func TestABrokenTranslatedStream(t *testing.T) {
	p := newCrossed(t, "claude", inference.Options{})
	p.of["claude"].Fail(doubles.Fault{CutAfter: 4})
	resp, body := p.chat(`{"model":"fast","stream":true,"messages":[{"role":"user","content":"hello"}]}`)
	if resp.StatusCode != 200 || strings.Count(body, `"error"`) != 1 || strings.Contains(body, "[DONE]") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if ev := p.event(); ev.ReasonCode != "upstream-broke-off" || !ev.Failed || !ev.Estimated {
		t.Errorf("%+v", ev)
	}
}

func TestATollBoundsATranslatedRequest(t *testing.T) {
	p := newCrossed(t, "claude", inference.Options{Tolls: []inference.Toll{&fakeToll{atMost: 50}}})
	p.chat(`{"model":"fast","max_tokens":70,"messages":[{"role":"user","content":"hello"}]}`)
	p.event()
	if got := string(p.of["claude"].Last().Body); !strings.Contains(got, `"max_tokens":50`) {
		t.Errorf("%s", got)
	}
}

// TestTranslationsAreHeldWithinTheBound: a route has as many as it has targets.
func TestTranslationsAreHeldWithinTheBound(t *testing.T) {
	p := newPlaces(t, setup{opt: inference.Options{MaxBuffered: 100 << 10}, change: func(p *policy.Provider) {
		if p.Name == "b" {
			p.Dialect = "anthropic"
		}
	}}, "b")
	r := p.route()
	r.To = nil
	for i := range 4 {
		r.To = append(r.To, policy.RouteTarget{Provider: "b", Model: fmt.Sprint("m", i), Weight: 1, Priority: uint32(i) + 1})
		p.of["b"].Fail(doubles.Fault{Status: 500, Body: `{}`})
	}
	p.chat(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 30<<10) + `"}]}`)
	if n := len(p.of["b"].Received()); n < 1 || n > 2 {
		t.Errorf("%d translations of 30 KiB where 100 KiB may be held", n)
	}
	p.event()
}
