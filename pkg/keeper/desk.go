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
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/wire"
)

// MaxBatch bounds the events of one Append.
const MaxBatch = 256

// Registry knows the living sandboxes.
type Registry interface {
	// Sandbox returns a living sandbox by its number.
	Sandbox(number uint32) (*sandbox.Sandbox, bool)
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
}

type answer func(d *Desk, ctx context.Context, payload []byte) ([]byte, error)

// answers is the whole of what a gateway may ask.
var answers = map[wire.Type]answer{
	wire.TypeResolve:  (*Desk).resolve,
	wire.TypeLeaf:     (*Desk).leaf,
	wire.TypeAppend:   (*Desk).append,
	wire.TypeCounters: (*Desk).counters,
}

// Handle is a wire.Handler. Descriptors sent by the gateway are closed: no
// question carries any.
func (d *Desk) Handle(ctx context.Context, t wire.Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
	wire.CloseAll(fds)
	a := answers[t]
	if a == nil {
		return nil, nil, &wire.ProtocolError{Msg: fmt.Sprintf("the gateway may not send message %d", t)}
	}
	reply, err := a(d, ctx, payload)
	return reply, nil, err
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

// append makes events durable. What only the keeper can know is overwritten:
// the source, and the scope and name of the sandbox.
func (d *Desk) append(ctx context.Context, payload []byte) ([]byte, error) {
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
			return nil, err
		}
		rest = r
		d.own(&e)
		evs = append(evs, &e)
	}
	if len(rest) > 0 {
		return nil, &wire.ProtocolError{Msg: fmt.Sprintf("%d bytes after the last event", len(rest))}
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

// own marks an event as the gateway's word and bounds it.
func (d *Desk) own(e *event.Event) {
	e.Source = "gateway"
	e.Sequence, e.ID = 0, ""
	if now := d.Now(); e.Time.IsZero() || e.Time.After(now) {
		e.Time = now
	}
	e.Normalise()
}

func (d *Desk) counters(context.Context, []byte) ([]byte, error) {
	return wire.EncodeCounters(d.Counters()), nil
}

var errNoSandbox = errors.New("no such sandbox")
