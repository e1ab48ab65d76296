// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serve runs a peer until the test ends.
func serve(t testing.TB, c *Conn, h Handler) *Peer {
	t.Helper()
	p := NewPeer(c, h, Inflight)
	done := make(chan error, 1)
	go func() { done <- p.Serve(context.Background()) }()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return p
}

func echo(_ context.Context, _ Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
	CloseAll(fds)
	return payload, nil, nil
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestCallsInBothDirections(t *testing.T) {
	ca, cb := pair(t)
	a, b := serve(t, ca, echo), serve(t, cb, echo)
	ctx := within(t, 20*time.Second)
	var wg sync.WaitGroup
	for i := range 300 {
		for _, p := range []*Peer{a, b} {
			wg.Go(func() {
				want := fmt.Sprint("question ", i)
				got, _, err := p.Call(ctx, TypeResolve, []byte(want))
				if err != nil || string(got) != want {
					t.Errorf("%q: %q, %v", want, got, err)
				}
			})
		}
	}
	wg.Wait()
}

// Ending many sandboxes at once makes the gateway hand over events while it
// answers: the answers to those must not wait behind more questions.
func TestHandlersMayAskBackHoweverManyQuestionsWait(t *testing.T) {
	ca, cb := pair(t)
	keeper := serve(t, ca, echo)
	var gateway *Peer
	ready := make(chan struct{})
	gateway = serve(t, cb, func(ctx context.Context, _ Type, payload []byte, _ []*os.File) ([]byte, []*os.File, error) {
		<-ready
		_, _, err := gateway.Call(ctx, TypeAppend, payload)
		return nil, nil, err
	})
	close(ready)
	ctx := within(t, 20*time.Second)
	var wg sync.WaitGroup
	for range 10 * Inflight {
		wg.Go(func() {
			if _, _, err := keeper.Call(ctx, TypeSandboxRemove, ID(1).Encode()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestARefusalComesBackAsFailure(t *testing.T) {
	ca, cb := pair(t)
	p := serve(t, ca, echo)
	serve(t, cb, func(context.Context, Type, []byte, []*os.File) ([]byte, []*os.File, error) {
		return nil, nil, errors.New("no such sandbox")
	})
	_, _, err := p.Call(within(t, 10*time.Second), TypeLeaf, nil)
	if f := (*Failure)(nil); !errors.As(err, &f) || f.Msg != "no such sandbox" {
		t.Errorf("got %v", err)
	}
}

func TestTheEndFailsEveryCall(t *testing.T) {
	ca, cb := pair(t)
	p := serve(t, ca, echo)
	errs := make(chan error)
	for range 2 * Inflight {
		go func() {
			_, _, err := p.Call(context.Background(), TypeResolve, nil)
			errs <- err
		}()
	}
	buf := make([]byte, BufferLen)
	if _, err := cb.Recv(buf); err != nil {
		t.Fatal(err)
	}
	cb.Close()
	for range 2 * Inflight {
		if err := <-errs; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	if _, _, err := p.Call(context.Background(), TypeResolve, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// A question that nobody waits for any more is still under way.
func TestGivingUpDoesNotLetMoreQuestionsOut(t *testing.T) {
	ca, cb := pair(t)
	p := serve(t, ca, echo)
	var out atomic.Int32
	release := make(chan struct{})
	serve(t, cb, func(context.Context, Type, []byte, []*os.File) ([]byte, []*os.File, error) {
		out.Add(1)
		<-release
		return nil, nil, nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 * Inflight {
		wg.Go(func() {
			if _, _, err := p.Call(ctx, TypeResolve, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if n := out.Load(); n != Inflight {
		t.Errorf("%d questions are under way, want %d", n, Inflight)
	}
	close(release)
	if _, _, err := p.Call(within(t, 10*time.Second), TypeResolve, nil); err != nil {
		t.Errorf("after the answers came: %v", err)
	}
}

// A hostile peer answers what it was not asked, twice, and with descriptors.
func TestHostileAnswers(t *testing.T) {
	ca, cb := pair(t)
	p := serve(t, ca, echo)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	send := func(m Message) {
		t.Helper()
		if err := cb.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	fds := []*os.File{null, null, null}
	before := openFDs(t)
	send(Message{Type: TypeSnapshot, Reply: true, ID: 77, FDs: fds})
	send(Message{Type: TypeListeners, Reply: true, ID: ^uint64(0), FDs: fds})
	answers := make(chan error)
	ask := func(typ Type) {
		go func() {
			_, got, err := p.Call(context.Background(), typ, nil)
			if len(got) > 0 && typ != TypeListeners {
				err = fmt.Errorf("%d descriptors came through", len(got))
			}
			CloseAll(got)
			answers <- err
		}()
	}
	buf := make([]byte, BufferLen)
	question := func() Message {
		t.Helper()
		m, err := cb.Recv(buf)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	ask(TypeSnapshot)
	q := question()
	for range 3 {
		send(Message{Type: q.Type, Reply: true, ID: q.ID, FDs: fds})
	}
	if err := <-answers; err != nil {
		t.Error(err)
	}
	ask(TypeSnapshot)
	q = question()
	send(Message{Type: q.Type, Reply: true, Failed: true, ID: q.ID, Payload: []byte{0xff, 0xff, 0xff, 0xff, 1}, FDs: fds})
	if err := <-answers; !errors.As(err, new(*ProtocolError)) {
		t.Errorf("a refusal of nonsense: %v", err)
	}
	ask(TypeListeners) // control: these may carry descriptors
	q = question()
	send(Message{Type: q.Type, Reply: true, ID: q.ID, FDs: fds})
	if err := <-answers; err != nil {
		t.Error(err)
	}
	if n := openFDs(t); n != before {
		t.Errorf("%d descriptors are left open", n-before)
	}
}

func TestServeEndsAtNonsense(t *testing.T) {
	ca, cb := pair(t)
	p := NewPeer(ca, echo, Inflight)
	done := make(chan error, 1)
	go func() { done <- p.Serve(context.Background()) }()
	raw(t, cb, []byte("nonsense"))
	select {
	case err := <-done:
		if !errors.As(err, new(*ProtocolError)) {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still serving")
	}
}

// Nobody awaits an answer any more: a handler that waits must not hold Serve.
func TestTheEndOfTheConnectionEndsRequests(t *testing.T) {
	ca, cb := pair(t)
	started := make(chan struct{})
	p := NewPeer(ca, func(ctx context.Context, _ Type, _ []byte, _ []*os.File) ([]byte, []*os.File, error) {
		close(started)
		<-ctx.Done()
		return nil, nil, ctx.Err()
	}, Inflight)
	done := make(chan error, 1)
	go func() { done <- p.Serve(context.Background()) }()
	if err := cb.Send(Message{Type: TypeResolve, ID: 1}); err != nil {
		t.Fatal(err)
	}
	<-started
	cb.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve waits for a handler that waits for nobody")
	}
}
