// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/store"
)

// fullStore is a store whose disk is full at times.
type fullStore struct {
	store.Revisions
	full, reserved bool // reserved: what is urgent finds room all the same
}

func (f *fullStore) AddRevision(ctx context.Context, r store.Revision, texts []string, urgent bool) error {
	if f.full && (!urgent || !f.reserved) {
		return &store.Error{Kind: store.ErrFull, What: "no room"}
	}
	return f.Revisions.AddRevision(ctx, r, texts, urgent)
}

// said is one document: its name and the host that it allows. The zero value is
// none.
type said struct{ name, host string }

func (s said) text() string { return policyOf(s.name, "allow", s.host+":443") }

// modelFile is one file of the directory: what stands in it, good or not, and
// what of it is in force.
type modelFile struct {
	now  said
	bad  bool
	good said // in force
}

// model is the library in as few words as possible: a document of the API is
// there once the store has it, a file counts when it is good and claims nothing
// of the API's, and until then its last good form does.
type model struct {
	api  map[string]said // by file
	dir  map[string]*modelFile
	at   map[uint64][]string // what was kept as of a revision, where that is known
	last uint64              // the greatest number seen
}

func (m *model) owns(name string) bool {
	for _, d := range m.api {
		if d.name == name {
			return true
		}
	}
	return false
}

// recompile lets files count that can.
func (m *model) recompile() {
	for _, f := range m.dir {
		if f.now != (said{}) && !f.bad && !m.owns(f.now.name) {
			f.good = f.now
		}
	}
}

func (m *model) inForce(name string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(m.dir)), func(f *modelFile) bool { return f.good.name == name })
}

// kept is what the store should have, one line a document.
func (m *model) kept() (out []string) {
	for file, d := range m.api {
		out = append(out, "api "+file+" "+d.text())
	}
	for file, f := range m.dir {
		if f.good != (said{}) {
			out = append(out, "directory "+file+" "+f.good.text())
		}
	}
	slices.Sort(out)
	return out
}

// walk is one random sequence.
type walk struct {
	t    *testing.T
	r    *rig
	rng  *rand.Rand
	m    *model
	disk *fullStore
	n    int
}

func (w *walk) reopen() {
	w.t.Helper()
	if w.r.store != nil {
		_ = w.r.store.Close()
	}
	w.r.store = openStore(w.t, filepath.Join(w.r.api, "store"))
	w.disk = &fullStore{Revisions: w.r.store}
	lib, err := Open(Options{Dir: w.r.dir, StateDir: w.r.api, Store: w.disk, Logger: discard})
	if err != nil {
		w.t.Fatal(err)
	}
	w.r.lib = lib
	w.m.recompile()
}

func (w *walk) doc(names ...string) said {
	w.n++
	return said{names[w.rng.IntN(len(names))], fmt.Sprintf("h%d.example", w.n)}
}

// put applies a document; one whose name the directory has in force is refused.
func (w *walk) put() {
	i := w.rng.IntN(4)
	d := w.doc(fmt.Sprintf("a%d", i), fmt.Sprintf("a%d", i), fmt.Sprintf("d%d", i))
	file := d.name + ".yaml"
	err := w.r.lib.Put(byRoot, file, d.text())
	if refused := w.m.inForce(d.name) || w.disk.full; (err != nil) != refused {
		w.t.Fatalf("apply %v: %v, want it refused: %v", d, err, refused)
	}
	if err == nil {
		w.m.api[file] = d
		w.m.recompile()
	}
}

func (w *walk) remove() {
	files := slices.Sorted(maps.Keys(w.m.api))
	if len(files) == 0 {
		return
	}
	file := files[w.rng.IntN(len(files))]
	_, err := w.r.lib.RemoveBy(byRoot, apiName(file))
	if lost := w.disk.full && !w.disk.reserved; (err != nil) != lost {
		w.t.Fatalf("delete %s: %v", file, err)
	}
	delete(w.m.api, file)
	w.m.recompile()
}

func (w *walk) rollback() {
	known := slices.Sorted(maps.Keys(w.m.at))
	if len(known) == 0 {
		return
	}
	docs, err := w.r.store.Documents(context.Background(), known[w.rng.IntN(len(known))])
	if err != nil {
		w.t.Fatal(err)
	}
	files, want := map[string]string{}, map[string]said{}
	clash := false
	for _, d := range docs {
		if d.Owner == store.OwnerAPI {
			files[d.File] = d.Text
			_, host, _ := strings.Cut(d.Text, `allow: "`)
			host, _, _ = strings.Cut(host, ":")
			want[d.File] = said{d.Name, host}
			clash = clash || w.m.inForce(d.Name)
		}
	}
	changed, _, err := w.r.lib.Restore(byRoot, files)
	same := maps.Equal(want, w.m.api)
	if refused := !same && (clash || w.disk.full); (err != nil) != refused || err == nil && (len(changed) == 0) != same {
		w.t.Fatalf("rollback: changed %v, %v; want it refused: %v, the same: %v", changed, err, refused, same)
	}
	if err == nil && !same {
		w.m.api = want
		w.m.recompile()
	}
}

func (w *walk) edit() {
	i := w.rng.IntN(4)
	file := fmt.Sprintf("f%d.yaml", i)
	f := w.m.dir[file]
	if f == nil {
		f = &modelFile{}
		w.m.dir[file] = f
	}
	switch w.rng.IntN(5) {
	case 0:
		if os.Remove(filepath.Join(w.r.dir, file)) != nil {
			return
		}
		*f = modelFile{}
	case 1:
		w.n++
		w.r.write(file, fmt.Sprintf("kind: [ # %d\n", w.n))
		f.now, f.bad = said{}, true
	default:
		f.now, f.bad = w.doc(fmt.Sprintf("d%d", i), fmt.Sprintf("d%d", i), fmt.Sprintf("a%d", i)), false
		w.r.write(file, f.now.text())
	}
	w.m.recompile()
	if w.rng.IntN(4) == 0 { // while no daemon runs
		w.reopen()
		return
	}
	w.r.reload()
}

// sandbox is a document that nobody keeps, and whose revision nobody lists.
func (w *walk) sandbox() {
	if err := w.r.lib.SetMemory("memory", w.doc("m").text()); err != nil {
		w.t.Fatal(err)
	}
	w.m.recompile()
	if w.rng.IntN(2) == 0 {
		if err := w.r.lib.Remove("memory"); err != nil {
			w.t.Fatal(err)
		}
	}
}

// check compares everything that can be seen.
func (w *walk) check() {
	w.t.Helper()
	var force []string
	for _, it := range w.r.lib.Items() {
		if it.Origin != FromSandbox {
			force = append(force, fmt.Sprintf("%s %s %s", it.Origin, filepath.Base(it.Source), it.Raw))
		}
	}
	slices.Sort(force)
	if want := w.m.kept(); !slices.Equal(force, want) {
		w.t.Fatalf("in force is\n%s\nwant\n%s", strings.Join(force, "\n"), strings.Join(want, "\n"))
	}
	rev := w.r.lib.Snapshot().Revision()
	if rev < w.m.last {
		w.t.Fatalf("revision %d after %d", rev, w.m.last)
	}
	w.m.last = rev
	if !w.r.lib.Owes() {
		w.m.at[rev] = w.m.kept()
	}
}

func (w *walk) checkHistory() {
	w.t.Helper()
	for rev, want := range w.m.at {
		docs, err := w.r.store.Documents(context.Background(), rev)
		var got []string
		for _, d := range docs {
			got = append(got, d.Owner+" "+d.File+" "+d.Text)
		}
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			w.t.Fatalf("as of %d there was\n%s\nwant\n%s (%v)", rev, strings.Join(got, "\n"), strings.Join(want, "\n"), err)
		}
	}
	list, err := w.r.store.History(context.Background(), store.RevisionQuery{})
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range list {
		if i > 0 && list[i].Number >= list[i-1].Number || list[i].Author.Name == "" || len(list[i].Changes) == 0 {
			w.t.Fatalf("%+v", list[i])
		}
	}
}

// Whatever is applied, removed, rolled back and edited in whatever order, with
// a full disk and starts between: in force and in the history is what the model
// says, and numbers grow.
func TestHistoryAgainstAModel(t *testing.T) {
	refused := 0
	for seed := range uint64(40) {
		w := &walk{t: t, r: &rig{t: t, dir: t.TempDir(), api: t.TempDir()}, rng: rand.New(rand.NewPCG(seed, 3)), m: &model{api: map[string]said{}, dir: map[string]*modelFile{}, at: map[uint64][]string{}}}
		w.reopen()
		for range 40 {
			switch w.rng.IntN(11) {
			case 0, 1, 2:
				w.put()
			case 3:
				w.remove()
			case 4:
				w.rollback()
			case 5, 6, 7:
				w.edit()
			case 10:
				w.sandbox()
			case 8:
				w.disk.full, w.disk.reserved = w.rng.IntN(2) == 0, true
				if w.disk.full {
					refused++
				}
				w.r.reload()
			case 9:
				w.reopen() // the disk has room then
			}
			w.check()
		}
		w.disk.full = false
		w.r.reload() // what is owed is stored
		if w.r.lib.Owes() {
			t.Fatal("something is owed to a store that takes it")
		}
		w.check()
		w.checkHistory()
		if err := w.r.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("the disk was never full")
	}
}

// A removal for which not even the reserve has room is in force, told, and
// stored as soon as that is possible.
func TestARemovalThatCannotBeStored(t *testing.T) {
	w := &walk{t: t, r: &rig{t: t, dir: t.TempDir(), api: t.TempDir()}, m: &model{}}
	w.reopen()
	if err := w.r.lib.Put(byRoot, "a.yaml", policyOf("a", "allow", "a.example:443")); err != nil {
		t.Fatal(err)
	}
	w.disk.full = true
	_, err := w.r.lib.RemoveBy(byRoot, "api/a.yaml")
	if err == nil || !strings.Contains(err.Error(), "a daemon that is restarted now puts it back") {
		t.Errorf("%v", err)
	}
	w.r.want("a.example", false)
	if err := w.r.lib.Put(byRoot, "b.yaml", policyOf("b", "allow", "b.example:443")); !errors.Is(err, store.ErrFull) {
		t.Errorf("%v", err)
	}
	w.disk.full = false
	w.r.reload()
	list, err := w.r.store.History(context.Background(), store.RevisionQuery{})
	if err != nil || len(list) != 2 || list[0].Author != byRoot.Author || list[0].Changes[0].After != "" || !strings.Contains(list[0].Comment, "could not be stored when") {
		t.Errorf("%+v, %v", list, err)
	}
	w.reopen()
	w.r.want("a.example", false)
	if err := w.r.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// What the directory did on a full disk is in the history under its own name,
// not under that of whoever comes next; and the number of what was refused is
// not given again.
func TestWhatIsOwedIsStoredBeforeTheNextChange(t *testing.T) {
	w := &walk{t: t, r: &rig{t: t, dir: t.TempDir(), api: t.TempDir()}, m: &model{}}
	w.reopen()
	w.disk.full = true
	w.r.write("d.yaml", policyOf("d", "allow", "d.example:443"))
	w.r.reload()
	edited := w.r.lib.Snapshot().Revision()
	w.r.want("d.example", true)
	if err := w.r.lib.Put(byRoot, "a.yaml", policyOf("a", "allow", "a.example:443")); err == nil {
		t.Error("taken")
	}
	w.disk.full = false
	if err := w.r.lib.Put(byRoot, "a.yaml", policyOf("a", "allow", "a.example:443")); err != nil {
		t.Fatal(err)
	}
	w.disk.full = true
	if err := w.r.lib.Put(byRoot, "b.yaml", policyOf("b", "allow", "b.example:443")); err == nil { // its number is gone
		t.Error("taken")
	}
	refused := w.r.lib.given
	w.disk.full = false
	if err := w.r.lib.Put(byRoot, "b.yaml", policyOf("b", "allow", "b.example:443")); err != nil {
		t.Fatal(err)
	}
	list, err := w.r.store.History(context.Background(), store.RevisionQuery{})
	if err != nil || len(list) != 3 || list[2].Author != byDirectory.Author || list[2].Number != edited || list[1].Author != byRoot.Author || len(list[1].Changes) != 1 || list[0].Number <= refused {
		t.Errorf("%+v, %v; the edit was revision %d, refused was %d", list, err, edited, refused)
	}
	if err := w.r.store.Close(); err != nil {
		t.Fatal(err)
	}
}
