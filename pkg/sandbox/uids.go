// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// UIDRange is the range of host uids (and equal gids) from which sandboxes
// that root launches get one of their own.
type UIDRange struct{ First, Count uint32 }

// UIDs hands out uids. A lock file per uid in a directory shared by every
// keeper of the machine keeps two keepers apart; the lock is a flock(2), so a
// crash frees it, and taking a sandbox over takes it again.
type UIDs struct {
	Dir   string
	Range UIDRange
}

// UID is one uid in use. Release gives it back.
//
// Its lock file holds "PID START" of the sandbox's init, see Bind.
type UID struct {
	Value uint32
	lock  *os.File
}

// ErrNoUID says that every uid of the range is in use.
var ErrNoUID = errors.New("every uid of the configured range is in use; stop a sandbox or widen uidRange")

// Acquire takes a free uid, starting the search at hint.
func (u UIDs) Acquire(hint uint32) (*UID, error) {
	for i := range u.Range.Count {
		v := u.Range.First + (hint+i)%u.Range.Count
		got, err := u.Take(v)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err == nil && got.orphaned() {
			got.leave()
			continue
		}
		return got, err
	}
	return nil, ErrNoUID
}

// Take takes one particular uid; EWOULDBLOCK when another sandbox has it.
func (u UIDs) Take(v uint32) (*UID, error) {
	if err := u.checkDir(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(u.Dir, strconv.FormatUint(uint64(v), 10)), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("uid lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("uid %d: %w", v, err)
	}
	return &UID{Value: v, lock: f}, nil
}

// checkDir makes the directory, or sees to it that nobody else can make or
// remove locks in the one that is there.
func (u UIDs) checkDir() error {
	if err := os.MkdirAll(u.Dir, 0o700); err != nil {
		return fmt.Errorf("uid locks: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(u.Dir, &st); err != nil {
		return fmt.Errorf("uid locks: %s: %w", u.Dir, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("uid locks: %s is not a directory", u.Dir)
	case st.Uid != uint32(os.Geteuid()): // the keeper's: root
		return fmt.Errorf("uid locks: %s belongs to uid %d; it must be root's alone", u.Dir, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("uid locks: others can write %s (mode %#o); make it 0700", u.Dir, st.Mode&0o7777)
	}
	return nil
}

// Bind notes the sandbox's first process in the lock file.
func (u *UID) Bind(p Process) error {
	if _, err := u.lock.WriteAt([]byte(fmt.Sprintf("%d %d\n", p.PID, p.Start)), 0); err != nil {
		return fmt.Errorf("uid lock: %w", err)
	}
	return nil
}

// orphaned says that the uid belongs to a live sandbox whose keeper is gone.
func (u *UID) orphaned() bool {
	b := make([]byte, 64)
	n, _ := u.lock.ReadAt(b, 0)
	var p Process
	if _, err := fmt.Sscanf(string(b[:n]), "%d %d", &p.PID, &p.Start); err != nil {
		return false
	}
	return p.Alive()
}

// leave unlocks a uid that is somebody else's, and lets what stands in its lock
// file stand.
func (u *UID) leave() {
	u.lock.Close()
	u.lock = nil
}

// Release gives the uid back.
func (u *UID) Release() {
	if u != nil && u.lock != nil {
		_ = u.lock.Truncate(0) // a stale line only makes Acquire look at a dead process
		u.lock.Close()
		u.lock = nil
	}
}

// acquireUID prefers a uid that an ended sandbox of this keeper had.
func (m *Manager) acquireUID(hint uint32) (*UID, error) {
	for {
		m.mu.Lock()
		if len(m.idle) == 0 {
			m.mu.Unlock()
			return m.o.UIDs.Acquire(hint)
		}
		v := m.idle[len(m.idle)-1]
		m.idle = m.idle[:len(m.idle)-1]
		m.mu.Unlock()
		uid, err := m.o.UIDs.Take(v)
		if err == nil && !uid.orphaned() {
			return uid, nil
		}
		if err == nil {
			uid.leave()
		}
	}
}

// releaseUID gives a uid back; nil is none.
func (m *Manager) releaseUID(u *UID) {
	if u == nil {
		return
	}
	u.Release()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.idle) < maxIdle {
		m.idle = append(m.idle, u.Value)
	}
}

// maxIdle bounds how many uids a manager remembers.
const maxIdle = 128
