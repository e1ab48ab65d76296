// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/policy"
)

// guarding makes a workspace and begins a run in it.
func guarding(t *testing.T, git bool, guard ...string) (ws, dir string, h *handback, err error) {
	t.Helper()
	ws, dir = t.TempDir(), t.TempDir()
	root, oerr := os.Open(ws)
	if oerr != nil {
		t.Fatal(oerr)
	}
	defer root.Close()
	if werr := os.WriteFile(filepath.Join(ws, "there"), nil, 0o644); werr != nil {
		t.Fatal(werr)
	}
	if serr := os.Symlink("there", filepath.Join(ws, "link")); serr != nil {
		t.Fatal(serr)
	}
	p := &policy.Profile{Workspace: policy.WorkspaceRW, Git: policy.Git{Protect: git}, Files: policy.Files{Guard: guard}}
	h, err = newHandback(t.Context(), root, dir, &Record{UID: uint32(os.Getuid())}, p)
	t.Cleanup(func() { h.close() })
	return ws, dir, h, err
}

func TestGuardedFilesDoNotDependOnGit(t *testing.T) {
	for _, git := range []bool{false, true} {
		_, _, h, err := guarding(t, git, "there", "new")
		if err != nil {
			t.Fatal(err)
		}
		if len(h.binds) != 1 || h.binds[0].Path != "there" || !h.binds[0].ReadOnly {
			t.Errorf("git %v: binds %+v", git, h.binds)
		}
		if len(h.watched) != 1 || h.watched[0] != "new" {
			t.Errorf("git %v: watched %q", git, h.watched)
		}
	}
}

func TestASymlinkedGuardedPathRefusesTheLaunch(t *testing.T) {
	for _, p := range []string{"link", "link/below"} {
		_, _, _, err := guarding(t, true, p)
		if le := (*LaunchError)(nil); !errors.As(err, &le) || !strings.Contains(le.Error(), p) || le.Remedy == "" {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestWatchedFilesSurviveTheKeeper(t *testing.T) {
	ws, dir, h, err := guarding(t, true, "new", "dir/new", "never")
	if err != nil {
		t.Fatal(err)
	}
	dev, ino, err := statOf(h.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("/anything", filepath.Join(ws, "new")), os.Mkdir(filepath.Join(ws, "dir"), 0o755),
		os.WriteFile(filepath.Join(ws, "dir", "new"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	again, err := reopenHandback(Record{ID: "x", Handback: true, Workspace: ws, WorkspaceDev: dev, WorkspaceIno: ino}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	var found []string
	for _, f := range again.appeared() {
		found = append(found, f.Path)
	}
	if strings.Join(found, " ") != "new dir/new" {
		t.Errorf("appeared: %q", found)
	}
}

func TestTheSurveyEndsWithTheLaunch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ws := t.TempDir()
	for i := range 600 { // it looks at the context once in a while
		if err := os.WriteFile(filepath.Join(ws, strconv.Itoa(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(ws)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	p := &policy.Profile{Workspace: policy.WorkspaceRW, Git: policy.Git{Protect: true}}
	if _, err := newHandback(ctx, root, t.TempDir(), &Record{UID: 1}, p); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestOptionalPathsTellNothingOfClosedDirectories(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it acts as another user")
	}
	closed := t.TempDir()
	secret := filepath.Join(closed, "secret")
	if err := errors.Join(os.WriteFile(secret, nil, 0o644), os.Chmod(closed, 0o700)); err != nil {
		t.Fatal(err)
	}
	list := []policy.PathEntry{{Path: secret, Optional: true}, {Path: filepath.Join(closed, "none"), Optional: true}, {Path: "/usr", Optional: true}}
	if got, err := paths(list, nil); err != nil || strings.Join(got, " ") != secret+" /usr" {
		t.Errorf("root: %q, %v", got, err)
	}
	if got, err := paths(list, &confine.Credential{UID: 65534, GID: 65534}); err != nil || strings.Join(got, " ") != "/usr" {
		t.Errorf("nobody: %q, %v", got, err)
	}
}
