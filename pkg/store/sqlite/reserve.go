// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func (s *Store) reserve() string { return filepath.Join(s.o.Dir, reserveName) }

// holdReserve takes the space back that freeReserve gave.
func (s *Store) holdReserve() error {
	if st, err := os.Stat(s.reserve()); err == nil && st.Size() == reserveSize {
		return nil
	}
	f, err := os.OpenFile(s.reserve(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, reserveSize), f.Close()); err != nil {
		return errors.Join(err, os.Remove(s.reserve())) // a part of it would look like all
	}
	return nil
}

// freeReserve gives the space to the next write; false if there was none.
func (s *Store) freeReserve() bool { return os.Remove(s.reserve()) == nil }
