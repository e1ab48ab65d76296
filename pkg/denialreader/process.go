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
	var overruns uint64
	for {
		wait, stop := ctx, context.CancelFunc(func() {})
		if t.Waiting() {
			wait, stop = context.WithTimeout(ctx, settle)
		}
		rec, err := r.Next(wait)
		stop()
		switch {
		case err == nil:
			send(ctx, peer, t.Add(rec))
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			send(ctx, peer, t.Flush())
		default:
			return err
		}
		if n := r.Stats().Overruns; n > overruns {
			reportLoss(ctx, peer, n-overruns)
			overruns = n
		}
	}
}

// send hands denials to the keeper. One that is not taken is counted by the
// keeper's own log as it refuses.
func send(ctx context.Context, peer *wire.Peer, ds []landlock.Denial) {
	for i := range ds {
		e := ds[i].Event()
		post(ctx, peer, &e)
	}
}

func post(ctx context.Context, peer *wire.Peer, e *event.Event) {
	var enc wire.Encoder
	enc.U16(1)
	enc.B = e.AppendWire(enc.B)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, _, _ = peer.Call(ctx, wire.TypeAppend, enc.B) // the keeper counts what it does not take
}

func reportLoss(ctx context.Context, peer *wire.Peer, n uint64) {
	post(ctx, peer, &event.Event{Kind: event.KindLoss, Time: time.Now().UTC(), Activity: "audit-overrun", Lost: n,
		Reason: "the kernel dropped audit records of file denials (the number of overruns is counted, not of records)"})
}
