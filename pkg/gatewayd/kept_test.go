// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"context"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/gateway"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/wire"
)

// sixSockets are what a sandbox in a namespace that is not ours has, and where
// the first of them listens.
func sixSockets(t *testing.T) (fds []*os.File, first string) {
	t.Helper()
	file := func(s interface{ File() (*os.File, error) }, c interface{ Close() error }) {
		defer c.Close()
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, f)
	}
	for range 4 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = l.Addr().String()
		}
		file(l.(*net.TCPListener), l)
	}
	for range 2 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		file(c, c)
	}
	return fds, first
}

// A sandbox's sockets are one descriptor each here. A keeper can take them back
// while the gateway drains, and what has come in meanwhile waits in them.
func TestSocketsAreSharedWhileTheGatewayDrains(t *testing.T) {
	gw, err := gateway.New(gateway.Options{Keeper: newLink(), Inference: inference.New(inference.Options{Version: "test"}), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{gw: gw, money: newMoney(newLink(), nil, nil), configured: make(chan struct{})}
	close(p.configured)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- gw.Serve(ctx) }()
	defer func() { stop(); <-served }()

	before := openFiles(t)
	fds, addr := sixSockets(t)
	add, err := wire.SandboxAdd{ID: 7, Name: "s", Scope: "org:a/team:b/agent:c", Redirected: true}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.handle(ctx, wire.TypeSandboxAdd, add, fds); err != nil {
		t.Fatal(err)
	}
	if n := openFiles(t) - before; n != len(fds) {
		t.Errorf("%d sockets take %d descriptors", len(fds), n)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		gw.Drain(ctx)
	}()
	<-drained
	c, err := net.DialTimeout("tcp4", addr, 5*time.Second)
	if err != nil {
		t.Fatalf("nobody listens while the gateway drains: %v", err)
	}
	defer c.Close()
	_, back, err := p.handle(ctx, wire.TypeListeners, wire.ID(7).Encode(), nil)
	if err != nil || len(back) != len(fds) {
		t.Fatalf("%d sockets, %v", len(back), err)
	}
	defer wire.CloseAll(back)
	l, err := net.FileListener(back[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second))
	got, err := l.Accept()
	if err != nil {
		t.Fatalf("what waited is gone: %v", err)
	}
	defer got.Close()
	if got.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("accepted %v, waited %v", got.RemoteAddr(), c.LocalAddr())
	}

	// Removed, nothing of it is left, and nothing more is shared.
	if _, _, err := p.handle(ctx, wire.TypeSandboxRemove, wire.ID(7).Encode(), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.handle(ctx, wire.TypeListeners, wire.ID(7).Encode(), nil); err == nil || p.listeners.has(7) {
		t.Error("sockets of a removed sandbox are shared")
	}
}
