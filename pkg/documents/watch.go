// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"context"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the directory must be quiet before it is read: editors
// write in several steps. impatience bounds the wait when it never is.
const (
	settle     = 50 * time.Millisecond
	impatience = time.Second
)

// retry is how often a directory that went away is looked for, and a policy
// that could not be stored is tried again.
const retry = time.Second

// Watch reloads when the policy directory changes, until ctx ends. A reload
// that fails as a whole is logged and tried again; the last good policy stays
// in force. A directory that is removed or replaced is watched again when it is
// back.
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
	var since time.Time            // of the first change that was not read yet
	touch := func() {
		if now := time.Now(); since.IsZero() {
			since = now
		} else if now.Sub(since) > impatience {
			return // the timer runs
		}
		timer.Reset(settle)
	}
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return nil
			}
			touch()
		case err, ok := <-w.Errors:
			if !ok {
				return nil
			}
			l.o.Logger.Warn("policy directory watch", "error", err) // an overflow loses names, not the fact of a change
			touch()
		case <-l.late:
			timer.Reset(retry)
		case <-timer.C:
			since = time.Time{}
			// Adding what is watched already does nothing; a directory that
			// stands in the place of the watched one is watched from here on.
			err := w.Add(l.o.Dir)
			if err == nil {
				err = l.Reload()
			}
			if err != nil && !failed {
				l.o.Logger.Error("policy reload failed; the last good policy stays in force and it is tried again", "error", err)
			}
			if failed = err != nil; failed || l.Owes() {
				timer.Reset(retry)
			}
		}
	}
}
