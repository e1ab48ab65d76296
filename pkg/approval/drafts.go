// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"
)

// Bounds of drafts: what one sandbox is denied takes no other's place.
const (
	MaxDrafts     = 32  // destinations of one sandbox
	MaxDraftsOver = 256 // sandboxes that have ended and are remembered
	staleDraft    = time.Hour
)

// Draft is a destination that one sandbox was denied because no rule is about
// it. Nobody was asked, and nothing waits for it.
type Draft struct {
	Sandbox     string
	Scope       string // without the sandbox
	Launcher    uint32
	Destination string
	Count       uint64
	First, Last time.Time
	More        uint64 // denials of the sandbox for which there was no room
}

// ID is the same for every sandbox of the scope. It is long enough that an agent,
// which chooses destinations, finds no second one with the same ID.
func (d *Draft) ID() string {
	sum := sha256.Sum256([]byte(d.Scope + "\x00" + d.Destination))
	return "draft-" + hex.EncodeToString(sum[:16])
}

// Drafts are the denials by default of a node, in memory alone. The zero value
// is ready. It is safe for concurrent use.
type Drafts struct {
	mu sync.Mutex // guards what follows
	of map[string]*sandboxDrafts
}

type sandboxDrafts struct {
	scope    string
	launcher uint32
	over     time.Time // when the sandbox ended; zero: it lives
	more     uint64
	list     map[string]*Draft
}

// Take counts n denials of a destination. scope is without the sandbox.
func (d *Drafts) Take(sandbox, scope string, launcher uint32, destination string, n uint64, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil {
		d.of = map[string]*sandboxDrafts{}
	}
	s := d.of[sandbox]
	if s == nil {
		s = &sandboxDrafts{scope: scope, launcher: launcher, list: map[string]*Draft{}}
		d.of[sandbox] = s
	}
	e := s.list[destination]
	if e == nil {
		if !s.room(now) {
			s.more += n
			return
		}
		e = &Draft{Sandbox: sandbox, Scope: scope, Launcher: launcher, Destination: destination, First: now}
		s.list[destination] = e
	}
	e.Count, e.Last = e.Count+n, now
}

// room makes a place, if need be of what was not asked for lately.
func (s *sandboxDrafts) room(now time.Time) bool {
	if len(s.list) < MaxDrafts {
		return true
	}
	oldest := slices.MinFunc(slices.Collect(maps.Values(s.list)), func(a, b *Draft) int {
		return cmp.Or(a.Last.Compare(b.Last), cmp.Compare(a.Destination, b.Destination))
	})
	if now.Sub(oldest.Last) < staleDraft {
		return false
	}
	delete(s.list, oldest.Destination)
	return true
}

// End says that a sandbox has ended. Its drafts are kept, until too many others
// have ended: then whoever launched the most of those gives up the first.
func (d *Drafts) End(sandbox string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.of[sandbox]
	if s == nil {
		return
	}
	s.over = now
	of := map[uint32]int{} // by launcher
	over := 0
	for _, o := range d.of {
		if !o.over.IsZero() {
			of[o.launcher]++
			over++
		}
	}
	if over <= MaxDraftsOver {
		return
	}
	most := slices.MaxFunc(slices.Collect(maps.Keys(of)), func(a, b uint32) int { return cmp.Or(cmp.Compare(of[a], of[b]), cmp.Compare(a, b)) })
	first := ""
	for id, o := range d.of {
		if o.launcher == most && !o.over.IsZero() && (first == "" || o.over.Before(d.of[first].over)) {
			first = id
		}
	}
	delete(d.of, first)
}

// List returns the drafts of the sandboxes of which sees says so, the last first.
// No call of sees holds up Take, and Take waits for one sandbox at most.
func (d *Drafts) List(sees func(sandbox, scope string, launcher uint32) bool) (out []Draft) {
	d.mu.Lock()
	of := maps.Clone(d.of)
	d.mu.Unlock()
	for id, s := range of {
		if sees(id, s.scope, s.launcher) { // neither ever changes
			out = append(out, d.copies(s)...)
		}
	}
	slices.SortFunc(out, func(a, b Draft) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.Sandbox, b.Sandbox))
	})
	return out
}

func (d *Drafts) copies(s *sandboxDrafts) (out []Draft) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range s.list {
		r := *e
		r.More = s.more
		out = append(out, r)
	}
	return out
}

// Forget drops a draft that was listed, unless it was denied again since.
func (d *Drafts) Forget(r *Draft) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.of[r.Sandbox]
	if s == nil || s.list[r.Destination] == nil || s.list[r.Destination].Count != r.Count {
		return
	}
	delete(s.list, r.Destination)
	if len(s.list) == 0 {
		delete(d.of, r.Sandbox)
	}
}
