// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/test/clients"
	"github.com/ringfence/ringfence/test/doubles"
)

const (
	realKey     = "sk-real-0123456789abcdefREAL"
	placeholder = "sk-placeholder-not-a-key"
)

// world is a network namespace in which the providers' names are this
// machine's loopback and port 443 is a TLS server that hands everything to a
// Redirector, as the gateway does. Clients run in it know nothing of it.
type world struct {
	double *doubles.Provider
	ca     string // file
	trial  atomic.Bool
	denied atomic.Value // model, a string

	on   chan func() // runs on the thread that is in the namespace
	done chan struct{}

	mu     sync.Mutex
	events []event.Event
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	w := &world{double: doubles.NewProvider(), on: make(chan func()), done: make(chan struct{}), ca: filepath.Join(t.TempDir(), "ca.pem")}
	hosts := filepath.Join(t.TempDir(), "hosts")
	must(t, os.WriteFile(hosts, []byte("127.0.0.1 localhost api.openai.com api.anthropic.com generativelanguage.googleapis.com\n"), 0o644))
	ready := make(chan error)
	var ln net.Listener
	go w.thread(hosts, &ln, ready)
	must(t, <-ready)
	ca, err := doubles.NewCA()
	must(t, err)
	must(t, os.WriteFile(w.ca, ca.PEM(), 0o644))
	up, err := doubles.Serve(nil, w.double)
	must(t, err)
	tr := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, up.Addr.String())
	}}
	gate, err := ca.Serve(ln, w.handler(tr), "api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com")
	must(t, err)
	t.Cleanup(func() {
		_ = gate.Close()
		tr.CloseIdleConnections()
		_ = up.Close()
		close(w.on)
		<-w.done
	})
	return w
}

// thread lives in the namespaces; it ends with them.
func (w *world) thread(hosts string, ln *net.Listener, ready chan<- error) {
	defer close(w.done)
	runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
	err := func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		if err := unix.Mount(hosts, "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind hosts: %w", err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("lo up: %w", err)
		}
		*ln, err = net.Listen("tcp", "127.0.0.1:443")
		return err
	}()
	ready <- err
	if err != nil {
		return
	}
	for f := range w.on {
		f()
	}
}

func (w *world) handler(tr http.RoundTripper) http.Handler {
	red := inference.New(inference.Options{})
	return http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		c := inference.Call{View: w, Snapshot: w, Host: req.Host, Dialect: "openai", Sandbox: "sb",
			Secrets:   func(string) (string, bool) { return realKey, true },
			Transport: func(*policy.Provider) http.RoundTripper { return tr },
			Record: func(e event.Event) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.events = append(w.events, e)
			}}
		switch req.Host {
		case "api.anthropic.com":
			c.Dialect = "anthropic"
		case "generativelanguage.googleapis.com":
			c.Dialect = "gemini"
		}
		red.ServeHTTP(rw, req, c)
	})
}

func (w *world) Inference(_, model string) policy.Decision {
	if model == w.denied.Load() {
		return policy.Decision{Reason: "not for this agent"}
	}
	return policy.Decision{Effect: policy.Allow}
}

func (w *world) ProviderTool(string) policy.Decision { return policy.Decision{} }

func (w *world) InferenceAt(p *policy.Provider, model string) policy.Decision {
	return w.Inference(p.Dialect, model)
}

func (w *world) Providers() (out []*policy.Provider) {
	if w.trial.Load() {
		return nil
	}
	for dialect, base := range map[string]string{"openai": "http://provider.internal/v1", "anthropic": "http://provider.internal", "gemini": "http://provider.internal"} {
		out = append(out, &policy.Provider{Name: dialect, Dialect: dialect, BaseURL: base, Weight: 1, Keys: []policy.Key{{Secret: "key", Weight: 1}}, Credential: policy.CredentialInject})
	}
	return out
}

func (w *world) Trial(string) bool { return w.trial.Load() }

func (w *world) RouteFor(string) *policy.Route { return nil }

// run runs a client in the namespace.
func (w *world) run(t *testing.T, p clients.Program, model, mode string) clients.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Argv[0], append(p.Argv[1:len(p.Argv):len(p.Argv)], model, mode)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "OPENAI_API_KEY=" + placeholder, "ANTHROPIC_API_KEY=" + placeholder, "GEMINI_API_KEY=" + placeholder,
		"SSL_CERT_FILE=" + w.ca, "NODE_EXTRA_CA_CERTS=" + w.ca, "PYTHONIOENCODING=utf-8"}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	started := make(chan error)
	w.on <- func() { started <- cmd.Start() }
	must(t, <-started)
	err := cmd.Wait()
	r, perr := clients.ParseResult(out.Bytes())
	if perr != nil {
		t.Fatalf("%s %s: %v, %v\n%s", p.Name, mode, perr, err, errOut.String())
	}
	return r
}

// event takes the event of the only call since the last.
func (w *world) event(t *testing.T) event.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.events)
	}
	doubles.Eventually(ctx, func() bool { return n() > 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) != 1 {
		t.Fatalf("%d events", len(w.events))
	}
	e := w.events[0]
	w.events = nil
	return e
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// missing skips a test for a tool that is not there, and fails it where the
// tool must be.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("RINGFENCE_CI") == "1" {
		t.Fatal(err)
	}
	t.Skip(strings.SplitN(err.Error(), "\n", 2)[0])
}
