// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
)

// stubInference answers with what it was told.
type stubInference struct{}

func (stubInference) ServeHTTP(w http.ResponseWriter, r *http.Request, c inference.Call) {
	key, ok := c.Secrets("openai")
	d := c.View.Inference(c.Dialect, "gpt-x")
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"host": c.Host, "dialect": c.Dialect, "sandbox": c.Sandbox, "scope": c.Scope,
		"key": key, "has": ok, "allowed": d.Allowed(), "proto": r.Proto, "path": r.URL.Path})
	c.Record(event.Event{Kind: event.KindInference, Time: time.Now(), Verdict: event.Allowed, Layer: "inference", ReasonCode: "rule",
		Provider: "p", Model: "gpt-x", Status: 200, TokensIn: 3, TokensOut: 5, Credential: "injected"})
}

func TestProviderHostsGoToInference(t *testing.T) {
	r := newRig(t, closedPolicy, rigOptions{inference: stubInference{}})
	r.g.SetSecrets(map[string]string{"openai": "sk-real"})
	for _, h2 := range []bool{false, true} {
		resp, err := r.client(r.keeper.ca.pool(), h2).Post("https://api.openai.com/v1/chat/completions", "application/json", strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got["dialect"] != "openai" || got["host"] != "api.openai.com" || got["key"] != "sk-real" || got["sandbox"] != "sbx-1" ||
			got["allowed"] != true || got["scope"] != "org:local/team:default/agent:test" {
			t.Errorf("%v", got)
		}
	}
	ev := r.event("call", func(e *event.Event) bool { return e.Kind == event.KindInference })
	if ev.Sandbox != "sbx-1" || ev.Revision != 1 || ev.Source != "gateway" {
		t.Errorf("event %+v", ev)
	}
	mf, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range mf {
		for _, m := range f.GetMetric() {
			found[f.GetName()] += m.GetCounter().GetValue()
		}
	}
	if found["ringfence_inference_tokens_total"] != 16 || found["ringfence_bpf_verdicts_total"] != 7 || found["ringfence_metrics_rejected_total"] != 1 {
		t.Errorf("metrics %v", found)
	}
}

func TestProviderHostRefusals(t *testing.T) {
	r := newRig(t, docHead+"inference:\n  - {id: none, deny: \"*\"}\n", rigOptions{inference: stubInference{}, explain: true})
	resp, err := r.inside(false).Get("https://api.anthropic.com/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 403 {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
}

func TestTheRealRedirectorAnswersWithTheTrialProvider(t *testing.T) {
	r := newRig(t, closedPolicy, rigOptions{})
	resp, err := r.client(r.keeper.ca.pool(), true).Post("https://api.openai.com/v1/chat/completions", "application/json",
		strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || !strings.Contains(string(b), "choices") {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
	r.event("trial call", func(e *event.Event) bool { return e.Kind == event.KindInference && e.Credential == "trial" })
}

func TestProviderAtALiteralAddressGetsTheRealKey(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 8)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		got <- req.Header.Get("Authorization") + " " + req.URL.Path + " " + string(b)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"x","object":"chat.completion","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}`)
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	doc := "apiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: double}\nscope: org:local\ndialect: openai\nbaseURL: http://" +
		l.Addr().String() + "/v1\nsecret: openai\ncredential: inject\n"
	r := newRig(t, doc, rigOptions{})
	r.g.SetSecrets(map[string]string{"openai": "sk-real"})
	body := `{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"unknown":1}`
	req, _ := http.NewRequest("POST", "https://api.openai.com/v1/chat/completions", strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer placeholder")
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.client(r.keeper.ca.pool(), true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, b)
	}
	if seen := <-got; seen != "Bearer sk-real /v1/chat/completions "+body {
		t.Errorf("the provider saw %q", seen)
	}
	ev := r.event("call", func(e *event.Event) bool { return e.Kind == event.KindInference })
	if ev.Credential != "injected" || ev.TokensIn != 4 || ev.TokensOut != 2 || ev.Provider != "double" {
		t.Errorf("event %+v", ev)
	}
}
