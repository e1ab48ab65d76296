// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ws is a workspace under test.
type ws struct {
	*testing.T
	dir  string
	root *os.File
	base *Baseline
	run  int
}

func newWS(t *testing.T) *ws {
	t.Helper()
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	root := os.NewFile(uintptr(fd), dir)
	t.Cleanup(func() { root.Close() })
	return &ws{T: t, dir: dir, root: root}
}

func (w *ws) path(rel string) string { return filepath.Join(w.dir, rel) }

func (w *ws) write(rel, content string, mode os.FileMode) {
	w.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(rel)), 0o755))
	w.must(os.WriteFile(w.path(rel), []byte(content), mode))
	w.must(unix.Chmod(w.path(rel), uint32(mode)))
}

func (w *ws) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *ws) git(dir string, args ...string) string {
	w.Helper()
	needTool(w.T, "git")
	cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"}, args...)...)
	cmd.Dir = w.path(dir)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// repo makes an ordinary repository with one commit.
func (w *ws) repo(rel string) {
	w.Helper()
	w.must(os.MkdirAll(w.path(rel), 0o755))
	w.git(rel, "init", "-q")
	w.write(rel+"/f", "x", 0o644)
	w.git(rel, "add", "f")
	w.git(rel, "commit", "-qm", "one")
}

func (w *ws) survey() []Guard {
	w.Helper()
	base, guards, err := Survey(context.Background(), w.root, Limits{})
	w.must(err)
	w.Cleanup(func() { CloseGuards(guards) })
	b, err := base.MarshalBinary() // as over a restart of the keeper
	w.must(err)
	w.base = new(Baseline)
	w.must(w.base.UnmarshalBinary(b))
	return guards
}

func (w *ws) handBack() []Finding {
	w.Helper()
	w.run++
	got, err := HandBack(context.Background(), w.root, Options{Run: fmt.Sprintf("run%d", w.run), Baseline: w.base})
	w.must(err)
	return got
}

func list(found []Finding) (out []string) {
	for _, f := range found {
		s := fmt.Sprintf("%s %s %s", f.Kind, f.Path, f.Action)
		if f.Key != "" {
			s += " " + f.Key
		}
		if f.Err != "" {
			s += " ERR " + f.Err
		}
		out = append(out, s)
	}
	return out
}

func (w *ws) want(want ...string) []Finding {
	w.Helper()
	got := w.handBack()
	if g := list(got); !slices.Equal(g, want) {
		w.Errorf("findings:\n  %s\nwant:\n  %s", strings.Join(g, "\n  "), strings.Join(want, "\n  "))
	}
	if again := w.handBack(); len(again) != 0 && len(want) > 0 && !strings.HasPrefix(want[0], "not-scanned") {
		for _, f := range again {
			if f.Action != "reported" {
				w.Errorf("a second look finds more: %v", list(again))
				break
			}
		}
	}
	return got
}

func TestOrdinaryWorkLeavesNothing(t *testing.T) {
	w := newWS(t)
	w.repo("")
	w.repo("lib")
	w.survey()
	w.write("g", "y", 0o755)
	w.git("", "add", "g")
	w.git("", "commit", "-qm", "two")
	w.git("", "checkout", "-qb", "branch")
	w.git("", "config", "user.name", "agent")
	w.git("", "remote", "add", "origin", "https://example.com/x.git")
	w.git("", "submodule", "add", "-q", w.path("lib"), "sub")
	w.git("", "worktree", "add", "-q", "wt")
	w.git("", "clone", "-q", w.path("lib"), "cloned")
	w.git("", "init", "-q", "fresh")
	w.git("", "gc", "-q")
	w.want()
}

func TestUsersOwnSettingsAreNotTouched(t *testing.T) {
	w := newWS(t)
	w.repo("r")
	w.git("r", "config", "core.sshCommand", "ssh -i key")
	w.git("r", "config", "include.path", "../shared.cfg")
	w.git("r", "config", "core.hooksPath", ".husky/_")
	w.write("r/shared.cfg", "[alias]\n\tst = !true\n", 0o644)
	w.write("r/.git/hooks/pre-commit", "#!/bin/sh\n", 0o755)
	w.write("r/.husky/pre-commit", "npm test\n", 0o644)
	w.write("r/.husky/_/h", "sh\n", 0o755)
	w.write("bin/tool", "x", 0o4755)
	w.survey()
	w.git("r", "config", "user.email", "x@y")
	w.want()
	before, err := os.ReadFile(w.path("r/.git/config"))
	w.must(err)
	w.git("r", "config", "core.fsmonitor", "./evil")
	w.write("r/.git/hooks/pre-commit", "#!/bin/sh\nevil\n", 0o755)
	w.write("r/.husky/pre-commit", "evil\n", 0o644)
	w.write("r/shared.cfg", "[alias]\n\tst = !true\n\tci = !evil\n", 0o644)
	w.want(
		"git-setting r/.git/config commented-out core.fsmonitor",
		"git-hook r/.git/hooks/pre-commit quarantined",
		"git-hook r/.husky/pre-commit quarantined",
		"git-setting r/shared.cfg commented-out alias.ci",
	)
	all, err := ParseConfig(before)
	w.must(err)
	after, err := os.ReadFile(w.path("r/.git/config"))
	w.must(err)
	got, err := ParseConfig(after)
	w.must(err)
	if !slices.Equal(show(all), show(got)) {
		t.Errorf("other settings changed: %q -> %q", show(all), show(got))
	}
}
