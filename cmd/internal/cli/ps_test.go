// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
)

// What was adopted is told with what is weak about it; what was released has no
// fence, whatever it had.
func TestPsOfTheAdopted(t *testing.T) {
	box := api.Sandbox{ID: "a", Adopted: true, State: api.StateRunning, Enforcement: api.Degraded, Parts: []api.Part{
		{Name: "network", State: api.Enforced}, {Name: "privileges", State: api.Degraded, Detail: "process 7 has CAP_NET_RAW\x1b"},
		{Name: "files", State: api.NotApplied, Detail: "not applied (adopted): why"},
		{Name: "identity", State: api.NotApplied, Detail: "not applied (adopted): why; process 7 gets the rights of set-user-ID programs"},
		{Name: thirdLock, State: api.Absent, Detail: "not used for what was adopted"},
	}}
	var out strings.Builder
	for _, print := range []func(io.Writer, []api.Sandbox) error{printMissing, printAdopted, printExtras} {
		if err := print(&out, []api.Sandbox{box}); err != nil {
			t.Fatal(err)
		}
	}
	if want := "\na: files, identity: not applied (adopted)\n  privileges: process 7 has CAP_NET_RAW\\x1b\n  identity: process 7 gets the rights of set-user-ID programs\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	if got := fence(box); got != "degraded (1)" {
		t.Errorf("fence %q", got)
	}
	box.State = api.StateReleased
	if got := psRow(box, time.Now()); got[4] != "released" || got[7] != "-" {
		t.Errorf("released: %q", got)
	}
}

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
		{[]api.Sandbox{absent, absent}, []string{"\nThird lock (BPF LSM), an extra beside the walls of FENCE: absent: no such"}},
		{[]api.Sandbox{up, absent}, []string{"\nThird lock (BPF LSM), an extra beside the walls of FENCE: enforced: refuses at inode_create\n", ": absent: "}},
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
