// SPDX-License-Identifier: Apache-2.0

package daemon

import (
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
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

// isApplied says whether `policy apply` wrote a document.
func isApplied(it *documents.Item) bool {
	return it.Origin == documents.FromAPI && strings.HasPrefix(filepath.Base(it.Source), "applied-")
}

// applied is one document on its way into the library.
type applied struct {
	doc  policy.Document
	file string // in the library
	text string
	read documents.Reading // of text
	skip int               // lines of text before the lines that doc.File has from doc.Line on
}

// ApplyPolicy puts documents into force in one revision, all or none.
func (b *backend) ApplyPolicy(ctx context.Context, c *api.Caller, r *api.ApplyRequest) (api.PolicyChange, error) {
	list, err := readApplied(r.Documents) // before the lock: it takes as long as the caller likes
	if err != nil {
		return api.PolicyChange{}, err
	}
	b.d.applying.Lock()
	defer b.d.applying.Unlock()
	return b.applyLocked(ctx, c, r.Comment, list)
}

// applyLocked applies what was read; whoever calls holds d.applying.
func (b *backend) applyLocked(ctx context.Context, c *api.Caller, comment string, list []applied) (api.PolicyChange, error) {
	rights := b.rightsNow(c)
	if err := b.d.mayApply(rights, list); err != nil {
		return api.PolicyChange{}, err
	}
	if err := b.d.unclaimed(rights, list); err != nil {
		return api.PolicyChange{}, err
	}
	if err := b.d.fits(ctx, rights, list); err != nil {
		return api.PolicyChange{}, err
	}
	files := map[string]documents.Reading{}
	var scopes []scope.Selector
	var res api.PolicyChange
	for _, a := range list {
		files[a.file], scopes = a.read, append(scopes, a.doc.Scope)
		res.Documents = append(res.Documents, api.PolicyDocument{Kind: a.doc.Kind, Name: a.doc.Name, Scope: a.doc.Scope.String(), File: a.doc.File})
	}
	var unchanged []string
	var err error
	res.Revision, unchanged, err = b.d.library.PutRead(b.d.act(c, "apply", comment, scopes...), files)
	for i, a := range list {
		if slices.Contains(unchanged, a.file) {
			res.Documents[i].Change = "unchanged"
		}
	}
	if ps := (policy.Problems)(nil); errors.As(err, &ps) {
		return api.PolicyChange{}, refused(inSource(ps, list))
	}
	return res, err
}

// refused is the answer to documents with mistakes.
func refused(ps policy.Problems) error {
	e := api.Errorf(api.CodeBadRequest, "%v", ps)
	return e.WithRemedy("nothing was applied")
}

// readApplied parses what is to be applied, under the names that the caller
// knows, and gives each document a file of its own.
func readApplied(docs []api.Document) ([]applied, error) {
	var out []applied
	var problems policy.Problems
	seen := map[string]*policy.Document{}
	for _, d := range docs {
		parsed, ps := policy.Parse(d.File, []byte(d.Text))
		problems = append(problems, ps...)
		if len(parsed)+len(ps) == 0 {
			problems = append(problems, policy.Problem{File: d.File, Line: 1, Col: 1, Msg: "no document"})
		}
		for _, doc := range parsed {
			a := applied{doc: doc, file: documents.AppliedFile(doc.Kind, doc.Name), text: string(doc.Raw)}
			a.read = documents.Read(doc.Kind, doc.Name, a.text)
			again := a.read.Documents()
			switch first := seen[a.file]; {
			case first != nil:
				problems = append(problems, policy.Problem{File: d.File, Line: doc.Line, Col: 1,
					Msg:  fmt.Sprintf("a %s named %q stands in %s:%d already", doc.Kind, doc.Name, first.File, first.Line),
					Hint: "what is applied is known by its kind and name: give one of them another name"})
			case len(again) != 1:
				problems = append(problems, policy.Problem{File: d.File, Line: doc.Line, Col: 1, Msg: "documents must be separated by ---"})
			default:
				a.skip = again[0].Line - doc.Line
			}
			seen[a.file] = &doc
			out = append(out, a)
		}
	}
	if len(problems) > 0 {
		return nil, refused(problems)
	}
	return out, nil
}

// inSource names the places of mistakes in the files that the caller knows.
func inSource(ps policy.Problems, list []applied) policy.Problems {
	for i := range ps {
		for _, a := range list {
			if ps[i].File == documents.Place(a.doc.Kind, a.doc.Name) {
				ps[i].File, ps[i].Line = a.doc.File, ps[i].Line-a.skip
			}
		}
	}
	return ps
}

// mayApply refuses documents that are not the caller's to write, and those that
// would take the place of one that is not. Of that it tells no more than that the
// name is taken.
func (d *Daemon) mayApply(r api.Rights, list []applied) error {
	for _, a := range list {
		if !r.Writes(a.doc.Kind, a.doc.Scope) {
			return deniedDocument(&a.doc)
		}
	}
	for _, it := range append(d.library.Items(), d.library.Aside()...) {
		for _, a := range list {
			if isApplied(&it) && filepath.Base(it.Source) == a.file && !r.Writes(it.Kind, it.Scope) {
				return taken(&a.doc)
			}
		}
	}
	return nil
}

func deniedDocument(doc *policy.Document) error {
	place := fmt.Sprintf("%s:%d: ", doc.File, doc.Line)
	switch doc.Kind {
	case policy.KindPolicy, policy.KindAccess:
		role := policy.RolePolicyAuthor
		if doc.Kind == policy.KindAccess {
			role = policy.RoleAdmin
		}
		return &api.Error{Code: api.CodeDenied, Message: fmt.Sprintf("%sthe %s %q for %s needs root, or the role %s there; nothing was applied", place, doc.Kind, doc.Name, doc.Scope, role),
			Remedy: "write a scope that lies within one of yours"}
	}
	return &api.Error{Code: api.CodeDenied, Message: fmt.Sprintf("%sa %s is the whole node's: it needs root, or the role admin of org:*; nothing was applied", place, doc.Kind),
		Remedy: "run the command as root"}
}

// taken says of a name only that somebody has it.
func taken(doc *policy.Document) error {
	return api.Errorf(api.CodeConflict, "the name %q is taken: documents of kind %s are known by their name on the whole node; nothing was applied", doc.Name, doc.Kind).
		WithRemedy("give the document in " + doc.File + " another name")
}

// unclaimed refuses documents whose kind and name somebody else keeps: two of
// them would be in force, and nobody could tell which one to change.
func (d *Daemon) unclaimed(r api.Rights, list []applied) error {
	for _, it := range d.library.Items() {
		if it.Origin == documents.FromSandbox || isApplied(&it) {
			continue
		}
		for _, a := range list {
			if a.doc.Kind == it.Kind && a.doc.Name == it.Name {
				if !r.Reads(it.Kind, it.Scope) {
					return taken(&a.doc)
				}
				return api.Errorf(api.CodeConflict, "a %s named %q stands in %s:%d, which was not applied; nothing was applied", it.Kind, it.Name, it.File, it.Line).
					WithRemedy(keptElsewhere(&it) + ", or give the document in " + a.doc.File + " another name")
			}
		}
	}
	return nil
}

// keptElsewhere says how a document that was not applied is changed.
func keptElsewhere(it *documents.Item) string {
	switch {
	case it.Origin == documents.FromDirectory:
		return "change or remove that file: the policy directory is in force as it is"
	case it.Provider != nil:
		return "remove it with `ringfence provider remove " + it.Name + "`"
	}
	return "take it back with `ringfence allow --remove`"
}

// DeletePolicy removes what was applied under a name, KIND/NAME where several
// kinds have it. What is not the caller's to write stays, and is as if it were
// not there.
func (b *backend) DeletePolicy(_ context.Context, c *api.Caller, name, comment string) (api.PolicyChange, error) {
	d := b.d
	d.applying.Lock()
	defer d.applying.Unlock()
	rights := b.rightsNow(c)
	var res api.PolicyChange
	var files []string
	var scopes []scope.Selector
	var other *documents.Item
	kind, bare, given := strings.Cut(name, "/")
	if !given {
		kind, bare = "", name
	}
	for _, it := range append(d.library.Items(), d.library.Aside()...) {
		switch {
		case it.Name != bare || given && it.Kind != kind || it.Origin == documents.FromSandbox || !rights.Writes(it.Kind, it.Scope):
		case isApplied(&it):
			files, scopes = append(files, it.Source), append(scopes, it.Scope)
			res.Documents = append(res.Documents, api.PolicyDocument{Kind: it.Kind, Name: it.Name, Scope: it.Scope.String(), File: it.File})
		default:
			other = &it
		}
	}
	switch {
	case len(files) > 1 && !given:
		var names []string
		for _, doc := range res.Documents {
			names = append(names, doc.Kind+"/"+doc.Name)
		}
		return api.PolicyChange{}, api.Errorf(api.CodeConflict, "%q is the name of several documents: %s", name, strings.Join(names, ", ")).WithRemedy("name one of them")
	case len(files) > 0:
	case other != nil:
		return res, api.Errorf(api.CodeConflict, "the %s %q was not applied: it stands in %s:%d", other.Kind, name, other.File, other.Line).WithRemedy(keptElsewhere(other))
	default:
		return res, api.Errorf(api.CodeNotFound, "no document %q was applied", name).WithRemedy("`ringfence policy show` lists what is in force")
	}
	var err error
	if res.Revision, err = d.library.RemoveBy(d.act(c, "delete", comment, scopes...), files...); err != nil {
		return res, api.Errorf(api.CodeInternal, "%v", err)
	}
	return res, nil
}

// enforcedEvery is how often a waiting caller's sandboxes are asked again.
const enforcedEvery = 20 * time.Millisecond

// Enforced waits until kernel and gateway judge every running sandbox that the
// caller sees on a revision or a later one.
func (b *backend) Enforced(ctx context.Context, c *api.Caller, revision uint64, timeout time.Duration) (api.Enforcement, error) {
	d := b.d
	if newest := d.library.Snapshot().Revision(); revision > newest {
		return api.Enforcement{}, api.Errorf(api.CodeNotFound, "there is no policy revision %d yet: the newest is %d", revision, newest)
	}
	wctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	e := d.settledOn(wctx, revision, func(s *sandbox.Sandbox) bool { return c.Rights.Sees(s.Record.Owner, s.Record.Scope) })
	if !c.Rights.SeesNode() && e.Detail != "" { // it may name others
		e.Detail = "the node has not put it into force everywhere"
	}
	return e, ctx.Err()
}

// settledOn waits until a revision is in force, and all that it denies has ended in
// the sandboxes that are meant. What others have open is not waited for: how long it
// takes to decide that again is up to them.
func (d *Daemon) settledOn(ctx context.Context, revision uint64, meant func(*sandbox.Sandbox) bool) api.Enforcement {
	late := d.policy.wait(ctx, revision)
	for {
		e := d.enforcement(context.WithoutCancel(ctx), revision, meant)
		if late != nil {
			e.InForce = false
			d.mu.Lock()
			e.Detail = d.unenforced
			d.mu.Unlock()
		}
		if e.InForce || ctx.Err() != nil {
			return e
		}
		select {
		case <-ctx.Done():
		case <-time.After(enforcedEvery):
		}
	}
}

// enforcement asks kernel and gateway.
func (d *Daemon) enforcement(ctx context.Context, revision uint64, meant func(*sandbox.Sandbox) bool) api.Enforcement {
	e := api.Enforcement{Revision: revision}
	served, err := d.gatewayRevisions(ctx)
	if err != nil {
		e.Detail = err.Error()
	}
	for _, s := range d.sandboxes.List() {
		if !s.Runs() || !meant(s) { // one that starts catches up before its agent runs
			continue
		}
		generation, err := s.Generation()
		if err != nil {
			e.Detail = err.Error()
		}
		if on := served[s.Record.Number]; generation < revision || on < revision {
			e.Behind = append(e.Behind, api.Behind{ID: s.Record.ID, Name: s.Record.Name, Kernel: generation, Gateway: on})
			continue
		}
		e.Sandboxes++
	}
	e.InForce = len(e.Behind) == 0
	return e
}

// gatewayRevisions is what the gateway says; a gateway that is not there serves
// nobody.
func (d *Daemon) gatewayRevisions(ctx context.Context) (map[uint32]uint64, error) {
	if !d.gateway.Ready() {
		return nil, errors.New("the gateway is not running")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	body, _, err := d.gateway.Call(ctx, wire.TypeRevisions, nil)
	if err != nil {
		return nil, fmt.Errorf("the gateway does not answer: %w", err)
	}
	return wire.DecodeRevisions(body)
}
