// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/test/doubles"
)

// oddGemini has bytes that a decoder and encoder would change.
const oddGemini = "{ \"contents\" : [{\"role\":\"user\",\"parts\":[{\"text\":\"<\\u00e9> \\/ 1.0\"}]}],\n\t\"generationConfig\":{\"temperature\":1.0e0},\"newField\":[1] }"

func TestGeminiIsForwardedByteForByteWithTheRealKey(t *testing.T) {
	for _, c := range []struct{ name, query, target string }{
		{"key in a header", "", "/v1beta/models/gemini-x:generateContent"},
		{"key in the query", "?key=" + placeholder, "/v1beta/models/gemini-x:generateContent"},
		{"key in the query, escaped", "?alt=json&%6bey=" + placeholder, "/v1beta/models/gemini-x:generateContent?alt=json"},
		{"keys in the query", "?key=a&alt=json&key=" + placeholder, "/v1beta/models/gemini-x:generateContent?alt=json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFence(t, setup{})
			resp, body := f.ask("POST", geminiPath("gemini-x", "generateContent")+c.query, oddGemini, "X-Goog-Api-Client", "gl-go/1", "X-Goog-User-Project", "p", "X-Goog-FieldMask", "x")
			if resp.StatusCode != 200 || !strings.Contains(body, f.double.Text) {
				t.Fatalf("%d %s", resp.StatusCode, body)
			}
			got := f.double.Last()
			if string(got.Body) != oddGemini || got.Target != c.target || got.Header.Get("X-Goog-Api-Key") != realKey || got.Header.Get("Authorization") != "" ||
				got.Header.Get("X-Goog-Api-Client") != "gl-go/1" || got.Header.Get("X-Goog-User-Project")+got.Header.Get("X-Goog-FieldMask") != "" || holds(got, placeholder) != "" {
				t.Errorf("received %+v", got)
			}
			ev := f.event()
			if ev.Verdict != event.Allowed || ev.Operation != "generate_content" || ev.Model != "gemini-x" || ev.ModelServed != "gemini-x" || ev.Provider != "gemini-main" ||
				ev.Credential != "injected" || strings.Contains(ev.URL, "?") || ev.Stream {
				t.Errorf("event %+v", ev)
			}
		})
	}
}

func TestGeminiMappedModelIsTheOnlyChange(t *testing.T) {
	f := newFence(t, setup{change: func(p *policy.Provider) {
		p.Models = []policy.ModelEntry{{Match: scope.Pattern{Text: "gemini-", Wild: true}, Upstream: "big-1"}}
	}})
	for _, c := range []struct{ verb, body, want string }{
		{"generateContent", oddGemini, oddGemini},
		{"streamGenerateContent?alt=sse", oddGemini, oddGemini},
		{"generateContent", `{"model" : "models/gemini-x","contents":[]}`, `{"model" : "models/big-1","contents":[]}`},
		{"countTokens", `{"generateContentRequest":{"contents":[],"model":"gemini-x"}}`, `{"generateContentRequest":{"contents":[],"model":"big-1"}}`},
		{"batchEmbedContents", `{"requests":[{"model":"models/gemini-x", "content":{}},{"model":"gemini-x"},{"content":{}}]}`,
			`{"requests":[{"model":"models/big-1", "content":{}},{"model":"big-1"},{"content":{}}]}`},
	} {
		f.ask("POST", geminiPath("gemini-x", c.verb), c.body)
		if got := f.double.Last(); string(got.Body) != c.want || got.Target != "/v1beta/models/big-1:"+c.verb {
			t.Errorf("%s %q", got.Target, got.Body)
		}
		if ev := f.event(); ev.Model != "gemini-x" || ev.ModelServed != "big-1" {
			t.Errorf("event %+v", ev)
		}
	}
}

func TestGeminiNameThatCannotStandInAPath(t *testing.T) {
	for _, name := range []string{"a/b", "a:countTokens", "..", "a?b", "a%2fb"} {
		f := newFence(t, setup{change: func(p *policy.Provider) {
			p.Models = []policy.ModelEntry{{Match: scope.Any, Upstream: name}}
		}})
		if resp, body := f.ask("POST", generate, `{"contents":[]}`); resp.StatusCode != 503 || !strings.Contains(body, "cannot stand in a path") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
		if len(f.double.Received()) != 0 {
			t.Errorf("%s: sent", name)
		}
	}
}

func TestGeminiBodyMustNameTheModelOfThePath(t *testing.T) {
	f := newFence(t, setup{view: view{deniedModel: "big"}})
	for _, c := range []struct {
		model, verb, body string
		status            int
	}{
		{"m", "generateContent", `{"model":"models/big","contents":[]}`, 400},
		{"m", "generateContent", `{"model":"models/models/m","contents":[]}`, 400},
		{"m", "generateContent", `{"model":["models/m"],"contents":[]}`, 400},
		{"m", "generateContent", `{"model":null,"contents":[]}`, 400},
		{"m", "generateContent", `{"MODEL":"models/m","contents":[]}`, 400},
		{"m", "countTokens", `{"generateContentRequest":{"model":"models/big"}}`, 400},
		{"m", "countTokens", `{"generate_content_request":{"model":"models/big"}}`, 400},
		{"m", "batchEmbedContents", `{"requests":[{"model":"models/m"},{"model":"models/big"}]}`, 400},
		{"big", "generateContent", `{"contents":[]}`, 403},
		{"big", "batchEmbedContents", `{"requests":[{"model":"models/big"}]}`, 403},
	} {
		resp, body := f.ask("POST", geminiPath(c.model, c.verb), c.body)
		if resp.StatusCode != c.status || !strings.Contains(body, `"status":"`+map[int]string{400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED"}[c.status]) {
			t.Errorf("%s: %d %s", c.body, resp.StatusCode, body)
		}
		if ev := f.event(); ev.Verdict != event.Denied {
			t.Errorf("event %+v", ev)
		}
	}
	if len(f.double.Received()) != 0 {
		t.Error("reached the provider")
	}
}

func TestGeminiBaseURLs(t *testing.T) {
	for _, c := range []struct{ base, version, want string }{
		{"https://provider.example", "/v1beta", "/v1beta/models/m:generateContent"},
		{"https://provider.example/v1beta", "/v1beta", "/v1beta/models/m:generateContent"},
		{"https://provider.example/gw", "/v1beta", "/gw/v1beta/models/m:generateContent"},
		{"https://provider.example/gw/v1beta", "/v1beta", "/gw/v1beta/models/m:generateContent"},
		{"https://provider.example/v1", "/v1", "/v1/models/m:generateContent"},
		{"https://provider.example/gw/v1", "/v1beta", "/gw/v1/v1beta/models/m:generateContent"},
	} {
		f := newFence(t, setup{change: func(p *policy.Provider) { p.BaseURL = c.base }})
		f.ask("POST", "https://"+geminiHost+c.version+"/models/m:generateContent", `{"contents":[]}`)
		if got := f.double.Last().Target; got != c.want {
			t.Errorf("%s: %s, not %s", c.base, got, c.want)
		}
	}
}

func TestGeminiStream(t *testing.T) {
	f := newFence(t, setup{})
	resp, body := f.ask("POST", geminiPath("m", "streamGenerateContent")+"?alt=sse&key="+placeholder, `{"contents":[]}`)
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") || strings.Count(body, "data: {") != 4 {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if got := f.double.Last(); got.Target != "/v1beta/models/m:streamGenerateContent?alt=sse" || holds(got, placeholder) != "" {
		t.Errorf("%+v", got)
	}
	if ev := f.event(); !ev.Stream || ev.Verdict != event.Allowed {
		t.Errorf("event %+v", ev)
	}
	// One that breaks off ends with an error that the libraries see.
	f.double.Fail(doubles.Fault{CutAfter: 2})
	_, body = f.ask("POST", geminiPath("m", "streamGenerateContent")+"?alt=sse", `{"contents":[]}`)
	parts := strings.Split(strings.TrimSuffix(body, "\r\n\r\n"), "\r\n\r\n")
	last, ok := strings.CutPrefix(parts[len(parts)-1], "data: ")
	var e struct {
		Error struct {
			Code    int
			Status  string
			Message string
		}
	}
	if err := json.Unmarshal([]byte(last), &e); !ok || err != nil || e.Error.Code != 502 || e.Error.Status != "UNAVAILABLE" || !strings.Contains(e.Error.Message, "broke off") {
		t.Errorf("%q: %v %+v", body, err, e)
	}
	if ev := f.event(); ev.ReasonCode != "upstream-broke-off" {
		t.Errorf("event %+v", ev)
	}
}

func TestGeminiPassthrough(t *testing.T) {
	f := newFence(t, setup{change: func(p *policy.Provider) { p.Credential, p.Keys = policy.CredentialPassthrough, nil }})
	for _, c := range []struct {
		name, query, header, bearer string
		want                        string // the header x-goog-api-key; "" = refused
	}{
		{"header", "", "agents-own", "", "agents-own"},
		{"query", "?key=agents-own", "", "", "agents-own"},
		{"header before query", "?key=other", "agents-own", "", "agents-own"},
		{"two in the query", "?key=a&key=b", "", "", ""},
		{"not fit for a header", "?key=a%0ab", "", "", ""},
		{"none", "", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.double.Reset()
			resp, body := f.ask("POST", generate+c.query, `{"contents":[]}`, "Authorization", c.bearer, "X-Goog-Api-Key", c.header)
			f.event()
			got := f.double.Last()
			if c.want == "" {
				if resp.StatusCode != 401 || got.Method != "" || !strings.Contains(body, "UNAUTHENTICATED") {
					t.Errorf("%d %s %+v", resp.StatusCode, body, got)
				}
				return
			}
			if resp.StatusCode != 200 || got.Header.Get("X-Goog-Api-Key") != c.want || strings.Contains(got.Target, "?") || holds(got, realKey) != "" {
				t.Errorf("%d %+v", resp.StatusCode, got)
			}
		})
	}
}

func TestGeminiTrial(t *testing.T) {
	f := newFence(t, setup{trial: true})
	const base = "https://" + geminiHost + "/v1beta/models"
	for _, c := range []struct {
		name, method, url, body string
		status                  int
		want                    []string
	}{
		{"generate", "POST", generate, `{"contents":[]}`, 200, []string{"No model was called", "GEMINI_API_KEY", `"modelVersion":"m"`, `"candidatesTokenCount":`, `"finishReason":"STOP"`}},
		{"stream", "POST", geminiPath("m", "streamGenerateContent") + "?alt=sse", `{"contents":[]}`, 200, []string{"data: {", " model", `"finishReason":"STOP"`}},
		{"count", "POST", geminiPath("m", "countTokens"), `{"contents":[{"parts":[{"text":"12345678"}]}]}`, 200, []string{`"totalTokens":6`}},
		{"models", "GET", base, "", 200, []string{`"name":"models/ringfence-trial"`}},
		{"model", "GET", base + "/gemini-x", "", 200, []string{`"name":"models/gemini-x"`}},
		{"embedding", "POST", geminiPath("m", "embedContent"), `{"content":{}}`, 501, []string{"UNIMPLEMENTED", "ringfence provider add gemini --key-env GEMINI_API_KEY"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := f.ask(c.method, c.url, c.body)
			if resp.StatusCode != c.status {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			for _, w := range c.want {
				if !strings.Contains(body, w) {
					t.Errorf("%s lacks %q", body, w)
				}
			}
			f.event()
		})
	}
}

func TestGeminiOtherOperations(t *testing.T) {
	f := newFence(t, setup{})
	for _, c := range []struct{ method, url, body, op, target string }{
		{"GET", "https://" + geminiHost + "/v1beta/models?pageSize=5", "", "models", "/v1beta/models?pageSize=5"},
		{"GET", "https://" + geminiHost + "/v1beta/models/double-1?key=x", "", "model", "/v1beta/models/double-1"},
		{"POST", geminiPath("m", "countTokens"), `{"contents":[]}`, "count_tokens", "/v1beta/models/m:countTokens"},
		{"POST", geminiPath("m", "embedContent"), `{"content":{}}`, "embeddings", "/v1beta/models/m:embedContent"},
		{"POST", geminiPath("m", "batchEmbedContents"), `{"requests":[]}`, "embeddings", "/v1beta/models/m:batchEmbedContents"},
	} {
		resp, body := f.ask(c.method, c.url, c.body)
		if got := f.double.Last(); resp.StatusCode != 200 || got.Target != c.target || string(got.Body) != c.body {
			t.Errorf("%s: %d %s %+v", c.url, resp.StatusCode, body, got)
		}
		if ev := f.event(); ev.Operation != c.op || ev.Verdict != event.Allowed {
			t.Errorf("event %+v", ev)
		}
	}
}

// TestGeminiKeyThatIsRefused: Google says so under status 400.
func TestGeminiKeyThatIsRefused(t *testing.T) {
	f := newFence(t, setup{change: func(p *policy.Provider) {
		p.Keys = []policy.Key{{Secret: "one", Weight: 1}, {Secret: "two", Weight: 1}}
	}})
	f.call.Secrets = func(name string) (string, bool) { return realKey + "-" + name, true }
	f.double.Fail(doubles.Fault{Status: 400, Body: `{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}`})
	resp, body := f.ask("POST", generate, `{"contents":[]}`)
	all := f.double.Received()
	if resp.StatusCode != 200 || len(all) != 2 || all[0].Header.Get("X-Goog-Api-Key") == all[1].Header.Get("X-Goog-Api-Key") {
		t.Fatalf("%d %s, %d requests", resp.StatusCode, body, len(all))
	}
	if ev := f.event(); !strings.Contains(ev.Tried, "400") {
		t.Errorf("event %+v", ev)
	}
	// Control: another 400 is the agent's own.
	f.double.Reset()
	f.double.Fail(doubles.Fault{Status: 400, Body: `{"error":{"code":400,"message":"Unknown name","status":"INVALID_ARGUMENT"}}`})
	if resp, _ := f.ask("POST", generate, `{"contents":[]}`); resp.StatusCode != 400 || len(f.double.Received()) != 1 {
		t.Errorf("%d, %d requests", resp.StatusCode, len(f.double.Received()))
	}
}
