// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/wire"
)

// hostile records what a process of ours sent that only a broken or taken over
// one sends. The zero value is ready.
type hostile struct {
	mu   sync.Mutex // guards what follows
	told time.Time  // when the last such message was recorded
	more uint64     // such messages since then
}

// hostileEvery is how often the messages of one process get an event; the
// event counts those in between.
const hostileEvery = 10 * time.Second

// look records err if it is a *wire.ProtocolError of the process called who.
func (h *hostile) look(ctx context.Context, log Log, now time.Time, who string, err error) {
	var pe *wire.ProtocolError
	if !errors.As(err, &pe) {
		return
	}
	h.mu.Lock()
	h.more++
	if !h.told.IsZero() && now.Sub(h.told) < hostileEvery {
		h.mu.Unlock()
		return
	}
	n := h.more
	h.told, h.more = now, 0
	h.mu.Unlock()
	// A log that refuses has its own counter.
	_, _ = log.Append(ctx, &event.Event{Kind: event.KindTamper, Time: now, Source: "keeper", Layer: "keeper", Severity: event.SeverityHigh,
		Verdict: event.Denied, Activity: "refuse", Object: who, ReasonCode: "protocol", Count: n,
		Reason: "the " + who + " sent a message that no " + who + " of this version sends; it was refused", Detail: pe.Error()})
}
