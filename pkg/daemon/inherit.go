// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/wire"
)

// inheritance is what a former daemon left and nobody has dealt with yet. What
// lives comes first, while the gateway that may hold its listeners is fed; it
// depends on nothing that an ended sandbox can draw out. It is used by one
// goroutine at a time: by New, by feedings until taken is closed, then by
// settle.
type inheritance struct {
	living     []sandbox.Leftover
	ended      []sandbox.Leftover
	unrestored map[string]error // whose own policy cannot be put into force
}

// inherit looks at what a former daemon left, and puts the policy of its
// sandboxes back into the library before anything is decided for them.
func (d *Daemon) inherit() error {
	all, err := d.sandboxes.Leftovers()
	if err != nil {
		return fmt.Errorf("sandboxes of the daemon before this one: %w", err)
	}
	l := &d.left
	l.unrestored = map[string]error{}
	var foreign []sandbox.Leftover
	for _, lo := range all {
		if err := d.restoreDocuments(lo); err != nil {
			l.unrestored[lo.Record.ID] = fmt.Errorf("its own policy cannot be put into force: %w", err)
		}
		switch {
		case !lo.Lives():
			l.ended = append(l.ended, lo)
		case lo.Record.Foreign != nil:
			foreign = append(foreign, lo)
		default:
			l.living = append(l.living, lo)
		}
	}
	l.living = append(l.living, foreign...) // whose looks take long
	if len(l.living) == 0 {
		close(d.taken)
	}
	return nil
}

// takeOver takes over what lives, while a gateway is fed. An error ends the
// round, with nothing done to those that were not reached: the next feeding
// goes on with them.
func (d *Daemon) takeOver(ctx context.Context, p *wire.Peer) error {
	if isClosed(d.taken) {
		return nil
	}
	for l := &d.left; len(l.living) > 0; l.living = l.living[1:] {
		if err := d.takeOverOne(ctx, p, l.living[0]); err != nil {
			return fmt.Errorf("sandbox %s: %w", l.living[0].Record.ID, err)
		}
	}
	close(d.taken)
	return nil
}

// takeOverOne returns an error only for what is to be tried again.
func (d *Daemon) takeOverOne(ctx context.Context, p *wire.Peer, lo sandbox.Leftover) error {
	ok, err := false, d.left.unrestored[lo.Record.ID]
	if err != nil {
		err = errors.Join(err, d.sandboxes.PutAway(lo))
	} else {
		ok, err = d.sandboxes.TakeOver(ctx, lo, func(n uint32) (*sandbox.Listeners, error) { return takeListeners(ctx, p, n) })
	}
	switch {
	case errors.Is(err, sandbox.ErrLater):
		return err
	case err != nil:
		d.logger.Error("a sandbox could not be taken over", "sandbox", lo.Record.ID, "error", err)
		d.daemonEvent("adopt-failed", fmt.Sprintf("sandbox %s: %v", lo.Record.ID, err))
	case ok:
		d.daemonEvent("adopt", "sandbox "+lo.Record.ID)
	case lo.Record.Foreign == nil: // it ended meanwhile
		d.left.ended = append(d.left.ended, lo)
	}
	return nil
}

// takeListeners asks the gateway for the listeners it still holds. That it
// holds none is what it answers; that it does not answer says nothing.
func takeListeners(ctx context.Context, p caller, number uint32) (*sandbox.Listeners, error) {
	_, fds, err := p.Call(ctx, wire.TypeListeners, wire.ID(number).Encode())
	var none *wire.Failure
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l, ok := sandbox.ListenersFrom(fds)
	if !ok {
		wire.CloseAll(fds)
		return nil, nil
	}
	return l, nil
}

// settle puts away what ended while no daemon ran, once all that lives was
// taken over, and removes from the kernel what is nobody's. Workspaces are
// handed back while the daemon serves already.
func (d *Daemon) settle(ctx context.Context) {
	select {
	case <-d.taken:
	case <-ctx.Done():
		return
	}
	for _, lo := range d.left.ended {
		if err := d.sandboxes.PutAway(lo); err != nil {
			d.logger.Error("what a former daemon left", "sandbox", lo.Record.ID, "error", err)
		}
	}
	d.left = inheritance{}
	d.sandboxes.Severed()
	if err := d.sandboxes.Sweep(); err != nil {
		d.logger.Error("what former daemons left in the kernel", "error", err)
	}
	if err := d.foreign.settle(d.sandboxes.Keeps()); err != nil {
		d.logger.Error("cgroup of listeners", "error", err)
	}
	if err := d.leaveFormer(); err != nil {
		d.logger.Error("kernel programs of the layout before this one are still there", "error", err)
		d.daemonEvent("layout-kept", err.Error())
	}
	d.pruneOutput()
	close(d.settled)
}

// removes says whether the end of this daemon removes everything: if that is
// asked for, or nobody would miss it. What was not dealt with is never removed.
func (d *Daemon) removes(asked bool) bool {
	if !isClosed(d.settled) {
		if asked {
			d.logger.Error("what the daemon before this one left was not taken over yet and stays, behind its fence: start again, and stop it then")
		}
		return false
	}
	return asked || len(d.sandboxes.List())+d.sandboxes.Keeps()+len(d.sandboxes.Ending()) == 0
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
