// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"time"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// endDenied ends what sandboxes have open and the policy in force denies, and
// arranges for the look that comes when late connects are through. Where the
// kernel cannot do it the gateway alone ends flows; that was said at the start.
func (d *Daemon) endDenied(late *time.Timer) error {
	more, err := d.sandboxes.EndDenied()
	if errors.Is(err, kernel.ErrNoDestroy) {
		return nil
	}
	if more {
		late.Reset(sandbox.Settle)
	}
	return err
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
