// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/wire"
)

// keepers are connected to one link, one after the other.
type keepers struct {
	t    *testing.T
	l    *link
	addr *net.UnixAddr
	conn *wire.Conn
	wg   sync.WaitGroup
}

// silent is a keeper that takes questions and answers none.
func silent(ctx context.Context, _ wire.Type, _ []byte, fds []*os.File) ([]byte, []*os.File, error) {
	wire.CloseAll(fds)
	<-ctx.Done()
	return nil, nil, ctx.Err()
}

func newKeepers(t *testing.T, first wire.Handler) *keepers {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may be a keeper")
	}
	k := &keepers{t: t, l: newLink(), addr: &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixpacket"}}
	again, err := net.ListenUnix("unixpacket", k.addr)
	if err != nil {
		t.Fatal(err)
	}
	mine, f, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := wire.FromFile(f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.l.run(ctx, theirs, again, silent, slog.New(slog.DiscardHandler))
	}()
	k.serve(mine, first)
	t.Cleanup(func() {
		cancel()
		k.conn.Close()
		k.wg.Wait()
		<-done
	})
	return k
}

func (k *keepers) serve(c *wire.Conn, h wire.Handler) {
	k.conn = c
	ctx, cancel := context.WithCancel(context.Background())
	k.t.Cleanup(cancel)
	k.wg.Go(func() { _ = wire.NewPeer(c, h, wire.Inflight).Serve(ctx) })
}

// next ends the keeper and connects another.
func (k *keepers) next(h wire.Handler) {
	k.t.Helper()
	k.conn.Close()
	c, err := net.DialUnix("unixpacket", nil, k.addr)
	if err != nil {
		k.t.Fatal(err)
	}
	k.serve(wire.FromUnix(c), h)
}

func answering(addr string) wire.Handler {
	return func(_ context.Context, t wire.Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
		wire.CloseAll(fds)
		var q wire.ResolveRequest
		if err := q.Decode(payload); err != nil || t != wire.TypeResolve {
			return nil, nil, fmt.Errorf("message %d: %w", t, err)
		}
		b, err := wire.ResolveReply{Allowed: true, Addr: netip.MustParseAddr(addr), Reason: q.Name}.Encode()
		return b, nil, err
	}
}

func TestQuestionsAreAskedOfTheNextKeeper(t *testing.T) {
	started := make(chan struct{}, 100)
	k := newKeepers(t, func(ctx context.Context, typ wire.Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
		started <- struct{}{}
		return silent(ctx, typ, payload, fds)
	})
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	const questions = 20
	for i := range questions {
		wg.Go(func() {
			name := fmt.Sprintf("h%d.example", i)
			r, err := k.l.Resolve(ctx, 1, name)
			if err != nil || !r.Allowed || r.Reason != name {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		})
	}
	for range questions {
		<-started // all of them are with a keeper that will never answer
	}
	k.next(answering("198.18.1.0"))
	wg.Wait()
}

func TestWithoutAKeeperQuestionsEnd(t *testing.T) {
	k := newKeepers(t, silent)
	k.conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if r, err := k.l.Resolve(ctx, 1, "a.example"); err == nil || r.Allowed {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := k.l.Resolve(context.Background(), 1, strings.Repeat("a", 300)); err == nil {
		t.Error("a name over the limit was asked")
	}
}

// Events are cut into messages that fit, in order, each once when all goes
// well.
func TestEventsAreSentInMessagesThatFit(t *testing.T) {
	var mu sync.Mutex
	var got []string
	var messages int
	refuse := true
	k := newKeepers(t, func(_ context.Context, typ wire.Type, payload []byte, _ []*os.File) ([]byte, []*os.File, error) {
		mu.Lock()
		defer mu.Unlock()
		if refuse {
			refuse = false
			return nil, nil, errors.New("no space for the event log")
		}
		messages++
		d := wire.NewDecoder(payload)
		n := d.U16()
		rest := d.Rest()
		for range n {
			e, r, err := event.DecodeWire(rest)
			if err != nil {
				t.Error(err)
				return nil, nil, err
			}
			got, rest = append(got, e.DstName), r
		}
		if len(rest) > 0 || typ != wire.TypeAppend || len(payload) > wire.MaxPayload {
			t.Errorf("message %d of %d bytes with %d bytes too many", typ, len(payload), len(rest))
		}
		return nil, nil, nil
	})
	evs := make([]event.Event, 1000)
	for i := range evs {
		evs[i] = event.Event{Kind: event.KindNetwork, Time: time.Now(), DstName: fmt.Sprint(i), Detail: strings.Repeat("d", i*7%3000)}
	}
	if err := k.l.Append(context.Background(), evs); err == nil {
		t.Error("a refusal was taken for success")
	}
	if err := k.l.Append(context.Background(), evs); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(got) != len(evs) || messages < 4 {
		t.Fatalf("%d events in %d messages", len(got), messages)
	}
	for i, name := range got {
		if name != fmt.Sprint(i) {
			t.Fatalf("event %d is %s", i, name)
		}
	}
}
