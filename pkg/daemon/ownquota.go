// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"strings"
	"sync"

	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// ownQuota bounds documents of sandboxes: each is compiled with every change on the
// node, and its conditions are asked for what the sandbox does.
type ownQuota struct {
	documents, bytes, rules, expressions int
}

// launchQuota is for what one launch brings, launcherQuota for what all sandboxes of
// one user have, with what `allow` added. Root is bound by neither.
func launchQuota() ownQuota {
	return ownQuota{documents: 32, bytes: 1 << 20, rules: 4096, expressions: 256}
}

func launcherQuota() ownQuota {
	return ownQuota{documents: 2048, bytes: 8 << 20, rules: 16384, expressions: 2048}
}

// ownDocuments knows whose the documents of sandboxes are. The zero value is ready.
type ownDocuments struct {
	mu     sync.Mutex // guards what follows
	owners map[string]uint32
	turns  map[uint32]*ownTurn
}

// ownTurn is one owner's.
type ownTurn struct {
	sync.Mutex
	users int // who hold it or wait for it
}

// turn waits until no other launch of the owner is between counting and putting into
// force: what fits twice by itself need not fit together. Nobody waits for others' documents.
func (o *ownDocuments) turn(owner uint32) (done func()) {
	o.mu.Lock()
	if o.turns == nil {
		o.turns = map[uint32]*ownTurn{}
	}
	t := o.turns[owner]
	if t == nil {
		t = &ownTurn{}
		o.turns[owner] = t
	}
	t.users++
	o.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		o.mu.Lock()
		defer o.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(o.turns, owner)
		}
	}
}

func (o *ownDocuments) put(id string, owner uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owners == nil {
		o.owners = map[string]uint32{}
	}
	o.owners[id] = owner
}

func (o *ownDocuments) drop(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.owners, id)
}

// of says whose sandbox the document of a file is of.
func (o *ownDocuments) of(file string) (owner uint32, ok bool) {
	rest, ok := strings.CutPrefix(file, "sandbox:")
	if !ok {
		return 0, false
	}
	id, _, _ := strings.Cut(rest, "/")
	return o.ownerOf(id)
}

// ownerOf says whose a sandbox is.
func (o *ownDocuments) ownerOf(id string) (owner uint32, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	owner, ok = o.owners[id]
	return owner, ok
}

// add counts one more text with its documents: one with none is one too.
func (q *ownQuota) add(text string, docs ...policy.Document) {
	q.documents, q.bytes = q.documents+max(1, len(docs)), q.bytes+len(text)
	for i := range docs {
		q.count(docs[i].Policy)
	}
}

// count counts the rules of a document; nil has none.
func (q *ownQuota) count(p *policy.Policy) {
	if p == nil {
		return
	}
	for _, rules := range [][]policy.Rule{p.Egress, p.Inference, p.Tools} {
		q.rules += len(rules)
		for i := range rules {
			if w := rules[i].When; w != nil && w.Expression != "" {
				q.expressions++
			}
		}
	}
}

// over says what is more than the quota, "" if nothing is.
func (q ownQuota) over(most ownQuota) string {
	for _, c := range []struct {
		n, most int
		what    string
	}{{q.documents, most.documents, "documents"}, {q.bytes, most.bytes, "bytes of documents"}, {q.rules, most.rules, "rules"}, {q.expressions, most.expressions, "rules with an expression"}} {
		if c.n > c.most {
			return fmt.Sprintf("%d %s, and %d are the limit", c.n, c.what, c.most)
		}
	}
	return ""
}

// parsedOwn counts texts that are to be a sandbox's. What cannot be read brings no rules, and
// is refused in its own words where it is put into force.
func parsedOwn(docs []storedDocument) (q ownQuota) {
	for _, doc := range docs {
		if len(doc.Text) > documents.MaxFile {
			q.add(doc.Text)
			continue
		}
		list, _ := policy.Parse(doc.Name, []byte(doc.Text))
		q.add(doc.Text, list...)
	}
	return q
}

// ownFits refuses documents of a sandbox that would be too many, or too large, for one
// launch or for all sandboxes of their owner, whose turn it is.
func (d *Daemon) ownFits(owner uint32, docs []storedDocument) error {
	if owner == 0 || len(docs) == 0 {
		return nil
	}
	sum := ownQuota{documents: len(docs)}
	for _, doc := range docs {
		sum.bytes += len(doc.Text)
	}
	if what := sum.over(launchQuota()); what != "" { // before they are read
		return tooMuchOwn("the sandbox", what)
	}
	q := parsedOwn(docs)
	if what := q.over(launchQuota()); what != "" {
		return tooMuchOwn("the sandbox", what)
	}
	seen := map[string]bool{}
	for _, it := range d.library.Items() {
		if of, ok := d.own.of(it.File); !ok || of != owner || it.Origin != documents.FromSandbox {
			continue
		}
		q.documents++
		if !seen[it.File] {
			seen[it.File] = true
			q.bytes += len(it.Text)
		}
		q.count(it.Policy)
	}
	if what := q.over(launcherQuota()); what != "" {
		return tooMuchOwn(fmt.Sprintf("all sandboxes of the user %d together", owner), what)
	}
	return nil
}

// tooMuchOwn is the refusal, with what to do.
func tooMuchOwn(whose, what string) error {
	return &sandbox.LaunchError{Code: 125, Step: "policy", Err: fmt.Errorf("with its own documents %s would have %s", whose, what),
		Missing: "room for the documents of --policy",
		Remedy:  "put rules that many sandboxes need into one document for their scope (`ringfence policy apply`, by who may write there), name fewer with --policy, or stop sandboxes"}
}
