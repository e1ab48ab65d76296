// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

// Act is who changes documents, and what for.
type Act struct {
	Author  store.Author
	Action  string // apply, delete, allow ...
	Comment string
}

// byDirectory is the act of whoever edits the policy directory: the node cannot
// know who that was.
var byDirectory = Act{Author: store.Author{Name: "directory", UID: -1}, Action: "directory"}

// apiPrefix marks the library's names of documents of the API.
const apiPrefix = "api/"

func apiName(file string) string { return apiPrefix + file }

// Place is the file that places in a document of the API name: what `ringfence
// policy get` takes, and whose lines it prints. Nobody sees what the store calls it.
func Place(kind, name string) string { return kind + "/" + name }

// place is the file that problems of a source name.
func (s *source) place(name string) string {
	if s.origin == FromAPI {
		return Place(s.key.Kind, s.key.Name)
	}
	return name
}

// parseStored reads a document of the API; places in it are those of [Place].
func parseStored(file, text string) ([]policy.Document, []policy.Problem) {
	docs, problems := policy.Parse(apiName(file), []byte(text))
	if len(docs) != 1 || len(problems) > 0 {
		return docs, problems
	}
	return policy.Parse(Place(docs[0].Kind, docs[0].Name), []byte(text))
}

// load puts what the store has of the API beside what will be read from the
// directory, and takes note of all of it. What is stored and does not parse (a
// later version is stricter, say) is a problem like that of any file.
func (l *Library) load() (names []string, err error) {
	docs, err := l.o.Store.Documents(context.Background(), 0)
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		l.recorded[d.Key] = store.Hash(d.Text)
		if d.Owner != store.OwnerAPI {
			continue
		}
		l.setLocked(apiName(d.File), FromAPI, Place(d.Kind, d.Name), d.Text)
		r, err := l.o.Store.Revision(context.Background(), d.Since)
		if err != nil {
			return nil, err
		}
		s := l.sources[apiName(d.File)]
		s.key, s.text, s.byRoot, s.grants = d.Key, d.Text, rootWrote(r.Author), r.Author.Grants
		names = append(names, apiName(d.File))
	}
	return names, nil
}

// keyOf is what the store calls a document of a file.
func keyOf(owner, file string, d *policy.Document) store.Key {
	return store.Key{Owner: owner, File: file, Kind: d.Kind, Name: d.Name, Scope: d.Scope.String()}
}

// wantedLocked is what the store should hold, with the present text of some
// files. Documents of the API are kept whether they are in force or not; of the
// directory, what is in force counts.
func (l *Library) wantedLocked(taken []string) map[store.Key]string {
	want := map[store.Key]string{}
	for name, s := range l.sources {
		switch s.origin {
		case FromAPI:
			want[s.key] = s.text
		case FromDirectory:
			docs := s.docs
			if slices.Contains(taken, name) {
				docs = s.wanted
			}
			for i := range docs {
				want[keyOf(store.OwnerDirectory, filepath.Base(name), &docs[i])] = string(docs[i].Raw)
			}
		}
	}
	return want
}

// concernsStore is false for what only changes documents of sandboxes, which is
// most: comparing all others takes time in which nobody can launch.
func (l *Library) concernsStore(taken []string, ch *Change) bool {
	if l.owed != nil || l.snapshot.Load() == nil { // a start finds what changed while no daemon ran
		return true
	}
	return slices.ContainsFunc(slices.Concat(taken, ch.Loaded, ch.Removed), func(name string) bool {
		return strings.HasPrefix(name, apiPrefix) || filepath.Dir(name) == filepath.Clean(l.o.Dir)
	})
}

// recordLocked lets the store have what is different from what it holds.
func (l *Library) recordLocked(rev uint64, taken []string, act Act, urgent bool) error {
	if act == (Act{}) {
		act = byDirectory
	}
	if l.owed != nil {
		if act == byDirectory {
			act = *l.owed
		}
		act.Comment = strings.TrimSpace(act.Comment + " (with what could not be stored when it came into force)")
	}
	r := store.Revision{Number: rev, Time: l.o.Now().UnixNano(), Author: act.Author, Action: act.Action, Comment: act.Comment}
	want := l.wantedLocked(taken)
	var texts []string
	for key, text := range want {
		hash := store.Hash(text)
		if before := l.recorded[key]; before != hash {
			r.Changes = append(r.Changes, store.Change{Key: key, Before: before, After: hash})
			texts = append(texts, text)
		}
	}
	for key, before := range l.recorded {
		if _, stays := want[key]; !stays {
			r.Changes = append(r.Changes, store.Change{Key: key, Before: before})
		}
	}
	if len(r.Changes) == 0 {
		l.owed = nil
		return nil
	}
	slices.SortFunc(r.Changes, func(a, b store.Change) int { return compareKeys(a.Key, b.Key) })
	if err := l.o.Store.AddRevision(context.Background(), r, texts, urgent); err != nil {
		return err
	}
	if err := l.storedFile().write(rev); err != nil {
		l.o.Logger.Warn("that the store has a policy revision could not be noted beside it", "revision", rev, "error", err)
	}
	for _, c := range r.Changes {
		l.recorded[c.Key] = c.After
		if c.After == "" {
			delete(l.recorded, c.Key)
		}
	}
	l.owed = nil
	return nil
}

// storedFile holds the number of the last revision that the store took. It is
// written after it, so a store that has less has lost something.
func (l *Library) storedFile() numbers { return numbers(filepath.Join(l.o.StateDir, ".stored")) }

// lostLocked refuses a store that lacks revisions which were acknowledged: an
// older copy, or one without its log. What it denied would be open.
func (l *Library) lostLocked(last uint64) error {
	stored, err := l.storedFile().read()
	if err != nil || stored <= last {
		return err
	}
	return &store.Error{Kind: store.ErrCorrupt, What: fmt.Sprintf("the store ends with policy revision %d, and had revision %d", last, stored),
		Remedy: fmt.Sprintf("put the whole store back as it was, with its -wal file; or, to go on without what was applied since revision %d, remove %s and apply it again", last, l.storedFile())}
}

func compareKeys(a, b store.Key) int {
	return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.File, b.File), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Scope, b.Scope))
}

// owe takes note that the store lacks something that is in force.
func (l *Library) owe(act Act) {
	if l.owed != nil {
		return
	}
	if act == (Act{}) {
		act = byDirectory
	}
	l.owed = &act
	select {
	case l.late <- struct{}{}:
	default:
	}
}

// Owes says whether something is in force that the store could not take yet.
func (l *Library) Owes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owed != nil
}

// settleLocked stores what is owed, as the revision that is in force: between
// the one that it came with and this one the store took nothing.
func (l *Library) settleLocked() error {
	if l.owed == nil {
		return nil
	}
	if err := l.recordLocked(l.revision, nil, *l.owed, false); err != nil {
		return fmt.Errorf("documents: what is in force could not be stored yet: %w", err)
	}
	l.o.Logger.Info("the store has what it could not take before", "revision", l.revision)
	return nil
}

// claimedLocked holds a file of the directory back that claims a document which
// root wrote through the API: the two would undo each other. What others wrote
// stands aside instead: a name that they have taken must not keep root's file out.
func (l *Library) claimedLocked(name string, docs []policy.Document) (problems []policy.Problem) {
	if l.sources[name].origin != FromDirectory {
		return nil
	}
	for i := range docs {
		d := &docs[i]
		for _, o := range l.sources {
			if o.origin == FromAPI && o.byRoot && o.key.Kind == d.Kind && o.key.Name == d.Name {
				problems = append(problems, policy.Problem{File: name, Line: d.Line, Col: 1,
					Msg:  fmt.Sprintf("the %s %q is owned by the API", d.Kind, d.Name),
					Hint: "give it another name here, or remove the other: `ringfence policy history " + d.Name + "` says who made it"})
			}
		}
	}
	return problems
}
