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
	// Clients puts the processes into events of the gateway that it knows, and
	// leaves the others. nil knows none.
	Clients func(context.Context, []Client)
	// Approval answers whether people let a connection pass. nil refuses it.
	Approval func(ctx context.Context, sb *sandbox.Sandbox, q *wire.ApprovalRequest) (wire.ApprovalReply, error)
	// ModelApproval answers whether people let a request to a model pass. nil
	// refuses it.
	ModelApproval func(ctx context.Context, sb *sandbox.Sandbox, q *wire.ModelApprovalRequest) (wire.ApprovalReply, error)
	// Budgets does what the gateway says of money, and answers what it asks for. nil
	// refuses it.
	Budgets func(ctx context.Context, q *wire.BudgetExchange) (wire.BudgetReply, error)
	Now     func() time.Time
	// TakenOver is closed when the sandboxes of a former keeper were taken over;
	// questions about sandboxes wait for it. nil is closed.
	TakenOver <-chan struct{}

	hostile hostile
}

// Client is an event of the gateway and the tag (kernel.Process.Tag) by which
// the kernel told it which process of the event's sandbox it is about. The
// gateway knows no more of it, and can blame the wrong process of a sandbox as
// it can lie about everything else that it alone sees.
type Client struct {
	Event *event.Event
	Tag   uint32
}

type answer func(d *Desk, ctx context.Context, payload []byte) ([]byte, error)

// living finds a sandbox. A gateway that a former keeper left asks before its
// sandboxes were taken over: those questions wait, and are not refused.
func (d *Desk) living(ctx context.Context, number uint32) (*sandbox.Sandbox, error) {
	if d.TakenOver != nil {
		select {
		case <-d.TakenOver:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if sb, ok := d.Registry.Sandbox(number); ok {
		return sb, nil
	}
	return nil, errNoSandbox
}

// answers is the whole of what a gateway may ask.
var answers = map[wire.Type]answer{
	wire.TypeResolve:  (*Desk).resolve,
	wire.TypeLeaf:     (*Desk).leaf,
	wire.TypeAppend:   (*Desk).append,
	wire.TypeCounters: (*Desk).counters,
	wire.TypeApproval: (*Desk).approval,

	wire.TypeModelApproval: (*Desk).modelApproval,
	wire.TypeBudgets:       (*Desk).budgets,
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
	d.hostile.look(ctx, d.Log, d.Now(), "gateway", err)
	return reply, nil, err
}

func (d *Desk) resolve(ctx context.Context, payload []byte) ([]byte, error) {
	var q wire.ResolveRequest
	if err := q.Decode(payload); err != nil {
		return nil, err
	}
	sb, err := d.living(ctx, q.Sandbox)
	if err != nil {
		return nil, err
	}
	r, err := sb.Resolve(q.Name)
	if errors.Is(err, sandbox.ErrNamesExhausted) || errors.Is(err, sandbox.ErrNoNameRoom) {
		return wire.ResolveReply{Exhausted: true, Reason: err.Error(), ReasonCode: "names-exhausted"}.Encode()
	}
	if err != nil {
		return nil, err
	}
	r.Reason, r.Rule, r.RuleAt = wire.Clip(r.Reason, wire.MaxText), wire.Clip(r.Rule, wire.MaxText), wire.Clip(r.RuleAt, wire.MaxText)
	return r.Encode()
}

func (d *Desk) leaf(ctx context.Context, payload []byte) ([]byte, error) {
	var q wire.LeafRequest
	if err := q.Decode(payload); err != nil {
		return nil, err
	}
	sb, err := d.living(ctx, q.Sandbox)
	if err != nil {
		return nil, err
	}
	leaf, ca, err := sb.Leaf(q.Name, q.Point, d.Now())
	if err != nil {
		return nil, err
	}
	return wire.LeafReply{Leaf: leaf, CA: ca}.Encode()
}

func (d *Desk) approval(ctx context.Context, payload []byte) ([]byte, error) {
	var q wire.ApprovalRequest
	if err := q.Decode(payload); err != nil {
		return nil, err
	}
	sb, err := d.living(ctx, q.Sandbox)
	if err != nil {
		return nil, err
	}
	return asked(ctx, d.Approval, sb, &q)
}

func (d *Desk) modelApproval(ctx context.Context, payload []byte) ([]byte, error) {
	var q wire.ModelApprovalRequest
	if err := q.Decode(payload); err != nil {
		return nil, err
	}
	sb, err := d.living(ctx, q.Sandbox)
	if err != nil {
		return nil, err
	}
	return asked(ctx, d.ModelApproval, sb, &q)
}

// asked is the answer of who knows about people; nobody refuses.
func asked[Q any](ctx context.Context, who func(context.Context, *sandbox.Sandbox, Q) (wire.ApprovalReply, error), sb *sandbox.Sandbox, q Q) ([]byte, error) {
	if who == nil {
		return wire.ApprovalReply{Reason: "nobody can be asked here", ReasonCode: "approval"}.Encode()
	}
	r, err := who(ctx, sb, q)
	if err != nil {
		return nil, err
	}
	r.Reason = wire.Clip(r.Reason, wire.MaxText)
	return r.Encode()
}

// append makes events durable. What only the keeper can know is overwritten;
// see own.
func (d *Desk) append(ctx context.Context, payload []byte) ([]byte, error) {
	evs, clients, err := d.events(payload)
	if err != nil {
		return nil, err
	}
	if d.Clients != nil && len(clients) > 0 {
		d.Clients(ctx, clients)
		for _, c := range clients {
			c.Event.Normalise()
		}
	}
	// What a gateway told before it died is recorded too.
	if _, err := d.Log.Append(context.WithoutCancel(ctx), evs...); err != nil {
		return nil, err
	}
	if d.Seen != nil {
		for _, e := range evs {
			d.Seen(e)
		}
	}
	return nil, nil
}

func (d *Desk) events(payload []byte) ([]*event.Event, []Client, error) {
	dec := wire.NewDecoder(payload)
	n := int(dec.U16())
	if dec.Err() != nil || n == 0 || n > MaxBatch {
		return nil, nil, &wire.ProtocolError{Msg: fmt.Sprintf("a batch of %d events", n)}
	}
	rest := dec.Rest()
	evs := make([]*event.Event, 0, n)
	var clients []Client
	for range n {
		e, r, err := event.DecodeWire(rest)
		if err != nil {
			return nil, nil, &wire.ProtocolError{Msg: err.Error()}
		}
		if !gatewayKinds[e.Kind] {
			return nil, nil, &wire.ProtocolError{Msg: fmt.Sprintf("the gateway may not report events of kind %s", e.Kind)}
		}
		rest = r
		tag := e.PID
		d.own(&e)
		if tag != 0 && e.Sandbox != "" {
			clients = append(clients, Client{&e, tag})
		}
		evs = append(evs, &e)
	}
	if len(rest) > 0 {
		return nil, nil, &wire.ProtocolError{Msg: fmt.Sprintf("%d bytes after the last event", len(rest))}
	}
	return evs, clients, nil
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
// detail; processes and actors are not the gateway's to name. Of a process it
// knows the tag, which it says in PID.
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
	return wire.EncodeCounters(d.Counters())
}

var errNoSandbox = errors.New("no such sandbox")
