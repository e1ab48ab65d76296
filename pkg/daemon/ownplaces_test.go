// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

func TestRefuseOwnPlaces(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"state/secrets", "run", "ws/sub", "state-of-mine"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(top, "state"), filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	d := &Daemon{cfg: Config{RunDir: filepath.Join(top, "run"), StateDir: filepath.Join(top, "link"), PolicyDir: filepath.Join(top, "absent")}}
	for dir, refused := range map[string]bool{
		"": true, "state": true, "state/secrets": true, "run": true, "link": true, "ws": false, "ws/sub": false, "state-of-mine": false,
	} {
		f, err := os.Open(filepath.Join(top, dir))
		if err != nil {
			t.Fatal(err)
		}
		none := &policy.Profile{}
		shown := &policy.Profile{Files: policy.Files{Write: []policy.PathEntry{{Path: "/nonexistent"}, {Path: filepath.Join(top, dir)}}}}
		for what, err := range map[string]error{"workspace": d.refuseOwnPlaces(f, none), "writable": d.refuseOwnPlaces(nil, shown)} {
			var launch *sandbox.LaunchError
			if refused != errors.As(err, &launch) || !refused && err != nil {
				t.Errorf("%s %q: %v", what, dir, err)
			}
		}
		f.Close()
	}
	if err := d.refuseOwnPlaces(nil, &policy.Profile{}); err != nil {
		t.Errorf("no workspace: %v", err)
	}
}
