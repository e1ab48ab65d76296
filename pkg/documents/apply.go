// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

// PutAll adds or replaces documents of the API, one a file (a base name without
// directory), in one revision, which it returns: all of them come into force, or
// none. They are in the store before that. What has that very text already is no
// change, and without any change there is no revision: unchanged names those
// files, sorted.
func (l *Library) PutAll(act Act, files map[string]string) (rev uint64, unchanged []string, err error) {
	return l.PutRead(act, l.ReadAhead(files))
}

// PutRead is PutAll of what was read already.
func (l *Library) PutRead(act Act, files map[string]Reading) (rev uint64, unchanged []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	put := map[string]Reading{}
	for file, r := range files {
		if s := l.sources[apiName(file)]; s != nil && s.origin == FromAPI && s.text == r.text {
			unchanged = append(unchanged, file)
		} else {
			put[file] = r
		}
	}
	slices.Sort(unchanged)
	if len(put) == 0 && len(files) > 0 {
		return l.revision, unchanged, l.settleLocked()
	}
	rev, err = l.changeLocked(act, put, nil)
	return rev, unchanged, err
}

// Put is PutAll of one document.
func (l *Library) Put(act Act, file, text string) error {
	_, _, err := l.PutAll(act, map[string]string{file: text})
	return err
}

// Restore makes the given files all that the API has, in one revision. It
// returns the names of those that it replaced, added and removed; without any,
// no revision was made.
func (l *Library) Restore(act Act, files map[string]string) (changed []string, rev uint64, err error) {
	return l.RestoreRead(act, l.ReadAhead(files))
}

// RestoreRead is Restore of what was read already.
func (l *Library) RestoreRead(act Act, files map[string]Reading) (changed []string, rev uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	put := map[string]Reading{}
	var remove []string
	for name, s := range l.sources {
		file, ours := strings.CutPrefix(name, apiPrefix)
		if _, stays := files[file]; ours && s.origin == FromAPI && !stays {
			remove = append(remove, file)
		}
	}
	for file, r := range files {
		if s := l.sources[apiName(file)]; s == nil || s.text != r.text {
			put[file] = r
		}
	}
	if len(put)+len(remove) == 0 {
		return nil, l.revision, nil
	}
	rev, err = l.changeLocked(act, put, remove)
	changed = append(slices.Collect(maps.Keys(put)), remove...)
	slices.Sort(changed)
	return changed, rev, err
}

// Reading is a text of the API, and what it says.
type Reading struct {
	text     string
	read     bool // or it is read when it is needed
	docs     []policy.Document
	problems []policy.Problem
}

// Read reads the text of a document of which kind and name are known already; places
// in it are those of [Place].
func Read(kind, name, text string) Reading {
	docs, problems := policy.Parse(Place(kind, name), []byte(text))
	return Reading{text, true, docs, problems}
}

// ReadPolicy is Read of a Policy document that was read from its own text alone.
func ReadPolicy(doc policy.Document) Reading {
	doc.File = Place(doc.Kind, doc.Name)
	return Reading{text: string(doc.Raw), read: true, docs: []policy.Document{doc}}
}

// Documents are what was read.
func (r *Reading) Documents() []policy.Document { return r.docs }

// ReadAhead reads texts that are not here yet. That takes as long as whoever wrote them
// likes: it is for before the library is locked, and whatever the caller locks.
func (l *Library) ReadAhead(files map[string]string) map[string]Reading {
	out := map[string]Reading{}
	l.mu.Lock()
	for file, text := range files {
		s := l.sources[apiName(file)]
		out[file] = Reading{text: text, read: len(text) <= MaxFile && (s == nil || s.origin != FromAPI || s.text != text)}
	}
	l.mu.Unlock()
	for file, r := range out {
		if r.read {
			r.docs, r.problems = parseStored(file, r.text)
			out[file] = r
		}
	}
	return out
}

// changeLocked is one revision of documents of the API.
func (l *Library) changeLocked(act Act, put map[string]Reading, remove []string) (uint64, error) {
	if err := l.settleLocked(); err != nil {
		return 0, err
	}
	ch := Change{Act: act, whole: true}
	for _, file := range remove {
		ch.Removed = append(ch.Removed, apiName(file))
	}
	for _, file := range slices.Sorted(maps.Keys(put)) {
		ch.Loaded = append(ch.Loaded, apiName(file))
	}
	undo, err := l.placeLocked(act, put, ch.Removed)
	if err != nil {
		return 0, err
	}
	if err := l.recompileLocked(ch); err != nil {
		undo()
		l.forgetMissed(ch)
		return 0, err
	}
	return l.revision, nil
}

// forgetMissed: what was refused is not tried again.
func (l *Library) forgetMissed(ch Change) {
	refused := func(list []string) func(string) bool {
		return func(n string) bool { return slices.Contains(list, n) }
	}
	l.missed.Loaded = slices.DeleteFunc(l.missed.Loaded, refused(ch.Loaded))
	l.missed.Removed = slices.DeleteFunc(l.missed.Removed, refused(ch.Removed))
}

// placeLocked sets sources whose texts are good, by themselves and with all
// others, and takes others away; undo restores the old ones. What was not read ahead,
// because it has changed since, is read here.
func (l *Library) placeLocked(act Act, put map[string]Reading, remove []string) (undo func(), err error) {
	next := map[string]*source{}
	var problems []policy.Problem
	for file, r := range put {
		name := apiName(file)
		if len(r.text) > MaxFile {
			return nil, fmt.Errorf("%s: %d bytes exceed the limit of %d", file, len(r.text), MaxFile)
		}
		if !r.read {
			r.docs, r.problems = parseStored(file, r.text)
		}
		docs, p := r.docs, r.problems
		if len(docs) != 1 && len(p) == 0 {
			return nil, fmt.Errorf("%s: %d documents where one is kept", file, len(docs))
		}
		if problems = append(problems, p...); len(p) == 0 {
			next[name] = &source{origin: FromAPI, text: r.text, docs: docs, since: max(l.given, l.revision) + 1, key: keyOf(store.OwnerAPI, file, &docs[0]), byRoot: rootWrote(act.Author), grants: act.Author.Grants}
		}
	}
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	old := maps.Clone(l.sources)
	undo = func() { l.sources = old }
	for _, name := range remove {
		delete(l.sources, name)
	}
	maps.Copy(l.sources, next)
	if _, problems := l.compileLocked(l.revision+1, nil); len(problems) > 0 {
		undo()
		return nil, policy.Problems(problems)
	}
	return undo, nil
}

// RemoveBy takes documents of the API, by their names in the library, and of
// sandboxes out of force and out of the store, and returns the revision. Unknown
// names are no error. What only takes rules away does not wait for a disk: with an
// error they are out of force, and only a daemon that is restarted before the
// store could be written puts them back.
func (l *Library) RemoveBy(act Act, names ...string) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.settleLocked() // a removal does not wait; what is owed goes with it
	ch := Change{Act: act}
	stored := false
	for _, n := range names {
		s := l.sources[n]
		if s == nil || s.origin == FromDirectory {
			continue
		}
		stored = stored || s.origin == FromAPI
		delete(l.sources, n)
		ch.Removed = append(ch.Removed, n)
	}
	if !stored {
		ch.Act = Act{}
	}
	if err := l.recompileLocked(ch); err != nil {
		return l.revision, err
	}
	if stored && l.owed != nil {
		return l.revision, errors.New("it is not in force any more, but the store could not be written: a daemon that is restarted now puts it back; make room on the disk of the state directory, and it is stored by itself")
	}
	return l.revision, nil
}

// Remove is RemoveBy for what is not stored.
func (l *Library) Remove(names ...string) error {
	_, err := l.RemoveBy(Act{}, names...)
	return err
}
