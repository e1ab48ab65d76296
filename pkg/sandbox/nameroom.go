// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"

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

// ErrNoNameRoom says that a sandbox may have no more entries in the kernel's table
// of names.
var ErrNoNameRoom = errors.New("the kernel's table has no room for more names and ports of this sandbox, or of its owner's sandboxes together; allow fewer ports by wildcard rules, name hosts in rules of their own, or stop sandboxes")

// nameCount is a number of entries.
type nameCount struct {
	named int // of names that a rule names
	wild  int // of names that only a wildcard allows
}

func (c nameCount) total() int { return c.named + c.wild }

// shared is how much of the shared part they take, and how much of that are wildcards'.
func (c nameCount) shared() nameShare {
	return nameShare{max(0, c.total()-namesEach), max(0, c.wild-namesEach/2)}
}

// nameShare is a part of what is shared.
type nameShare struct{ all, wild int }

func (s *nameShare) add(o nameShare, sign int) {
	s.all, s.wild = s.all+sign*o.all, s.wild+sign*o.wild
}

// nameRoom counts entries. The zero value is ready.
type nameRoom struct {
	mu     sync.Mutex // guards what follows
	of     map[uint32]nameUse
	owners map[uint32]nameShare
	shared int // of all owners
}

// nameUse is what one sandbox has.
type nameUse struct {
	owner uint32
	nameCount
}

// most is what a sandbox may have beside what its owner's others have. What it has
// is never too much: others coming takes nothing away.
func (r *nameRoom) mostLocked(number, owner uint32) (all, wild int) {
	has, rest := r.of[number].nameCount, r.owners[owner]
	left := namesShare - (r.shared - rest.all)
	rest.add(has.shared(), -1)
	share := left - left/4
	all = namesEach + max(0, share-rest.all)
	wild = namesEach/2 + max(0, share/2-rest.wild)
	return max(has.total(), min(all, namesMost)), max(has.wild, min(wild, namesMost/2))
}

// take lets a sandbox of an owner have so many entries in all, or as many as there is
// room for, those of names that rules name first; fewer than it has always are.
func (r *nameRoom) take(number, owner uint32, want nameCount) (got nameCount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, wild := r.mostLocked(number, owner)
	got.named = min(want.named, all)
	got.wild = min(want.wild, wild, all-got.named)
	r.setLocked(number, owner, got)
	return got
}

// more adds entries to those that a sandbox has; false, and none, if there is no
// room for all of them.
func (r *nameRoom) more(number, owner uint32, n nameCount) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	want := r.of[number].nameCount
	want.named, want.wild = want.named+n.named, want.wild+n.wild
	all, wild := r.mostLocked(number, owner)
	if want.total() > all || want.wild > wild {
		return false
	}
	r.setLocked(number, owner, want)
	return true
}

// again is for a sandbox of a former keeper: what it has was given to it when others
// had less. Only the whole bounds it.
func (r *nameRoom) again(number, owner uint32, n nameCount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := min(namesMost, namesEach+namesShare-r.shared)
	n.named = min(n.named, all)
	n.wild = min(n.wild, all-n.named)
	r.setLocked(number, owner, n)
}

// drop is for the end of a sandbox.
func (r *nameRoom) drop(number uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setLocked(number, r.of[number].owner, nameCount{})
	delete(r.of, number)
}

func (r *nameRoom) setLocked(number, owner uint32, n nameCount) {
	if r.of == nil {
		r.of, r.owners = map[uint32]nameUse{}, map[uint32]nameShare{}
	}
	before, now, own := r.of[number].shared(), n.shared(), r.owners[owner]
	own.add(before, -1)
	own.add(now, 1)
	r.shared += now.all - before.all
	r.of[number], r.owners[owner] = nameUse{owner, n}, own
	if own == (nameShare{}) {
		delete(r.owners, owner)
	}
}

// fit takes room for what a policy opens and leaves out what there is none for:
// of the names that only a wildcard allows the newest first, and then of the
// others. Those are closed.
func (s *Sandbox) fit(open map[netip.Addr][]kernel.NameEntry, wild map[netip.Addr]bool) (left int) {
	var want nameCount
	for a, entries := range open {
		want.add(len(entries), wild[a])
	}
	got := s.m.room.take(s.Record.Number, s.Record.Owner, want)
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
	s.m.room.take(s.Record.Number, s.Record.Owner, want)
	return left
}

// takeRoomAgain counts what a sandbox had open under a former keeper.
func (s *Sandbox) takeRoomAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n nameCount
	for a, entries := range s.open {
		n.add(len(entries), s.View().Name(s.names.Name(a)).Wildcard)
	}
	s.m.room.again(s.Record.Number, s.Record.Owner, n)
}

// add counts entries of one name.
func (c *nameCount) add(n int, wild bool) {
	if wild {
		c.wild += n
	} else {
		c.named += n
	}
}
