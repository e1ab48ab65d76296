// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

// AppliedFile is what a document of `policy apply` is called: one file for a kind
// and name.
func AppliedFile(kind, name string) string {
	return "applied-" + strings.ToLower(kind) + "-" + name + ".yaml"
}

// Import moves the documents of the API from files in dir, where versions before
// the store kept them, into the store: one revision. A file that was not in force
// because of a mistake, or because others can write it, is left out and told; the
// caller has a copy of them all. Files are removed once the store has them.
func Import(ctx context.Context, dir string, st store.Revisions, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	have, err := st.Documents(ctx, 0)
	if err != nil {
		return err
	}
	before := map[store.Key]string{} // of an import that was undone by hand: the files count
	for _, d := range have {
		if d.Owner == store.OwnerAPI {
			before[d.Key] = store.Hash(d.Text)
		}
	}
	r := store.Revision{Time: time.Now().UnixNano(), Author: store.Author{Name: "ringfenced", UID: -1}, Action: "import", Comment: "documents of the API that were files before"}
	var texts, paths []string
	taken := map[string]bool{}
	for _, e := range entries {
		if !isDocument(e) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		docs, err := importable(path)
		if err != nil {
			log.Warn("a document of the API was not in force and is left out", "file", path, "error", err)
		}
		paths = append(paths, path)
		for i := range docs {
			text := string(docs[i].Raw)
			c := store.Change{Key: keyOf(store.OwnerAPI, importedName(e.Name(), &docs[i], len(docs), taken), &docs[i]), After: store.Hash(text)}
			c.Before = before[c.Key]
			delete(before, c.Key)
			if c.Before != c.After {
				r.Changes, texts = append(r.Changes, c), append(texts, text)
			}
		}
	}
	for key, hash := range before {
		r.Changes = append(r.Changes, store.Change{Key: key, Before: hash})
	}
	if err := addImport(ctx, dir, st, r, texts); err != nil {
		return err
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("documents: %w", err)
		}
	}
	return syncDir(dir)
}

func addImport(ctx context.Context, dir string, st store.Revisions, r store.Revision, texts []string) error {
	if len(r.Changes) == 0 {
		return nil
	}
	given, err := numbersIn(dir).read()
	if err != nil {
		return err
	}
	last, err := st.Last(ctx)
	if err != nil {
		return err
	}
	r.Number = max(given, last) + 1
	if err := numbersIn(dir).write(r.Number); err != nil {
		return err
	}
	return st.AddRevision(ctx, r, texts, false)
}

func importable(path string) ([]policy.Document, error) {
	text, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	docs, problems := policy.Parse(path, []byte(text))
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	return docs, nil
}

// importedName keeps the name of what the API wrote; what somebody put there by
// hand is from now on as if it had been applied.
func importedName(name string, d *policy.Document, inFile int, taken map[string]bool) string {
	ours := slices.ContainsFunc([]string{"applied-", "allow-", "provider-"}, func(p string) bool { return strings.HasPrefix(name, p) })
	if !ours || inFile > 1 {
		name = AppliedFile(d.Kind, d.Name)
	}
	for base, n := strings.TrimSuffix(name, filepath.Ext(name)), 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d.yaml", base, n)
	}
	taken[name] = true
	return name
}
