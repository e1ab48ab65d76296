// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/clients"
	"github.com/ringfence/ringfence/test/doubles"
)

// programs are built once for all tests of this package.
var programs = []struct {
	name string
	make func(ctx context.Context, dir string) (clients.Program, error)
}{
	{"openai-go", func(ctx context.Context, dir string) (clients.Program, error) {
		return clients.BuildGo(ctx, dir, "openai-go")
	}},
	{"anthropic-go", func(ctx context.Context, dir string) (clients.Program, error) {
		return clients.BuildGo(ctx, dir, "anthropic-go")
	}},
	{"genai-go", func(ctx context.Context, dir string) (clients.Program, error) {
		return clients.BuildGo(ctx, dir, "genai-go")
	}},
	{"node-genai", func(ctx context.Context, dir string) (clients.Program, error) {
		return clients.InstallNode(ctx, dir, "node-genai")
	}},
	{"node-openai", func(ctx context.Context, dir string) (clients.Program, error) {
		return clients.InstallNode(ctx, dir, "node-openai")
	}},
	{"node-anthropic", func(ctx context.Context, dir string) (clients.Program, error) {
		return clients.InstallNode(ctx, dir, "node-anthropic")
	}},
	{"python", func(context.Context, string) (clients.Program, error) { return clients.Python() }},
}

func TestRealClients(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	for _, m := range programs {
		t.Run(m.name, func(t *testing.T) {
			p, err := m.make(t.Context(), dir)
			if errors.Is(err, clients.ErrMissing) {
				missing(t, err)
			}
			must(t, err)
			for _, mode := range p.Modes {
				t.Run(mode, func(t *testing.T) { provider(t, w, p, mode) })
			}
			t.Run("trial", func(t *testing.T) { trial(t, w, p) })
			t.Run("denied", func(t *testing.T) { denied(t, w, p) })
			t.Run("broken stream", func(t *testing.T) { broken(t, w, p) })
		})
	}
}

// provider makes one call through to the provider double.
func provider(t *testing.T, w *world, p clients.Program, mode string) {
	w.double.Reset()
	r := w.run(t, p, "some-model-1", mode)
	streaming := strings.HasSuffix(mode, "-stream")
	if !r.OK || r.Text != w.double.Text || r.Model != "some-model-1" || r.TokensIn != 11 || r.TokensOut != 7 || streaming != (r.Chunks > 3) {
		t.Errorf("client says %+v", r)
	}
	all := w.double.Received()
	if len(all) != 1 {
		t.Fatalf("%d requests reached the provider", len(all))
	}
	got := all[0]
	if sum := sha256.Sum256(got.Body); hex.EncodeToString(sum[:]) != r.Sent {
		t.Errorf("the body changed: client sent %s, provider got %q", r.Sent, got.Body)
	}
	var key, holder bool
	for _, vs := range got.Header {
		for _, v := range vs {
			key = key || strings.Contains(v, realKey)
			holder = holder || strings.Contains(v, placeholder)
		}
	}
	if !key || holder || strings.Contains(string(got.Body)+got.Target, placeholder) {
		t.Errorf("real key arrived %v, placeholder %v: %+v", key, holder, got.Header)
	}
	ev := w.event(t)
	exact := ev.TokensIn == 11 && ev.TokensOut == 7 && !ev.Estimated
	if strings.HasPrefix(mode, "generate") {
		exact = exact || ev.Estimated && ev.TokensIn > 0 && ev.TokensOut > 0 // until usageMetadata is read
	}
	if ev.Verdict != event.Allowed || !exact || ev.Stream != streaming || ev.Status != 200 {
		t.Errorf("event %+v", ev)
	}
}

func trial(t *testing.T, w *world, p clients.Program) {
	w.double.Reset()
	w.trial.Store(true)
	defer w.trial.Store(false)
	for _, mode := range p.Modes {
		r := w.run(t, p, "some-model-1", mode)
		if !r.OK || !strings.Contains(r.Text, "No model was called") || !strings.Contains(r.Text, "ringfence provider add ") || r.TokensOut == 0 || r.Model != "some-model-1" {
			t.Errorf("%s: client says %+v", mode, r)
		}
		if ev := w.event(t); ev.Credential != "trial" || !ev.Estimated || ev.TokensOut != uint64(r.TokensOut) {
			t.Errorf("%s: event %+v", mode, ev)
		}
	}
	if n := len(w.double.Received()); n != 0 {
		t.Errorf("%d requests left", n)
	}
}

func denied(t *testing.T, w *world, p clients.Program) {
	w.double.Reset()
	w.denied.Store("big-model")
	defer w.denied.Store("")
	for _, mode := range p.Modes {
		r := w.run(t, p, "big-model", mode)
		if r.OK || r.Status != 403 || r.Code != "ringfence_denied" || !strings.Contains(r.Error, "not for this agent") {
			t.Errorf("%s: client says %+v", mode, r)
		}
		if ev := w.event(t); ev.Verdict != event.Denied || ev.Model != "big-model" {
			t.Errorf("%s: event %+v", mode, ev)
		}
	}
	if n := len(w.double.Received()); n != 0 {
		t.Errorf("%d requests left", n)
	}
}

// broken shows that the libraries see a stream that broke off as a failure.
func broken(t *testing.T, w *world, p clients.Program) {
	if p.Name == "python" {
		t.Skip("the plain client does not look at error events")
	}
	for _, mode := range p.Modes {
		if !strings.HasSuffix(mode, "-stream") {
			continue
		}
		w.double.Reset()
		w.double.Fail(doubles.Fault{CutAfter: 2})
		if r := w.run(t, p, "some-model-1", mode); r.OK || !strings.Contains(r.Error, "broke off") {
			t.Errorf("%s: client says %+v", mode, r)
		}
		if ev := w.event(t); ev.ReasonCode != "upstream-broke-off" {
			t.Errorf("%s: event %+v", mode, ev)
		}
	}
}
