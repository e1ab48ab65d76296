// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// ender ends what is open and denied, beside the enforcement of the next change:
// the kernel refuses from the switch on, and that a sandbox has many sockets to
// end must not delay what is closed next.
type ender struct {
	wake chan struct{}

	mu      sync.Mutex // guards what follows
	waiting []revocation
}

// revocation is one change whose flows are to be ended.
type revocation struct {
	since time.Time
	told  <-chan struct{} // closed when the gateway has ended what it denies; nil: it is not waited for
	ended chan struct{}
}

func newEnder() *ender { return &ender{wake: make(chan struct{}, 1)} }

// after asks for a look that begins when the gateway was told, or has had its
// start. The returned channel is closed when the look has ended what is denied.
func (e *ender) after(told <-chan struct{}) <-chan struct{} {
	r := revocation{since: time.Now(), told: told, ended: make(chan struct{})}
	e.put(r)
	return r.ended
}

// look asks for one because a sandbox closed something by itself.
func (e *ender) look() { e.put() }

func (e *ender) put(r ...revocation) {
	e.mu.Lock()
	e.waiting = append(e.waiting, r...)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *ender) take() []revocation {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.waiting
	e.waiting = nil
	return list
}

// gatewayStart is how long the kernel's sockets wait for the gateway to end a
// revoked flow by itself.
const gatewayStart = 50 * time.Millisecond

// endRevoked runs until ctx ends. A look that failed is repeated; one that comes
// when late connects are through follows each. Where the kernel cannot do it the
// gateway alone ends flows; that was said at the start.
func (d *Daemon) endRevoked(ctx context.Context) {
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.ender.wake:
		case <-again.C:
		}
		list := d.ender.take()
		for _, r := range list {
			r.awaitGateway(ctx)
		}
		more, err := d.sandboxes.EndDenied()
		switch {
		case errors.Is(err, kernel.ErrNoDestroy):
		case err != nil:
			d.logger.Error("what policy denies may be open still; trying again", "error", err)
			d.ender.back(list)
			again.Reset(enforceAgain)
			continue
		case more:
			again.Reset(sandbox.Settle)
		}
		for _, r := range list {
			close(r.ended)
		}
	}
}

// back takes up again what was taken.
func (e *ender) back(list []revocation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = append(list, e.waiting...)
}

// awaitGateway gives the gateway its start: it is the one that knows a flow and
// records that it was revoked.
func (r revocation) awaitGateway(ctx context.Context) {
	if r.told == nil {
		return
	}
	select {
	case <-r.told:
	case <-time.After(gatewayStart - time.Since(r.since)):
	case <-ctx.Done():
	}
}

// sayDestroy says at the start that flows cannot be ended in the kernel.
func (d *Daemon) sayDestroy() {
	err := kernel.CanDestroy()
	if err == nil {
		return
	}
	d.logger.Warn("flows that a new policy denies are ended by the gateway alone", "error", err)
	d.daemonEvent("degraded", "flows that a new policy denies are ended by the gateway alone, and one that it does not know stalls: "+err.Error())
}
