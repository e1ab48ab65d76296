// SPDX-License-Identifier: Apache-2.0

// Package stateformat keeps a state directory in the format that this version
// writes: it brings an older one up to it, step by step and backed up first,
// and refuses one that a newer version has written.
//
//	<dir>/format                     "NUMBER VERSION": the format, and who wrote it
//	<dir>/backup/format-NUMBER/      what a step away from NUMBER was about to change
package stateformat

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// First is the format of a directory that has no format file: those of before
// there was one.
const First = 1

const (
	formatFile = "format"
	backupDir  = "backup"
	wholeFile  = "whole" // in a backup that is complete
	doingFile  = "doing" // and here as long as its step is under way
)

// Step brings a directory from one format to the next.
type Step struct {
	From  int
	What  string   // for the log
	Paths []string // everything it changes or removes, below the directory; what is not there is made by it
	Do    func(dir string) error
}

// NewerError says that a newer version has written the directory. Nothing was
// changed.
type NewerError struct {
	Dir          string
	Found, Known int
	By           string // the version that wrote it
	Self         string // this version
	Backups      []string
}

func (e *NewerError) Error() string {
	msg := fmt.Sprintf("the state directory %s has format %d, written by ringfenced %s; this is ringfenced %s, which knows formats up to %d: start version %s or a later one again",
		e.Dir, e.Found, e.By, e.Self, e.Known, e.By)
	if len(e.Backups) > 0 {
		msg += fmt.Sprintf("; or go back, and lose what was changed since: put what is in %s back into its place, and write %q into %s",
			e.Backups[0], strings.TrimPrefix(filepath.Base(e.Backups[0]), "format-")+" "+e.Self, filepath.Join(e.Dir, formatFile))
	}
	return msg
}

// Open brings dir to format want, or says why it cannot: a *NewerError for one
// of a newer version. A directory that is empty or new gets the format at once.
// Steps must lead from every older format to want. One that was interrupted is
// done again, on what it found.
func Open(dir, version string, want int, steps []Step, log *slog.Logger) error {
	have, by, err := read(dir, want)
	if err != nil {
		return err
	}
	if have > want {
		e := &NewerError{Dir: dir, Found: have, Known: want, By: by, Self: version}
		for n := want; n >= First; n-- {
			if b := backupOf(dir, n); exists(filepath.Join(b, wholeFile)) {
				e.Backups = append(e.Backups, b)
			}
		}
		return e
	}
	if have == 0 { // new
		return write(dir, want, version)
	}
	for ; have < want; have++ {
		i := indexOf(steps, have)
		if i < 0 {
			return fmt.Errorf("state directory %s: no way from format %d to %d is known to ringfenced %s: start a version in between first", dir, have, want, version)
		}
		log.Info("the state directory is brought to a new format", "dir", dir, "from", have, "to", have+1, "what", steps[i].What, "backup", backupOf(dir, have))
		if err := take(dir, steps[i]); err != nil {
			return fmt.Errorf("state directory %s: from format %d to %d (%s): %w; what it was is in %s", dir, have, have+1, steps[i].What, err, backupOf(dir, have))
		}
		if err := write(dir, have+1, version); err != nil {
			return err
		}
	}
	for n := want - 1; n >= First; n-- {
		if err := done(dir, n); err != nil {
			return err
		}
	}
	if by == version && exists(filepath.Join(dir, formatFile)) {
		return nil
	}
	return write(dir, want, version)
}

func indexOf(steps []Step, from int) int {
	for i := range steps {
		if steps[i].From == from {
			return i
		}
	}
	return -1
}

// take does one step. A backup whose step is under way is of an attempt that
// was interrupted: its content is what the step has to begin with. Any other is
// of a step that was done, and undone by hand since.
func take(dir string, s Step) error {
	backup := backupOf(dir, s.From)
	if exists(filepath.Join(backup, wholeFile)) && exists(filepath.Join(backup, doingFile)) {
		if err := restore(dir, backup, s.Paths); err != nil {
			return fmt.Errorf("put back what an interrupted attempt found: %w", err)
		}
	} else if err := save(dir, backup, s.Paths); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := s.Do(dir); err != nil {
		return err
	}
	return syncTree(dir, s.Paths)
}

// read returns format 0 for a directory that holds nothing yet.
func read(dir string, want int) (format int, by string, err error) {
	b, err := os.ReadFile(filepath.Join(dir, formatFile))
	if errors.Is(err, os.ErrNotExist) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return 0, "", fmt.Errorf("state directory: %w", err)
		}
		if len(entries) == 0 {
			return 0, "", nil
		}
		return First, "", nil
	}
	if err != nil {
		return 0, "", fmt.Errorf("state directory: %w", err)
	}
	number, by, ok := strings.Cut(strings.TrimSuffix(string(b), "\n"), " ")
	format, err = strconv.Atoi(number)
	if !ok || err != nil || format < First || by == "" {
		return 0, "", fmt.Errorf("%s says %q, which is no format: write \"NUMBER VERSION\" into it, as the version that wrote the directory would (this one writes %d)",
			filepath.Join(dir, formatFile), b, want)
	}
	return format, by, nil
}

func write(dir string, format int, version string) error {
	path := filepath.Join(dir, formatFile)
	if err := writeDurably(path+".new", fmt.Appendf(nil, "%d %s\n", format, version)); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return syncDir(dir)
}

// done takes the mark away from the backup of a step behind which the directory
// is for good.
func done(dir string, from int) error {
	mark := filepath.Join(backupOf(dir, from), doingFile)
	if err := os.Remove(mark); err == nil {
		return syncDir(filepath.Dir(mark))
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

func backupOf(dir string, format int) string {
	return filepath.Join(dir, backupDir, "format-"+strconv.Itoa(format))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
