// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
)

// NodeOwn is where the numbers of the node itself begin: those of its gateway
// and of its gateway's tables.
const NodeOwn = 1 << 31

// numberOf is the inverse of IDOf; 0 for what is no id.
func numberOf(id string) uint32 {
	n, err := strconv.ParseUint(id, 16, 32)
	if err != nil || IDOf(uint32(n)) != id {
		return 0
	}
	return uint32(n)
}

// unfinished is what can be known of a launch of which nothing but the id is
// left.
func (m *Manager) unfinished(id string) Record {
	return Record{ID: id, Number: numberOf(id), Cgroup: filepath.Join(m.o.CgroupBase, cgroupPrefix+id)}
}

// Sweep removes from the kernel what former keepers left and nobody owns:
// fences of sandboxes that this manager does not know, and table entries that
// no state names. It is for after every leftover was taken over or severed;
// launches may be under way.
//
// While something of a former keeper stays as it is, tables stay too: the one
// that it is judged on may be any, and one that goes entry by entry opens what
// its exceptions close.
func (m *Manager) Sweep() error {
	// What is seen first and reserved by nobody afterwards is nobody's: a
	// launch reserves its numbers before it uses them.
	pinned, err := m.o.Fence.Pinned()
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	tables, err := m.o.Fence.Tables()
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	var errs []error
	for _, n := range pinned {
		if n < NodeOwn && !m.owned(n) {
			m.o.Logger.Warn("a fence without a sandbox is removed", "sandbox", IDOf(n))
			id := IDOf(n)
			errs = append(errs, m.discard(m.leftover(Leftover{Record: m.unfinished(id), dir: filepath.Join(m.o.Dir, id)})))
		}
	}
	if err := errors.Join(errs...); err != nil || m.keepsTables() {
		m.o.Logger.Warn("tables of former daemons stay: something is judged on them that could not be taken over")
		return err
	}
	m.mu.Lock()
	var old []uint32
	for _, t := range tables {
		if t < NodeOwn && !m.tables[t] {
			old = append(old, t)
		}
	}
	m.mu.Unlock()
	return m.dropTables(old...)
}

// keepsTables says that something stays of a former keeper of which it is not
// known which table it is judged on.
func (m *Manager) keepsTables() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.kept) > 0 || slices.ContainsFunc(m.stuck, func(s *Sandbox) bool { return s.fence == nil })
}

// owned says whether a number belongs to a launch under way, a living sandbox
// or one that could not be ended.
func (m *Manager) owned(number uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, taken := m.reserved[number]
	return taken
}
