// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/store"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(context.Background(), Options{Dir: dir, Version: "1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// openErr opens what must be refused.
func openErr(t testing.TB, dir string) error {
	t.Helper()
	s, err := Open(context.Background(), Options{Dir: dir, Version: "1", Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		_ = s.Close()
		t.Fatal("it was opened")
	}
	return err
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

var key = store.Key{Owner: store.OwnerAPI, File: "a.yaml", Kind: "Policy", Name: "a", Scope: "org:local"}

// revisionOf sets the document of key from one text to another; "" is none.
func revisionOf(number uint64, before, after string) (store.Revision, []string) {
	c := store.Change{Key: key}
	var texts []string
	if before != "" {
		c.Before = store.Hash(before)
	}
	if after != "" {
		c.After, texts = store.Hash(after), []string{after}
	}
	return store.Revision{Number: number, Time: int64(number) * 1e9, Author: store.Author{Name: "root", PID: 7, Program: "ringfence"},
		Action: "apply", Comment: fmt.Sprintf("the %dth", number), Changes: []store.Change{c}}, texts
}

func add(t testing.TB, s *Store, number uint64, before, after string) {
	t.Helper()
	r, texts := revisionOf(number, before, after)
	if err := s.AddRevision(context.Background(), r, texts, false); err != nil {
		t.Fatal(err)
	}
}

func TestRevisionsAreWhatWasAdded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ctx := context.Background()
	add(t, s, 3, "", "one")
	add(t, s, 5, "one", "two")
	add(t, s, 9, "two", "")
	for range 2 {
		last, err := s.Last(ctx)
		if err != nil || last != 9 {
			t.Errorf("last %d, %v", last, err)
		}
		for at, want := range map[uint64]string{1: "", 3: "one", 4: "one", 5: "two", 8: "two", 9: "", 0: ""} {
			docs, err := s.Documents(ctx, at)
			got := ""
			if len(docs) == 1 {
				got = docs[0].Text
			}
			if err != nil || got != want || len(docs) > 1 {
				t.Errorf("as of %d: %v, %v; want %q", at, docs, err, want)
			}
		}
		list, err := s.History(ctx, store.RevisionQuery{Name: "a", Before: 9, Limit: 1})
		if err != nil || len(list) != 1 || list[0].Number != 5 || list[0].Changes[0].Before != store.Hash("one") {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err := s.History(ctx, store.RevisionQuery{Name: "b"}); err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
		r, err := s.Revision(ctx, 3)
		want, _ := revisionOf(3, "", "one")
		if err != nil || fmt.Sprint(r) != fmt.Sprint(want) {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := s.Revision(ctx, 4); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%v", err)
		}
		closeStore(t, s)
		s = open(t, dir)
	}
	closeStore(t, s)
}

func TestARevisionThatDoesNotFollow(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	ctx := context.Background()
	add(t, s, 3, "", "one")
	for name, c := range map[string]struct {
		number        uint64
		before, after string
	}{
		"the same number":        {3, "one", "two"},
		"a lower number":         {2, "one", "two"},
		"another text before":    {4, "zero", "two"},
		"no text before":         {4, "", "two"},
		"a text that is unknown": {4, "one", "two"},
	} {
		r, texts := revisionOf(c.number, c.before, c.after)
		if name == "a text that is unknown" {
			texts = nil
		}
		if err := s.AddRevision(ctx, r, texts, false); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	add(t, s, 4, "one", "two") // the control; and nothing of those before is left
	if list, err := s.History(ctx, store.RevisionQuery{}); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestAStoreThatCannotBeUsed(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string)
		kind  error
		says  string
	}{
		"a newer schema": {func(t *testing.T, path string) {
			s := open(t, filepath.Dir(path))
			if _, err := s.db.Exec("PRAGMA user_version=99"); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
		}, store.ErrNewer, "start the newer version again"},
		"another program's": {func(t *testing.T, path string) {
			s := open(t, filepath.Dir(path))
			if _, err := s.db.Exec("PRAGMA application_id=1"); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
		}, store.ErrCorrupt, "another program"},
		"no database at all": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("hello ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, store.ErrCorrupt, "from a backup"},
		"a page of zeros": {func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			copy(b[4096:], make([]byte, 4096))
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, store.ErrCorrupt, "from a backup"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			add(t, s, 1, "", "one")
			closeStore(t, s)
			s = open(t, dir) // the control
			closeStore(t, s)
			c.spoil(t, filepath.Join(dir, fileName))
			before, _ := os.ReadFile(filepath.Join(dir, fileName))
			if err := openErr(t, dir); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
			if after, _ := os.ReadFile(filepath.Join(dir, fileName)); !slices.Equal(before, after) {
				t.Error("it was changed")
			}
		})
	}
}

// A change of the schema: a copy is made first, and it is done whole or not at all.
func TestMigration(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	add(t, s, 1, "", "one")
	closeStore(t, s)
	with := func(more ...migration) (*Store, error) {
		return openWith(context.Background(), Options{Dir: dir, Version: "2", Logger: slog.New(slog.DiscardHandler)}, append(migrations(), more...))
	}
	good := migration{"pets", "CREATE TABLE pets (name TEXT NOT NULL) STRICT"}
	if _, err := with(good, migration{"nonsense", "CREATE NONSENSE"}); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Fatalf("%v", err)
	}
	s = open(t, dir) // it is as it was
	var pets int
	if err := s.db.QueryRow("SELECT count(*) FROM sqlite_schema WHERE name='pets'").Scan(&pets); err != nil || pets != 0 {
		t.Errorf("%d, %v: half of the steps were done", pets, err)
	}
	add(t, s, 2, "one", "two")
	closeStore(t, s)
	s, err := with(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec("INSERT INTO pets VALUES ('cat')"); err != nil {
		t.Error(err)
	}
	add(t, s, 3, "two", "three")
	closeStore(t, s)
	if err := openErr(t, dir); !errors.Is(err, store.ErrNewer) { // the version before
		t.Errorf("%v", err)
	}
	copied := s.backupPath(len(migrations()))
	if st, err := os.Stat(copied); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	back := t.TempDir()
	if err := os.Rename(copied, filepath.Join(back, fileName)); err != nil {
		t.Fatal(err)
	}
	s = open(t, back)
	defer closeStore(t, s)
	if docs, err := s.Documents(context.Background(), 0); err != nil || len(docs) != 1 || docs[0].Text != "two" {
		t.Errorf("the copy has %v, %v", docs, err)
	}
}

// Without room for the copy nothing is changed.
func TestMigrationOnAFullDisk(t *testing.T) {
	dir := small(t, 4096)
	s := open(t, dir)
	add(t, s, 1, "", "one")
	closeStore(t, s)
	fill(t, dir, 0)
	_, err := openWith(context.Background(), Options{Dir: dir, Version: "2", Logger: slog.New(slog.DiscardHandler)}, append(migrations(), migration{"pets", "CREATE TABLE pets (name TEXT) STRICT"}))
	if !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "copied before a change of its schema") {
		t.Errorf("%v", err)
	}
	s = open(t, dir)
	defer closeStore(t, s)
	if docs, err := s.Documents(context.Background(), 0); err != nil || len(docs) != 1 {
		t.Errorf("%v, %v", docs, err)
	}
}

// A text that somebody changed in place is no policy.
func TestATextThatIsNotItsHash(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	add(t, s, 1, "", "one")
	if _, err := s.db.Exec("UPDATE texts SET text='two'"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Documents(context.Background(), 0); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%v", err)
	}
}

// small mounts a file system of so many KiB.
func small(t testing.TB, kib int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kib)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves so many KiB.
func fill(t testing.TB, dir string, leave int64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := int64(st.Bavail)*st.Bsize - leave<<10; n > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
			t.Fatal(err)
		}
	}
}

// At every page that is not there any more: a change is there whole or not at
// all, as was said; the store opens; and what takes rules away is taken.
func TestAFullDiskAtEveryPage(t *testing.T) {
	refused := 0
	for leave := int64(0); leave <= 64; leave += 4 {
		dir := small(t, 4096)
		s := open(t, dir)
		ctx := context.Background()
		add(t, s, 1, "", "one")
		fill(t, dir, leave)
		text := strings.Repeat("two", 3000)
		r, texts := revisionOf(2, "one", text)
		err := s.AddRevision(ctx, r, texts, false)
		want := "one"
		if err == nil {
			want = text
		} else if refused++; !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "make room") {
			t.Errorf("%d KiB left: %v", leave, err)
		}
		for range 2 { // as it is, and after a start on the full disk
			docs, err := s.Documents(ctx, 0)
			if err != nil || len(docs) != 1 || docs[0].Text != want {
				t.Fatalf("%d KiB left: %v", leave, err)
			}
			closeStore(t, s)
			s = open(t, dir)
		}
		r, texts = revisionOf(3, want, "")
		if err := s.AddRevision(ctx, r, texts, true); err != nil {
			t.Errorf("%d KiB left: a removal: %v", leave, err)
		}
		closeStore(t, s)
		s = open(t, dir)
		if docs, err := s.Documents(ctx, 0); err != nil || len(docs) != 0 {
			t.Errorf("%d KiB left: a removal was lost: %v, %v", leave, docs, err)
		}
		closeStore(t, s)
	}
	if refused == 0 {
		t.Error("the disk was never full")
	}
}

func TestADiskThatCannotBeWritten(t *testing.T) {
	dir := small(t, 4096)
	s := open(t, dir)
	add(t, s, 1, "", "one")
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("none", dir, "", unix.MS_REMOUNT|flags, "size=4096k"); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	remount(unix.MS_RDONLY)
	if err := openErr(t, dir); !errors.Is(err, store.ErrReadOnly) && !errors.Is(err, unix.EROFS) {
		t.Errorf("%v", err)
	}
	remount(0)
	s = open(t, dir)
	defer closeStore(t, s)
	add(t, s, 2, "one", "two")
}
