// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/wire"
)

func newDesk() (*Desk, *fakeLog, *[]*event.Event) {
	log, seen := &fakeLog{}, &[]*event.Event{}
	return &Desk{Registry: oneSandbox{}, Log: log, Now: func() time.Time { return testNow },
		Counters: func() []wire.Counter { return []wire.Counter{{Name: "a", Value: 1}} },
		Seen:     func(e *event.Event) { *seen = append(*seen, e) }}, log, seen
}

func TestWhatTheGatewayReportsIsMarkedAsItsWord(t *testing.T) {
	for _, c := range []struct{ name, sandbox, scope string }{
		{"a sandbox of this node", "0000002a", "org:o/team:t/agent:a/sandbox:0000002a"},
		{"a sandbox that is not there", "ffffffff", ""},
	} {
		d, log, seen := newDesk()
		e := forged(event.KindHTTP)
		e.Sandbox = c.sandbox
		if _, _, err := d.Handle(context.Background(), wire.TypeAppend, batch(e), nil); err != nil {
			t.Fatal(err)
		}
		got := log.take()
		if len(got) != 1 || len(*seen) != 1 {
			t.Fatalf("%d events, %d seen", len(got), len(*seen))
		}
		g := got[0]
		if g.Source != "gateway" || g.Layer != "gateway" || g.Scope != c.scope || g.PID != 0 || g.UID != 0 || g.Actor != "" || g.Exe != "" || g.Time.After(testNow) {
			t.Errorf("%s: %+v", c.name, g)
		}
		if c.scope == "" && (g.Sandbox != "" || !strings.Contains(g.Detail, "does not know")) {
			t.Errorf("%s: %+v", c.name, g)
		}
		valid(t, g)
	}
}

func TestHostileMessagesOfTheGateway(t *testing.T) {
	many := make([]event.Event, MaxBatch+1)
	for i := range many {
		many[i] = event.Event{Kind: event.KindDNS}
	}
	d, log, seen := newDesk()
	n := 0
	send := func(name string, typ wire.Type, payload []byte) {
		n++
		if _, _, err := d.Handle(context.Background(), typ, payload, nil); !errors.As(err, new(*wire.ProtocolError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	send("a message of the keeper", wire.TypeSandboxAdd, nil)
	send("type 0", 0, nil)
	send("no events", wire.TypeAppend, []byte{0, 0})
	send("too many events", wire.TypeAppend, batch(many...))
	send("bytes behind", wire.TypeAppend, append(batch(forged(event.KindDNS)), 0))
	send("half an event", wire.TypeAppend, batch(forged(event.KindDNS))[:20])
	send("question cut short", wire.TypeResolve, []byte{1})
	send("question for an approval cut short", wire.TypeApproval, []byte{1, 0, 0, 0})
	send("certificate without a name", wire.TypeLeaf, []byte{1, 0, 0, 0})
	for _, k := range event.Kinds() {
		if !gatewayKinds[k] {
			send(k.String(), wire.TypeAppend, batch(forged(event.KindDNS), forged(k)))
		}
	}
	if len(*seen) > 0 {
		t.Errorf("%+v", (*seen)[0])
	}
	evs := log.take()
	if len(evs) != 1 || evs[0].Kind != event.KindTamper || evs[0].Object != "gateway" || evs[0].Source != "keeper" {
		t.Fatalf("%+v", evs)
	}
	d.Now = func() time.Time { return testNow.Add(hostileEvery) }
	send("later", 200, nil)
	if evs := log.take(); len(evs) != 1 || evs[0].Count != uint64(n-1) {
		t.Errorf("%+v", evs)
	}
}

// A question about a sandbox that has just ended, and a log that refuses, are
// no attack.
func TestRefusalsThatAreNoAttack(t *testing.T) {
	d, log, seen := newDesk()
	q, err := wire.ResolveRequest{Sandbox: 1, Name: "x"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Handle(context.Background(), wire.TypeResolve, q, nil); !errors.Is(err, errNoSandbox) {
		t.Error(err)
	}
	log.err = errors.New("disk full")
	if _, _, err := d.Handle(context.Background(), wire.TypeAppend, batch(forged(event.KindDNS)), nil); !errors.Is(err, log.err) || len(*seen) > 0 {
		t.Errorf("%v, %d seen", err, len(*seen))
	}
	log.err = nil
	if evs := log.take(); len(evs) > 0 {
		t.Errorf("%+v", evs)
	}
	b, _, err := d.Handle(context.Background(), wire.TypeCounters, nil, nil)
	if cs, derr := wire.DecodeCounters(b); err != nil || derr != nil || len(cs) != 1 {
		t.Errorf("%v, %v, %v", cs, err, derr)
	}
}

func FuzzDesk(f *testing.F) {
	f.Add(uint8(wire.TypeAppend), batch(forged(event.KindHTTP)))
	f.Add(uint8(wire.TypeAppend), batch(forged(event.KindDNS), forged(event.KindLoss)))
	f.Add(uint8(wire.TypeResolve), []byte{1, 0, 0, 0, 1, 0, 0, 0, 'x'})
	f.Add(uint8(wire.TypeCounters), []byte{})
	f.Fuzz(func(t *testing.T, typ uint8, b []byte) {
		d, log, seen := newDesk()
		_, _, err := d.Handle(context.Background(), wire.Type(typ), b, nil)
		evs := log.take()
		if err != nil {
			tampered := errors.As(err, new(*wire.ProtocolError))
			if len(*seen) > 0 || tampered && (len(evs) != 1 || evs[0].Kind != event.KindTamper) || !tampered && len(evs) > 0 {
				t.Errorf("%v: %+v", err, evs)
			}
			return
		}
		for _, e := range evs {
			if e.Source != "gateway" || !gatewayKinds[e.Kind] || e.PID != 0 || e.Actor != "" || e.Time.After(testNow) ||
				e.Scope != "" && !strings.HasPrefix(e.Scope, "org:o/team:t/agent:a/") {
				t.Errorf("%x was taken as %+v", b, e)
			}
			valid(t, e)
		}
	})
}
