// SPDX-License-Identifier: Apache-2.0

// Package documents keeps the policy documents of a node: those that operators
// put into the policy directory, those that the API wrote into the store, and
// those that belong to one sandbox. It compiles them into one snapshot whenever
// one changes, and the store keeps what each revision did to the first two. A bad
// document never takes down the good ones: the last good form of its file stays
// in force and the problem is reported.
package documents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

// MaxFile bounds one document file in bytes.
const MaxFile = 1 << 20

// Origin says where a source comes from; it decides who may change it.
type Origin string

const (
	FromDirectory Origin = "directory" // the operator's policy directory: only its editor changes it
	FromAPI       Origin = "api"       // in the store: written by policy apply, provider add and allow
	FromSandbox   Origin = "sandbox"   // lives as long as one sandbox
)

// Change tells listeners what a recompilation did.
type Change struct {
	Snapshot *policy.Snapshot
	Loaded   []string  // files whose text is new in this revision
	Removed  []string  // files that are gone
	Problems []Mistake // what is present but not in force, whenever it came
	Act      Act       // who asked for it; zero: whoever may write the directory, or a sandbox

	whole bool // of documents of the API: it comes into force with the store, or not at all
}

// Options of a library.
type Options struct {
	Dir      string          // watched policy directory
	StateDir string          // the library's own files, below the state directory
	Store    store.Revisions // documents of the API, and the history
	Logger   *slog.Logger
	Now      func() time.Time // nil: the clock of the machine
	// OnChange is called, one call at a time, after every new revision, with
	// the library locked: it must not call back.
	OnChange func(Change)
}

// source is the last good form of one file, and what is wrong with its
// present text, if anything.
type source struct {
	origin   Origin
	text     string
	docs     []policy.Document // in force
	since    uint64            // the revision they came into force with; 0: before this run
	wanted   []policy.Document // of the present text, while waiting is set
	waiting  bool              // the present text is good by itself and not in force (yet)
	problems []policy.Problem
	key      store.Key // FromAPI: what the store calls it
	byRoot   bool      // FromAPI: root wrote this text, or the daemon
	grants   string    // FromAPI: of who wrote it, see [store.Author]
}

// Library is the set of documents in force. Safe for concurrent use.
type Library struct {
	o Options

	snapshot atomic.Pointer[policy.Snapshot] // of the docs of all sources; written with mu

	mu       sync.Mutex // guards what follows
	sources  map[string]*source
	revision uint64               // in force
	given    uint64               // the last number that was stored as given, at least revision
	missed   Change               // what could not be put into force yet: the revision was not durable
	recorded map[store.Key]string // what the store holds, by the hash of the text
	owed     *Act                 // of the first change in force that the store did not take; nil: it holds everything

	late chan struct{} // something is owed: Watch tries again
}

// Open reads store and directory and compiles the first snapshot. Broken files
// do not fail it; they are reported by Problems.
func Open(o Options) (*Library, error) {
	for _, d := range []string{o.Dir, o.StateDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("documents: %w", err)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Library{o: o, sources: map[string]*source{}, recorded: map[store.Key]string{}, late: make(chan struct{}, 1)}
	given, err := numbersIn(o.StateDir).read()
	if err != nil {
		return nil, err
	}
	last, err := o.Store.Last(context.Background())
	if err != nil {
		return nil, err
	}
	if err := l.lostLocked(last); err != nil {
		return nil, err
	}
	l.given = max(given, last)
	l.revision = l.given
	stored, err := l.load()
	if err != nil {
		return nil, err
	}
	if err := l.reload(Change{Loaded: stored}); err != nil {
		return nil, err
	}
	return l, nil
}

// Snapshot returns the policy in force. It never waits.
func (l *Library) Snapshot() *policy.Snapshot { return l.snapshot.Load() }

// Problems returns what is present but not in force.
func (l *Library) Problems() []Mistake {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mistakesLocked()
}

func (l *Library) namesLocked() []string {
	names := make([]string, 0, len(l.sources))
	for n := range l.sources {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Item is one document in force with its text.
type Item struct {
	policy.Document
	Origin Origin
	Source string // what the library calls its file; of the API, people know it by [Place]
	Text   string
	ByRoot bool   // of the API: root wrote it
	Grants string // of the API: see [store.Author]
}

// Items lists the documents in force, ordered by file.
func (l *Library) Items() []Item { return l.items(false) }

// Aside lists documents of the API that are not in force because a file of the
// directory has one of that kind and name.
func (l *Library) Aside() []Item { return l.items(true) }

func (l *Library) items(aside bool) (out []Item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	claims := l.claimsLocked(nil)
	for _, n := range l.namesLocked() {
		s := l.sources[n]
		if (s.aside(claims) != "") != aside {
			continue
		}
		for _, d := range s.docs {
			out = append(out, Item{Document: d, Origin: s.origin, Source: n, Text: s.text, ByRoot: s.byRoot, Grants: s.grants})
		}
	}
	return out
}

// Reload reads the directory again and recompiles if anything changed.
func (l *Library) Reload() error { return l.reload(Change{}) }

func (l *Library) reload(ch Change) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]bool{}
	if err := l.readDirLocked(l.o.Dir, FromDirectory, seen, &ch); err != nil {
		return err
	}
	for n, s := range l.sources {
		if s.origin == FromDirectory && !seen[n] {
			delete(l.sources, n)
			l.forget(n)
			ch.Removed = append(ch.Removed, n)
		}
	}
	if l.snapshot.Load() == nil {
		l.forgetUnseenLocked(seen)
	}
	if err := l.recompileLocked(ch); err != nil {
		return err
	}
	_ = l.settleLocked() // told when it began; Watch goes on trying
	return nil
}

func (l *Library) readDirLocked(dir string, origin Origin, seen map[string]bool, ch *Change) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	if st, err := os.Stat(dir); err != nil {
		return fmt.Errorf("documents: %w", err)
	} else if err := othersCannotWrite(st); err != nil {
		l.keepAllLocked(dir, entries, origin, policy.Problem{File: dir, Msg: err.Error()}, seen, ch)
		return nil
	}
	for _, e := range entries {
		if !isDocument(e) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		seen[path] = true
		text, err := readBounded(path)
		if errors.Is(err, fs.ErrNotExist) {
			delete(seen, path)
			continue
		}
		if err != nil {
			if l.keepLocked(path, origin, []policy.Problem{{File: path, Msg: err.Error()}}) {
				ch.Loaded = append(ch.Loaded, path)
			}
			continue
		}
		if s := l.sources[path]; s != nil && s.text == text {
			continue
		}
		l.setLocked(path, origin, path, text)
		ch.Loaded = append(ch.Loaded, path)
	}
	return nil
}

// setLocked parses text, whose places are in a file as people know it; a bad text
// leaves the last good documents in force.
func (l *Library) setLocked(name string, origin Origin, file, text string) {
	docs, problems := policy.Parse(file, []byte(text))
	if len(problems) > 0 {
		l.keepLocked(name, origin, problems)
		l.sources[name].text = text
		return
	}
	s := l.sources[name]
	if s == nil {
		s = &source{origin: origin}
		l.sources[name] = s
	}
	s.text, s.wanted, s.waiting, s.problems = text, docs, true, nil
}

// keepLocked leaves the last good form of a file in force and tells whether
// the problems are new.
func (l *Library) keepLocked(name string, origin Origin, problems []policy.Problem) (news bool) {
	s := l.sources[name]
	if s == nil {
		s = &source{origin: origin}
		l.sources[name] = s
	}
	if len(s.docs) == 0 && origin == FromDirectory {
		s.docs = l.recall(name)
	}
	news = !slices.Equal(s.problems, problems)
	s.text, s.wanted, s.waiting, s.problems = "", nil, false, problems
	return news
}

// keepAllLocked leaves everything of a directory in force as it is, and what
// is new there out of it.
func (l *Library) keepAllLocked(dir string, entries []fs.DirEntry, origin Origin, why policy.Problem, seen map[string]bool, ch *Change) {
	if l.keepLocked(dir, origin, []policy.Problem{why}) {
		ch.Loaded = append(ch.Loaded, dir)
	}
	for _, e := range entries {
		if isDocument(e) {
			l.keepLocked(filepath.Join(dir, e.Name()), origin, []policy.Problem{why})
		}
	}
	for n, s := range l.sources {
		if s.origin == origin {
			seen[n] = true
		}
	}
}

func isDocument(e fs.DirEntry) bool {
	ext := filepath.Ext(e.Name())
	return !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && (ext == ".yaml" || ext == ".yml")
}

func readBounded(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // whatever lies there must not hold us up
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !st.Mode().IsRegular():
		return "", errors.New("not a regular file")
	case st.Size() > MaxFile:
		return "", fmt.Errorf("%d bytes exceed the limit of %d", st.Size(), MaxFile)
	}
	if err := othersCannotWrite(st); err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(b) > MaxFile {
		err = fmt.Errorf("more than %d bytes", MaxFile)
	}
	return string(b), err
}

// othersCannotWrite refuses what is not the daemon's own user's or that
// everybody may write: policy is the word of whoever can change it. A group
// that may write was chosen by the operator.
func othersCannotWrite(st fs.FileInfo) error {
	own, ok := st.Sys().(*syscall.Stat_t)
	if !ok || own.Uid != uint32(os.Geteuid()) || st.Mode().Perm()&0o002 != 0 {
		return errors.New("others can write it, so it is not policy: chown root, and chmod o-w")
	}
	return nil
}

// recompileLocked makes the next revision. The documents in force always
// compile together: a file whose present text does not go with the others is
// held back, its last good form stays, and it is tried again with every change.
func (l *Library) recompileLocked(ch Change) error {
	onlyRemoves := len(ch.Loaded) == 0 && !ch.whole
	ch.Loaded = append(l.missed.Loaded, ch.Loaded...)
	ch.Removed = append(l.missed.Removed, ch.Removed...)
	if l.snapshot.Load() != nil && len(ch.Loaded) == 0 && len(ch.Removed) == 0 {
		return nil
	}
	rev := max(l.given, l.revision) + 1
	snap, taken, held, err := l.selectLocked(rev)
	var missed Change
	if err == nil {
		// What only takes rules away does not wait for a disk: a rule must not
		// outlive its end because the number of its removal is not stored. What
		// else waits goes on waiting.
		if err = l.durableLocked(rev, taken, &ch, onlyRemoves); err != nil && onlyRemoves {
			l.o.Logger.Error("the policy revision could not be stored; rules were removed all the same", "error", err)
			missed, ch.Loaded, taken, held = Change{Loaded: ch.Loaded}, nil, nil, nil
			l.owe(ch.Act)
			snap, err = l.withoutWaitingLocked(rev)
		}
	}
	if err != nil {
		l.missed = Change{Loaded: ch.Loaded, Removed: ch.Removed}
		return err
	}
	l.snapshot.Store(snap)
	l.revision, l.missed = rev, missed
	for n, problems := range held {
		l.sources[n].problems = problems
	}
	for _, n := range taken {
		s := l.sources[n]
		s.docs, s.since, s.wanted, s.waiting, s.problems = s.wanted, l.revision, nil, false, nil
		if s.origin == FromDirectory {
			l.remember(n, s.text)
		}
	}
	ch.Snapshot, ch.Problems = snap, l.mistakesLocked()
	if l.o.OnChange != nil {
		l.o.OnChange(ch)
	}
	return nil
}

// durableLocked gives the revision its number and lets the store have what is
// its business. A store that takes nothing keeps only documents of the API from
// coming into force: the directory is where its own are kept.
func (l *Library) durableLocked(rev uint64, taken []string, ch *Change, onlyRemoves bool) error {
	if err := numbersIn(l.o.StateDir).write(rev); err != nil {
		return err
	}
	l.given = rev
	if !l.concernsStore(taken, ch) {
		return nil
	}
	err := l.recordLocked(rev, taken, ch.Act, onlyRemoves)
	if err == nil || ch.whole {
		return err
	}
	if l.owed == nil {
		l.o.Logger.Error("the store does not take what a policy revision did; it is in force all the same, and stored as soon as that is possible", "revision", rev, "error", err)
	}
	l.owe(ch.Act)
	return nil
}

// withoutWaitingLocked compiles what is in force alone.
func (l *Library) withoutWaitingLocked(rev uint64) (*policy.Snapshot, error) {
	snap, problems := l.compileLocked(rev, nil)
	if len(problems) > 0 {
		return nil, fmt.Errorf("documents: %w", policy.Problems(problems))
	}
	return snap, nil
}

// selectLocked decides which waiting files come into force: all of them, or
// those that go with what is in force when they are tried in the order of their
// names.
func (l *Library) selectLocked(rev uint64) (snap *policy.Snapshot, taken []string, held map[string][]policy.Problem, err error) {
	var waiting []string
	for _, n := range l.namesLocked() {
		if l.sources[n].waiting {
			waiting = append(waiting, n)
		}
	}
	var problems []policy.Problem
	for _, n := range waiting {
		problems = append(problems, l.claimedLocked(n, l.sources[n].wanted)...)
	}
	if len(problems) == 0 {
		snap, problems = l.compileLocked(rev, waiting)
	}
	if len(problems) == 0 {
		return snap, waiting, nil, nil
	}
	held = map[string][]policy.Problem{}
	for progress := true; progress; {
		progress = false
		for _, n := range waiting {
			if slices.Contains(taken, n) {
				continue
			}
			problems := l.claimedLocked(n, l.sources[n].wanted)
			if len(problems) == 0 {
				_, problems = l.compileLocked(rev, append(slices.Clone(taken), n))
			}
			if len(problems) > 0 {
				held[n] = blame(l.sources[n].place(n), problems)
				continue
			}
			taken, progress = append(taken, n), true
			delete(held, n)
		}
	}
	for n := range held {
		l.recallHeldLocked(rev, n, taken)
	}
	if snap, problems = l.compileLocked(rev, taken); len(problems) > 0 {
		return nil, nil, nil, fmt.Errorf("documents: %w", policy.Problems(problems))
	}
	return snap, taken, held, nil
}

// compileLocked compiles what is in force with the present text of some files.
func (l *Library) compileLocked(rev uint64, present []string) (*policy.Snapshot, []policy.Problem) {
	var all []policy.Document
	claims := l.claimsLocked(present)
	for _, n := range l.namesLocked() {
		if l.sources[n].aside(claims) == "" {
			all = append(all, l.docsLocked(n, present)...)
		}
	}
	return policy.Compile(rev, all)
}

// blame lets problems that a file causes in others stand in that file too.
func blame(file string, problems []policy.Problem) []policy.Problem {
	for _, p := range problems {
		if p.File == file {
			return problems
		}
	}
	why := policy.Problem{File: file, Line: 1, Col: 1, Msg: "does not go with documents that are in force: " + problems[0].Error(), Hint: "its last good form stays in force"}
	return append([]policy.Problem{why}, problems...)
}
