// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/test/doubles"
)

// odd holds unknown fields, odd spacing, escapes and number forms that a
// re-encoder would change.
const odd = "{ \"x_unknown\" : {\"b\":1e2, \"a\":[ 1.0,\"\\u00e9\\/\" ]},\n\t\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":\"h\\u0069 ü\"}] , \"metadata\":{\"z\":\"1\",\"a\":\"2\"} }"

func TestBodyIsForwardedByteForByteWithTheRealKey(t *testing.T) {
	f := newFence(t, setup{})
	resp, body := f.chat(odd, "OpenAI-Organization", "org-agent", "OpenAI-Project", "p", "Cookie", "a=b", "Api-Key", placeholder,
		"X-Goog-Api-Key", placeholder, "Proxy-Authorization", "Basic eA==", "X-Portkey-Custom-Host", "https://evil.example",
		"X-HTTP-Method-Override", "DELETE", "X-Stainless-Lang", "go", "User-Agent", "agent/1", "OpenAI-Beta", "x=1", "Idempotency-Key", "k1")
	if resp.StatusCode != 200 || !strings.Contains(body, "Hello from the double") || !strings.Contains(body, `"x_unknown":{"kept":true}`) {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	got := f.double.Last()
	if string(got.Body) != odd {
		t.Errorf("body changed:\n%q\n%q", odd, got.Body)
	}
	if at := holds(got, placeholder); at != "" {
		t.Errorf("placeholder reached the provider in %s", at)
	}
	if got.Target != "/v1/chat/completions" || got.Host != "provider.example" {
		t.Errorf("target %q host %q", got.Target, got.Host)
	}
	want := map[string]string{"Authorization": "Bearer " + realKey, "X-Stainless-Lang": "go", "User-Agent": "agent/1", "Openai-Beta": "x=1",
		"Idempotency-Key": "k1", "Accept-Encoding": "identity", "Content-Type": "application/json"}
	for k, v := range want {
		if got.Header.Get(k) != v {
			t.Errorf("header %s = %q, want %q", k, got.Header.Get(k), v)
		}
	}
	for _, k := range []string{"Openai-Organization", "Openai-Project", "Cookie", "Api-Key", "X-Api-Key", "X-Goog-Api-Key", "Proxy-Authorization",
		"X-Portkey-Custom-Host", "X-Http-Method-Override"} {
		if v := got.Header.Get(k); v != "" {
			t.Errorf("header %s = %q passed", k, v)
		}
	}
	ev := f.event()
	if ev.Kind != event.KindInference || ev.Verdict != event.Allowed || ev.Operation != "chat" || ev.Status != 200 || ev.Model != "gpt-4o" ||
		ev.ModelServed != "gpt-4o" || ev.Provider != "openai-main" || ev.Credential != "injected" || ev.TokensIn != 11 || ev.TokensOut != 7 ||
		ev.TokensCached != 3 || ev.Estimated || ev.RequestID != "req_double" || ev.Sandbox != "sb1" || ev.Revision != 3 || ev.Stream ||
		ev.BytesOut != uint64(len(odd)) || ev.BytesIn == 0 || ev.URL != "https://api.openai.com/v1/chat/completions" {
		t.Errorf("event %+v", ev)
	}
}

func TestAnthropicKeyAndUsage(t *testing.T) {
	f := newFence(t, setup{})
	in := `{"model":"claude-x","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"new_field":[1]}`
	resp, body := f.message(in, "Anthropic-Version", "2023-06-01", "Anthropic-Beta", "b1")
	if resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	got := f.double.Last()
	if string(got.Body) != in || got.Target != "/v1/messages" || got.Header.Get("X-Api-Key") != realKey || got.Header.Get("Authorization") != "" ||
		got.Header.Get("Anthropic-Version") != "2023-06-01" || got.Header.Get("Anthropic-Beta") != "b1" || holds(got, placeholder) != "" {
		t.Errorf("received %+v", got)
	}
	if ev := f.event(); ev.TokensIn != 11 || ev.TokensOut != 7 || ev.TokensCached != 3 || ev.Estimated || ev.Operation != "messages" {
		t.Errorf("event %+v", ev)
	}
}

func TestMappedModelIsTheOnlyChange(t *testing.T) {
	f := newFence(t, setup{change: func(p *policy.Provider) {
		p.Models = []policy.ModelEntry{{Match: scope.Pattern{Text: "gpt-", Wild: true}, Upstream: "vendor/Big-1"}}
	}})
	f.chat(odd)
	if want := strings.Replace(odd, `"gpt-4o"`, `"vendor/Big-1"`, 1); string(f.double.Last().Body) != want {
		t.Errorf("body %q", f.double.Last().Body)
	}
	if ev := f.event(); ev.Model != "gpt-4o" || ev.ModelServed != "vendor/Big-1" {
		t.Errorf("event %+v", ev)
	}
}

func TestPassthroughForwardsTheAgentsOwnCredential(t *testing.T) {
	f := newFence(t, setup{change: func(p *policy.Provider) { p.Credential, p.Keys = policy.CredentialPassthrough, nil }})
	in := `{"model":"claude-x","max_tokens":9,"messages":[]}`
	resp, _ := f.message(in, "X-Api-Key", "", "Authorization", "Bearer agents-own")
	got := f.double.Last()
	if resp.StatusCode != 200 || got.Header.Get("Authorization") != "Bearer agents-own" || holds(got, realKey) != "" {
		t.Errorf("%d %+v", resp.StatusCode, got)
	}
	if ev := f.event(); ev.Credential != "passthrough" || ev.TokensIn != 11 {
		t.Errorf("event %+v", ev)
	}
	if resp, body := f.message(in, "X-Api-Key", "", "Authorization", ""); resp.StatusCode != 401 {
		t.Errorf("no credential: %d %s", resp.StatusCode, body)
	}
}

func TestStreamPassesEventByEventAndIsMetered(t *testing.T) {
	for _, c := range []struct {
		name, host, path, body string
		estimated              bool
	}{
		{"chat with usage", openAIHost, "/v1/chat/completions", `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}`, false},
		{"chat without usage", openAIHost, "/v1/chat/completions", `{"model":"m","stream":true,"messages":[{"role":"user","content":"0123456789abcdef"}]}`, false},
		{"responses", openAIHost, "/v1/responses", `{"model":"m","stream":true,"input":"hi"}`, false},
		{"messages", claudeHost, "/v1/messages?beta=true", `{"model":"m","stream":true,"max_tokens":5,"messages":[]}`, false},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/h2=%v", c.name, h2), func(t *testing.T) { stream(t, h2, c.host, c.path, c.body, c.estimated) })
		}
	}
}

func stream(t *testing.T, h2 bool, host, path, body string, estimated bool) {
	f := newFence(t, setup{h2: h2})
	direct := directAnswer(t, f.double, host, path, body)
	f.double.Reset()
	f.double.Fail(doubles.Fault{Gap: 30 * time.Millisecond})
	resp, err := f.try("POST", "https://"+host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if h2 != (resp.ProtoMajor == 2) {
		t.Errorf("protocol %s", resp.Proto)
	}
	var got strings.Builder
	var reads int
	buf := make([]byte, 64<<10)
	for {
		n, err := resp.Body.Read(buf)
		got.Write(buf[:n])
		if n > 0 {
			reads++
		}
		if err != nil {
			break
		}
	}
	if got.String() != direct {
		t.Errorf("stream changed:\n%q\n%q", got.String(), direct)
	}
	if reads < 4 {
		t.Errorf("stream came in %d pieces: it was buffered", reads)
	}
	ev := f.event()
	if !ev.Stream || ev.Estimated != estimated {
		t.Errorf("event %+v", ev)
	}
	if !estimated && (ev.TokensIn != 11 || ev.TokensOut != 7 || ev.TokensCached != 3) {
		t.Errorf("tokens %d %d %d", ev.TokensIn, ev.TokensOut, ev.TokensCached)
	}
	if estimated && (ev.TokensIn < 4 || ev.TokensOut < 4) {
		t.Errorf("estimate %d %d", ev.TokensIn, ev.TokensOut)
	}
}

// directAnswer is what the double says without anything in between.
func directAnswer(t *testing.T, d *doubles.Provider, host, path, body string) string {
	t.Helper()
	s, err := doubles.Serve(nil, d)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	resp, err := http.Post("http://"+s.Addr.String()+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	return string(b)
}

const simple = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`

func TestUpstreamFaults(t *testing.T) {
	type want struct {
		status int
		body   string // contained
		not    string // not contained
		reason string // of the event
	}
	for _, c := range []struct {
		name  string
		fault doubles.Fault
		want  want
	}{
		{"its error passes with the key blanked", doubles.Fault{Status: 401, Body: `{"error":{"message":"Incorrect API key provided: ` + realKey + `. Also sk-real-********REAL.","code":"invalid_api_key"}}`},
			want{401, "Incorrect API key provided: ****", "REAL", "builtin"}},
		{"its rate limit passes", doubles.Fault{Status: 429, Header: http.Header{"Retry-After": {"7"}}, Body: `{"error":{"message":"slow down"}}`}, want{429, "slow down", "", "builtin"}},
		{"a redirect is not followed", doubles.Fault{Status: 307, Header: http.Header{"Location": {"https://evil.example/"}}}, want{502, "redirect", "evil.example", "upstream-answer"}},
		{"a key in a good answer is blanked", doubles.Fault{Reflect: true}, want{200, "key=Bearer *****", realKey, "builtin"}},
		{"gzip that nobody asked for is opened", doubles.Fault{Gzip: true}, want{200, "Hello from the double", "", "builtin"}},
		{"an unknown encoding is refused", doubles.Fault{Status: 200, Header: http.Header{"Content-Encoding": {"br"}}, Body: "xx"}, want{502, "encoding", "", "upstream-answer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFence(t, setup{})
			f.double.Fail(c.fault)
			resp, body := f.chat(simple)
			if resp.StatusCode != c.want.status || !strings.Contains(body, c.want.body) || c.want.not != "" && strings.Contains(body+fmt.Sprint(resp.Header), c.want.not) {
				t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
			}
			if !json.Valid([]byte(body)) {
				t.Errorf("not JSON: %s", body)
			}
			if n := len(f.double.Received()); n != 1 {
				t.Errorf("%d requests upstream", n)
			}
			if ev := f.event(); ev.ReasonCode != c.want.reason || ev.Status != uint32(c.want.status) || ev.Verdict != event.Allowed || ev.Failed != (c.want.reason == "upstream-answer") {
				t.Errorf("event %+v", ev)
			}
		})
	}
}

func TestAnswerHeaders(t *testing.T) {
	f := newFence(t, setup{})
	f.double.Fail(doubles.Fault{Header: http.Header{"Set-Cookie": {"a=b"}, "Alt-Svc": {`h3=":443"`}, "Openai-Organization": {"acme"},
		"X-Ratelimit-Remaining-Requests": {"9"}, "X-Debug": {"key " + realKey}}})
	resp, _ := f.chat(simple)
	for _, k := range []string{"Set-Cookie", "Alt-Svc", "Openai-Organization", "X-Debug"} {
		if v := resp.Header.Get(k); v != "" {
			t.Errorf("%s: %s passed", k, v)
		}
	}
	if resp.Header.Get("X-Ratelimit-Remaining-Requests") != "9" {
		t.Errorf("rate limit header lost: %v", resp.Header)
	}
}

func TestUnreachableProvider(t *testing.T) {
	f := newFence(t, setup{dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("dial 10.9.8.7: refused")
	}})
	resp, body := f.message(`{"model":"m","max_tokens":1,"messages":[]}`)
	if resp.StatusCode != 502 || !strings.Contains(body, `"type":"error"`) || !strings.Contains(body, "could not be reached") || strings.Contains(body, "10.9.8.7") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if ev := f.event(); ev.ReasonCode != "upstream" || !ev.IsFailure() || !strings.Contains(ev.Detail, "10.9.8.7") {
		t.Errorf("event %+v", ev)
	}
}

func TestSilentProvider(t *testing.T) {
	f := newFence(t, setup{opt: inference.Options{Idle: 100 * time.Millisecond}})
	f.double.Fail(doubles.Fault{Hang: true})
	resp, body := f.chat(simple)
	if resp.StatusCode != 504 || !strings.Contains(body, "did not answer in time") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if ev := f.event(); ev.ReasonCode != "upstream-timeout" || !ev.IsFailure() {
		t.Errorf("event %+v", ev)
	}
}

func TestBrokenStreamEndsWithAnErrorEvent(t *testing.T) {
	f := newFence(t, setup{})
	f.double.Fail(doubles.Fault{CutAfter: 2})
	resp, body := f.chat(`{"model":"m","stream":true,"messages":[]}`)
	if resp.StatusCode != 200 || !strings.Contains(body, "\n\nevent: error\ndata: {\"error\":{") || !strings.HasSuffix(body, "\n\n") {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if ev := f.event(); ev.ReasonCode != "upstream-broke-off" || !ev.IsFailure() || ev.Reason != "the provider's answer broke off" || !ev.Estimated || ev.TokensOut == 0 {
		t.Errorf("event %+v", ev)
	}
}

// A document is held until it is whole, so that half of one becomes an error of the
// dialect. One that is too large to be held is cut, and the client sees that.
func TestBrokenDocuments(t *testing.T) {
	f := newFence(t, setup{})
	f.double.Fail(doubles.Fault{CutAfter: 1})
	resp, body := f.chat(simple)
	if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, `"code":"ringfence_upstream_error"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if ev := f.event(); ev.ReasonCode != "upstream" || !ev.IsFailure() || !strings.Contains(ev.Reason, "broke off") {
		t.Errorf("event %+v", ev)
	}
	f.double.Text = strings.Repeat("x", 12<<20)
	f.double.Fail(doubles.Fault{CutAfter: 1})
	resp, err := f.try("POST", "https://"+openAIHost+"/v1/chat/completions", simple)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	if err == nil {
		t.Error("the client could not see that the answer was cut")
	}
	if ev := f.event(); ev.ReasonCode != "upstream-broke-off" || !ev.IsFailure() {
		t.Errorf("event %+v", ev)
	}
}

func TestClientThatGoesAwayCancelsTheProvider(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) { clientGone(t, h2) })
	}
}

func clientGone(t *testing.T, h2 bool) {
	f := newFence(t, setup{h2: h2})
	f.double.Text = strings.Repeat("word ", 200)
	f.double.Fail(doubles.Fault{Gap: 20 * time.Millisecond})
	resp, err := f.try("POST", "https://"+claudeHost+"/v1/messages", `{"model":"m","stream":true,"max_tokens":5,"messages":[]}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if !doubles.Eventually(ctx, func() bool { return f.double.Gone() == 1 }) {
		t.Error("the provider went on")
	}
	if ev := f.event(); ev.ReasonCode != "client-gone" || ev.Failed || !ev.Estimated || ev.TokensIn != 11 {
		t.Errorf("event %+v", ev)
	}
}

func TestMissingSecretIsSaid(t *testing.T) {
	f := newFence(t, setup{change: func(p *policy.Provider) { p.Keys = []policy.Key{{Secret: "gone", Weight: 1}} }})
	f.call.Secrets = func(string) (string, bool) { return "", false }
	resp, body := f.chat(simple)
	if resp.StatusCode != 503 || !strings.Contains(body, "directory of secrets as gone") || resp.Header.Get("X-Should-Retry") != "false" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	g := newFence(t, setup{})
	g.call.Secrets = f.call.Secrets
	if _, body := g.chat(simple); !strings.Contains(body, "ringfence provider add openai --key-env OPENAI_API_KEY") {
		t.Errorf("of a provider as `provider add` makes it: %s", body)
	}
	if len(f.double.Received()) != 0 {
		t.Error("a request left without a key")
	}
}

func TestOtherOperations(t *testing.T) {
	f := newFence(t, setup{})
	for _, c := range []struct{ method, host, target, body, upstream string }{
		{"POST", openAIHost, "/v1/embeddings", `{"model":"e","input":["a"]}`, "/v1/embeddings"},
		{"POST", openAIHost, "/v1/moderations", `{"input":"a"}`, "/v1/moderations"},
		{"POST", openAIHost, "/v1/completions", `{"model":"e","prompt":"a"}`, "/v1/completions"},
		{"GET", openAIHost, "/v1/models", "", "/v1/models"},
		{"GET", openAIHost, "/v1/models/ft:gpt:org::1", "", "/v1/models/ft:gpt:org::1"},
		{"GET", openAIHost, "/v1/responses/resp_1?include%5B%5D=a&include%5B%5D=b", "", "/v1/responses/resp_1?include%5B%5D=a&include%5B%5D=b"},
		{"DELETE", openAIHost, "/v1/responses/resp_1", "", "/v1/responses/resp_1"},
		{"POST", openAIHost, "/v1/responses/resp_1/cancel", "", "/v1/responses/resp_1/cancel"},
		{"GET", openAIHost, "/v1/responses/resp_1/input_items?limit=5", "", "/v1/responses/resp_1/input_items?limit=5"},
		{"POST", claudeHost, "/v1/messages/count_tokens", `{"model":"c","messages":[]}`, "/v1/messages/count_tokens"},
		{"GET", claudeHost, "/v1/models?limit=2", "", "/v1/models?limit=2"},
	} {
		f.double.Reset()
		resp, body := f.ask(c.method, "https://"+c.host+c.target, c.body)
		got := f.double.Last()
		if resp.StatusCode >= 500 || got.Target != c.upstream || got.Method != c.method || string(got.Body) != c.body || holds(got, realKey) == "" {
			t.Errorf("%s %s: %d %s, received %+v", c.method, c.target, resp.StatusCode, body, got)
		}
	}
}
