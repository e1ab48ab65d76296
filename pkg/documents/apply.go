// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/ringfence/ringfence/pkg/policy"
)

// PutAll adds or replaces document files of the API (base names without
// directory) in one revision, which it returns: all of them come into force, or
// none. They are durable before that. author goes with the change.
func (l *Library) PutAll(author string, files map[string]string) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	texts := map[string]string{}
	for name, text := range files {
		texts[filepath.Join(l.o.APIDir, name)] = text
	}
	undo, err := l.placeLocked(texts)
	if err != nil {
		return 0, err
	}
	paths := slices.Sorted(maps.Keys(texts))
	restore, err := replaceFiles(paths, texts)
	if err == nil {
		err = l.recompileLocked(Change{Loaded: paths, Author: author})
	}
	if err != nil { // what was refused must not come into force at the next start
		undo()
		return 0, errors.Join(err, restore())
	}
	return l.revision, nil
}

// placeLocked sets sources whose texts are good, by themselves and with all
// others; undo restores the old ones.
func (l *Library) placeLocked(texts map[string]string) (undo func(), err error) {
	next := map[string]*source{}
	var problems []policy.Problem
	for path, text := range texts {
		if len(text) > MaxFile {
			return nil, fmt.Errorf("%s: %d bytes exceed the limit of %d", path, len(text), MaxFile)
		}
		docs, p := policy.Parse(path, []byte(text))
		problems = append(problems, p...)
		next[path] = &source{origin: FromAPI, text: text, docs: docs, since: l.revision + 1}
	}
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	old := map[string]*source{}
	for path, s := range next {
		old[path] = l.sources[path]
		l.sources[path] = s
	}
	undo = func() {
		for path, s := range old {
			if s == nil {
				delete(l.sources, path)
				continue
			}
			l.sources[path] = s
		}
	}
	if _, problems := l.compileLocked(l.revision+1, nil); len(problems) > 0 {
		undo()
		return nil, policy.Problems(problems)
	}
	return undo, nil
}

// replaceFiles writes files durably, one after the other; restore brings back
// what was there. It works as far as it got also after an error.
func replaceFiles(paths []string, texts map[string]string) (restore func() error, err error) {
	type before struct {
		path string
		text []byte
		none bool
	}
	var done []before
	restore = func() error {
		var errs []error
		for _, b := range done {
			if b.none {
				errs = append(errs, ignoreMissing(os.Remove(b.path)))
				continue
			}
			errs = append(errs, writeDurably(b.path, b.text, 0o600))
		}
		return errors.Join(errs...)
	}
	for _, path := range paths {
		old, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return restore, fmt.Errorf("documents: %w", err)
		}
		none := err != nil
		if err := writeDurably(path, []byte(texts[path]), 0o600); err != nil {
			return restore, err
		}
		done = append(done, before{path, old, none})
	}
	return restore, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// RemoveBy is Remove with an author; it returns the revision that it made.
func (l *Library) RemoveBy(author string, names ...string) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.removeLocked(Change{Author: author}, names)
	return l.revision, err
}
