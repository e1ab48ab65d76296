// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/test/doubles"
)

// onPlatform is a fence in front of a platform's double. Agents call models named m;
// the platform has them as model.
func onPlatform(t *testing.T, platform, dialect, base, secret, model string) *fence {
	t.Helper()
	f := newFence(t, setup{change: func(p *policy.Provider) {
		if p.Dialect == dialect {
			p.Platform, p.BaseURL = platform, base
			p.Models = []policy.ModelEntry{{Match: scope.Pattern{Text: "m"}, Upstream: model}}
		}
	}})
	host, _, _ := strings.Cut(strings.TrimPrefix(base, "https://"), "/")
	up := serveDouble(t, f.double, host)
	f.call.Transport = func(*policy.Provider) http.RoundTripper { return up }
	f.call.Secrets = func(string) (string, bool) { return secret, true }
	return f
}

const (
	awsID     = "AKIAIOSFODNN7EXAMPLE"
	awsSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

	claudeCall   = `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`
	claudeStream = `{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`
)

// answered checks one call of a platform from the agent's side: it sees its own dialect
// and nothing else, and usage is counted.
func (f *fence) answered(resp *http.Response, body string, stream bool, secret string) {
	f.t.Helper()
	text := f.double.Text
	if stream {
		text = "Hello "
	}
	ct := resp.Header.Get("Content-Type")
	if resp.StatusCode != 200 || !strings.Contains(body, text) || strings.Contains(body, secret) || stream != strings.HasPrefix(ct, "text/event-stream") || resp.Header.Get("X-Amzn-Requestid") != "" {
		f.t.Errorf("%d %s %s", resp.StatusCode, ct, body)
	}
	if got := f.double.Last(); holds(got, placeholder) != "" || got.Header.Get("X-Api-Key")+got.Header.Get("X-Goog-Api-Key")+got.Header.Get("Anthropic-Version") != "" || got.Header.Get("Accept-Encoding") != "identity" {
		f.t.Errorf("received %+v", got)
	}
	if ev := f.event(); ev.Model != "m" || ev.Status != 200 || ev.Credential != "injected" || ev.TokensOut == 0 || ev.Stream != stream {
		f.t.Errorf("event %+v", ev)
	}
}

func TestAzureAnswersOpenAI(t *testing.T) {
	const call, stream = `{"model":"m","messages":[]}`, `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}`
	for _, c := range []struct{ base, target string }{
		{"https://name.openai.azure.com", "/openai/v1/chat/completions"},
		{"https://name.openai.azure.com/openai/v1", "/openai/v1/chat/completions"},
		{"https://name.openai.azure.com/openai", "/openai/deployments/dep-1/chat/completions?api-version=2024-10-21"},
	} {
		f := onPlatform(t, "azure", "openai", c.base, realKey, "dep-1")
		f.double.Check = func(r doubles.Received) error {
			if r.Header.Get("Api-Key") != realKey || r.Header.Get("Authorization") != "" || r.Target != c.target {
				return fmt.Errorf("%s %v", r.Target, r.Header)
			}
			return nil
		}
		for body, streams := range map[string]bool{call: false, stream: true} {
			resp, text := f.chat(body)
			f.answered(resp, text, streams, realKey)
			if got := string(f.double.Last().Body); got != strings.Replace(body, `"m"`, `"dep-1"`, 1) {
				t.Errorf("%s", got)
			}
		}
	}
}

func TestBedrockAnswersAnthropic(t *testing.T) {
	const base = "https://bedrock-runtime.eu-west-1.amazonaws.com"
	key := doubles.AWSKey{ID: awsID, Secret: awsSecret, Token: "session/token==", Region: "eu-west-1", Service: "bedrock"}
	bearer := func(r doubles.Received) error {
		if got := r.Header.Get("Authorization"); got != "Bearer bedrock-api-key-x" {
			return fmt.Errorf("%q", got)
		}
		return nil
	}
	for _, c := range []struct {
		name, secret string
		check        func(doubles.Received) error
	}{
		{"signed", awsID + ":" + awsSecret + ":" + key.Token, key.Verify},
		{"API key", "bedrock-api-key-x", bearer},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := onPlatform(t, "bedrock", "anthropic", base, c.secret, "eu.anthropic.claude-x-v1:0")
			f.double.Check = c.check
			resp, body := f.message(claudeCall, "Anthropic-Version", "2023-06-01", "Anthropic-Beta", "b1")
			f.answered(resp, body, false, awsSecret)
			got := f.double.Last()
			if got.Target != "/model/eu.anthropic.claude-x-v1%3A0/invoke" ||
				string(got.Body) != `{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["b1"],"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}` {
				t.Errorf("%s %s", got.Target, got.Body)
			}
			resp, body = f.message(claudeStream)
			f.answered(resp, body, true, awsSecret)
			if got := f.double.Last(); got.Target != "/model/eu.anthropic.claude-x-v1%3A0/invoke-with-response-stream" || strings.Contains(string(got.Body), "stream") {
				t.Errorf("%s %s", got.Target, got.Body)
			}
			if !strings.HasPrefix(body, "event: message_start\ndata: {") || !strings.HasSuffix(body, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n") {
				t.Errorf("%q", body)
			}
		})
	}
}

// TestBedrockFailures: in Anthropic's form, whatever Amazon's is.
func TestBedrockFailures(t *testing.T) {
	f := onPlatform(t, "bedrock", "anthropic", "https://bedrock-runtime.eu-west-1.amazonaws.com", awsID+":"+awsSecret, "x")
	f.double.Fail(doubles.Fault{Status: 400, Body: `{"message":"Malformed input"}`, Header: http.Header{"X-Amzn-Errortype": {"ValidationException:http://x"}, "X-Amzn-Requestid": {"r1"}}})
	resp, body := f.message(claudeCall)
	if resp.StatusCode != 400 || !strings.HasPrefix(body, `{"error":{"type":"invalid_request_error","message":"Malformed input","code":"ValidationException"}`) ||
		resp.Header.Get("X-Amzn-Errortype")+resp.Header.Get("X-Amzn-Requestid") != "" || resp.Header.Get("Request-Id") != "r1" {
		t.Errorf("%d %s %v", resp.StatusCode, body, resp.Header)
	}
	f.event()
	// An error in front of the first event is one before anything was passed on.
	f.double.Fail(doubles.Fault{Status: 200, Header: http.Header{}, Body: "no frames"})
	if resp, body = f.message(claudeStream); resp.StatusCode != 502 || !strings.Contains(body, `"type":"api_error"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	f.event()
	// A stream that breaks off ends with an error of the dialect.
	f.double.Fail(doubles.Fault{CutAfter: 5})
	if resp, body = f.message(claudeStream); resp.StatusCode != 200 || !strings.Contains(body, "event: error\ndata: {\"error\":{\"type\":\"api_error\"") {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if ev := f.event(); ev.ReasonCode != "upstream-broke-off" {
		t.Errorf("event %+v", ev)
	}
	if resp, body = f.ask("POST", "https://"+claudeHost+"/v1/messages/count_tokens", claudeCall); resp.StatusCode != 501 || !strings.Contains(body, "not built for the platform bedrock") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// onVertex is onPlatform with the place where tokens are given out.
func onVertex(t *testing.T, dialect, model string) (*fence, *doubles.Google) {
	t.Helper()
	g, err := doubles.NewGoogle()
	if err != nil {
		t.Fatal(err)
	}
	f := onPlatform(t, "vertex", dialect, "https://europe-west1-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west1", g.Key, model)
	f.double.Check = g.Verify
	calls, tokens := f.call.Transport(nil), serveDouble(t, g, inference.GoogleTokenHost)
	f.call.Transport = func(p *policy.Provider) http.RoundTripper {
		if host, _ := p.Endpoint(); host == inference.GoogleTokenHost {
			return tokens
		}
		return calls
	}
	return f, g
}

func TestVertexAnswersAnthropic(t *testing.T) {
	f, g := onVertex(t, "anthropic", "claude-x@20250101")
	const at = "/v1/projects/p-1/locations/europe-west1/publishers/anthropic/models/"
	resp, body := f.message(claudeCall, "Anthropic-Beta", "b1")
	f.answered(resp, body, false, "ya29")
	if got := f.double.Last(); got.Target != at+"claude-x%4020250101:rawPredict" || got.Header.Get("Anthropic-Beta") != "b1" ||
		string(got.Body) != `{"anthropic_version":"vertex-2023-10-16","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}` {
		t.Errorf("%+v", got)
	}
	resp, body = f.message(claudeStream)
	f.answered(resp, body, true, "ya29")
	if got := f.double.Last(); got.Target != at+"claude-x%4020250101:streamRawPredict" {
		t.Errorf("%+v", got)
	}
	if resp, body = f.ask("POST", "https://"+claudeHost+"/v1/messages/count_tokens", claudeCall); resp.StatusCode != 200 || body != `{"input_tokens":11}` {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	f.event()
	if got := f.double.Last(); got.Target != at+"count-tokens:rawPredict" || !strings.HasPrefix(string(got.Body), `{"anthropic_version":"vertex-2023-10-16","model":"claude-x@20250101",`) {
		t.Errorf("%+v", got)
	}
	if n := len(g.Tokens()); n != 1 {
		t.Errorf("%d tokens", n)
	}
}

func TestVertexAnswersGemini(t *testing.T) {
	f, _ := onVertex(t, "gemini", "gemini-y")
	const at = "/v1/projects/p-1/locations/europe-west1/publishers/google/models/gemini-y:"
	resp, body := f.ask("POST", generate, `{"contents":[]}`)
	f.answered(resp, body, false, "ya29")
	if got := f.double.Last(); got.Target != at+"generateContent" || string(got.Body) != `{"contents":[]}` {
		t.Errorf("%+v", got)
	}
	resp, body = f.ask("POST", geminiPath("m", "streamGenerateContent")+"?alt=sse&key=x", `{"contents":[]}`)
	f.answered(resp, body, true, "ya29")
	if got := f.double.Last(); got.Target != at+"streamGenerateContent?alt=sse" {
		t.Errorf("%+v", got)
	}
}

func TestVertexTokens(t *testing.T) {
	f, g := onVertex(t, "anthropic", "x")
	// Without one the agent learns no more than that.
	g.Fail(1)
	if resp, body := f.message(claudeCall); resp.StatusCode != 502 || !strings.Contains(body, "has no access to its platform now") || strings.Contains(body, "invalid_grant") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if ev := f.event(); !strings.Contains(ev.Detail, "invalid_grant") {
		t.Errorf("event %+v", ev)
	}
	// A token that is refused is not used again.
	f, g = onVertex(t, "anthropic", "x")
	f.message(claudeCall)
	f.event()
	f.double.Fail(doubles.Fault{Status: 401, Body: `{"error":{"code":401,"message":"expired","status":"UNAUTHENTICATED"}}`})
	if resp, body := f.message(claudeCall); resp.StatusCode != 401 || !strings.Contains(body, `"authentication_error"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if n := len(g.Tokens()); n != 1 {
		t.Errorf("%d tokens", n)
	}
}

func TestPlatformKeysThatAreNone(t *testing.T) {
	for _, c := range []struct{ platform, dialect, base, secret string }{
		{"azure", "openai", "https://name.openai.azure.com", "a\nb"},
		{"bedrock", "anthropic", "https://bedrock-runtime.eu-west-1.amazonaws.com", "{}"},
		{"vertex", "anthropic", "https://aiplatform.googleapis.com/v1/projects/p/locations/global", "AIza-key"},
		{"azure", "openai", "https://name.openai.azure.com", ""},
		{"teleport", "openai", "https://name.openai.azure.com", "x"},
	} {
		f := onPlatform(t, c.platform, c.dialect, c.base, c.secret, "x")
		ask := f.chat
		if c.dialect == "anthropic" {
			ask = f.message
		}
		if resp, body := ask(claudeCall); resp.StatusCode != 503 || !strings.Contains(body, "ringfence_not_configured") || c.secret != "" && len(c.secret) > 3 && strings.Contains(body, c.secret) {
			t.Errorf("%s %q: %d %s", c.platform, c.secret, resp.StatusCode, body)
		}
		if len(f.double.Received()) != 0 {
			t.Errorf("%s: sent", c.platform)
		}
	}
}

// TestPlatformsAreThoseOfDocuments: one list says what documents may hold, the other
// what is done.
func TestPlatformsAreThoseOfDocuments(t *testing.T) {
	for _, d := range policy.Dialects() {
		if here, there := inference.Platforms(d), policy.PlatformsOf(d); !slices.Equal(here, there) {
			t.Errorf("%s: %v here, %v in documents", d, here, there)
		}
	}
	if !slices.Equal(inference.Dialects(), policy.Dialects()) {
		t.Errorf("%v, %v", inference.Dialects(), policy.Dialects())
	}
}

// TestPlatformsOfTheOtherDialect: what a platform gets and gives is translated like what
// the dialect's own API does.
func TestPlatformsOfTheOtherDialect(t *testing.T) {
	p := newPlaces(t, setup{change: func(p *policy.Provider) {
		if p.Name == "aws" {
			p.Dialect, p.Platform, p.BaseURL, p.Region = "anthropic", "bedrock", "https://aws.example", "eu-west-1"
		}
	}}, "aws")
	r := p.route()
	r.To[0].Model = "eu.anthropic.claude-x-v1:0"
	p.call.Secrets = func(string) (string, bool) { return awsID + ":" + awsSecret, true }
	p.of["aws"].Check = doubles.AWSKey{ID: awsID, Secret: awsSecret, Region: "eu-west-1", Service: "bedrock"}.Verify
	resp, body := p.chat(`{"model":"fast","messages":[{"role":"user","content":"hi"}]}`)
	if resp.StatusCode != 200 || !strings.Contains(body, `"object":"chat.completion"`) || !strings.Contains(body, "from aws") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if got := p.of["aws"].Last(); got.Target != "/model/eu.anthropic.claude-x-v1%3A0/invoke" || !strings.HasPrefix(string(got.Body), `{"anthropic_version":"bedrock-2023-05-31",`) ||
		strings.Contains(string(got.Body), `"model"`) || strings.Contains(string(got.Body), `"stream"`) {
		t.Errorf("%s %s", got.Target, got.Body)
	}
	p.event()
	resp, body = p.chat(`{"model":"fast","stream":true,"messages":[{"role":"user","content":"hi"}]}`)
	if resp.StatusCode != 200 || !strings.Contains(body, `"object":"chat.completion.chunk"`) || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	p.event()
	// Amazon's error becomes Anthropic's, and that the client's.
	p.of["aws"].Fail(doubles.Fault{Status: 400, Body: `{"message":"Malformed input"}`, Header: http.Header{"X-Amzn-Errortype": {"ValidationException"}}})
	resp, body = p.chat(`{"model":"fast","messages":[{"role":"user","content":"hi"}]}`)
	if resp.StatusCode != 400 || !strings.Contains(body, "Malformed input") || !strings.HasPrefix(body, `{"error":{`) || strings.Contains(body, `"type":"error"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
