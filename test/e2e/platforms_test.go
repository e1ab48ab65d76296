// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// onPlatform is a node whose provider of one dialect is on a platform, at a host of the
// platform's own name.
func onPlatform(t *testing.T, dialect, platform, base, key string, sites ...func(w *world)) *agents {
	t.Helper()
	a := &agents{w: newWorld(t), double: doubles.NewProvider()}
	host, _, _ := strings.Cut(strings.TrimPrefix(base, "https://"), "/")
	a.w.site(t, host, a.double)
	for _, site := range sites {
		site(a.w)
	}
	a.n = a.w.start(t, node.Options{})
	a.ws = a.n.Workspace(t)
	a.addProvider(t, "there", key, "--dialect", dialect, "--platform", platform, "--base-url", base)
	return a
}

// callOn makes one call of an unmodified library, which speaks its dialect to its own
// host and sees no platform.
func (a *agents) callOn(t *testing.T, program, mode string, secret string) {
	t.Helper()
	a.double.Reset()
	seq := a.sequence(t)
	r := a.call(t, a.clientProgram(t, program), mode)
	if streaming := strings.HasSuffix(mode, "-stream"); !r.OK || r.Text != a.double.Text || r.TokensIn != 11 || r.TokensOut != 7 || streaming != (r.Chunks > 3) {
		t.Errorf("%s %s: the client says %+v", program, mode, r)
	}
	all := a.double.Received()
	if len(all) != 1 {
		t.Fatalf("%d requests reached the platform", len(all))
	}
	if text := fmt.Sprint(all[0].Header) + string(all[0].Body) + all[0].Target; strings.Contains(text, placeholder) || secret != "" && strings.Contains(text, secret) {
		t.Errorf("the platform got %s", text)
	}
	if e := a.lastCall(t, seq); e.Verdict != event.Allowed || e.Status != 200 || e.Provider != "there" || e.Credential != "injected" {
		t.Errorf("event %+v", e)
	}
}

func TestAgentsOnAzure(t *testing.T) {
	const key = "azure-key-0123456789abcdef"
	a := onPlatform(t, "openai", "azure", "https://name.openai.azure.com/openai", key)
	a.double.Check = func(r doubles.Received) error {
		if r.Header.Get("Api-Key") != key || r.Target != "/openai/deployments/some-model-1/chat/completions?api-version=2024-10-21" {
			return fmt.Errorf("%s %v", r.Target, r.Header)
		}
		return nil
	}
	a.callOn(t, "openai-go", "chat", "")
	a.callOn(t, "openai-go", "chat-stream", "")
}

func TestAgentsOnBedrock(t *testing.T) {
	key := doubles.AWSKey{ID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", Region: "eu-west-1", Service: "bedrock"}
	a := onPlatform(t, "anthropic", "bedrock", "https://bedrock-runtime.eu-west-1.amazonaws.com", key.ID+":"+key.Secret)
	a.double.Check = key.Verify
	a.callOn(t, "anthropic-go", "messages", key.Secret)
	a.callOn(t, "anthropic-go", "messages-stream", key.Secret)
}

func TestAgentsOnVertex(t *testing.T) {
	g, err := doubles.NewGoogle()
	need(t, err)
	const base = "https://europe-west1-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west1"
	tokens := func(w *world) { w.site(t, "oauth2.googleapis.com", g) }
	for dialect, c := range map[string]struct{ program, mode string }{"anthropic": {"anthropic-go", "messages"}, "gemini": {"genai-go", "generate"}} {
		t.Run(dialect, func(t *testing.T) {
			a := onPlatform(t, dialect, "vertex", base, g.Key, tokens)
			a.double.Check = g.Verify
			a.callOn(t, c.program, c.mode, "PRIVATE KEY")
			a.callOn(t, c.program, c.mode+"-stream", "PRIVATE KEY")
		})
	}
	if n := len(g.Tokens()); n != 2 { // one for each daemon
		t.Errorf("%d tokens", n)
	}
}

// TestAgentsAtAHostOfTheFamily: nobody answers there until a document names the host.
func TestAgentsAtAHostOfTheFamily(t *testing.T) {
	a := &agents{w: newWorld(t), double: doubles.NewProvider()}
	a.w.site(t, "llm.test", a.double)
	a.n = a.w.start(t, node.Options{})
	a.ws = a.n.Workspace(t)
	ask := curl("https://api.groq.com/openai/v1/chat/completions", jsonHeader+`-d '{"model":"m","messages":[{"role":"user","content":"hi"}]}'`)
	r := sandboxed(t, a.n, a.ws, "coding", ask)
	contains(t, "without a document", r.Stdout+r.Stderr, "status=403", "hosts: [api.groq.com]")
	a.addProvider(t, "groq", openAIKey, "--dialect", "openai", "--base-url", "https://llm.test/openai/v1")
	r = sandboxed(t, a.n, a.ws, "coding", ask)
	contains(t, "with another one", r.Stdout+r.Stderr, "status=403", "hosts: [api.groq.com]")
	doc := put(t, a.ws, "groq.yaml", `apiVersion: ringfence.dev/v1
kind: Provider
metadata: {name: named}
dialect: openai
baseURL: https://llm.test/v1
secret: groq
hosts: [api.groq.com]
`)
	if r := a.n.CLI(t, "policy", "apply", doc, "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	r = sandboxed(t, a.n, a.ws, "coding", ask)
	contains(t, "with one that names it", r.Stdout, "status=200", a.double.Text)
	arrived(t, a.double.Last(), openAIKey, placeholder)
	if n := len(a.double.Received()); n != 1 {
		t.Errorf("%d requests", n)
	}
}
