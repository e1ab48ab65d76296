// SPDX-License-Identifier: Apache-2.0

// Package denialreader is the process that reads the kernel's audit records of
// file denials. Their paths and names are chosen by sandboxes, so they are
// parsed here, without privileges, and reach the keeper as typed messages.
package denialreader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ringfence/ringfence/pkg/audit/landlock"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/harden"
	"github.com/ringfence/ringfence/pkg/keeper"
	"github.com/ringfence/ringfence/pkg/wire"
)

// settle is how long a denial waits for the record that describes its domain.
const settle = 50 * time.Millisecond

// Main runs until the keeper is gone or ctx ends.
func Main(ctx context.Context, log *slog.Logger) error {
	conn, err := wire.FromFile(os.NewFile(keeper.FDKeeper, "keeper"))
	if err != nil {
		return fmt.Errorf("this is started by ringfenced, not by hand: %w", err)
	}
	if _, err := harden.Process(os.NewFile(keeper.FDReaderFilter, "filter"), harden.Files{}, log); err != nil {
		return fmt.Errorf("the denial reader could not confine itself: %w", err)
	}
	r, err := landlock.NewReader(os.NewFile(keeper.FDAudit, "audit"))
	if err != nil {
		return err
	}
	defer r.Close()
	peer := wire.NewPeer(conn, refuse, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel() // the keeper is gone
		if err := peer.Serve(ctx); err != nil {
			log.Warn("denial reader", "error", err)
		}
	}()
	return read(ctx, r, peer)
}

// refuse: the keeper asks nothing of this process.
func refuse(context.Context, wire.Type, []byte, []*os.File) ([]byte, []*os.File, error) {
	return nil, nil, errors.New("the denial reader answers nothing")
}

func read(ctx context.Context, r *landlock.Reader, peer *wire.Peer) error {
	var t landlock.Tracker
	loss := losses{post: func(e *event.Event) bool { return post(ctx, peer, e) }}
	for {
		wait, stop := ctx, context.CancelFunc(func() {})
		if t.Waiting() {
			wait, stop = context.WithTimeout(ctx, settle)
		}
		rec, err := r.Next(wait)
		stop()
		switch {
		case err == nil:
			loss.send(t.Add(rec))
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			loss.send(t.Flush())
		default:
			return err
		}
		loss.tell(r.Stats())
	}
}

// losses counts what did not reach the keeper, by kind, until the keeper knows.
type losses struct {
	post   func(*event.Event) bool
	unsent uint64 // denials that could not be handed over
	told   map[string]uint64
}

// send hands denials to the keeper.
func (l *losses) send(ds []landlock.Denial) {
	for i := range ds {
		e := ds[i].Event()
		if !l.post(&e) {
			l.unsent++
		}
	}
}

// tell reports what was lost since the last report that arrived.
func (l *losses) tell(st landlock.Stats) {
	if l.told == nil {
		l.told = map[string]uint64{}
	}
	for kind, n := range map[string]uint64{keeper.LossOverrun: st.Overruns, keeper.LossUnsent: l.unsent, keeper.LossBroken: st.Malformed} {
		lost := n - l.told[kind]
		if lost > 0 && l.post(&event.Event{Kind: event.KindLoss, Time: time.Now().UTC(), Activity: kind, Lost: lost}) {
			l.told[kind] = n
		}
	}
}

// post says whether the keeper took the event.
func post(ctx context.Context, peer *wire.Peer, e *event.Event) bool {
	var enc wire.Encoder
	enc.U16(1)
	enc.B = e.AppendWire(enc.B)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, _, err := peer.Call(ctx, wire.TypeAppend, enc.B)
	return err == nil
}
