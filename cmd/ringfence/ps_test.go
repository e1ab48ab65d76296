// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
)

func TestExtraLayers(t *testing.T) {
	box := func(state, detail string) api.Sandbox {
		return api.Sandbox{ID: "a", Enforcement: api.Enforced, Parts: []api.Part{{Name: "files", State: api.Enforced}, {Name: thirdLock, State: state, Detail: detail}}}
	}
	absent, up := box(api.Absent, "no such\x1bprograms"), box(api.Enforced, "refuses at inode_create")
	for _, b := range []api.Sandbox{absent, up} {
		if got := fence(b); got != api.Enforced {
			t.Errorf("%+v: %s", b, got)
		}
	}
	for _, c := range []struct {
		list []api.Sandbox
		want []string
	}{
		{nil, nil},
		{[]api.Sandbox{{ID: "of another daemon"}}, nil},
		{[]api.Sandbox{absent, absent}, []string{"\nThird lock (bpf_lsm): absent: no such"}},
		{[]api.Sandbox{up, absent}, []string{"\nThird lock (bpf_lsm): enforced: refuses at inode_create\n", ": absent: "}},
	} {
		var out strings.Builder
		if err := printExtras(&out, c.list); err != nil {
			t.Fatal(err)
		}
		if strings.Count(out.String(), "Third lock") != len(c.want) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%q, want %q", out.String(), c.want)
		}
		for _, w := range c.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%q lacks %q", out.String(), w)
			}
		}
	}
}
