// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// SetSandbox adds or replaces a document that lives only in memory, for one
// sandbox: whatever its scope says must cover p, and it counts for p alone, at
// the level of the sandbox. Only Policy documents can be of one sandbox. name
// must be unique to it.
func (l *Library) SetSandbox(name, text string, p scope.Principal) error {
	only, err := scope.ParseSelector(p.String())
	if err != nil {
		return err
	}
	docs, err := readOwn(name, text)
	if err != nil {
		return err
	}
	for i := range docs {
		d := &docs[i]
		if d.Kind != policy.KindPolicy {
			return policy.Problem{File: name, Line: d.Line, Col: 1, Msg: fmt.Sprintf("a document of kind %s cannot belong to one sandbox", d.Kind), Hint: "put it into the policy directory"}
		}
		if !d.Scope.Matches(p, "", "") {
			return policy.Problem{File: name, Line: d.Line, Col: 1, Msg: fmt.Sprintf("its scope %q does not cover this sandbox (%s)", d.Scope, p), Hint: "write a scope that does, such as org:" + p.Org + ", or name the agent with --as"}
		}
		d.Scope = only
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	undo, err := l.tryLocked(name, FromSandbox, text, docs)
	if err != nil {
		return err
	}
	return l.commitLocked(Change{Loaded: []string{name}}, undo)
}

// readOwn reads a text, before the library is locked.
func readOwn(name, text string) ([]policy.Document, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%s: %d bytes exceed the limit of %d", name, len(text), MaxFile)
	}
	docs, problems := policy.Parse(name, []byte(text))
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	return docs, nil
}

// tryLocked sets a source if its documents go with all others; undo restores the old
// one.
func (l *Library) tryLocked(name string, origin Origin, text string, docs []policy.Document) (undo func(), err error) {
	old := l.sources[name]
	undo = func() {
		if old == nil {
			delete(l.sources, name)
			return
		}
		l.sources[name] = old
	}
	l.sources[name] = &source{origin: origin, text: text, docs: docs, since: l.revision + 1}
	if _, problems := l.compileLocked(l.revision+1, nil); len(problems) > 0 {
		undo()
		return nil, policy.Problems(problems)
	}
	return undo, nil
}

func (l *Library) commitLocked(ch Change, undo func()) error {
	if err := l.recompileLocked(ch); err != nil {
		undo()
		return err
	}
	return nil
}

// writeDurably replaces path atomically and syncs file and directory.
func writeDurably(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails after the rename: nothing is left
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return fmt.Errorf("documents: %w", err)
	}
	if err := tmp.Chmod(mode); err != nil {
		tmp.Close()
		return fmt.Errorf("documents: %w", err)
	}
	if err := tmp.Sync(); err != nil {
		tmp.Close()
		return fmt.Errorf("documents: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	return nil
}

// SetMemory adds or replaces a Policy document that is not stored and ends
// with the process at the latest.
func (l *Library) SetMemory(name, text string) error {
	docs, err := readOwn(name, text)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	undo, err := l.tryLocked(name, FromSandbox, text, docs)
	if err != nil {
		return err
	}
	return l.commitLocked(Change{Loaded: []string{name}}, undo)
}

// Trial compiles what would be in force with more documents and changes nothing.
// One takes the place of what is there of its kind, scope and name.
func (l *Library) Trial(docs ...policy.Document) (*policy.Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Clone(docs)
	claims := l.claimsLocked(nil)
	for _, n := range l.namesLocked() {
		if l.sources[n].aside(claims) != "" {
			continue
		}
		for _, d := range l.sources[n].docs {
			if !slices.ContainsFunc(docs, func(o policy.Document) bool { return d.Kind == o.Kind && d.Scope == o.Scope && d.Name == o.Name }) {
				all = append(all, d)
			}
		}
	}
	snap, problems := policy.Compile(l.revision+1, all)
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	return snap, nil
}
