// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
)

// keySettle is how long the directory of secrets must be quiet before it is read:
// a key is written in several steps. keyRetry is when it is tried again.
const (
	keySettle = 100 * time.Millisecond
	keyRetry  = time.Second
)

// watchKeys hands the gateway the provider keys anew when a file in the directory of
// secrets changes, until ctx ends. So a key is rotated by replacing its file.
func (d *Daemon) watchKeys(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the secrets: %w", err)
	}
	defer w.Close()
	if err := w.Add(d.secrets.dir); err != nil {
		return fmt.Errorf("watch %s: %w", d.secrets.dir, err)
	}
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events: // a mode counts, too: one that others may read is not used
			timer.Reset(keySettle)
		case err := <-w.Errors:
			d.logger.Warn("watch of the secrets", "error", err) // an overflow loses names, not the fact of a change
			timer.Reset(keySettle)
		case <-timer.C:
			switch err := d.sendSecrets(ctx, d.gateway); {
			case err == nil:
				d.logger.Info("provider keys have changed: the gateway has them")
			case ctx.Err() == nil && d.gateway.Ready():
				d.logger.Warn("provider keys have changed; the gateway does not have them yet, and it is tried again", "error", err)
				timer.Reset(keyRetry)
			} // a gateway that comes later gets them with everything else
		}
	}
}
