// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"context"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the directory must be quiet before it is read: editors
// write in several steps.
const settle = 50 * time.Millisecond

// Watch reloads when the policy directory changes, until ctx ends. A reload
// that fails as a whole is logged; the last good policy stays in force.
func (l *Library) Watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("documents: watch: %w", err)
	}
	defer w.Close()
	if err := w.Add(l.o.Dir); err != nil {
		return fmt.Errorf("documents: watch %s: %w", l.o.Dir, err)
	}
	timer := time.NewTimer(settle) // once at the start: changes before Add are not announced
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return nil
			}
			timer.Reset(settle)
		case err, ok := <-w.Errors:
			if !ok {
				return nil
			}
			l.o.Logger.Warn("policy directory watch", "error", err) // an overflow loses names, not the fact of a change
			timer.Reset(settle)
		case <-timer.C:
			if err := l.Reload(); err != nil {
				l.o.Logger.Error("policy reload failed; the last good policy stays in force", "error", err)
			}
		}
	}
}
