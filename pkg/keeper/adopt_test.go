// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/wire"
	"github.com/ringfence/ringfence/test/env"
)

// fakeGateway answers what a gateway process would.
type fakeGateway struct {
	is    wire.ConfigReply
	other bool // what it runs is another program, whatever it says
	mute  bool // answers the configuration with nothing
	hang  chan struct{}
	conns wire.Connections

	mu    sync.Mutex
	heard []wire.Type
	peer  *wire.Conn
}

func (f *fakeGateway) handle(ctx context.Context, t wire.Type, _ []byte, fds []*os.File) ([]byte, []*os.File, error) {
	wire.CloseAll(fds)
	f.mu.Lock()
	f.heard = append(f.heard, t)
	f.mu.Unlock()
	switch {
	case t == wire.TypeConfig && !f.mute:
		b, err := f.is.Encode()
		return b, nil, err
	case t == wire.TypeConnections && f.is.Version < 2:
		return nil, nil, errors.New("unknown message 16")
	case t == wire.TypeConnections:
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.conns.Encode(), nil, nil
	case t == wire.TypeSandboxes && f.hang != nil:
		<-f.hang
	case t == wire.TypeDrain:
		f.mu.Lock()
		peer := f.peer // a later meeting has another
		f.mu.Unlock()
		time.AfterFunc(20*time.Millisecond, func() { peer.Close() })
	}
	return nil, nil, nil
}

func (f *fakeGateway) heardOf(t wire.Type) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.heard, t)
}

type config struct{ Resolver string }

// meet connects a keeper with configuration c and a fake gateway.
func meet(t *testing.T, f *fakeGateway, c config) (g *Gateway, conn *wire.Conn, said func() []string) {
	t.Helper()
	var mu sync.Mutex
	var changes, steps []string
	conn, theirs, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := wire.FromFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.peer = peer
	f.mu.Unlock()
	go func() { _ = wire.NewPeer(peer, f.handle, wire.Inflight).Serve(context.Background()) }()
	note := func(list *[]string, what string) {
		mu.Lock()
		defer mu.Unlock()
		*list = append(*list, what)
	}
	g = NewGateway(GatewayOptions{Binary: program(t, 0), Dir: t.TempDir(), Config: c, Logger: slog.New(slog.DiscardHandler),
		Handler: func(context.Context, wire.Type, []byte, []*os.File) ([]byte, []*os.File, error) { return nil, nil, nil },
		Feed:    func(context.Context, *wire.Peer) error { note(&steps, "feed"); return nil },
		Takeover: func(context.Context, *wire.Peer) error {
			if f.heardOf(wire.TypeDrain) {
				t.Error("drained before what it holds was taken over")
			}
			note(&steps, "takeover")
			return nil
		},
		Changed: func(what, _ string) { note(&changes, what) }})
	if err := g.notePID(running(t, f.other)); err != nil {
		t.Fatal(err)
	}
	return g, conn, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append(slices.Clone(steps), changes...)
	}
}

// program makes a copy of a program that sleeps, with some bytes behind it.
func program(t *testing.T, more int) string {
	t.Helper()
	from, err := exec.LookPath("sleep")
	if err != nil {
		env.Lack(t, true, "sleep (coreutils)")
	}
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, append(b, make([]byte, more)...), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// running starts a process of the program that the keeper would start, or of
// another, and takes its file away: an upgrade does that.
func running(t *testing.T, other bool) (pid int) {
	t.Helper()
	more := 0
	if other {
		more = 1
	}
	path := program(t, more)
	cmd := exec.Command(path, "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// same is the answer of a gateway that this keeper could have started.
func same(t *testing.T, c config) wire.ConfigReply {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return wire.ConfigReply{Config: sum[:], Version: wire.Version}
}

func TestAnOutdatedGatewayIsReplaced(t *testing.T) {
	c := config{"192.0.2.53:53"}
	late := same(t, c)
	late.Version = wire.Version + 2
	orderly, atOnce := []string{"takeover", "gateway-outdated"}, []string{"gateway-outdated"}
	for name, tt := range map[string]struct {
		f    *fakeGateway
		want []string
	}{
		"another configuration":         {&fakeGateway{is: same(t, config{"192.0.2.54:53"})}, orderly},
		"another build, not to outlive": {&fakeGateway{is: same(t, c), other: true}, orderly},
		"two versions newer":            {&fakeGateway{is: late}, atOnce},
		"an answer without meaning":     {&fakeGateway{mute: true}, atOnce},
	} {
		g, conn, said := meet(t, tt.f, c)
		if err := g.serve(context.Background(), conn, true); !errors.Is(err, errOutdated) {
			t.Errorf("%s: %v", name, err)
		}
		if got := said(); !slices.Equal(got, tt.want) || tt.f.heardOf(wire.TypeDrain) != (len(tt.want) == 2) {
			t.Errorf("%s: %v", name, got)
		}
		g, conn, said = meet(t, tt.f, c)
		g.o.Outlive = time.Hour // is for what a former keeper started
		if err := g.serve(context.Background(), conn, false); err == nil || errors.Is(err, errOutdated) || len(said()) > 0 {
			t.Errorf("%s, just started: %v, %v", name, err, said())
		}
	}
}

// A gateway of another build goes on, also one version apart, until it has no
// connections or its time is up.
func TestAGatewayOfAnotherBuildGoesOn(t *testing.T) {
	c := config{"192.0.2.53:53"}
	for name, tt := range map[string]struct {
		version uint16
		outlive time.Duration
		idle    bool // it loses its connections after a while
	}{
		"until it is idle":                                {wire.Version, time.Hour, true},
		"one version older, until it is idle":             {wire.Version - 1, 100 * time.Millisecond, true},
		"one version newer, until it is idle":             {wire.Version + 1, time.Hour, true},
		"with connections, until its time is up":          {wire.Version, 100 * time.Millisecond, false},
		"one version older, until its time is up":         {wire.Version - 1, 100 * time.Millisecond, false},
		"that does not know the question, until it is up": {1, 100 * time.Millisecond, false},
	} {
		if _, ok := wire.Speak(wire.Version, tt.version); !ok {
			continue // of what is built with another version
		}
		is := same(t, c)
		is.Version = tt.version
		f := &fakeGateway{is: is, other: true, conns: 3}
		g, conn, said := meet(t, f, c)
		g.health.every, g.o.Outlive = 5*time.Millisecond, tt.outlive
		done := make(chan error, 1)
		go func() { done <- g.serve(context.Background(), conn, true) }()
		for end := time.Now().Add(5 * time.Second); !g.Ready() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if _, other := g.OtherBuild(); !other || f.heardOf(wire.TypeDrain) {
			t.Errorf("%s: it does not go on: %v", name, said())
		}
		if tt.idle {
			f.mu.Lock()
			f.conns = 0
			f.mu.Unlock()
		}
		if err := <-done; !errors.Is(err, errOutdated) || !f.heardOf(wire.TypeDrain) {
			t.Errorf("%s: %v", name, err)
		}
		if got := said(); !slices.Equal(got, []string{"feed", "takeover", "gateway-other-build", "gateway-outdated"}) {
			t.Errorf("%s: %v", name, got)
		}
		if _, other := g.OtherBuild(); other || g.Ready() {
			t.Errorf("%s: it is gone, and counts still", name)
		}
	}
}

func TestAGatewayThatFitsIsAdopted(t *testing.T) {
	c := config{"192.0.2.53:53"}
	is := same(t, c)
	is.Unconfined = []string{"no Landlock"}
	g, conn, said := meet(t, &fakeGateway{is: is}, c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.serve(ctx, conn, true) }()
	for end := time.Now().Add(5 * time.Second); !g.Ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not become ready")
		}
	}
	if got := g.Unconfined(); !slices.Equal(got, is.Unconfined) || !slices.Equal(said(), []string{"feed", "degraded"}) {
		t.Errorf("%v, %v", got, said())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What a gateway says of its build counts for nothing: one that was taken over
// before an upgrade says what the keeper would like to hear.
func TestAGatewayIsNotBelieved(t *testing.T) {
	c := config{}
	for name, tt := range map[string]struct {
		pid  func(t *testing.T) int
		want fit
	}{
		"the same program":  {func(t *testing.T) int { return running(t, false) }, fits},
		"another program":   {func(t *testing.T) int { return running(t, true) }, otherBuild},
		"nobody knows whom": {nil, outdated},
	} {
		f := &fakeGateway{is: same(t, c)}
		g, conn, _ := meet(t, f, c)
		conn.Close()
		id, err := BinaryID(g.o.Binary)
		if err != nil {
			t.Fatal(err)
		}
		f.is.Binary = id // it says that it is what would be started
		if tt.pid == nil {
			err = os.Remove(g.pidPath())
		} else {
			err = g.notePID(tt.pid(t))
		}
		if err != nil {
			t.Fatal(err)
		}
		conn, theirs, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		there, err := wire.FromFile(theirs)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = wire.NewPeer(there, f.handle, wire.Inflight).Serve(t.Context()) }()
		peer := wire.NewPeer(conn, g.o.Handler, wire.Inflight)
		go func() { _ = peer.Serve(t.Context()) }()
		if is, err := g.configure(t.Context(), peer); err != nil || is.fit != tt.want || (is.why == "") != (tt.want == fits) {
			t.Errorf("%s: %+v, %v", name, is, err)
		}
		conn.Close()
	}
	// A number that another process has by now is nobody's.
	p, err := sandbox.ProcessOf(running(t, false))
	if err != nil {
		t.Fatal(err)
	}
	p.Start++
	if same, err := executes(p, program(t, 0)); same || err == nil {
		t.Errorf("another process of that number: %v, %v", same, err)
	}
}

func TestAGatewayThatHangsIsGivenUp(t *testing.T) {
	c := config{}
	f := &fakeGateway{is: same(t, c), hang: make(chan struct{})}
	defer close(f.hang)
	g, conn, said := meet(t, f, c)
	g.health = health{every: time.Millisecond, patience: 20 * time.Millisecond, misses: 3}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := g.serve(ctx, conn, false); !errors.Is(err, errHung) || time.Since(began) < 60*time.Millisecond {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	if !slices.Contains(said(), "gateway-hung") || g.Ready() {
		t.Errorf("%v", said())
	}
}
