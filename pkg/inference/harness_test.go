// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/test/doubles"
)

const (
	realKey     = "sk-real-0123456789abcdefREAL"
	placeholder = "sk-placeholder-not-a-key"
	openAIHost  = "api.openai.com"
	claudeHost  = "api.anthropic.com"
	geminiHost  = "generativelanguage.googleapis.com"
)

// view is a policy: every model but the denied ones, the listed tools.
type view struct {
	deniedModel string
	tools       map[string]bool
}

func (v view) Inference(_, model string) policy.Decision {
	if model == v.deniedModel {
		return policy.Decision{Reason: "too expensive", ReasonCode: "rule", Rule: policy.RuleRef{Doc: "eng", ID: "no-big", File: "p.yaml", Line: 7}, Revision: 3}
	}
	return policy.Decision{Effect: policy.Allow, ReasonCode: "builtin", Revision: 3}
}

func (v view) InferenceAt(p *policy.Provider, model string) policy.Decision {
	return v.Inference(p.Dialect, model)
}

func (v view) ProviderTool(tool string) policy.Decision {
	return policy.Decision{Effect: effectOf(v.tools[tool]), ReasonCode: "no-rule", Revision: 3}
}

// providers is a snapshot.
type providers map[string]*policy.Provider

func (p providers) Providers() (out []*policy.Provider) {
	for _, name := range slices.Sorted(maps.Keys(p)) {
		out = append(out, p[name])
	}
	return out
}

func (p providers) Trial(dialect string) bool { return p[dialect] == nil }

func (p providers) RouteFor(string) *policy.Route { return nil }

// fence is a Redirector behind a TLS server, as the gateway runs it, in front
// of a provider double.
type fence struct {
	t      *testing.T
	double *doubles.Provider
	client *http.Client
	call   inference.Call // template

	mu     sync.Mutex
	events []event.Event
}

type setup struct {
	opt    inference.Options
	view   view
	trial  bool
	h2     bool // the sandbox speaks HTTP/2
	change func(p *policy.Provider)
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// newFence starts everything; it stops with the test.
func newFence(t *testing.T, s setup) *fence {
	t.Helper()
	f := &fence{t: t, double: doubles.NewProvider()}
	ca, err := doubles.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	up, err := ca.Serve(nil, f.double, "provider.example")
	if err != nil {
		t.Fatal(err)
	}
	if s.dial == nil {
		s.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, up.Addr.String())
		}
	}
	tr := &http.Transport{DialContext: s.dial, TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, ForceAttemptHTTP2: true}
	snap := providers{}
	if !s.trial {
		for _, d := range []string{"openai", "anthropic", "gemini"} {
			p := &policy.Provider{Name: d + "-main", Dialect: d, BaseURL: "https://provider.example", Keys: []policy.Key{{Secret: d, Weight: 1}}, Weight: 1, Credential: policy.CredentialInject}
			if d == "openai" {
				p.BaseURL += "/v1"
			}
			if s.change != nil {
				s.change(p)
			}
			snap[d] = p
		}
	}
	f.call = inference.Call{View: s.view, Snapshot: snap, Sandbox: "sb1", Scope: "org:local/team:default/agent:test",
		Secrets: func(name string) (string, bool) {
			return realKey, name == "openai" || name == "anthropic" || name == "gemini"
		},
		Transport: func(*policy.Provider) http.RoundTripper { return tr },
		Record: func(e event.Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, e)
		}}
	gate, err := ca.Serve(nil, f.handler(s.opt), openAIHost, claudeHost, geminiHost)
	if err != nil {
		t.Fatal(err)
	}
	in := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, DisableCompression: true, ForceAttemptHTTP2: s.h2,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, gate.Addr.String())
		}}
	f.client = &http.Client{Transport: in}
	t.Cleanup(func() {
		in.CloseIdleConnections()
		_ = gate.Close()
		tr.CloseIdleConnections()
		_ = up.Close()
	})
	return f
}

// serveDouble serves a double under a name, and gives the way to it.
func serveDouble(t *testing.T, h http.Handler, name string) http.RoundTripper {
	t.Helper()
	ca, err := doubles.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	up, err := ca.Serve(nil, h, name)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, up.Addr.String())
		}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		_ = up.Close()
	})
	return tr
}

// handler hands requests to a Redirector as the gateway does.
func (f *fence) handler(o inference.Options) http.Handler {
	red := inference.New(o)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := f.call
		c.Host, c.Dialect = req.Host, "openai"
		if agent := req.Header.Get("Test-Agent"); agent != "" {
			c.Scope = "org:local/team:default/agent:" + agent + "/sandbox:sb1"
		}
		if box := req.Header.Get("Test-Sandbox"); box != "" {
			c.Sandbox = box
		}
		switch req.Host {
		case claudeHost:
			c.Dialect = "anthropic"
		case geminiHost:
			c.Dialect = "gemini"
		}
		red.ServeHTTP(w, req, c)
	})
}

// ask sends one request to a host with the placeholder credential.
func (f *fence) ask(method, url, body string, header ...string) (*http.Response, string) {
	f.t.Helper()
	resp, err := f.try(method, url, body, header...)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		f.t.Fatalf("read answer: %v", err)
	}
	return resp, string(b)
}

func (f *fence) try(method, url, body string, header ...string) (*http.Response, error) {
	var rd io.Reader
	if body != "" {
		rd = bytes.NewReader([]byte(body))
	}
	req, err := http.NewRequest(method, url, rd)
	if err != nil {
		f.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+placeholder)
	req.Header.Set("X-Api-Key", placeholder)
	req.Header.Set("X-Goog-Api-Key", placeholder)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return f.client.Do(req)
}

func (f *fence) chat(body string, header ...string) (*http.Response, string) {
	f.t.Helper()
	return f.ask("POST", "https://"+openAIHost+"/v1/chat/completions", body, header...)
}

func (f *fence) message(body string, header ...string) (*http.Response, string) {
	f.t.Helper()
	return f.ask("POST", "https://"+claudeHost+"/v1/messages", body, header...)
}

// geminiPath is where a model of the Gemini API is called.
func geminiPath(model, verb string) string {
	return "https://" + geminiHost + "/v1beta/models/" + model + ":" + verb
}

// event waits for the one event of the only call so far.
func (f *fence) event() event.Event {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	doubles.Eventually(ctx, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.events) > 0
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.events) != 1 {
		f.t.Fatalf("%d events, want 1: %+v", len(f.events), f.events)
	}
	e := f.events[0]
	f.events = nil
	return e
}

// holds reports where a text is in a received request: "" if nowhere.
func holds(r doubles.Received, text string) string {
	if bytes.Contains(r.Body, []byte(text)) {
		return "body"
	}
	if strings.Contains(r.Target, text) {
		return "target"
	}
	for k, vs := range r.Header {
		for _, v := range vs {
			if strings.Contains(v, text) {
				return "header " + k
			}
		}
	}
	return ""
}

func effectOf(allowed bool) policy.Effect {
	if allowed {
		return policy.Allow
	}
	return policy.Block
}
