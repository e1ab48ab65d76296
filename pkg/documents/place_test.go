// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"context"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

// TestPlacesInDocumentsOfTheAPI: what people read of a place in a document of the
// API is what they can ask for, and never what the store calls it, whether it was
// just put, read at a start, in force, beside a file, or no document any more.
func TestPlacesInDocumentsOfTheAPI(t *testing.T) {
	r := newRig(t)
	if err := r.lib.Put(byRoot, "applied-policy-base.yaml", "# why\n"+policyOf("base", "allow", "a.example:443")); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"put", "read"} {
		d := r.lib.Snapshot().View(who).Egress("a.example", 443)
		it := r.lib.Items()[0]
		if d.Rule.File != "Policy/base" || it.File != d.Rule.File || it.Source != "api/applied-policy-base.yaml" {
			t.Errorf("%s: the rule is in %q, the document in %q, %q to the library", when, d.Rule.File, it.File, it.Source)
		}
		if line := strings.Split(string(it.Raw), "\n")[d.Rule.Line-1]; !strings.Contains(line, "a.example") {
			t.Errorf("%s: line %d is %q", when, d.Rule.Line, line)
		}
		r.reopen()
	}
	_, _, err := r.lib.PutAll(byRoot, map[string]string{"other.yaml": policyOf("base", "allow", "b.example:443")})
	if ps, ok := err.(policy.Problems); !ok || !strings.Contains(ps.Error(), "Policy/base:") || strings.Contains(ps.Error(), "api/") {
		t.Errorf("two of one name: %v", err)
	}
}

// TestPlacesInWhatIsNoDocumentAnyMore: a later version may be stricter than the
// one that stored it.
func TestPlacesInWhatIsNoDocumentAnyMore(t *testing.T) {
	r := newRig(t)
	text := policyOf("old", "alow", "a.example:443")
	key := store.Key{Owner: store.OwnerAPI, File: "applied-policy-old.yaml", Kind: policy.KindPolicy, Name: "old", Scope: "org:local"}
	last, err := r.store.Last(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.AddRevision(context.Background(), store.Revision{Number: last + 5, Time: 1, Author: byRoot.Author, Action: "apply", Changes: []store.Change{{Key: key, After: store.Hash(text)}}}, []string{text}, false); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	ms := r.lib.Problems()
	if len(ms) == 0 || ms[0].File != "Policy/old" || ms[0].Origin != FromAPI || ms[0].In != "api/applied-policy-old.yaml" {
		t.Errorf("%+v", ms)
	}
}
