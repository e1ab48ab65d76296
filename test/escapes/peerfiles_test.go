// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// repository writes what git on the host would obey, as somebody's.
func repository(t *testing.T, dir string, uid int) {
	t.Helper()
	for _, d := range []string{"", ".git", ".git/hooks", ".git/objects", ".git/refs"} {
		need(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
		need(t, os.Chown(filepath.Join(dir, d), uid, uid))
	}
	for name, text := range map[string]string{".git/HEAD": "ref: refs/heads/main\n", ".git/config": "[core]\n\tbare = false\n"} {
		need(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		need(t, os.Chown(filepath.Join(dir, name), uid, uid))
	}
}

// changes are what somebody does to a repository of their own.
func changes(t *testing.T, dir string, uid int) (paths []string) {
	t.Helper()
	for name, text := range map[string]string{".git/hooks/post-commit": "#!/bin/sh\n", ".git/config": "[core]\n\tbare = false\n\tsshCommand = secretly\n", "tool": "x"} {
		path := filepath.Join(dir, name)
		need(t, os.WriteFile(path, []byte(text), 0o755))
		need(t, os.Chown(path, uid, uid))
		paths = append(paths, path)
	}
	need(t, os.Chmod(filepath.Join(dir, "tool"), 0o4755|os.ModeSetuid))
	return paths
}

func identities(t *testing.T, paths []string) (out []string) {
	t.Helper()
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			out = append(out, p+": "+err.Error())
			continue
		}
		out = append(out, fmt.Sprintf("%s: %o %d %d", p, st.Mode, st.Ino, st.Size))
	}
	return out
}

// anothersFiles: a directory of somebody else as the workspace. The daemon,
// which looks a workspace through when it comes back, neither changes what is
// theirs nor tells of it.
func anothersFiles(t *testing.T, a, b *peer) {
	open, private := filepath.Join(a.n.Dir, "alice"), filepath.Join(a.n.Dir, "alice", "private")
	repository(t, open, alice)
	repository(t, private, alice)
	need(t, os.Chmod(private, 0o700))
	if r := b.run(t, "run", "--profile", "coding", "--workspace", private, "--", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "permission denied") {
		t.Errorf("a workspace that is closed to the caller: %+v", r)
	}
	during := func(p *peer, does func()) node.Result {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := p.as(p.n.Command(ctx, "run", "--quiet", "--profile", "coding", "--workspace", open, "--name", fmt.Sprintf("in-%d", p.uid), "--", "sleep", "3"))
		var r node.Result
		done := make(chan struct{})
		go func() { defer close(done); r = node.Finish(t, cmd) }()
		eventually(t, "it runs", func() bool {
			return slices.ContainsFunc(p.n.Events(t), func(e event.Event) bool {
				return e.Kind == event.KindSandboxStart && e.Object == fmt.Sprintf("in-%d", p.uid)
			})
		})
		does()
		<-done
		return r
	}
	var paths []string
	var before []string
	r := during(b, func() {
		paths = append(changes(t, open, alice), changes(t, private, alice)...)
		before = identities(t, paths)
	})
	if after := identities(t, paths); !slices.Equal(before, after) {
		t.Errorf("files of another were changed:\n%s\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if _, err := os.Lstat(filepath.Join(open, ".ringfence-quarantine")); err == nil {
		t.Error("something was quarantined in another's directory")
	}
	if strings.Contains(r.Stderr, "private") || strings.Contains(r.Stderr, "secretly") || strings.Contains(r.Stderr, "post-commit") {
		t.Errorf("the caller was told of another's files: %s", r.Stderr)
	}
	if ev := b.run(t, "events", "-o", "json"); strings.Contains(ev.Stdout, "secretly") || strings.Contains(ev.Stdout, "post-commit") {
		t.Error("the events tell of another's files")
	}
	// Control: in the owner's own run the same is found and made harmless.
	for _, p := range paths {
		need(t, os.Remove(p))
	}
	repository(t, open, alice)
	repository(t, private, alice)
	r = during(a, func() { changes(t, open, alice) })
	if _, err := os.Lstat(filepath.Join(open, ".git/hooks/post-commit")); err == nil || !strings.Contains(r.Stderr, "post-commit") {
		t.Errorf("control: the owner's own run: %s", r.Stderr)
	}
}

// rootsFiles: the same with what makes a machine work. The profile takes no
// note of what was there before the run.
func rootsFiles(t *testing.T, b *peer) {
	dir := filepath.Join(b.n.Dir, "system")
	need(t, os.Mkdir(dir, 0o755))
	var paths []string
	for name, mode := range map[string]uint32{"su": 0o4755, "wall": 0o2755, "odd": 0o4777} {
		paths = append(paths, filepath.Join(dir, name))
		need(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o755))
		need(t, unix.Chmod(filepath.Join(dir, name), mode))
	}
	null := filepath.Join(dir, "null")
	need(t, unix.Mknod(null, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	need(t, unix.Chmod(null, 0o666))
	paths = append(paths, null)
	text, err := os.ReadFile(filepath.Join(node.Root(), "profiles", "coding.yaml"))
	need(t, err)
	profile := filepath.Join(b.ws, "forgetful.yaml")
	need(t, os.WriteFile(profile, []byte(strings.Replace(string(text), "protect: true", "protect: false", 1)), 0o644))
	before := identities(t, paths)
	if r := b.run(t, "run", "--profile", profile, "--workspace", dir, "--", "true"); r.Code != 0 || r.Stderr != "" {
		t.Errorf("%+v", r)
	}
	if after := identities(t, paths); !slices.Equal(before, after) {
		t.Errorf("root's files were changed by a member's run:\n%s\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	// Control: in root's own run they count as what it left.
	if r := b.n.CLI(t, "run", "--profile", profile, "--workspace", dir, "--", "true"); r.Code != 0 || !strings.Contains(r.Stderr, "su: ") {
		t.Errorf("control: %+v", r)
	}
	if after := identities(t, paths); slices.Equal(before, after) {
		t.Error("control: nothing was done")
	}
}
