// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ringfence/ringfence/test/doubles"
)

// sent is what a platform makes of a request: method is of the route.
type sent struct {
	target, body string
	ref          *refusal
	o            *outbound
}

// addressed lets a platform address a request of a dialect.
func addressed(t *testing.T, p *platform, d *dialect, base, path, model, body string, header ...string) sent {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	rt, query, ref := matchTarget(d, method, path)
	if ref != nil {
		t.Fatal(ref.text())
	}
	tp := tape{nodes: []node{{}}}
	if body != "" {
		if tp, err = parse([]byte(body), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	head := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"a"}, "X-Stainless-Lang": {"go"}, "Accept": {"*/*"}}
	for i := 0; i+1 < len(header); i += 2 {
		head.Add(header[i], header[i+1])
	}
	plain, _, _ := strings.Cut(path, "?")
	o := &outbound{d: d, route: rt, model: model, base: u, path: plain, query: query, body: []byte(body), tape: &tp, head: head, now: time.Now}
	if i, ok := tp.member(0, "stream"); ok {
		o.stream = tp.nodes[i].kind == kindTrue
	}
	if ref := p.address(o); ref != nil {
		return sent{ref: ref, o: o}
	}
	to, err := o.url()
	if err != nil {
		t.Fatal(err)
	}
	return sent{target: to.Scheme + "://" + to.Host + to.RequestURI(), body: string(o.body), o: o}
}

const (
	azureBase   = "https://name.openai.azure.com"
	bedrockBase = "https://bedrock-runtime.eu-west-1.amazonaws.com"
	vertexBase  = "https://europe-west1-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west1"
)

// TestPlatformRequests: golden requests, after the references of the platforms.
func TestPlatformRequests(t *testing.T) {
	const message = `{"model":"claude-x", "max_tokens" : 9,"messages":[{"role":"user","content":"<\u00e9> 1.0"}]}`
	const rest = `"max_tokens" : 9,"messages":[{"role":"user","content":"<\u00e9> 1.0"}]}`
	for _, c := range []struct {
		name              string
		p                 *platform
		d                 *dialect
		base, path, model string
		body              string
		target, want      string
	}{
		{"azure v1 surface", &azure, &openAI, azureBase, "/v1/chat/completions", "dep", simpleChat, azureBase + "/openai/v1/chat/completions", simpleChat},
		{"azure v1 surface, written out", &azure, &openAI, azureBase + "/openai/v1", "/v1/responses", "dep", simpleChat, azureBase + "/openai/v1/responses", simpleChat},
		{"azure models", &azure, &openAI, azureBase + "/openai/v1", "/v1/models", "", "", azureBase + "/openai/v1/models", ""},
		{"azure deployment", &azure, &openAI, azureBase + "/openai", "/v1/chat/completions", "dep-1", simpleChat,
			azureBase + "/openai/deployments/dep-1/chat/completions?api-version=2024-10-21", simpleChat},
		{"azure deployment that is no plain name", &azure, &openAI, azureBase + "/openai", "/v1/embeddings", "a/../b?c d", simpleChat,
			azureBase + "/openai/deployments/a%2F..%2Fb%3Fc%20d/embeddings?api-version=2024-10-21", simpleChat},
		{"bedrock", &bedrock, &anthropic, bedrockBase, "/v1/messages?beta=true", "anthropic.claude-x-v1:0", message,
			bedrockBase + "/model/anthropic.claude-x-v1%3A0/invoke", `{"anthropic_version":"bedrock-2023-05-31",` + rest},
		{"bedrock profile", &bedrock, &anthropic, bedrockBase, "/v1/messages", "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.x", message,
			bedrockBase + "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Feu.x/invoke", `{"anthropic_version":"bedrock-2023-05-31",` + rest},
		{"bedrock stream", &bedrock, &anthropic, bedrockBase, "/v1/messages", "m", `{ "stream" : true ,"model":"claude-x","messages":[]}`,
			bedrockBase + "/model/m/invoke-with-response-stream", `{"anthropic_version":"bedrock-2023-05-31","messages":[]}`},
		{"bedrock, stream last", &bedrock, &anthropic, bedrockBase, "/v1/messages", "m", `{"messages":[] , "model":"claude-x","stream":false}`,
			bedrockBase + "/model/m/invoke", `{"anthropic_version":"bedrock-2023-05-31","messages":[]}`},
		{"vertex", &vertex, &anthropic, vertexBase, "/v1/messages", "claude-x@20250101", message,
			vertexBase + "/publishers/anthropic/models/claude-x%4020250101:rawPredict", `{"anthropic_version":"vertex-2023-10-16",` + rest},
		{"vertex stream", &vertex, &anthropic, vertexBase, "/v1/messages", "m", `{"model":"claude-x","stream":true,"messages":[]}`,
			vertexBase + "/publishers/anthropic/models/m:streamRawPredict", `{"anthropic_version":"vertex-2023-10-16","stream":true,"messages":[]}`},
		{"vertex count", &vertex, &anthropic, vertexBase, "/v1/messages/count_tokens", "m", `{"model":"m","messages":[]}`,
			vertexBase + "/publishers/anthropic/models/count-tokens:rawPredict", `{"anthropic_version":"vertex-2023-10-16","model":"m","messages":[]}`},
		{"vertex gemini", &vertex, &gemini, vertexBase, "/v1beta/models/gemini-x:generateContent", "gemini-y", `{ "contents":[] }`,
			vertexBase + "/publishers/google/models/gemini-y:generateContent", `{ "contents":[] }`},
		{"vertex gemini stream", &vertex, &gemini, vertexBase, "/v1beta/models/gemini-x:streamGenerateContent?alt=sse", "gemini-x", `{"contents":[]}`,
			vertexBase + "/publishers/google/models/gemini-x:streamGenerateContent?alt=sse", `{"contents":[]}`},
		{"vertex gemini count", &vertex, &gemini, vertexBase, "/v1/models/gemini-x:countTokens", "gemini-x", `{"contents":[]}`,
			vertexBase + "/publishers/google/models/gemini-x:countTokens", `{"contents":[]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := addressed(t, c.p, c.d, c.base, c.path, c.model, c.body)
			if got.ref != nil || got.target != c.target || got.body != c.want {
				t.Errorf("%s\n%s\n%+v", got.target, got.body, got.ref)
			}
		})
	}
}

const simpleChat = `{"model":"gpt-4o","messages":[]}`

func TestPlatformsSayWhatTheyLack(t *testing.T) {
	for _, c := range []struct {
		name             string
		p                *platform
		d                *dialect
		base, path, body string
		status           int
		says             string
	}{
		{"azure responses at the former surface", &azure, &openAI, azureBase + "/openai", "/v1/responses", simpleChat, 501, "/openai/v1"},
		{"azure models at the former surface", &azure, &openAI, azureBase + "/openai", "/v1/models", "", 501, "/openai/v1"},
		{"azure base URL", &azure, &openAI, azureBase + "/v1", "/v1/chat/completions", simpleChat, 503, "https://NAME.openai.azure.com/openai/v1"},
		{"bedrock count", &bedrock, &anthropic, bedrockBase, "/v1/messages/count_tokens", simpleChat, 501, "POST /v1/messages/count_tokens is not built for the platform bedrock"},
		{"bedrock models", &bedrock, &anthropic, bedrockBase, "/v1/models", "", 501, "not built for the platform bedrock"},
		{"bedrock own version", &bedrock, &anthropic, bedrockBase, "/v1/messages", `{"model":"m","anthropic_version":"x"}`, 400, "anthropic_version"},
		{"bedrock own betas", &bedrock, &anthropic, bedrockBase, "/v1/messages", `{"model":"m","anthropic_beta":["x"]}`, 400, "anthropic_beta"},
		{"vertex own version", &vertex, &anthropic, vertexBase, "/v1/messages", `{"model":"m","anthropic_version":"x"}`, 400, "anthropic_version"},
		{"vertex models", &vertex, &anthropic, vertexBase, "/v1/models", "", 501, "not built for the platform vertex"},
		{"vertex base URL", &vertex, &anthropic, "https://europe-west1-aiplatform.googleapis.com", "/v1/messages", simpleChat, 503, "projects/PROJECT/locations/LOCATION"},
		{"vertex gemini models", &vertex, &gemini, vertexBase, "/v1beta/models", "", 501, "not built for the platform vertex"},
		{"vertex gemini embeddings", &vertex, &gemini, vertexBase, "/v1beta/models/m:batchEmbedContents", `{"requests":[]}`, 501, "not built for the platform vertex"},
		{"vertex gemini model in the body", &vertex, &gemini, vertexBase, "/v1beta/models/m:generateContent", `{"model":"models/m"}`, 400, "from the path"},
		{"vertex gemini request in a request", &vertex, &gemini, vertexBase, "/v1beta/models/m:countTokens", `{"generate_content_request":{}}`, 400, "from the path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := addressed(t, c.p, c.d, c.base, c.path, "m", c.body)
			if got.ref == nil || got.ref.status != c.status || !strings.Contains(got.ref.text(), c.says) {
				t.Errorf("%+v", got.ref)
			}
		})
	}
}

func TestBedrockTakesBetasIntoTheBody(t *testing.T) {
	got := addressed(t, &bedrock, &anthropic, bedrockBase, "/v1/messages", "m", `{"model":"m"}`, "Anthropic-Beta", "a, b", "Anthropic-Beta", "c", "Anthropic-Version", "2023-06-01")
	if got.body != `{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["a","b","c"]}` || len(got.o.head) != 3 || got.o.head.Get("Anthropic-Version") != "" {
		t.Errorf("%s %v", got.body, got.o.head)
	}
	if got := addressed(t, &vertex, &anthropic, vertexBase, "/v1/messages", "m", `{"model":"m"}`, "Anthropic-Beta", "a", "Anthropic-Version", "2023-06-01"); got.o.head.Get("Anthropic-Beta") != "a" || got.o.head.Get("Anthropic-Version") != "" {
		t.Errorf("%v", got.o.head)
	}
}

// TestBedrockSignature: the double knows the key and signs on its own.
func TestBedrockSignature(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	key := doubles.AWSKey{ID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", Region: "eu-west-1", Service: "bedrock"}
	for _, c := range []struct{ name, base, region, secret, token, want string }{
		{"in a line", bedrockBase, "eu", key.ID + ":" + key.Secret, "", "eu-west-1"},
		{"temporary, in a line", bedrockBase, "", key.ID + ":" + key.Secret + ":tok/en==", "tok/en==", "eu-west-1"},
		{"as a program prints it", bedrockBase, "", `{"Version":1,"AccessKeyId":"` + key.ID + `","SecretAccessKey":"` + key.Secret + `","SessionToken":"t"}`, "t", "eu-west-1"},
		{"region of the document", "https://bedrock.internal/gw", "us-west-2", key.ID + ":" + key.Secret, "", "us-west-2"},
		{"region of an endpoint", "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com", "eu", key.ID + ":" + key.Secret, "", "us-east-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := addressed(t, &bedrock, &anthropic, c.base, "/v1/messages", "anthropic.claude-x-v1:0", `{"model":"m","messages":[]}`)
			got.o.key, got.o.region, got.o.now = c.secret, c.region, func() time.Time { return now }
			req, err := http.NewRequest("POST", got.target, bytes.NewReader(got.o.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = got.o.head
			secrets, err := authorizeBedrock(t.Context(), got.o, req)
			if err != nil {
				t.Fatal(err)
			}
			k := key
			k.Token, k.Region = c.token, c.want
			r := doubles.Received{Method: req.Method, Target: req.URL.RequestURI(), Host: req.URL.Host, Header: req.Header, Body: got.o.body}
			if err := k.Verify(r); err != nil {
				t.Error(err)
			}
			if !strings.Contains(strings.Join(secrets, " "), key.Secret) || c.token != "" && len(secrets) != 2 {
				t.Errorf("%q", secrets)
			}
		})
	}
}

func TestAWSCredentialForms(t *testing.T) {
	for text, want := range map[string]string{ // the bearer, "-" = an access key, "" = refused
		"bedrock-api-key-abc": "bedrock-api-key-abc", "ABSKabc=": "ABSKabc=", "AKIAIOSFODNN7EXAMPLE:s": "-", "AKIAIOSFODNN7EXAMPLE:s:t": "-",
		"": "", "AKIAIOSFODNN7EXAMPLE:": "", "AKIAIOSFODNN7EXAMPLE:s s": "", "{}": "", `{"AccessKeyId":"AKIAIOSFODNN7EXAMPLE"}`: "", "{": "", "a\nb": "",
		`{"AccessKeyId":"A\nB","SecretAccessKey":"s"}`: "",
	} {
		c, bearer, err := awsCredential(text)
		switch {
		case want == "" && err == nil, want == "-" && (err != nil || c.SecretAccessKey != "s" || bearer != ""), want != "" && want != "-" && bearer != want:
			t.Errorf("%q: %+v %q %v", text, c, bearer, err)
		}
	}
	got := addressed(t, &bedrock, &anthropic, "https://bedrock.internal", "/v1/messages", "m", `{"model":"m"}`)
	got.o.key = "AKIAIOSFODNN7EXAMPLE:s"
	if _, err := authorizeBedrock(t.Context(), got.o, httptest.NewRequest("POST", "/", nil)); !errors.Is(err, errNoRegion) {
		t.Errorf("%v", err)
	}
}

// FuzzWithMembers: whatever stands in a request, only what was asked for changes.
func FuzzWithMembers(f *testing.F) {
	for _, s := range []string{`{}`, `{"model":"m"}`, ` { "a" : 1 , "model":"m" ,"stream":true, "b":[{"model":1}] } `, `{"model":1,"stream":2}`, `{"x":{}, "\u006dodel":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		tp, err := parse(src, nil, nil)
		if err != nil || tp.nodes[0].kind != kindObject {
			return
		}
		o := outbound{tape: &tp}
		version, model, stream := o.topMember("anthropic_version"), o.topMember("model"), o.topMember("stream")
		if tp.variant != 0 || version != 0 { // such requests are refused before
			return
		}
		out := tp.withMembers(`"anthropic_version":"v"`, model, stream)
		var was, is map[string]json.RawMessage
		if err := json.Unmarshal(src, &was); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &is); err != nil {
			t.Fatalf("%q -> %q: %v", src, out, err)
		}
		delete(was, "model")
		delete(was, "stream")
		if string(is["anthropic_version"]) != `"v"` || len(is) != len(was)+1 {
			t.Fatalf("%q -> %q", src, out)
		}
		for k, v := range was {
			if string(is[k]) != string(v) {
				t.Fatalf("%q -> %q: %s changed", src, out, k)
			}
		}
	})
}

func frame(headers map[string]string, payload string) string {
	return doubles.Frame(headers, []byte(payload))
}

func chunkFrame(event string) string {
	b, _ := json.Marshal(map[string][]byte{"bytes": []byte(event)})
	return frame(map[string]string{":message-type": "event", ":event-type": "chunk"}, string(b))
}

func TestFramesBecomeEvents(t *testing.T) {
	start := chunkFrame(`{"type":"message_start","x":"<é>"}`)
	const startEvent = "event: message_start\ndata: {\"type\":\"message_start\",\"x\":\"<é>\"}\n\n"
	flip := func(s string, at int) string {
		b := []byte(s)
		b[at] ^= 1
		return string(b)
	}
	for _, c := range []struct {
		name, in, out string
		bad           bool
	}{
		{"nothing", "", "", false},
		{"two", start + chunkFrame("{\"type\":\"ping\",\n\"a\":1}"), startEvent + "event: ping\ndata: {\"type\":\"ping\", \"a\":1}\n\n", false},
		{"others are left out", frame(map[string]string{":message-type": "event", ":event-type": "initial-response"}, "{}") + start, startEvent, false},
		{"exception", start + frame(map[string]string{":message-type": "exception", ":exception-type": "throttlingException"}, `{"message":"slow down"}`),
			startEvent + "event: error\ndata: " + string(anthropicError(&refusal{code: "throttlingException"}, 429, "slow down")) + "\n\n", false},
		{"error", frame(map[string]string{":message-type": "error", ":error-code": "InternalFailure", ":error-message": "oh"}, ""),
			"event: error\ndata: " + string(anthropicError(&refusal{code: "InternalFailure"}, 500, "oh")) + "\n\n", false},
		{"name with a line break", chunkFrame(`{"type":"a\ndata: x"}`), "event: a_data__x\ndata: {\"type\":\"a\\ndata: x\"}\n\n", false},
		{"cut in the prelude", start + start[:5], startEvent, true},
		{"cut after the prelude", start + start[:12], startEvent, true},
		{"cut in the payload", start + start[:len(start)-3], startEvent, true},
		{"length", flip(start, 2), "", true},
		{"checksum of the prelude", flip(start, 9), "", true},
		{"payload", flip(start, len(start)-9), "", true},
		{"checksum", flip(start, len(start)-1), "", true},
		{"no message type", frame(nil, "{}"), "", true},
		{"another message type", frame(map[string]string{":message-type": "x"}, "{}"), "", true},
		{"payload that is no JSON", frame(map[string]string{":message-type": "event", ":event-type": "chunk"}, "x"), "", true},
		{"bytes that are no JSON", chunkFrame("x"), "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in))} {
				out, err := io.ReadAll(newFrames(io.NopCloser(r), &anthropic))
				if string(out) != c.out || (err != nil) != c.bad || errors.Is(err, io.EOF) {
					t.Errorf("%q %v", out, err)
				}
			}
		})
	}
}

// FuzzFrames: what is no stream of frames costs no more than it is long, and what comes
// out are whole events.
func FuzzFrames(f *testing.F) {
	f.Add([]byte(chunkFrame(`{"type":"ping"}`)))
	f.Add([]byte(frame(map[string]string{":message-type": "exception", ":exception-type": "x"}, "{}")))
	f.Add([]byte("\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2\x48\xeb\x7d\x98\xc8\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, _ := io.ReadAll(newFrames(io.NopCloser(bytes.NewReader(in)), &anthropic))
		if s := string(out); s != "" && (!strings.HasPrefix(s, "event: ") || !strings.HasSuffix(s, "\n\n")) {
			t.Fatalf("%q", s)
		}
		if _, err := frameHeaders(in); err == nil && len(in) > 0 && len(in) < 2 {
			t.Fatal("headers without a type")
		}
	})
}

func TestPlatformErrorsAreInTheDialectsForm(t *testing.T) {
	for _, c := range []struct {
		name   string
		d      *dialect
		status int
		body   string
		want   []string
	}{
		{"bedrock", &anthropic, 429, `{"message":"Too many"}`, []string{`"type":"error"`, `"rate_limit_error"`, "Too many"}},
		{"google to anthropic", &anthropic, 403, `{"error":{"code":403,"message":"no access","status":"PERMISSION_DENIED"}}`, []string{`"type":"error"`, `"permission_error"`, "no access", `"code":"PERMISSION_DENIED"`}},
		{"google's list", &anthropic, 404, `[{"error":{"code":404,"message":"no model"}}]`, []string{`"not_found_error"`, "no model"}},
		{"anthropic's own", &anthropic, 400, `{"type":"error","error":{"type":"invalid_request_error","message":"x","own":1}}`, []string{`{"type":"error","error":{"type":"invalid_request_error","message":"x","own":1}}`}},
		{"google's own", &gemini, 400, `{"error":{"code":400,"message":"x","status":"INVALID_ARGUMENT"}}`, []string{`{"error":{"code":400,"message":"x","status":"INVALID_ARGUMENT"}}`}},
		{"no JSON", &anthropic, 502, "<html>", []string{"<html>"}},
		{"no message", &anthropic, 500, "{}", []string{"refused the call"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := &http.Response{StatusCode: c.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(c.body))}
			(&outbound{d: c.d}).ownError(resp, "")
			got, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range c.want {
				if !strings.Contains(string(got), w) {
					t.Errorf("%s lacks %s", got, w)
				}
			}
		})
	}
}

// through reaches a handler without a network.
type through struct {
	h     http.Handler
	calls atomic.Int64
	err   error
}

func (s *through) RoundTrip(req *http.Request) (*http.Response, error) {
	s.calls.Add(1)
	if s.err != nil {
		return nil, s.err
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	in := req.Clone(req.Context())
	in.Host, in.RequestURI = req.URL.Host, req.URL.RequestURI()
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, in)
	return w.Result(), nil
}

func TestGoogleTokens(t *testing.T) {
	g, err := doubles.NewGoogle()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	forward := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	g.Now = clock
	rt := &through{h: g}
	tokens := newGoogleTokens(clock)
	want := func(token string, calls int64) {
		t.Helper()
		got, err := tokens.token(t.Context(), g.Key, rt)
		if err != nil || got != token || rt.calls.Load() != calls {
			t.Errorf("%q %v after %d exchanges; want %q after %d", got, err, rt.calls.Load(), token, calls)
		}
	}
	var wg sync.WaitGroup
	for range 20 { // one exchange for all
		wg.Go(func() {
			if got, err := tokens.token(t.Context(), g.Key, rt); err != nil || got != "ya29.token-0" {
				t.Errorf("%q %v", got, err)
			}
		})
	}
	wg.Wait()
	want("ya29.token-0", 1)
	forward(57 * time.Minute)
	want("ya29.token-0", 1)
	forward(time.Minute + time.Second) // in its last two minutes
	want("ya29.token-1", 2)
	// A refusal is not asked again at once, and is over then.
	forward(time.Hour)
	g.Fail(1)
	for range 3 {
		if got, err := tokens.token(t.Context(), g.Key, rt); err == nil || !strings.Contains(err.Error(), "invalid_grant") || strings.Contains(err.Error(), "told") {
			t.Errorf("%q %v", got, err)
		}
	}
	if rt.calls.Load() != 3 {
		t.Errorf("%d exchanges", rt.calls.Load())
	}
	forward(tokenRetry)
	want("ya29.token-2", 4)
	// One that was refused before its time is not used again.
	tokens.forget(g.Key)
	want("ya29.token-3", 5)
	// A client that goes away takes nobody's token with it.
	forward(time.Hour)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := tokens.token(gone, g.Key, rt); err == nil && got != "ya29.token-4" {
		t.Errorf("%q %v", got, err)
	}
	want("ya29.token-4", 6)
}

func TestGoogleKeysThatAreNone(t *testing.T) {
	g, err := doubles.NewGoogle()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PRIVATE KEY-----\n"))
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		t.Fatal(err) // it is a key, of another kind
	}
	other := string(mustJSON(map[string]string{"type": "service_account", "client_email": "a@b", "private_key": string(pem.EncodeToMemory(block))}))
	rt := &through{h: g}
	for name, key := range map[string]string{
		"text": "AIza-x", "another kind": `{"type":"authorized_user","client_email":"a@b"}`, "no key": `{"type":"service_account","client_email":"a@b"}`,
		"another place": strings.Replace(g.Key, "https://oauth2.googleapis.com/token", "https://evil.example/token", 1), "no RSA": other, "nothing": "",
	} {
		if got, err := newGoogleTokens(time.Now).token(t.Context(), key, rt); !errors.Is(err, errBadKey) || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	if rt.calls.Load() != 0 {
		t.Error("asked for a token")
	}
	for name, answer := range map[string]string{
		"no token": `{}`, "another type": `{"access_token":"a","token_type":"mac","expires_in":60}`, "not for a header": `{"access_token":"a\nb","token_type":"Bearer","expires_in":60}`,
		"no life": `{"access_token":"a","token_type":"Bearer","expires_in":0}`, "no JSON": `x`, "too long": `{"x":"` + strings.Repeat("a", maxTokenAnswer) + `","access_token":"a"}`,
	} {
		rt := &through{h: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })}
		if got, err := newGoogleTokens(time.Now).token(t.Context(), g.Key, rt); !errors.Is(err, errToken) {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}
