// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/store"
)

// A policy-author takes a name, and then root's directory has a file with a
// document of that name: root's is in force, in both orders and after a restart.
// With root's own document of the API the file is held back, as ever.
func TestATakenNameDoesNotKeepTheDirectoryOut(t *testing.T) {
	author := Act{Author: store.Author{Name: "alice", UID: 1000}, Action: "apply"}
	r := newRig(t)
	if err := r.lib.Put(author, "applied-policy-base.yaml", policyOf("base", "allow", "theirs.example:443")); err != nil {
		t.Fatal(err)
	}
	r.want("theirs.example", true) // the control
	r.write("root.yaml", policyOf("base", "allow", "roots.example:443"))
	r.reload()
	for _, when := range []string{"at once", "after a restart"} {
		r.want("roots.example", true)
		r.want("theirs.example", false)
		if items := r.lib.Items(); len(items) != 1 || items[0].Origin != FromDirectory {
			t.Errorf("%s: in force: %+v", when, items)
		}
		aside := r.lib.Aside()
		if len(aside) != 1 || aside[0].ByRoot || aside[0].Name != "base" {
			t.Errorf("%s: aside: %+v", when, aside)
		}
		ms := r.lib.Problems()
		if len(ms) != 1 || !strings.Contains(ms[0].Error(), `has the Policy "base" too`) || !strings.Contains(ms[0].Error(), "this one is not") {
			t.Errorf("%s: %v", when, ms)
		}
		r.reopen()
	}
	r.write("root.yaml", policyOf("another", "allow", "roots.example:443"))
	r.reload()
	r.want("theirs.example", true) // back
	r.want("roots.example", true)
	r.write("root.yaml", policyOf("base", "allow", "roots.example:443"))
	r.reload()
	if _, err := r.lib.RemoveBy(author, "api/applied-policy-base.yaml"); err != nil {
		t.Fatal(err)
	}
	if len(r.lib.Aside())+len(r.lib.Problems()) != 0 {
		t.Errorf("%+v %v", r.lib.Aside(), r.lib.Problems())
	}
	r.want("roots.example", true)
}

func TestRootsOwnDocumentHoldsAFileBack(t *testing.T) {
	r := newRig(t)
	if err := r.lib.Put(byRoot, "applied-policy-base.yaml", policyOf("base", "allow", "applied.example:443")); err != nil {
		t.Fatal(err)
	}
	r.write("root.yaml", policyOf("base", "allow", "filed.example:443"))
	r.reload()
	for range 2 {
		r.want("applied.example", true)
		r.want("filed.example", false)
		if ms := r.lib.Problems(); len(ms) != 1 || !strings.Contains(ms[0].Error(), "is owned by the API") {
			t.Errorf("%v", ms)
		}
		r.reopen()
	}
}
