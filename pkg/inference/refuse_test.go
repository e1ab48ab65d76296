// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
)

// raw sends a request line as it is, since Go's client would tidy it.
func (f *fence) raw(method, host, target string) (int, string) {
	f.t.Helper()
	tr := f.client.Transport.(*http.Transport)
	conn, err := tr.DialContext(f.t.Context(), "tcp", "")
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	cfg := tr.TLSClientConfig.Clone()
	cfg.ServerName, cfg.NextProtos = host, []string{"http/1.1"}
	tc := tls.Client(conn, cfg)
	body := simple
	if method == "GET" {
		body = ""
	}
	_, err = fmt.Fprintf(tc, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		method, target, host, len(body), body)
	if err != nil {
		f.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(tc), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func TestOnlyTheTableOfPathsPasses(t *testing.T) {
	f := newFence(t, setup{})
	if code, body := f.raw("POST", openAIHost, "/v1/chat/completions"); code != 200 {
		t.Fatalf("control: %d %s", code, body)
	}
	f.double.Reset()
	f.event()
	for _, c := range []struct{ method, host, target string }{
		{"POST", openAIHost, "//v1/chat/completions"},
		{"POST", openAIHost, "/v1//chat/completions"},
		{"POST", openAIHost, "/v1/chat/completions/"},
		{"POST", openAIHost, "/v1/chat/./completions"},
		{"POST", openAIHost, "/v1/files/../chat/completions"},
		{"POST", openAIHost, "/v1/%63hat/completions"},
		{"POST", openAIHost, "/v1/chat%2fcompletions"},
		{"POST", openAIHost, "/v1/chat/%2e%2e/chat/completions"},
		{"POST", openAIHost, "/v1/chat/completions;x=1"},
		{"POST", openAIHost, "/V1/chat/completions"},
		{"POST", openAIHost, "/chat/completions"},
		{"POST", openAIHost, "/v1/chat/completions?key=" + placeholder},
		{"POST", openAIHost, "/v1/chat/completions?api-version=1"},
		{"POST", openAIHost, "/v1/chat/completions?"},
		{"GET", openAIHost, "/v1/models/a%2fb"},
		{"GET", openAIHost, "/v1/models/.."},
		{"GET", openAIHost, "/v1/responses/a?stream=1;key=2"},
		{"GET", openAIHost, "/v1/responses/a?limit=%zz"},
		{"GET", openAIHost, "/v1/models?limit=1"},
		{"GET", openAIHost, "/v1/chat/completions"},
		{"GET", openAIHost, "/v1/responses"},
		{"PUT", openAIHost, "/v1/chat/completions"},
		{"HEAD", openAIHost, "/v1/models"},
		{"OPTIONS", openAIHost, "/v1/chat/completions"},
		{"DELETE", openAIHost, "/v1/models/m"},
		{"GET", openAIHost, "/v1/files"},
		{"POST", openAIHost, "/v1/files"},
		{"GET", openAIHost, "/v1/organization/admin_api_keys"},
		{"POST", openAIHost, "/v1/batches"},
		{"POST", openAIHost, "/v1/audio/transcriptions"},
		{"GET", openAIHost, "/"},
		{"POST", claudeHost, "/v1/chat/completions"},
		{"POST", claudeHost, "/v1/messages/batches"},
		{"POST", claudeHost, "/v1/complete"},
		{"POST", claudeHost, "/api/event_logging/batch"},
		{"POST", claudeHost, "/v1/messages?beta=true&beta=true"},
		{"POST", geminiHost, "/v1beta/models/m:streamGenerateContent"},
		{"POST", geminiHost, "/v1beta/models/m:streamGenerateContent?key=x"},
		{"POST", geminiHost, "/v1beta/models/m:streamGenerateContent?alt=json"},
		{"POST", geminiHost, "/v1beta/models/m:streamGenerateContent?alt=sse&alt=json"},
		{"POST", geminiHost, "/v1beta/models/m:generateContent?alt=sse"},
		{"POST", geminiHost, "/v1beta/models/m:generateContent?fields=candidates"},
		{"POST", geminiHost, "/v1beta/models/m:generateContent?access_token=x"},
		{"POST", geminiHost, "/v1beta/models/m:generateContent?$alt=sse"},
		{"POST", geminiHost, "/v1beta/models/:generateContent"},
		{"POST", geminiHost, "/v1beta/models/m:generateContent:countTokens"},
		{"POST", geminiHost, "/v1beta/models/m%3AgenerateContent"},
		{"POST", geminiHost, "/v1beta/models/a/b:generateContent"},
		{"POST", geminiHost, "/v1beta/models/m:predict"},
		{"POST", geminiHost, "/v1beta/models/m:asyncBatchEmbedContent"},
		{"POST", geminiHost, "/v1beta/models/m:batchGenerateContent"},
		{"POST", geminiHost, "/v1beta/tunedModels/m:generateContent"},
		{"POST", geminiHost, "/v1beta/openai/chat/completions"},
		{"POST", geminiHost, "/v1beta/files"},
		{"POST", geminiHost, "/upload/v1beta/files"},
		{"POST", geminiHost, "/v1beta/cachedContents"},
		{"POST", geminiHost, "/v1beta/interactions"},
		{"POST", geminiHost, "/v1alpha/models/m:generateContent"},
		{"GET", geminiHost, "/v1beta/models/m:generateContent"},
		{"GET", geminiHost, "/v1beta/models?filter=x"},
		{"GET", geminiHost, "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"},
		{"GET", geminiHost, "/v1beta/files/x"},
		{"DELETE", geminiHost, "/v1beta/models/m"},
	} {
		code, body := f.raw(c.method, c.host, c.target)
		if code != 403 || c.method != "HEAD" && !strings.Contains(body, `"code":"ringfence_denied"`) {
			t.Errorf("%s %s: %d %s", c.method, c.target, code, body)
		}
		if c.host == claudeHost && !strings.HasPrefix(body, `{"error":{"type":"permission_error"`) {
			t.Errorf("not Anthropic's form: %s", body)
		}
		if c.host == geminiHost && (!strings.HasPrefix(body, `{"error":{"code":403,"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo"`) || !strings.Contains(body, `"status":"PERMISSION_DENIED"`)) {
			t.Errorf("not Google's form: %s", body)
		}
		if ev := f.event(); ev.Verdict != event.Denied || ev.Status != 403 || strings.Contains(ev.URL, "?") {
			t.Errorf("%s %s: event %+v", c.method, c.target, ev)
		}
	}
	if got := f.double.Received(); len(got) != 0 {
		t.Errorf("reached the provider: %+v", got)
	}
}

func TestMalformedBodiesAreRefused(t *testing.T) {
	f := newFence(t, setup{opt: inference.Options{MaxBody: 2 << 20}})
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(simple))
	_ = z.Close()
	deep := strings.Repeat("[", 500) + strings.Repeat("]", 500)
	for _, c := range []struct {
		name, body string
		header     []string
		status     int
	}{
		{"duplicate model", `{"model":"m","model":"big","messages":[]}`, nil, 400},
		{"duplicate model, escaped", `{"model":"m","mod\u0065l":"big","messages":[]}`, nil, 400},
		{"duplicate tools", `{"model":"m","tools":[],"tools":[{"type":"mcp"}]}`, nil, 400},
		{"duplicate stream", `{"model":"m","stream":false,"stream":true}`, nil, 400},
		{"duplicate type in a tool", `{"model":"m","tools":[{"type":"function","type":"mcp"}]}`, nil, 400},
		{"duplicate among many keys", `{"model":"m","a1":1,"a2":1,"a3":1,"a4":1,"a5":1,"a6":1,"a7":1,"a8":1,"a9":1,"b1":1,"b2":1,"b3":1,"b4":1,"model":"x"}`, nil, 400},
		{"model in other letters", `{"Model":"big","messages":[]}`, nil, 400},
		{"tools in other letters", `{"model":"m","TOOLS":[]}`, nil, 400},
		{"model with a long s folded", `{"model":"m","tool\u017f":[]}`, nil, 400},
		{"model is not a string", `{"model":["m"],"messages":[]}`, nil, 400},
		{"model with a space", `{"model":"m ","messages":[]}`, nil, 400},
		{"model with a newline", `{"model":"m\n","messages":[]}`, nil, 400},
		{"no model", `{"messages":[]}`, nil, 400},
		{"stream is not a boolean", `{"model":"m","stream":"true"}`, nil, 400},
		{"invalid UTF-8", "{\"model\":\"m\",\"x\":\"\xff\"}", nil, 400},
		{"invalid UTF-8 in a key", "{\"model\":\"m\",\"x\xc0\x80\":1}", nil, 400},
		{"deep nesting", `{"model":"m","x":` + deep + `}`, nil, 400},
		{"an array", `[{"model":"m"}]`, nil, 400},
		{"a string", `"model"`, nil, 400},
		{"two documents", `{"model":"m"}{"model":"big"}`, nil, 400},
		{"trailing text", `{"model":"m"} x`, nil, 400},
		{"byte order mark", "\xef\xbb\xbf" + simple, nil, 400},
		{"a comment", `{"model":"m"/*x*/}`, nil, 400},
		{"trailing comma", `{"model":"m",}`, nil, 400},
		{"NaN", `{"model":"m","x":NaN}`, nil, 400},
		{"leading zero", `{"model":"m","x":01}`, nil, 400},
		{"single quotes", `{'model':'m'}`, nil, 400},
		{"raw control character", "{\"model\":\"m\",\"x\":\"\x01\"}", nil, 400},
		{"cut", `{"model":"m"`, nil, 400},
		{"too many values", `{"model":"m","x":[` + strings.Repeat("0,", 1<<19) + `0]}`, nil, 400},
		{"too large", `{"model":"m","x":"` + strings.Repeat("a", 2<<20) + `"}`, nil, 413},
		{"compressed", zipped.String(), []string{"Content-Encoding", "gzip"}, 415},
		{"not JSON by its type", simple, []string{"Content-Type", "text/plain"}, 415},
		{"multipart", simple, []string{"Content-Type", "multipart/form-data; boundary=x"}, 415},
		{"UTF-16", simple, []string{"Content-Type", "application/json; charset=utf-16"}, 415},
		{"upgrade", simple, []string{"Upgrade", "websocket", "Connection", "Upgrade"}, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := f.chat(c.body, c.header...)
			if resp.StatusCode != c.status || !json.Valid([]byte(body)) || !strings.Contains(body, `"error":{"message":"Ringfence`) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if ev := f.event(); ev.Verdict != event.Denied || ev.Status != uint32(c.status) || ev.Reason == "" {
				t.Errorf("event %+v", ev)
			}
			if n := len(f.double.Received()); n != 0 {
				t.Errorf("reached the provider")
			}
		})
	}
}

func TestBodyThatStalls(t *testing.T) {
	f := newFence(t, setup{opt: inference.Options{BodyIdle: 50 * time.Millisecond}})
	conn, err := tls.Dial("tcp", f.gateAddr(), f.clientTLS(openAIHost))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", openAIHost)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("%d", resp.StatusCode)
	}
}

func TestBodiesHeldAreBounded(t *testing.T) {
	f := newFence(t, setup{opt: inference.Options{MaxBuffered: 96 << 10}})
	big := `{"model":"m","x":"` + strings.Repeat("a", 100<<10) + `"}`
	if resp, body := f.chat(big); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	f.event()
	f.call.Sandbox = "sb2"
	if resp, body := f.chat(`{"model":"m","x":[` + strings.Repeat("0,", 20<<10) + `0]}`); resp.StatusCode != 503 {
		t.Errorf("many values: %d %s", resp.StatusCode, body)
	}
	f.event()
	for range 50 { // what was held is given back
		if resp, body := f.chat(simple); resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		f.event()
	}
}

func TestDeniedModel(t *testing.T) {
	f := newFence(t, setup{view: view{deniedModel: "big"}})
	resp, body := f.chat(`{"model":"big","messages":[]}`)
	var e struct {
		Error struct{ Message, Type, Code, Param string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 403 || e.Error.Code != "ringfence_denied" || e.Error.Param != "model" || !strings.Contains(e.Error.Message, "too expensive") ||
		strings.Contains(body, "no-big") || strings.Contains(body, "p.yaml") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	ev := f.event()
	if ev.Verdict != event.Denied || ev.Rule != "eng/no-big" || ev.RuleAt != "p.yaml:7" || ev.ReasonCode != "rule" || ev.Model != "big" || ev.Revision != 3 {
		t.Errorf("event %+v", ev)
	}
	resp, body = f.message(`{"model":"big","max_tokens":1,"messages":[]}`)
	if resp.StatusCode != 403 || !strings.Contains(body, `"type":"permission_error"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if len(f.double.Received()) != 0 {
		t.Error("reached the provider")
	}
}

func TestNoPolicyDenies(t *testing.T) {
	f := newFence(t, setup{})
	f.call.View = nil
	if resp, body := f.chat(simple); resp.StatusCode != 403 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func (f *fence) gateAddr() string {
	conn, err := f.client.Transport.(*http.Transport).DialContext(f.t.Context(), "tcp", "")
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.RemoteAddr().(*net.TCPAddr).String()
}

func (f *fence) clientTLS(host string) *tls.Config {
	cfg := f.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.ServerName, cfg.NextProtos = host, []string{"http/1.1"}
	return cfg
}
