// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
)

// quota bounds what is kept of the documents that the API wrote: every one is
// compiled with every change on the node, and its former texts stay in the history.
type quota struct {
	documents int
	bytes     int64
	changes   int   // a day
	written   int64 // bytes of texts, a day
}

// scopeQuota is for each scope that somebody was given, with all that was written
// by that: see [charged]. What root wrote there does not count, and root is not
// bound by it. nodeQuota is for everybody together.
func scopeQuota() quota {
	return quota{documents: 256, bytes: 4 << 20, changes: 2000, written: 64 << 20}
}

func nodeQuota() quota { return quota{documents: 8192, bytes: 64 << 20} }

const (
	aDay = 24 * time.Hour

	// maxSandboxDocuments bounds the documents of one sandbox that `allow` adds.
	maxSandboxDocuments = 128
)

// fits refuses documents that would be too many or too large. Whoever asks holds
// d.applying.
func (d *Daemon) fits(ctx context.Context, r api.Rights, list []applied) error {
	kept := d.stays(list)
	node := used{}
	node.keep(kept, list)
	if what := node.over(nodeQuota()); what != "" {
		return api.Errorf(api.CodeConflict, "the node would have %s; nothing was applied", what).WithRemedy("remove documents that nobody needs with `ringfence policy delete`")
	}
	if r.Root() {
		return nil
	}
	written, err := d.store.Written(ctx, time.Now().Add(-aDay).UnixNano())
	if err != nil {
		return err
	}
	byGrant := map[scope.Selector][]applied{}
	for _, a := range list {
		in := charged(r.Authors(), a.doc.Scope)
		byGrant[in] = append(byGrant[in], a)
	}
	for in, list := range byGrant {
		if err := fitsIn(in, kept, written, list); err != nil {
			return err
		}
	}
	return nil
}

// stays are the documents of the API that a list leaves as they are.
func (d *Daemon) stays(list []applied) []documents.Item {
	replaced := map[string]bool{}
	for _, a := range list {
		replaced["api/"+a.file] = true
	}
	return slices.DeleteFunc(append(d.library.Items(), d.library.Aside()...), func(it documents.Item) bool {
		return it.Origin != documents.FromAPI || replaced[it.Source]
	})
}

// charged is the scope whose quota a document counts in: the narrowest that its
// author was given and that holds all of it. So nobody uses up what somebody was
// given above, with whose rules a team is overruled. Where nobody noted what the
// author was given, it is the document's own scope.
func charged(grants []scope.Selector, in scope.Selector) scope.Selector {
	if by, ok := scope.Narrowest(grants, in); ok {
		return by
	}
	return in
}

// grantsFor notes the grants by which documents of some scopes are charged.
func grantsFor(grants, in []scope.Selector) string {
	var out []string
	for _, s := range in {
		if by, ok := scope.Narrowest(grants, s); ok && !slices.Contains(out, by.String()) {
			out = append(out, by.String())
		}
	}
	return strings.Join(out, " ")
}

// chargedBy is charged, by what was noted.
func chargedBy(noted string, in scope.Selector) scope.Selector {
	var grants []scope.Selector
	for _, text := range strings.Fields(noted) {
		if s, err := scope.ParseSelector(text); err == nil {
			grants = append(grants, s)
		}
	}
	return charged(grants, in)
}

// fitsIn asks the quota of a scope that somebody was given.
func fitsIn(in scope.Selector, kept []documents.Item, written []store.Written, list []applied) error {
	u := used{}
	u.keep(slices.DeleteFunc(slices.Clone(kept), func(it documents.Item) bool { return it.ByRoot || chargedBy(it.Grants, it.Scope) != in }), list)
	u.wrote(written, list, in)
	what := u.over(scopeQuota())
	if what == "" {
		return nil
	}
	return api.Errorf(api.CodeConflict, "%s would have %s; nothing was applied", in, what).
		WithRemedy("remove documents there with `ringfence policy delete`, wait until a day has passed, or ask root, who is not bound by this")
}

// used is how much of a quota is.
type used struct{ quota }

// keep counts what is kept, with list.
func (u *used) keep(kept []documents.Item, list []applied) {
	for _, a := range list {
		u.documents, u.bytes = u.documents+1, u.bytes+int64(len(a.text))
	}
	for i := range kept {
		u.documents, u.bytes = u.documents+1, u.bytes+int64(len(kept[i].Text))
	}
}

// wrote counts what was written in a day and is charged to a scope, with list.
func (u *used) wrote(written []store.Written, list []applied, in scope.Selector) {
	for _, a := range list {
		u.changes, u.written = u.changes+1, u.written+int64(len(a.text))
	}
	for _, w := range written {
		if sel, err := scope.ParseSelector(w.Scope); err == nil && chargedBy(w.Grants, sel) == in {
			u.changes, u.written = u.changes+w.Changes, u.written+w.Bytes
		}
	}
}

// over says what is more than a quota allows, "" if nothing is.
func (u *used) over(q quota) string {
	switch {
	case u.documents > q.documents:
		return fmt.Sprintf("%d documents of the API, and %d are the limit", u.documents, q.documents)
	case u.bytes > q.bytes:
		return fmt.Sprintf("%d bytes of documents of the API, and %d are the limit", u.bytes, q.bytes)
	case q.changes > 0 && u.changes > q.changes:
		return fmt.Sprintf("%d changes of documents within a day, and %d are the limit", u.changes, q.changes)
	case q.written > 0 && u.written > q.written:
		return fmt.Sprintf("%d bytes of documents written within a day, and %d are the limit", u.written, q.written)
	}
	return ""
}

// putAlways stores the rule of `allow --always`, if its caller may still write
// there and it fits.
func (b *backend) putAlways(ctx context.Context, c *api.Caller, doc *policy.Document) error {
	d := b.d
	d.applying.Lock()
	defer d.applying.Unlock()
	rights := b.rightsNow(c)
	if !rights.May(policy.RightAuthor, doc.Scope) {
		return lostRole()
	}
	if err := d.fits(ctx, rights, []applied{{doc: *doc, file: alwaysFile(doc), text: string(doc.Raw)}}); err != nil {
		return err
	}
	return d.library.Put(d.act(c, "allow", "", doc.Scope), alwaysFile(doc), string(doc.Raw))
}

// sandboxFits refuses one more rule for a sandbox that has many, or whose owner's
// sandboxes have; by the latter root is not bound.
func (d *Daemon) sandboxFits(c *api.Caller, s *sandbox.Sandbox, doc *policy.Document) error {
	n := 0
	for _, it := range d.library.Items() {
		if it.Origin == documents.FromSandbox && strings.HasPrefix(it.Source, "sandbox:"+s.Record.ID+"/") {
			n++
		}
	}
	if n >= maxSandboxDocuments {
		return api.Errorf(api.CodeConflict, "the sandbox %s has %d documents of its own, which is the limit; nothing was allowed", s.Record.ID, n).
			WithRemedy("take rules back with `ringfence allow --remove`, or write one document for its scope")
	}
	if c.Rights.Root() {
		return nil
	}
	err := d.ownFits(s.Record.Owner, []storedDocument{{Name: doc.Name, Text: string(doc.Raw)}})
	if le := (*sandbox.LaunchError)(nil); errors.As(err, &le) {
		return api.Errorf(api.CodeConflict, "%v; nothing was allowed", le.Err).WithRemedy("take rules back with `ringfence allow --remove`, or stop sandboxes")
	}
	return err
}
