// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// rewriteLog writes a log that was left behind over itself, and syncs it. What a
// process before wrote and could not sync may be in the page cache only, marked
// as clean: it would be read as committed, and no later sync would bring it to
// the disk. In place it takes no space, and the bytes are the same whatever of it
// comes to the disk.
func (s *Store) rewriteLog() error {
	path := s.path() + "-wal"
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: the log that was left behind: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("store: the log that was left behind: %w", err)
	}
	_, err = f.WriteAt(b, 0)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("store: the log that was left behind cannot be synced: %w", err)
	}
	if s.o.synced != nil {
		s.o.synced(path)
	}
	return nil
}
