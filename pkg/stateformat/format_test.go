// SPDX-License-Identifier: Apache-2.0

package stateformat

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var quiet = slog.New(slog.DiscardHandler)

// put writes files below dir.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func holds(t *testing.T, dir, name, want string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || string(b) != want {
		t.Errorf("%s holds %q (%v), not %q", name, b, err, want)
	}
}

// shout is a step that makes every document loud and moves the name.
func shout(fail error) Step {
	return Step{From: 1, What: "louder documents", Paths: []string{"documents", "name", "node"}, Do: func(dir string) error {
		docs, err := filepath.Glob(filepath.Join(dir, "documents", "*"))
		if err != nil {
			return err
		}
		for _, p := range docs {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if err := os.WriteFile(p, append(b, '!'), 0o600); err != nil {
				return err
			}
		}
		if fail != nil {
			return fail
		}
		return os.Rename(filepath.Join(dir, "name"), filepath.Join(dir, "node"))
	}}
}

func TestANewDirectoryHasTheFormatOfToday(t *testing.T) {
	dir := t.TempDir()
	if err := Open(dir, "v7", 3, nil, quiet); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "format", "3 v7\n")
	if err := Open(dir, "v8", 3, nil, quiet); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "format", "3 v8\n")
}

// Whatever is there without a format file was written before there was one.
func TestAnOldDirectoryIsBroughtUp(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"documents/a": "a", "documents/b": "b", "name": "n", "events/log": "kept as it is"})
	if err := Open(dir, "v1", First, nil, quiet); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "format", "1 v1\n")
	second := Step{From: 2, What: "nothing", Do: func(string) error { return nil }}
	if err := Open(dir, "v9", 3, []Step{second, shout(nil)}, quiet); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "format", "3 v9\n")
	holds(t, dir, "documents/a", "a!")
	holds(t, dir, "node", "n")
	holds(t, dir, "events/log", "kept as it is")
	for name, want := range map[string]string{"documents/a": "a", "documents/b": "b", "name": "n"} {
		holds(t, dir, "backup/format-1/"+name, want)
	}
	if exists(filepath.Join(dir, "backup/format-1/events")) || exists(filepath.Join(dir, "name")) {
		t.Error("what no step changes was backed up, or what it moved is still there")
	}
}

// A step that fails, or whose daemon is killed, begins anew with what the
// directory was, not with what the first attempt left.
func TestAnInterruptedStepIsDoneAgain(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"documents/a": "a", "name": "n"})
	broken := errors.New("the disk is gone")
	for range 2 {
		err := Open(dir, "v9", 2, []Step{shout(broken)}, quiet)
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), filepath.Join(dir, "backup", "format-1")) {
			t.Fatal(err)
		}
		holds(t, dir, "documents/a", "a!")
	}
	put(t, dir, map[string]string{"node": "half"})
	if err := Open(dir, "v9", 2, []Step{shout(nil)}, quiet); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "documents/a", "a!")
	holds(t, dir, "node", "n")
	holds(t, dir, "format", "2 v9\n")
}

// A backup that was interrupted is no backup.
func TestAHalfBackupIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"documents/a": "a", "name": "n", "backup/format-1/documents/a": "something else"})
	if err := Open(dir, "v9", 2, []Step{shout(nil)}, quiet); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "backup/format-1/documents/a", "a")
	holds(t, dir, "documents/a", "a!")
}

func TestANewerDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"documents/a": "a", "name": "n"})
	if err := Open(dir, "v2.0", 2, []Step{shout(nil)}, quiet); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "format"))
	if err != nil {
		t.Fatal(err)
	}
	err = Open(dir, "v1.4", 1, nil, quiet)
	var newer *NewerError
	if !errors.As(err, &newer) {
		t.Fatal(err)
	}
	for _, want := range []string{"format 2", "ringfenced v2.0", "ringfenced v1.4", "start version v2.0", filepath.Join(dir, "backup", "format-1"), `"1 v1.4"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	holds(t, dir, "format", string(before))
	holds(t, dir, "documents/a", "a!")

	// The way back that it names.
	backup := newer.Backups[0]
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "documents")), os.Rename(filepath.Join(backup, "documents"), filepath.Join(dir, "documents")),
		os.Rename(filepath.Join(backup, "name"), filepath.Join(dir, "name")),
		os.WriteFile(filepath.Join(dir, "format"), []byte("1 v1.4"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Open(dir, "v1.4", 1, nil, quiet); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "documents/a", "a")
	// And forward again, with a backup of what is there now.
	put(t, dir, map[string]string{"documents/a": "changed"})
	if err := Open(dir, "v2.0", 2, []Step{shout(nil)}, quiet); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "backup/format-1/documents/a", "changed")
	holds(t, dir, "documents/a", "changed!")
}

func TestAWayThatIsNotKnown(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"name": "n"})
	if err := Open(dir, "v9", 3, []Step{{From: 2}}, quiet); err == nil || !strings.Contains(err.Error(), "no way from format 1") {
		t.Error(err)
	}
	for _, bad := range []string{"", "x v1", "0 v1", "2", "-1 v1", "2 "} {
		put(t, dir, map[string]string{"format": bad})
		if err := Open(dir, "v9", 3, nil, quiet); err == nil || errors.As(err, new(*NewerError)) || !strings.Contains(err.Error(), "this one writes 3") {
			t.Errorf("format %q: %v", bad, err)
		}
	}
}
