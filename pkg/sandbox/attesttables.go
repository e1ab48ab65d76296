// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// What the kernel's tables hold for a sandbox is compared in both directions:
// every entry that was written must be there (attestTables), and every entry
// that is there must have been written (attestEntries). Both are bounded.

// entriesPerLook is how many entries of its own table one look at a sandbox
// compares; the next look goes on behind them.
const entriesPerLook = 1024

// attestTables looks for entries of the sandbox's table that are gone or say
// something else: a missing denial within an allowed prefix opens it.
func (s *Sandbox) attestTables(d *differences) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.written {
		return // by a former keeper, and about to be replaced
	}
	all, err := s.entriesLocked()
	if err != nil {
		d.add(LayerNetwork, "table %d: %v", s.table, err)
		return
	}
	if s.lookAt >= len(all) {
		s.lookAt = 0
	}
	part := all[s.lookAt:min(len(all), s.lookAt+entriesPerLook)]
	for _, e := range part {
		ok, err := s.m.o.Fence.Holds(e)
		if err != nil {
			d.add(LayerNetwork, "table %d: %v", s.table, err)
			return
		}
		if !ok {
			d.add(LayerNetwork, "table %d: %q is not there any more", s.table, e.String())
		}
	}
	if len(*d) == 0 { // or the next look has to find it again
		s.lookAt += len(part)
	}
}

// entriesLocked are those that the sandbox's table is to hold.
func (s *Sandbox) entriesLocked() ([]kernel.Entry, error) {
	names := s.refusal()
	for _, addr := range slices.SortedFunc(maps.Keys(s.open), netip.Addr.Compare) { // in the same order next time
		names = append(names, s.open[addr]...)
	}
	return kernel.Entries(s.table, names, s.addrEntries(s.View()))
}

// attestEntries looks for entries that nobody wrote, among about n entries of
// all sandboxes from where it stopped before. It returns the sandboxes in
// whose table it found one, with what.
func (m *Manager) attestEntries(n int) (map[*Sandbox][]kernel.Entry, error) {
	byTable := map[uint32]*Sandbox{}
	for _, s := range m.List() {
		s.mu.Lock()
		if s.written {
			byTable[s.table] = s
		}
		s.mu.Unlock()
	}
	found := map[*Sandbox][]kernel.Entry{}
	var of uint32 // whose address rules the set below holds: entries of one table come together
	var rules map[kernel.Entry]bool
	if m.walk == nil {
		m.walk = m.o.Fence.NewWalker()
	}
	_, err := m.walk.Next(n, func(e kernel.Entry) {
		s := byTable[e.Policy()]
		if s == nil {
			return // the gateway's own, or of a table that no state names yet or any more
		}
		if !e.Virtual().IsValid() && of != e.Policy() {
			of, rules = e.Policy(), s.ruleSet(e.Policy())
		}
		if !s.wrote(e, rules) {
			found[s] = append(found[s], e)
		}
	})
	return found, err
}

// ruleSet is every address rule of a table; nil when it is in use no more.
func (s *Sandbox) ruleSet(table uint32) map[kernel.Entry]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table != table {
		return nil
	}
	all, err := kernel.Entries(table, nil, s.addrEntries(s.View()))
	if err != nil {
		return nil // attestTables says so
	}
	out := make(map[kernel.Entry]bool, len(all))
	for _, e := range all {
		out[e] = true
	}
	return out
}

// wrote says whether an entry that the kernel holds is one that was written, or
// is of a table that is in use no more.
func (s *Sandbox) wrote(e kernel.Entry, rules map[kernel.Entry]bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table != e.Policy() {
		return true
	}
	addr := e.Virtual()
	if !addr.IsValid() {
		return rules[e]
	}
	return slices.ContainsFunc(append(s.refusal(), s.open[addr]...), func(n kernel.NameEntry) bool {
		want, err := n.Entry(s.table)
		return err == nil && want == e
	})
}

// attestUnwritten looks again at entries that nobody wrote.
func (s *Sandbox) attestUnwritten(entries []kernel.Entry, d *differences) {
	for _, e := range entries {
		if s.wrote(e, nil) { // the sandbox has another table now
			continue
		}
		if ok, err := s.m.o.Fence.Holds(e); err != nil || ok {
			d.add(LayerNetwork, "table %d: %q was not written by this daemon", e.Policy(), e.String())
		}
	}
}
