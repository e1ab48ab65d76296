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

func TestAStartRefusesAScopeThatCannotBeRecorded(t *testing.T) {
	m, err := NewManager(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for agent, refused := range map[string]bool{"a": false, strings.Repeat("ä", 120): true} {
		p := scope.Principal{Org: "o", Team: "t", Agent: agent}
		l, f := m.newLaunch(), m.newFencing(&ForeignRequest{Principal: p})
		l.r = &Request{Profile: &policy.Profile{}, Principal: p}
		for what, err := range map[string]error{
			"launch":   errors.Join(l.reserve(t.Context()), l.register(t.Context())),
			"adoption": errors.Join(f.reserve(t.Context()), f.register(t.Context())),
		} {
			if le := (*LaunchError)(nil); errors.As(err, &le) != refused || err != nil && !strings.Contains(err.Error(), "bytes") {
				t.Errorf("%s, agent of %d bytes: %v", what, len(agent), err)
			}
		}
		for _, s := range []*Sandbox{l.s, f.s} {
			if b, err := s.announcement().Encode(); !refused && (err != nil || len(b) == 0) {
				t.Errorf("announcement: %v", err)
			}
		}
	}
}
