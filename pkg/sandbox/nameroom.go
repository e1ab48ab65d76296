// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// The kernel's table of names is the whole node's, with one entry for each port of
// each name. Half of it stays free: at a policy change every sandbox has its new
// table beside the former one, and what did not fit would hold the change up. Of
// the other half every sandbox has a part of its own, and the rest is for whoever
// asks first, up to a bound for each.
const (
	nameTable  = 1 << 18 // its size (bpf/maps.h)
	namesEach  = 64      // entries that each of 1,024 sandboxes has for certain
	namesMost  = 8192    // and has at most: MaxNames with two ports
	namesShare = nameTable/2 - 1024*namesEach
)

// ErrNoNameRoom says that a sandbox may have no more entries in the kernel's table
// of names.
var ErrNoNameRoom = errors.New("the kernel's table has no room for more names and ports of this sandbox; allow fewer ports by wildcard rules, or stop sandboxes")

// nameRoom counts entries. The zero value is ready.
type nameRoom struct {
	mu     sync.Mutex // guards what follows
	of     map[uint32]int
	shared int // of all, beyond what each has for certain
}

func beyond(n int) int { return max(0, n-namesEach) }

// take lets a sandbox have so many entries in all, or as many as there is room
// for; fewer than it has always are.
func (r *nameRoom) take(number uint32, want int) (got int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	free := namesShare - r.shared + beyond(r.of[number])
	got = min(want, namesMost, namesEach+max(0, free))
	r.setLocked(number, got)
	return got
}

// more adds entries to those that a sandbox has; false, and none, if there is no
// room for all of them.
func (r *nameRoom) more(number uint32, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	want := r.of[number] + n
	if want > namesMost || r.shared-beyond(r.of[number])+beyond(want) > namesShare && want > namesEach {
		return false
	}
	r.setLocked(number, want)
	return true
}

// drop is for the end of a sandbox.
func (r *nameRoom) drop(number uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setLocked(number, 0)
	delete(r.of, number)
}

func (r *nameRoom) setLocked(number uint32, n int) {
	if r.of == nil {
		r.of = map[uint32]int{}
	}
	r.shared += beyond(n) - beyond(r.of[number])
	r.of[number] = n
}

// fit takes room for what a policy opens and leaves out what there is none for,
// the newest names first: those are closed.
func (s *Sandbox) fit(open map[netip.Addr][]kernel.NameEntry) (left int) {
	total := 0
	for _, entries := range open {
		total += len(entries)
	}
	got := s.m.room.take(s.Record.Number, total)
	if got == total {
		return 0
	}
	addrs := make([]netip.Addr, 0, len(open))
	for a := range open {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(0, a.Compare(b)) })
	for _, a := range addrs {
		if total <= got {
			break
		}
		total -= len(open[a])
		delete(open, a)
		left++
	}
	s.m.room.take(s.Record.Number, total)
	return left
}
