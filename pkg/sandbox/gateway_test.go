// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

// dying is a gateway whose connection has ended until it has a successor.
type dying struct {
	calls atomic.Int64
	until time.Time
}

func (g *dying) Call(context.Context, wire.Type, []byte, ...*os.File) ([]byte, []*os.File, error) {
	g.calls.Add(1)
	if time.Now().Before(g.until) {
		return nil, nil, wire.ErrClosed
	}
	return nil, nil, nil
}

func TestForgetDoesNotSpinWhileAGatewayDies(t *testing.T) {
	g := &dying{until: time.Now().Add(200 * time.Millisecond)}
	s := &Sandbox{m: &Manager{o: Options{Gateway: g, Logger: slog.New(slog.DiscardHandler)}}}
	s.forget()
	if time.Now().Before(g.until) {
		t.Error("it gave up before the successor was there")
	}
	if n := g.calls.Load(); n > 30 {
		t.Errorf("%d calls in 200 ms", n)
	}
}

func TestALaunchRefusesAScopeThatCannotBeRecorded(t *testing.T) {
	m, err := NewManager(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for agent, refused := range map[string]bool{"a": false, strings.Repeat("ä", 120): true} {
		l := &launch{m: m, r: &Request{Profile: &policy.Profile{}, Principal: scope.Principal{Org: "o", Team: "t", Agent: agent}}, s: &Sandbox{m: m, done: make(chan struct{})}}
		err := errors.Join(l.reserve(context.Background()), l.register(context.Background()))
		if le := (*LaunchError)(nil); errors.As(err, &le) != refused || err != nil && !strings.Contains(err.Error(), "bytes") {
			t.Errorf("agent of %d bytes: %v", len(agent), err)
		}
		if b, err := l.s.announcement().Encode(); !refused && (err != nil || len(b) == 0) {
			t.Errorf("announcement: %v", err)
		}
	}
}
