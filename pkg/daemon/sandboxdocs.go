// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
)

// Documents of one sandbox. They are stored beside its record, so that a
// restarted daemon enforces the same.

type storedDocument struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

const storedDocuments = "documents.json"

func (d *Daemon) sandboxDir(id string) string { return filepath.Join(d.cfg.RunDir, "sandboxes", id) }

// addSandboxDocuments puts the documents that a launch brings into force, if they fit.
func (d *Daemon) addSandboxDocuments(id string, owner uint32, p scope.Principal, docs []api.Document) ([]string, error) {
	var stored []storedDocument
	for i, doc := range docs {
		stored = append(stored, storedDocument{Name: fmt.Sprintf("sandbox:%s/%d-%s", id, i, filepath.Base(doc.File)), Text: doc.Text})
	}
	d.own.put(id, owner)
	if len(stored) == 0 {
		return nil, nil
	}
	defer d.own.turn(owner)()
	if err := d.ownFits(owner, stored); err != nil {
		return nil, err
	}
	return d.setSandboxDocuments(id, p, stored)
}

// setSandboxDocuments puts all documents of a new or adopted sandbox into
// force, or none.
func (d *Daemon) setSandboxDocuments(id string, p scope.Principal, docs []storedDocument) ([]string, error) {
	if len(docs) == 0 {
		return nil, nil
	}
	if err := d.storeSandboxDocuments(id, docs); err != nil {
		return nil, err
	}
	var names []string
	for _, doc := range docs {
		if err := d.library.SetSandbox(doc.Name, doc.Text, p); err != nil {
			return nil, errors.Join(err, d.library.Remove(names...))
		}
		names = append(names, doc.Name)
	}
	return names, nil
}

func (d *Daemon) storeSandboxDocuments(id string, docs []storedDocument) error {
	b, err := json.Marshal(docs)
	if err != nil {
		return err
	}
	path := filepath.Join(d.sandboxDir(id), storedDocuments)
	err = os.WriteFile(path+".new", b, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("policy of the sandbox: %w", err)
	}
	return nil
}

func (d *Daemon) storedDocuments(id string) (docs []storedDocument, err error) {
	b, err := os.ReadFile(filepath.Join(d.sandboxDir(id), storedDocuments))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return docs, json.Unmarshal(b, &docs)
}

// addSandboxDocument adds one to a living sandbox.
func (d *Daemon) addSandboxDocument(s *sandbox.Sandbox, name, text string) error {
	d.storing.Lock()
	defer d.storing.Unlock()
	docs, err := d.storedDocuments(s.Record.ID)
	if err != nil {
		return fmt.Errorf("policy of the sandbox: %w", err)
	}
	if err := d.library.SetSandbox(name, text, s.Principal); err != nil {
		return err // nothing has changed
	}
	next := slices.DeleteFunc(slices.Clone(docs), func(o storedDocument) bool { return o.Name == name })
	if err := d.storeSandboxDocuments(s.Record.ID, append(next, storedDocument{name, text})); err != nil {
		return errors.Join(err, d.library.Remove(name))
	}
	return nil
}

func (d *Daemon) restoreDocuments(lo sandbox.Leftover) error {
	d.own.put(lo.Record.ID, lo.Record.Owner)
	docs, err := d.storedDocuments(lo.Record.ID)
	if err != nil || len(docs) == 0 {
		return err
	}
	p, err := scope.ParsePrincipal(lo.Record.Scope)
	if err != nil {
		return err
	}
	_, err = d.setSandboxDocuments(lo.Record.ID, p, docs)
	return err
}

// dropSandboxDocuments forgets the policy of an ended sandbox. It counts as its owner's
// until it is out of force; what cannot be taken out goes on counting.
func (d *Daemon) dropSandboxDocuments(id string) {
	if owner, ok := d.own.ownerOf(id); ok {
		defer d.own.turn(owner)()
	}
	prefix := "sandbox:" + id + "/"
	var names []string
	for _, it := range d.library.Items() {
		if strings.HasPrefix(it.Source, prefix) {
			names = append(names, it.Source)
		}
	}
	if err := d.library.Remove(names...); err != nil {
		d.logger.Error("policy of an ended sandbox", "sandbox", id, "error", err)
		return
	}
	d.own.drop(id)
}
