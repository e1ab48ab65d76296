// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
)

// StoredDocuments are those in force, or those as of a revision.
func (b *backend) StoredDocuments(ctx context.Context, name string, revision uint64) (api.StoredDocuments, error) {
	docs, res := b.d.inForce(), api.StoredDocuments{Revision: revision, Documents: []api.StoredDocument{}}
	if revision == 0 {
		res.Revision = b.d.library.Snapshot().Revision()
	} else {
		var err error
		if docs, err = b.d.asOf(ctx, revision); err != nil {
			return res, err
		}
	}
	for _, d := range docs {
		if name == "" || d.Name == name {
			res.Documents = append(res.Documents, api.StoredDocument{Kind: d.Kind, Name: d.Name, Scope: d.Scope, Owner: d.Owner, File: d.File, Text: d.Text})
		}
	}
	slices.SortStableFunc(res.Documents, func(a, b api.StoredDocument) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Scope, b.Scope))
	})
	if name != "" && len(res.Documents) == 0 {
		if revision == 0 {
			return res, api.Errorf(api.CodeNotFound, "no document %q is in force", name).WithRemedy("`ringfence policy show` lists what is in force, `ringfence policy history " + name + "` what became of it")
		}
		return res, api.Errorf(api.CodeNotFound, "there was no document %q as of revision %d", name, revision).WithRemedy("`ringfence policy history " + name + "` says when there was")
	}
	return res, nil
}

// inForce are the documents in force that belong to the whole node.
func (d *Daemon) inForce() (out []store.Document) {
	for _, it := range d.library.Items() {
		if it.Origin == documents.FromSandbox {
			continue
		}
		key := store.Key{Owner: string(it.Origin), File: filepath.Base(it.Source), Kind: it.Kind, Name: it.Name, Scope: it.Scope.String()}
		out = append(out, store.Document{Key: key, Text: string(it.Raw)})
	}
	return out
}

// asOf are the documents as of a revision that was given already.
func (d *Daemon) asOf(ctx context.Context, revision uint64) ([]store.Document, error) {
	if newest := d.library.Snapshot().Revision(); revision > newest {
		return nil, api.Errorf(api.CodeNotFound, "there is no policy revision %d yet: the newest is %d", revision, newest)
	}
	docs, err := d.store.Documents(ctx, revision)
	if err != nil {
		return nil, err
	}
	first, err := d.store.History(ctx, store.RevisionQuery{Before: revision + 1, Limit: 1})
	if err == nil && len(first) == 0 {
		return nil, api.Errorf(api.CodeNotFound, "the history does not reach back to revision %d", revision).WithRemedy("`ringfence policy history` lists the revisions that it has")
	}
	return docs, err
}

// Revisions lists the history.
func (b *backend) Revisions(ctx context.Context, q api.RevisionQuery) (api.Revisions, error) {
	list, err := b.d.store.History(ctx, store.RevisionQuery{Name: q.Name, Before: q.Before, Limit: q.Limit})
	res := api.Revisions{Revisions: []api.Revision{}}
	for _, r := range list {
		o := api.Revision{Number: r.Number, Time: time.Unix(0, r.Time).UTC(), Author: r.Author.Name, PID: r.Author.PID, Program: r.Author.Program, Action: r.Action, Comment: r.Comment, Changes: []api.DocumentChange{}}
		if r.Author.UID >= 0 {
			o.UID = &r.Author.UID
		}
		for _, c := range r.Changes {
			o.Changes = append(o.Changes, changeOf(c))
		}
		res.Revisions = append(res.Revisions, o)
	}
	return res, err
}

func changeOf(c store.Change) api.DocumentChange {
	o := api.DocumentChange{Kind: c.Kind, Name: c.Name, Scope: c.Scope, Owner: c.Owner, File: c.File, Change: "changed", BeforeHash: c.Before, AfterHash: c.After}
	switch {
	case c.Before == "":
		o.Change = "added"
	case c.After == "":
		o.Change = "removed"
	}
	return o
}

// PolicyDiff compares what was kept as of two revisions.
func (b *backend) PolicyDiff(ctx context.Context, from, to uint64) (api.PolicyDiff, error) {
	if to == 0 {
		to = b.d.library.Snapshot().Revision()
	}
	res := api.PolicyDiff{From: from, To: to}
	before, err := b.d.asOf(ctx, from)
	if err != nil {
		return res, err
	}
	after, err := b.d.asOf(ctx, to)
	if err != nil {
		return res, err
	}
	res.Changes = differences(before, after)
	return res, nil
}

// differences leads from one set of documents to another.
func differences(before, after []store.Document) []api.DocumentChange {
	out := []api.DocumentChange{}
	was := map[store.Key]string{}
	for _, d := range before {
		was[d.Key] = d.Text
	}
	add := func(k store.Key, before, after string) {
		c := store.Change{Key: k}
		if before != "" {
			c.Before = store.Hash(before)
		}
		if after != "" {
			c.After = store.Hash(after)
		}
		o := changeOf(c)
		o.Before, o.After = before, after
		out = append(out, o)
	}
	for _, d := range after {
		if text, there := was[d.Key]; !there || text != d.Text {
			add(d.Key, text, d.Text)
		}
		delete(was, d.Key)
	}
	for _, d := range before {
		if _, gone := was[d.Key]; gone {
			add(d.Key, d.Text, "")
		}
	}
	slices.SortStableFunc(out, func(a, b api.DocumentChange) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Scope, b.Scope))
	})
	return out
}

func ownedBy(owner string, docs []store.Document) (out []store.Document) {
	for _, d := range docs {
		if d.Owner == owner {
			out = append(out, d)
		}
	}
	return out
}

// RollbackPolicy goes on to a revision that has the documents of the API as they
// were. Those of the directory are not the daemon's to change.
func (b *backend) RollbackPolicy(ctx context.Context, c *api.Caller, r *api.RollbackRequest) (api.PolicyChange, error) {
	d := b.d
	if !b.rightsNow(c).Node(policy.RightAdmin) {
		return api.PolicyChange{}, lostRole()
	}
	then, err := d.asOf(ctx, r.Revision)
	if err != nil {
		return api.PolicyChange{}, err
	}
	texts := map[string]string{}
	for _, doc := range ownedBy(store.OwnerAPI, then) {
		texts[doc.File] = doc.Text
	}
	files := d.library.ReadAhead(texts) // before the locks: it takes as long as who wrote them likes
	d.providing.Lock()
	defer d.providing.Unlock()
	d.applying.Lock()
	defer d.applying.Unlock()
	if !b.rightsNow(c).Node(policy.RightAdmin) { // still
		return api.PolicyChange{}, lostRole()
	}
	kept, err := d.store.Documents(ctx, 0)
	if err != nil {
		return api.PolicyChange{}, err
	}
	here := ownedBy(store.OwnerDirectory, d.inForce())
	if err := d.mayRollBack(then, here, r); err != nil {
		return api.PolicyChange{}, err
	}
	comment := strings.TrimSuffix(fmt.Sprintf("revision %d: %s", r.Revision, r.Comment), ": ")
	changed, rev, err := d.library.RestoreRead(d.act(c, "rollback", comment, scope.All()), files)
	if ps := (policy.Problems)(nil); errors.As(err, &ps) {
		return api.PolicyChange{}, api.Errorf(api.CodeConflict, "the documents of revision %d do not go with what is in force now: %v", r.Revision, ps).WithRemedy("nothing was changed; `ringfence policy get NAME --revision " + fmt.Sprint(r.Revision) + "` shows what they said")
	}
	res := api.PolicyChange{Revision: rev, Documents: []api.PolicyDocument{}}
	if err != nil {
		return res, err
	}
	if len(changed) == 0 {
		res.Notes = append(res.Notes, fmt.Sprintf("the documents of the API are as of revision %d: nothing was changed", r.Revision))
	}
	for _, ch := range differences(ownedBy(store.OwnerAPI, kept), ownedBy(store.OwnerAPI, then)) {
		res.Documents = append(res.Documents, api.PolicyDocument{Kind: ch.Kind, Name: ch.Name, Scope: ch.Scope, File: documents.Place(ch.Kind, ch.Name), Change: ch.Change})
	}
	res.Notes = append(res.Notes, d.keysMissing(changed)...)
	return res, nil
}

// mayRollBack refuses what a rollback cannot restore, and what the directory
// keeps by now.
func (d *Daemon) mayRollBack(then, here []store.Document, r *api.RollbackRequest) error {
	var differ []string
	for _, ch := range differences(ownedBy(store.OwnerDirectory, then), here) {
		differ = append(differ, fmt.Sprintf("%s %q (%s) was %s", ch.Kind, ch.Name, ch.File, ch.Change))
	}
	if len(differ) > 0 && !r.APIOnly {
		e := api.Errorf(api.CodeConflict, "since revision %d the policy directory has changed, which a rollback does not touch: %s; nothing was changed", r.Revision, strings.Join(differ, ", "))
		return e.WithRemedy("put those files back first (`ringfence policy get NAME --revision " + fmt.Sprint(r.Revision) + "` shows what they said), or roll back the rest with --api-only")
	}
	for _, doc := range ownedBy(store.OwnerAPI, then) {
		for _, other := range here {
			if doc.Kind == other.Kind && doc.Name == other.Name {
				return api.Errorf(api.CodeConflict, "the %s %q is owned by the policy directory by now (%s); nothing was changed", doc.Kind, doc.Name, other.File).
					WithRemedy("take it out of that file first, or give it another name there")
			}
		}
	}
	return nil
}

// keysMissing names providers that are back without their key: `provider remove`
// took it, and the store never has one.
func (d *Daemon) keysMissing(files []string) (notes []string) {
	for _, it := range d.library.Items() {
		if p := it.Provider; p != nil && it.Origin == documents.FromAPI && slices.Contains(files, filepath.Base(it.Source)) && len(p.Keys) > 0 && !d.hasKeys(p) {
			notes = append(notes, fmt.Sprintf("the provider %s is back without its key: give it with `ringfence provider add %s`", p.Name, p.Name))
		}
	}
	return notes
}
