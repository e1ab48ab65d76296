// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A member of the operators' group must not learn what lies in directories that
// are closed to it, neither by pattern nor by path nor through a link.
func TestClosedDirectoriesTellTheCallerNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it acts as another user")
	}
	top, err := os.MkdirTemp("/var/tmp", "rf-closed-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	closed := filepath.Join(top, "closed")
	if err := errors.Join(os.Chmod(top, 0o755), os.Mkdir(closed, 0o700), os.WriteFile(filepath.Join(closed, "secret"), nil, 0o644),
		os.Symlink("/secret/target", filepath.Join(closed, "link"))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		as   *Credential
		sees bool
	}{{nil, true}, {&Credential{UID: 65534, GID: 65534}, false}} {
		if there, err := Visible(filepath.Join(closed, "secret"), c.as); err != nil || there != c.sees {
			t.Errorf("%+v: visible %v, %v", c.as, there, err)
		}
		dir, err := os.Open(top)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		pl := &planner{in: PlanInput{Caller: c.as}, p: &Prepared{}, files: map[string]bool{}, links: map[string]string{}, seen: map[string]bool{},
			areas: []area{{at: top, kind: regionHost, access: "r", host: dir}}}
		pl.in.Walls.Guarded = []string{closed + "/s*", closed + "/secret", closed + "/link"}
		if err := pl.planGuarded(); err != nil {
			t.Errorf("%+v: %v", c.as, err)
		}
		if got := len(pl.p.Spec.Mounts) > 0; got != c.sees {
			t.Errorf("%+v: mounts %+v", c.as, pl.p.Spec.Mounts)
		}
		to, err := pl.systemLink(filepath.Join(closed, "link"))
		if (err == nil && to == "/secret/target") != c.sees || !c.sees && to != "" {
			t.Errorf("%+v: link %q, %v", c.as, to, err)
		}
	}
}
