// SPDX-License-Identifier: Apache-2.0

// Package keeper is the keeper's side of the socket pair to the gateway: it
// runs the gateway process, feeds it sandboxes, policy and secrets, and answers
// what the gateway may ask: what a name means, a leaf certificate, a place in
// the event log. It treats the gateway as hostile: a compromised gateway can
// misuse what policy allows, and no more.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

// MaxBatch bounds the events of one Append.
const MaxBatch = 256

// Registry knows the living sandboxes.
type Registry interface {
	// Sandbox returns a living sandbox by its number.
	Sandbox(number uint32) (*sandbox.Sandbox, bool)
	// Principal returns whom a sandbox acts for, by its id. It knows living
	// sandboxes and those that ended not long ago: their last events may come
	// after their end.
	Principal(id string) (scope.Principal, bool)
}

// Log is where events become durable.
type Log interface {
	Append(ctx context.Context, evs ...*event.Event) (uint64, error)
}

// Desk answers the gateway.
type Desk struct {
	Registry Registry
	Log      Log
	Counters func() []wire.Counter
	// Seen is called for every event of the gateway after it is durable.
	Seen func(*event.Event)
	Now  func() time.Time

	mu       sync.Mutex // guards what follows
	tampered time.Time  // when the last hostile message was recorded
	untold   uint64     // hostile messages since then
}

// tamperEvery is how often hostile messages of the gateway get an event; the
// event counts those in between.
const tamperEvery = 10 * time.Second

type answer func(d *Desk, ctx context.Context, payload []byte) ([]byte, error)

// answers is the whole of what a gateway may ask.
var answers = map[wire.Type]answer{
	wire.TypeResolve:  (*Desk).resolve,
	wire.TypeLeaf:     (*Desk).leaf,
	wire.TypeAppend:   (*Desk).append,
	wire.TypeCounters: (*Desk).counters,
}

// Handle is a wire.Handler. Descriptors sent by the gateway are closed: no
// question carries any. A message that no gateway of ours would send is refused
// and recorded.
func (d *Desk) Handle(ctx context.Context, t wire.Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
	wire.CloseAll(fds)
	var reply []byte
	var err error
	if a := answers[t]; a != nil {
		reply, err = a(d, ctx, payload)
	} else {
		err = &wire.ProtocolError{Msg: fmt.Sprintf("the gateway may not send message %d", t)}
	}
	if pe := (*wire.ProtocolError)(nil); errors.As(err, &pe) {
		d.tamper(ctx, pe)
	}
	return reply, nil, err
}

// tamper records that the gateway sent what only a broken or hostile one sends.
func (d *Desk) tamper(ctx context.Context, why error) {
	now := d.Now()
	d.mu.Lock()
	d.untold++
	if !d.tampered.IsZero() && now.Sub(d.tampered) < tamperEvery {
		d.mu.Unlock()
		return
	}
	n := d.untold
	d.tampered, d.untold = now, 0
	d.mu.Unlock()
	// A log that refuses has its own counter.
	_, _ = d.Log.Append(ctx, &event.Event{Kind: event.KindTamper, Time: now, Source: "keeper", Layer: "keeper", Severity: event.SeverityHigh,
		Verdict: event.Denied, Activity: "refuse", Object: "gateway", ReasonCode: "protocol", Count: n,
		Reason: "the gateway sent a message that no gateway of this version sends; it was refused", Detail: why.Error()})
}

func (d *Desk) resolve(ctx context.Context, payload []byte) ([]byte, error) {
	var q wire.ResolveRequest
	if err := q.Decode(payload); err != nil {
		return nil, err
	}
	sb, ok := d.Registry.Sandbox(q.Sandbox)
	if !ok {
		return nil, errNoSandbox
	}
	r, err := sb.Resolve(q.Name)
	if errors.Is(err, sandbox.ErrNamesExhausted) {
		return wire.ResolveReply{Exhausted: true, Reason: err.Error(), ReasonCode: "names-exhausted"}.Encode(), nil
	}
	if err != nil {
		return nil, err
	}
	return r.Encode(), nil
}

func (d *Desk) leaf(ctx context.Context, payload []byte) ([]byte, error) {
	var q wire.LeafRequest
	if err := q.Decode(payload); err != nil {
		return nil, err
	}
	sb, ok := d.Registry.Sandbox(q.Sandbox)
	if !ok {
		return nil, errNoSandbox
	}
	leaf, ca, err := sb.Leaf(q.Name, q.Point, d.Now())
	if err != nil {
		return nil, err
	}
	return wire.LeafReply{Leaf: leaf, CA: ca}.Encode(), nil
}

// append makes events durable. What only the keeper can know is overwritten;
// see own.
func (d *Desk) append(ctx context.Context, payload []byte) ([]byte, error) {
	evs, err := d.events(payload)
	if err != nil {
		return nil, err
	}
	if _, err := d.Log.Append(ctx, evs...); err != nil {
		return nil, err
	}
	if d.Seen != nil {
		for _, e := range evs {
			d.Seen(e)
		}
	}
	return nil, nil
}

func (d *Desk) events(payload []byte) ([]*event.Event, error) {
	dec := wire.NewDecoder(payload)
	n := int(dec.U16())
	if dec.Err() != nil || n == 0 || n > MaxBatch {
		return nil, &wire.ProtocolError{Msg: fmt.Sprintf("a batch of %d events", n)}
	}
	rest := dec.Rest()
	evs := make([]*event.Event, 0, n)
	for range n {
		e, r, err := event.DecodeWire(rest)
		if err != nil {
			return nil, &wire.ProtocolError{Msg: err.Error()}
		}
		if !gatewayKinds[e.Kind] {
			return nil, &wire.ProtocolError{Msg: fmt.Sprintf("the gateway may not report events of kind %s", e.Kind)}
		}
		rest = r
		d.own(&e)
		evs = append(evs, &e)
	}
	if len(rest) > 0 {
		return nil, &wire.ProtocolError{Msg: fmt.Sprintf("%d bytes after the last event", len(rest))}
	}
	return evs, nil
}

// gatewayKinds is all that the gateway may report: what it decides itself, and
// how it fares.
var gatewayKinds = map[event.Kind]bool{
	event.KindNetwork: true, event.KindDNS: true, event.KindHTTP: true, event.KindInference: true,
	event.KindLoss: true, event.KindDaemon: true,
}

// gatewayLayers are the layers of the gateway; anything else is none.
var gatewayLayers = map[string]bool{"dns": true, "gateway": true, "inference": true}

// own marks an event as the gateway's word and bounds it. The scope is the
// keeper's own; a sandbox that the keeper does not know stands only in the
// detail; processes and actors are not the gateway's to name.
func (d *Desk) own(e *event.Event) {
	e.Source = "gateway"
	e.Sequence, e.ID, e.Logged = 0, "", time.Time{}
	if !gatewayLayers[e.Layer] {
		e.Layer = "gateway"
	}
	e.PID, e.PPID, e.UID, e.Exe, e.Comm, e.Args, e.Parents, e.Actor = 0, 0, 0, "", "", "", "", ""
	if p, ok := d.Registry.Principal(e.Sandbox); ok && e.Sandbox != "" {
		e.Scope = p.String()
	} else {
		if e.Sandbox != "" || e.Scope != "" {
			e.Detail = fmt.Sprintf("the gateway names sandbox %q of %q, which this node does not know; %s", e.Sandbox, e.Scope, e.Detail)
		}
		e.Sandbox, e.Scope = "", ""
	}
	if now := d.Now(); e.Time.IsZero() || e.Time.After(now) {
		e.Time = now
	}
	e.Normalise()
}

func (d *Desk) counters(context.Context, []byte) ([]byte, error) {
	return wire.EncodeCounters(d.Counters()), nil
}

var errNoSandbox = errors.New("no such sandbox")
