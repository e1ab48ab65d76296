// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"errors"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

func TestPutAllIsOneRevision(t *testing.T) {
	r := newRig(t)
	first := r.lib.Snapshot().Revision()
	rev, _, err := r.lib.PutAll(byRoot, map[string]string{"a.yaml": policyOf("a", "allow", "a.example:443"), "b.yaml": policyOf("b", "allow", "b.example:443")})
	if err != nil || rev != first+1 || r.lib.Snapshot().Revision() != rev {
		t.Fatalf("revision %d after %d, %v", rev, first, err)
	}
	r.want("a.example", true)
	r.want("b.example", true)
	last := r.changes[len(r.changes)-1]
	if last.Act != byRoot || len(last.Loaded) != 2 {
		t.Errorf("%+v", last)
	}

	// One mistake, and nothing of it happens: in force, on disk, to the number.
	rev2, _, err := r.lib.PutAll(byRoot, map[string]string{"a.yaml": policyOf("a", "deny", "a.example:443"), "c.yaml": policyOf("c", "alow", "c.example:443")})
	var ps policy.Problems
	if !errors.As(err, &ps) || !strings.Contains(err.Error(), "c.yaml:6:") || rev2 != 0 {
		t.Errorf("%d, %v", rev2, err)
	}
	// Two that do not go together.
	if _, _, err := r.lib.PutAll(byRoot, map[string]string{"a.yaml": policyOf("a", "deny", "a.example:443"), "c.yaml": policyOf("b", "allow", "c.example:443")}); !errors.As(err, &ps) {
		t.Errorf("%v", err)
	}
	r.want("a.example", true)
	if got := r.lib.Snapshot().Revision(); got != rev {
		t.Errorf("revision %d", got)
	}
	r.reopen() // as after a restart
	r.want("a.example", true)
	r.want("b.example", true)
	r.want("c.example", false)

	byOther := Act{Author: store.Author{Name: "ann", UID: 7}, Action: "delete"}
	if _, err := r.lib.RemoveBy(byOther, "api/a.yaml"); err != nil {
		t.Fatal(err)
	}
	r.want("a.example", false)
	if last := r.changes[len(r.changes)-1]; last.Act != byOther || len(last.Removed) != 1 {
		t.Errorf("%+v", last)
	}
}

// Of two documents neither comes into force when the store does not take both.
func TestPutAllThatCannotBeStored(t *testing.T) {
	r := newRig(t)
	if _, _, err := r.lib.PutAll(byRoot, map[string]string{"a.yaml": policyOf("a", "allow", "a.example:443")}); err != nil {
		t.Fatal(err)
	}
	rev := r.lib.Snapshot().Revision()
	if err := r.store.Close(); err != nil { // from here on it takes nothing
		t.Fatal(err)
	}
	if _, _, err := r.lib.PutAll(byRoot, map[string]string{"a.yaml": policyOf("a", "deny", "a.example:443"), "b.yaml": policyOf("b", "allow", "b.example:443")}); err == nil {
		t.Fatal("stored")
	}
	if _, _, err := r.lib.Restore(byRoot, nil); err == nil { // it only removes, and is no removal
		t.Fatal("restored")
	}
	for range 2 {
		r.want("a.example", true)
		r.want("b.example", false)
		if got := r.lib.Snapshot().Revision(); got != rev {
			t.Errorf("revision %d, was %d", got, rev)
		}
		r.reload()
	}
	r.reopen()
	r.want("a.example", true)
	r.want("b.example", false)
	if now := r.lib.Snapshot().Revision(); now <= rev+1 {
		t.Errorf("revision %d: the number %d was given to what was refused", now, rev+1)
	}
}
