// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
)

// TestModelCallsAreRouted: two providers, a model name of the operator's own, a
// failure that the agent does not see, a switch while the agent runs, and the kill
// switch, with the daemon and an unmodified client.
func TestModelCallsAreRouted(t *testing.T) {
	a := newAgents(t)
	a.addProvider(t, "spare", "sk-the-key-of-spare-0001", "--dialect", "openai", "--base-url", "https://spare.test/v1")
	a.double.Text, a.spare.Text = "from the first", "from the spare"
	apply := func(name, text string) {
		t.Helper()
		if r := a.n.CLI(t, "policy", "apply", put(t, a.ws, name, text), "--wait"); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	apply("routes.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: routes}\nscope: org:local\nroutes:\n"+
		"  - {id: fast, models: [fast], to: [{provider: openai, model: gpt-5-mini}, {provider: spare, model: gpt-5-mini, priority: 2}]}\n")
	call := func() string {
		t.Helper()
		r := sandboxed(t, a.n, a.ws, "default", chat("fast", "hi"))
		return r.Stdout + r.Stderr
	}
	if out := call(); !strings.Contains(out, "status=200") || !strings.Contains(out, "from the first") {
		t.Fatalf("control: %s", out)
	}
	if body := string(a.double.Last().Body); !strings.Contains(body, `"model":"gpt-5-mini"`) {
		t.Errorf("sent as %s", body)
	}

	a.double.Fail(doubles.Fault{Status: 500, Body: `{"error":{"message":"broken"}}`})
	if out := call(); !strings.Contains(out, "status=200") || !strings.Contains(out, "from the spare") {
		t.Errorf("the failure is the agent's: %s", out)
	}
	if auth := a.spare.Last().Header.Get("Authorization"); auth != "Bearer sk-the-key-of-spare-0001" {
		t.Errorf("the spare got %q", auth)
	}
	a.n.WaitEvent(t, "the call that failed over", func(e *event.Event) bool {
		return e.Kind == event.KindInference && e.Provider == "spare" && e.Tried == "openai/gpt-5-mini: 500" && e.Route == "routes/fast" && e.Model == "fast" && e.ModelServed == "gpt-5-mini"
	})

	if r := a.n.CLI(t, "inference", "set", "fast", "--provider", "spair", "--scope", "org:local"); r.Code == 0 || !strings.Contains(r.Stderr, "there is") {
		t.Errorf("a switch to nobody: %s", r.Stderr)
	}
	if r := a.n.CLI(t, "inference", "unset", "fst", "--scope", "org:local"); r.Code == 0 || !strings.Contains(r.Stderr, `nothing was set for the model "fst"`) {
		t.Errorf("%s", r.Stderr)
	}
	if r := a.n.CLI(t, "inference", "set", "fast", "--provider", "spare", "--model", "other-model", "--scope", "org:local", "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if out := call(); !strings.Contains(out, "from the spare") || !strings.Contains(string(a.spare.Last().Body), "other-model") {
		t.Errorf("after the switch: %s", out)
	}
	if r := a.n.CLI(t, "explain", "--as", "org:local/team:default/agent:sh", "model", "fast"); r.Code != 0 || !strings.Contains(r.Stdout, "other-model") || !strings.Contains(r.Stdout, "route     switch-") {
		t.Errorf("%s %s", r.Stdout, r.Stderr)
	}
	if r := a.n.CLI(t, "inference", "unset", "fast", "--scope", "org:local", "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if out := call(); !strings.Contains(out, "from the first") {
		t.Errorf("after it was taken back: %s", out)
	}

	if r := a.n.CLI(t, "inference", "stop", "--scope", "org:local", "--reason", "a key has leaked", "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if out := call(); strings.Contains(out, "status=200") {
		t.Errorf("after the stop: %s", out)
	}
	if r := a.n.CLI(t, "inference", "start", "--scope", "org:local", "--wait"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if out := call(); !strings.Contains(out, "from the first") {
		t.Errorf("after the start: %s", out)
	}
}

// A key is rotated by replacing its file: the next call has the new one, and nothing
// was restarted.
func TestAKeyIsRotatedInPlace(t *testing.T) {
	a := newAgents(t)
	call := func() string {
		t.Helper()
		r := sandboxed(t, a.n, a.ws, "default", chat("m", "hi"))
		if !strings.Contains(r.Stdout, "status=200") {
			t.Fatal(r.Stdout, r.Stderr)
		}
		return a.double.Last().Header.Get("Authorization")
	}
	if got := call(); got != "Bearer "+openAIKey {
		t.Fatalf("control: %q", got)
	}
	gateway, _ := a.n.Gateway(t)
	file := filepath.Join(a.n.StateDir, "secrets", "openai")
	need(t, os.WriteFile(file+".new", []byte("sk-the-next-key-0002\n"), 0o600))
	need(t, os.Rename(file+".new", file))
	eventually(t, "the new key is used", func() bool { return call() == "Bearer sk-the-next-key-0002" })
	if now, ok := a.n.Gateway(t); !ok || now != gateway {
		t.Error("the gateway was restarted")
	}
	need(t, os.Chmod(file, 0o644))
	eventually(t, "a key that others may read is not used", func() bool {
		r := sandboxed(t, a.n, a.ws, "default", chat("m", "hi"))
		return strings.Contains(r.Stdout, "status=503") && strings.Contains(r.Stdout, "missing or unusable")
	})
}
