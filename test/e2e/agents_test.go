// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/clients"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

const (
	openAIKey    = "sk-real-openai-0123456789abcdef"
	anthropicKey = "sk-ant-real-0123456789abcdef"
	geminiKey    = "AIza-real-0123456789abcdef"
	placeholder  = "ringfence-placeholder"
)

// swap is a handler that tests can change.
type swap struct{ h atomic.Pointer[http.Handler] }

func (s *swap) set(h http.Handler) { s.h.Store(&h) }

func (s *swap) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*s.h.Load()).ServeHTTP(w, r) }

// agents is a node with both providers configured, and a workspace with the
// client programs.
type agents struct {
	w        *world
	n        *node.Node
	ws       string
	double   *doubles.Provider
	spare    *doubles.Provider // at https://spare.test; no provider until a test adds it
	upstream *swap
	openAI   string // base URLs
}

func newAgents(t *testing.T) *agents {
	a := &agents{w: newWorld(t), double: doubles.NewProvider(), spare: doubles.NewProvider(), upstream: &swap{}}
	a.upstream.set(a.double)
	a.w.site(t, "spare.test", a.spare)
	a.w.site(t, "llm.test", a.upstream)
	var ln net.Listener
	var err error
	a.w.near.do(func() { ln, err = net.Listen("tcp", "127.0.0.1:0") })
	need(t, err)
	s, err := doubles.Serve(ln, a.upstream)
	need(t, err)
	t.Cleanup(func() { _ = s.Close() })
	a.openAI = "http://" + s.Addr.String() + "/v1"
	a.n = a.w.start(t, node.Options{})
	a.ws = a.n.Workspace(t)
	a.addProvider(t, "openai", openAIKey, "--base-url", a.openAI)
	a.addProvider(t, "anthropic", anthropicKey, "--base-url", "https://llm.test")
	a.addProvider(t, "gemini", geminiKey, "--base-url", "https://llm.test")
	return a
}

func (a *agents) addProvider(t *testing.T, name, key string, args ...string) {
	t.Helper()
	args = append([]string{"provider", "add", name}, args...)
	if key != "" {
		args = append(args, "--key-env", "THE_KEY")
	}
	cmd := a.n.Command(t.Context(), args...)
	cmd.Env = append(cmd.Env, "THE_KEY="+key)
	if r := node.Finish(t, cmd); r.Code != 0 {
		t.Fatalf("provider add %s: %s", name, r.Stderr)
	} else if key != "" && strings.Contains(r.Stdout+r.Stderr, key) {
		t.Error("the key was printed")
	}
}

// clientProgram makes one client ready in the workspace.
func (a *agents) clientProgram(t *testing.T, name string) clients.Program {
	t.Helper()
	var p clients.Program
	var err error
	switch name {
	case "openai-go", "anthropic-go", "genai-go":
		p, err = clients.BuildGo(t.Context(), a.ws, name)
	case "node-openai", "node-anthropic", "node-genai":
		tool(t, "node")
		if p, err = clients.InstallNode(t.Context(), a.ws, name); err == nil {
			p.Argv[0] = "node"
		}
	default:
		if p, err = clients.Python(); err == nil {
			var text []byte
			text, err = os.ReadFile(p.Argv[1])
			need(t, err)
			p.Argv = []string{tool(t, "python3"), put(t, a.ws, "chat.py", string(text))}
		}
	}
	if errors.Is(err, clients.ErrMissing) {
		missing(t, err.Error())
	}
	need(t, err)
	return p
}

// call runs a client in a sandbox and reads what it printed.
func (a *agents) call(t *testing.T, p clients.Program, mode string) clients.Result {
	t.Helper()
	args := append([]string{"run", "--profile", "coding", "--"}, p.Argv...)
	r := a.n.CLIIn(t, a.ws, append(args, "some-model-1", mode)...)
	res, err := clients.ParseResult([]byte(r.Stdout))
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Stderr)
	}
	return res
}

// lastCall waits for the event of the newest model call after seq.
func (a *agents) lastCall(t *testing.T, seq uint64) event.Event {
	t.Helper()
	return a.n.WaitEvent(t, "the model call", func(e *event.Event) bool { return e.Kind == event.KindInference && e.Sequence > seq })
}

func (a *agents) sequence(t *testing.T) (seq uint64) {
	for _, e := range a.n.Events(t) {
		seq = max(seq, e.Sequence)
	}
	return seq
}

// arrived checks that a header value arrived and the other did not.
func arrived(t *testing.T, got doubles.Received, want, never string) {
	t.Helper()
	all, err := json.Marshal(got.Header)
	need(t, err)
	text := string(all) + string(got.Body) + got.Target
	if !strings.Contains(text, want) {
		t.Errorf("the provider did not get the credential %q: %s", want, all)
	}
	if strings.Contains(text, never) {
		t.Errorf("the provider got %q: %s", never, text)
	}
}

func TestRealAgents(t *testing.T) {
	a := newAgents(t)
	t.Run("the key is stored for root alone", a.keyIsStored)
	for _, name := range []string{"openai-go", "anthropic-go", "genai-go", "node-openai", "node-anthropic", "node-genai", "python"} {
		t.Run(name, func(t *testing.T) {
			p := a.clientProgram(t, name)
			for _, mode := range p.Modes {
				t.Run(mode, func(t *testing.T) { a.oneCall(t, p, mode) })
			}
		})
	}
	t.Run("stream", a.streams)
	t.Run("paths", a.deniedPaths)
	t.Run("provider tools", a.providerTools)
	t.Run("passthrough", a.passthrough)
}

func (a *agents) keyIsStored(t *testing.T) {
	var found int
	for _, dir := range []string{a.n.StateDir, a.n.RunDir, a.n.PolicyDir} {
		need(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			switch {
			case err == nil && d.IsDir() && d.Name() == "bpf":
				return filepath.SkipDir // pinned kernel objects
			case err != nil || !d.Type().IsRegular():
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(b), openAIKey) {
				return err
			}
			found++
			if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 || !strings.Contains(path, "secrets") {
				t.Errorf("the key is in %s, mode %v", path, st.Mode())
			}
			return nil
		}))
	}
	if found != 1 {
		t.Errorf("the key is in %d files", found)
	}
	r := a.n.CLI(t, "provider", "list", "-o", "json")
	contains(t, "provider list", r.Stdout, `"openai"`, `"anthropic"`)
	if strings.Contains(r.Stdout, openAIKey) {
		t.Error("provider list shows a key")
	}
}

// oneCall shows the whole path of one call of an unmodified library.
func (a *agents) oneCall(t *testing.T, p clients.Program, mode string) {
	a.double.Reset()
	seq := a.sequence(t)
	r := a.call(t, p, mode)
	streaming := strings.HasSuffix(mode, "-stream")
	if !r.OK || r.Text != a.double.Text || r.TokensIn != 11 || r.TokensOut != 7 || streaming != (r.Chunks > 3) {
		t.Errorf("the client says %+v", r)
	}
	all := a.double.Received()
	if len(all) != 1 {
		t.Fatalf("%d requests reached the provider", len(all))
	}
	key := openAIKey
	if strings.HasPrefix(mode, "messages") {
		key = anthropicKey
	}
	if strings.HasPrefix(mode, "generate") {
		key = geminiKey
	}
	arrived(t, all[0], key, placeholder)
	if sum := sha256.Sum256(all[0].Body); hex.EncodeToString(sum[:]) != r.Sent {
		t.Errorf("the body changed on its way: the client sent %s, the provider got %q", r.Sent, all[0].Body)
	}
	e := a.lastCall(t, seq)
	exact := e.TokensIn == 11 && e.TokensOut == 7 && !e.Estimated
	if strings.HasPrefix(mode, "generate") {
		exact = exact || e.Estimated && e.TokensIn > 0 && e.TokensOut > 0 // until usageMetadata is read
	}
	if e.Verdict != event.Allowed || !exact || e.Stream != streaming || e.Status != 200 ||
		e.Model != "some-model-1" || e.Credential != "injected" || e.Scope == "" || e.End.Before(e.Time) { // the double may answer within the millisecond
		t.Errorf("event %+v", e)
	}
}
