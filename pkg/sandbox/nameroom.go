// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// The kernel's table of names is the whole node's, with one entry for each port of
// each name. Half of it stays free: at a policy change every sandbox has its new
// table beside the former one, and what did not fit would hold the change up. Of
// the other half every sandbox has a part of its own, and the rest is shared: an
// owner's sandboxes have three quarters at most of what the other owners leave, so
// that there is something left for whoever comes next. Names that only a
// wildcard allows have half of each bound: they take no room from those that a
// rule names.
const (
	nameTable  = 1 << 18 // its size (bpf/maps.h)
	namesEach  = 64      // entries that each of 1,024 sandboxes has for certain
	namesMost  = 8192    // and has at most: MaxNames with two ports
	namesShare = nameTable/2 - 1024*namesEach
)

func newNameRoom() room { return room{each: namesEach, most: namesMost, share: namesShare} }

// ErrNoNameRoom says that a sandbox may have no more entries in the kernel's table
// of names.
var ErrNoNameRoom = errors.New("the kernel's table has no room for more names and ports of this sandbox, or of its owner's sandboxes together; allow fewer ports by wildcard rules, name hosts in rules of their own, or stop sandboxes")

// fit takes room for what a policy opens and leaves out what there is none for:
// of the names that only a wildcard allows the newest first, and then of the
// others. Those are closed.
func (s *Sandbox) fit(open map[netip.Addr][]kernel.NameEntry, wild map[netip.Addr]bool) (left int) {
	var want entries
	for a, ports := range open {
		want.add(len(ports), wild[a])
	}
	got := s.m.names.take(s.Record.Number, s.Record.Owner, want)
	if got == want {
		return 0
	}
	addrs := slices.SortedFunc(maps.Keys(open), func(a, b netip.Addr) int { return b.Compare(a) })
	for _, a := range addrs {
		n := len(open[a])
		if wild[a] && want.wild > got.wild || !wild[a] && want.named > got.named {
			want.add(-n, wild[a])
			delete(open, a)
			left++
		}
	}
	s.m.names.take(s.Record.Number, s.Record.Owner, want)
	return left
}

// findRoom counts what the kernel has for sandboxes of a former keeper, before any of them
// is under a new policy: what one of them was refused, or wants since, is not to take the
// room of those that come after it.
func (m *Manager) findRoom(left []Leftover) error {
	if len(left) == 0 {
		return nil
	}
	sizes, err := m.o.Fence.TableSizes()
	if err != nil {
		return err
	}
	var errs []error
	for _, lo := range left {
		r := &lo.Record
		if r.Number == 0 || r.CgroupID == 0 {
			continue
		}
		table, err := m.o.Fence.TableOf(r.Number, r.CgroupID)
		if err != nil || table == 0 {
			errs = append(errs, err)
			continue
		}
		m.names.found(r.Number, r.Owner, max(0, sizes[table].Names-len(m.leftover(lo).refusal())))
		m.addrs.found(r.Number, r.Owner, sizes[table].CIDRs)
	}
	return errors.Join(errs...)
}

// dropRoom gives back what a sandbox had of the kernel's tables.
func (m *Manager) dropRoom(number uint32) {
	m.names.drop(number)
	m.addrs.drop(number)
}

// takeRoomAgain says what of the entries that were found this sandbox wants still.
func (s *Sandbox) takeRoomAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n entries
	for a, ports := range s.open {
		n.add(len(ports), s.View().Name(s.names.Name(a)).Wildcard)
	}
	s.m.names.again(s.Record.Number, s.Record.Owner, n)
	s.m.addrs.again(s.Record.Number, s.Record.Owner, entries{named: len(CIDREntries(s.View()))})
}
