// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
)

// at asks at another host of the dialect.
func (f *fence) at(host, path, body string) (*http.Response, string) {
	f.t.Helper()
	req, err := http.NewRequest("POST", "https://"+openAIHost+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+placeholder)
	resp, err := f.client.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp, string(b)
}

// TestFamilyHostsAreAddressedAsTheirLibrariesDo: under their own paths, and answered by
// a provider that names them, wherever that is.
func TestFamilyHostsAreAddressedAsTheirLibrariesDo(t *testing.T) {
	for _, c := range []struct{ host, path, base, target string }{
		{"api.groq.com", "/openai/v1/chat/completions", "https://provider.example/openai/v1", "/openai/v1/chat/completions"},
		{"api.groq.com", "/openai/v1/chat/completions", "https://provider.example/v1", "/v1/chat/completions"},
		{"api.groq.com", "/openai/v1/chat/completions", "https://provider.example", "/v1/chat/completions"},
		{"openrouter.ai", "/api/v1/chat/completions", "https://provider.example/api/v1", "/api/v1/chat/completions"},
		{"api.mistral.ai", "/v1/chat/completions", "https://provider.example/v1", "/v1/chat/completions"},
		{"api.deepseek.com", "/chat/completions", "https://provider.example/v1", "/v1/chat/completions"},
		{"api.deepseek.com", "/v1/chat/completions", "https://provider.example/v1", "/v1/chat/completions"},
		{"api.deepseek.com", "/beta/chat/completions", "https://provider.example/v1", "/v1/chat/completions"},
		{"api.fireworks.ai", "/inference/v1/embeddings", "https://provider.example/inference/v1", "/inference/v1/embeddings"},
		{"api.z.ai", "/api/paas/v4/chat/completions", "https://provider.example/api/paas/v4", "/api/paas/v4/chat/completions"},
		{"open.bigmodel.cn", "/api/coding/paas/v4/chat/completions", "https://provider.example/v1", "/v1/chat/completions"},
		{"provider.example", "/gw/v1/chat/completions", "https://provider.example/gw/v1", "/gw/v1/chat/completions"}, // on its base URL
		{"provider.example", "/v1/chat/completions", "https://provider.example/gw/v1", "/gw/v1/chat/completions"},
	} {
		t.Run(c.host+c.path, func(t *testing.T) {
			f := newFence(t, setup{change: func(p *policy.Provider) { p.BaseURL, p.Hosts = c.base, []string{c.host} }})
			resp, body := f.at(c.host, c.path, simple)
			got := f.double.Last()
			if got.Target != c.target || got.Header.Get("Authorization") != "Bearer "+realKey || string(got.Body) != simple {
				t.Errorf("%d %s: %+v", resp.StatusCode, body, got)
			}
			if ev := f.event(); ev.URL != "https://"+c.host+c.path {
				t.Errorf("event %+v", ev)
			}
		})
	}
}

func TestFamilyHostsNeedTheirProvider(t *testing.T) {
	f := newFence(t, setup{})
	for _, c := range []struct {
		host, path string
		status     int
		says       string
	}{
		{"api.groq.com", "/openai/v1/chat/completions", 503, "hosts: [api.groq.com]"},
		{"openrouter.ai", "/api/v1/chat/completions", 503, "hosts: [openrouter.ai]"},
		{"api.groq.com", "/v1/chat/completions", 503, "hosts: [api.groq.com]"}, // its libraries do not ask so; it means nothing else
		{"api.groq.com", "/openai/v1/files", 403, "outside the fence"},
		{"api.groq.com", "/openai/v1/../v1/chat/completions", 403, "not in plain form"},
		{"openrouter.ai", "/api/v1/keys", 403, "not an offered operation"},
		{"api.deepseek.com", "/user/balance", 403, "not an offered operation"},
	} {
		resp, body := f.at(c.host, c.path, simple)
		if resp.StatusCode != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s%s: %d %s", c.host, c.path, resp.StatusCode, body)
		}
		f.event()
	}
	if len(f.double.Received()) != 0 {
		t.Error("reached a provider")
	}
	// Where nothing is configured the trial provider answers at the main host alone.
	f = newFence(t, setup{trial: true})
	if resp, body := f.at("api.groq.com", "/openai/v1/chat/completions", simple); resp.StatusCode != 503 || !strings.Contains(body, "hosts: [api.groq.com]") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	f.event()
	if resp, body := f.chat(simple); resp.StatusCode != 200 {
		t.Errorf("control: %d %s", resp.StatusCode, body)
	}
}
