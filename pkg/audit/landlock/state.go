// SPDX-License-Identifier: Apache-2.0

//go:build linux

package landlock

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ours is what the lock file holds while audit is on because of us.
const ours = "on"

// state is one daemon's share in the machine's audit state: a shared lock for
// as long as it reads.
type state struct {
	mu   sync.Mutex
	lock *os.File
	done bool
}

// openState waits while another daemon, the last one, switches audit off.
func openState(path string) (*state, error) {
	if path == "" {
		return &state{done: true}, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("landlock: %w", err)
	}
	if err := flock(f, unix.LOCK_SH); err != nil {
		return nil, errors.Join(fmt.Errorf("landlock: lock %s: %w", path, err), f.Close())
	}
	return &state{lock: f}, nil
}

// close gives the share up without touching the machine's state.
func (s *state) close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// enable switches audit on where it is off and wanted on.
func (s *state) enable(wanted bool) error {
	on, err := auditEnabled()
	switch {
	case err != nil:
		return err
	case on != 0:
		return nil
	case !wanted:
		return ErrOff
	case s.lock == nil:
		return errors.New("landlock: audit is not switched on without a lock")
	}
	if _, err := s.lock.WriteAt([]byte(ours), 0); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return setAudit(1)
}

// restore switches audit off if it is on because of us and nobody of us reads
// it any more. 2 is locked by somebody who wants it on.
func (s *state) restore() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return nil
	}
	err := flock(s.lock, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) { // the last one will
		s.done = true
		return s.lock.Close()
	}
	if err != nil {
		return fmt.Errorf("landlock: lock: %w", err)
	}
	if err := s.off(); err != nil {
		return err
	}
	s.done = true
	return s.lock.Close()
}

func (s *state) off() error {
	said := make([]byte, len(ours))
	if n, _ := s.lock.ReadAt(said, 0); string(said[:n]) != ours {
		return nil // it was on before us
	}
	now, err := auditEnabled()
	if err != nil {
		return err
	}
	if now == 1 {
		if err := setAudit(0); err != nil {
			return err
		}
	}
	return s.lock.Truncate(0)
}
