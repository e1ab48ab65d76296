// SPDX-License-Identifier: Apache-2.0

package sandbox

import "sync"

// entries is a number of entries.
type entries struct {
	named int // of names that a rule names
	wild  int // of names that only a wildcard allows
}

func (c entries) total() int { return c.named + c.wild }

// shareOf is a part of what is shared.
type shareOf struct{ all, wild int }

func (s *shareOf) add(o shareOf, sign int) {
	s.all, s.wild = s.all+sign*o.all, s.wild+sign*o.wild
}

// room counts the entries of sandboxes in a table of the node. Each of 1,024 has so many
// for certain, and may have so many at most; the rest is shared by owners.
type room struct {
	each, most, share int

	mu     sync.Mutex // guards what follows
	of     map[uint32]useOf
	owners map[uint32]shareOf
	shared int // of all owners
}

// useOf is what one sandbox has. Its owner is the same for its whole life.
type useOf struct {
	owner uint32
	entries
}

// shares is how much of the shared part entries take, and how much of that are
// wildcards'.
func (r *room) shares(c entries) shareOf {
	return shareOf{max(0, c.total()-r.each), max(0, c.wild-r.each/2)}
}

// mostLocked is what a sandbox may have beside what its owner's others have. What it has
// is never too much: others coming takes nothing away.
func (r *room) mostLocked(number, owner uint32) (all, wild int) {
	has, rest := r.of[number].entries, r.owners[owner]
	left := r.share - (r.shared - rest.all)
	rest.add(r.shares(has), -1)
	share := left - left/4
	all = r.each + max(0, share-rest.all)
	wild = r.each/2 + max(0, share/2-rest.wild)
	return max(has.total(), min(all, r.most)), max(has.wild, min(wild, r.most/2))
}

// take lets a sandbox of an owner have so many entries in all, or as many as there is
// room for, those of names that rules name first; fewer than it has always are.
func (r *room) take(number, owner uint32, want entries) (got entries) {
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
func (r *room) more(number, owner uint32, n entries) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	want := r.of[number].entries
	want.named, want.wild = want.named+n.named, want.wild+n.wild
	all, wild := r.mostLocked(number, owner)
	if want.total() > all || want.wild > wild {
		return false
	}
	r.setLocked(number, owner, want)
	return true
}

// found is for a sandbox of a former keeper: what it has was given to it when others
// had less. Only the whole bounds it.
func (r *room) found(number, owner uint32, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setLocked(number, owner, entries{named: min(n, r.most, r.each+r.share-r.shared)})
}

// again says what is meant by the entries that were found: so many of what is wanted
// now it has, and no more.
func (r *room) again(number, owner uint32, n entries) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.of[number].total()
	n.named = min(n.named, all)
	n.wild = min(n.wild, all-n.named)
	r.setLocked(number, owner, n)
}

// drop is for the end of a sandbox.
func (r *room) drop(number uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setLocked(number, r.of[number].owner, entries{})
	delete(r.of, number)
}

func (r *room) setLocked(number, owner uint32, n entries) {
	if r.of == nil {
		r.of, r.owners = map[uint32]useOf{}, map[uint32]shareOf{}
	}
	before, now, own := r.shares(r.of[number].entries), r.shares(n), r.owners[owner]
	own.add(before, -1)
	own.add(now, 1)
	r.shared += now.all - before.all
	r.of[number], r.owners[owner] = useOf{owner, n}, own
	if own == (shareOf{}) {
		delete(r.owners, owner)
	}
}

// add counts entries of one name.
func (c *entries) add(n int, wild bool) {
	if wild {
		c.wild += n
	} else {
		c.named += n
	}
}
