// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const evilConfig = "[core]\n\tbare = false\n\tfsmonitor = ./evil\n"

// bare writes what git takes for a repository.
func (w *ws) bare(rel, config string) {
	w.write(rel+"/HEAD", "ref: refs/heads/main\n", 0o644)
	w.write(rel+"/config", config, 0o644)
	w.must(os.MkdirAll(w.path(rel+"/objects"), 0o755))
	w.must(os.MkdirAll(w.path(rel+"/refs"), 0o755))
}

func TestAttacksOnGit(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(w *ws)
		attack func(w *ws)
		want   []string
	}{
		{name: "hook in a new repository, deep", attack: func(w *ws) {
			w.bare("a/b/c/d/e/.git", "[core]\n")
			w.write("a/b/c/d/e/.git/hooks/post-checkout", "evil", 0o755)
			w.write("a/b/c/d/e/.git/hooks/x.sample", "harmless", 0o755)
		}, want: []string{"git-hook a/b/c/d/e/.git/hooks/post-checkout quarantined"}},
		{name: "bare repository in disguise", attack: func(w *ws) { w.bare("docs/img", evilConfig) },
			want: []string{"git-setting docs/img/config commented-out core.fsmonitor"}},
		{name: "the workspace itself a bare repository", attack: func(w *ws) { w.bare(".", evilConfig) },
			want: []string{"git-setting config commented-out core.fsmonitor"}},
		{name: "common directory without HEAD", attack: func(w *ws) {
			w.write("x/.git/HEAD", "ref: refs/heads/main\n", 0o644)
			w.write("x/.git/commondir", "../../common\n", 0o644)
			w.bare("common", evilConfig)
			w.must(os.Remove(w.path("common/HEAD")))
		}, want: []string{"git-setting common/config commented-out core.fsmonitor"}},
		{name: "common directory outside", attack: func(w *ws) {
			w.write("x/.git/HEAD", "ref: refs/heads/main\n", 0o644)
			w.write("x/.git/commondir", "/tmp/evil\n", 0o644)
		}, want: []string{"git-pointer x/.git/commondir quarantined"}},
		{name: "git file that leads out", attack: func(w *ws) { w.write("x/.git", "gitdir: ../../../tmp/evil\n", 0o644) },
			want: []string{"git-pointer x/.git quarantined"}},
		{name: "git file through a symlink", attack: func(w *ws) {
			w.must(os.Symlink("/tmp", w.path("l")))
			w.write("x/.git", "gitdir: ../l/evil\n", 0o644)
		}, want: []string{"git-pointer x/.git quarantined"}},
		{name: "git file of garbage", attack: func(w *ws) { w.write("x/.git", "\x00\x01", 0o644) },
			want: []string{"git-pointer x/.git quarantined"}},
		{name: ".git as a symlink out", attack: func(w *ws) { w.must(os.Symlink("/etc", w.path(".git"))) },
			want: []string{"git-pointer .git quarantined"}},
		{name: ".git as a FIFO", attack: func(w *ws) { w.must(unix.Mkfifo(w.path(".git"), 0o644)) },
			want: []string{"git-pointer .git quarantined"}},
		{name: "config as a FIFO", attack: func(w *ws) {
			w.bare("r", "")
			w.must(os.Remove(w.path("r/config")))
			w.must(unix.Mkfifo(w.path("r/config"), 0o644))
		}, want: []string{"git-unreadable r/config quarantined"}},
		{name: "config as a symlink out", attack: func(w *ws) {
			w.bare("r", "")
			w.must(os.Remove(w.path("r/config")))
			w.must(os.Symlink("/etc/passwd", w.path("r/config")))
		}, want: []string{"git-pointer r/config quarantined"}},
		{name: "config as a symlink inside", attack: func(w *ws) {
			w.bare("r", "")
			w.must(os.Remove(w.path("r/config")))
			w.must(os.Symlink("../innocent.txt", w.path("r/config")))
			w.write("innocent.txt", evilConfig, 0o644)
		}, want: []string{"git-setting innocent.txt commented-out core.fsmonitor"}},
		{name: "config nobody can parse", attack: func(w *ws) { w.bare("r", "[core\n") },
			want: []string{"git-unreadable r/config quarantined"}},
		{name: "config of two megabytes", attack: func(w *ws) { w.bare("r", "#"+strings.Repeat("x", 2<<20)+"\n"+evilConfig) },
			want: []string{"git-unreadable r/config quarantined"}},
		{name: "config.worktree", before: func(w *ws) { w.repo("r") }, attack: func(w *ws) { w.write("r/.git/config.worktree", evilConfig, 0o644) },
			want: []string{"git-setting r/.git/config.worktree commented-out core.fsmonitor"}},
		{name: "include and what it includes", before: func(w *ws) { w.repo("r") }, attack: func(w *ws) {
			w.git("r", "config", "include.path", "../inc")
			w.write("r/inc", evilConfig, 0o644)
		}, want: []string{"git-setting r/.git/config commented-out include.path", "git-setting r/inc commented-out core.fsmonitor"}},
		{name: "hooks path of its own", before: func(w *ws) { w.repo("r") }, attack: func(w *ws) {
			w.git("r", "config", "core.hooksPath", "h")
			w.write("r/h/pre-push", "evil", 0o755)
		}, want: []string{"git-setting r/.git/config commented-out core.hookspath", "git-hook r/h/pre-push quarantined"}},
		{name: "hooks as a symlink inside", before: func(w *ws) { w.repo("r") }, attack: func(w *ws) {
			w.must(os.RemoveAll(w.path("r/.git/hooks")))
			w.must(os.Symlink("../h", w.path("r/.git/hooks")))
			w.write("r/h/pre-push", "evil", 0o755)
		}, want: []string{"git-hook r/h/pre-push quarantined"}},
		{name: "hooks as a symlink out", before: func(w *ws) { w.repo("r") }, attack: func(w *ws) {
			w.must(os.RemoveAll(w.path("r/.git/hooks")))
			w.must(os.Symlink("/tmp", w.path("r/.git/hooks")))
		}, want: []string{"git-pointer r/.git/hooks quarantined"}},
		{name: "hooks symlinks in a circle", attack: func(w *ws) {
			w.bare("r", "")
			w.must(os.Symlink("..", w.path("r/hooks")))
		}},
		{name: "a hook that is a symlink or a FIFO", before: func(w *ws) { w.repo("r") }, attack: func(w *ws) {
			w.must(os.Symlink("/bin/sh", w.path("r/.git/hooks/pre-commit")))
			w.must(unix.Mkfifo(w.path("r/.git/hooks/pre-push"), 0o755))
		}, want: []string{"git-hook r/.git/hooks/pre-commit quarantined", "git-hook r/.git/hooks/pre-push quarantined"}},
		{name: "repository renamed and another in its place", before: func(w *ws) { w.repo("r") }, attack: func(w *ws) {
			w.must(os.Rename(w.path("r/.git"), w.path("r/old")))
			w.bare("r/.git", evilConfig)
			w.write("r/.git/hooks/pre-commit", "evil", 0o755)
		}, want: []string{"git-setting r/.git/config commented-out core.fsmonitor", "git-hook r/.git/hooks/pre-commit quarantined"}},
		{name: "submodule that runs", before: func(w *ws) { w.repo("r") }, attack: func(w *ws) {
			w.write("r/.gitmodules", "[submodule \"a\"]\n\tpath = a\n\turl = https://x/y\n\tupdate = !evil\n[submodule \"../../x\"]\n\tpath = -u\n", 0o644)
		}, want: []string{"git-modules r/.gitmodules commented-out submodule.a.update", "git-modules r/.gitmodules commented-out submodule.../../x.path"}},
		{name: "in the git directory of a submodule", before: func(w *ws) {
			w.repo("lib")
			w.repo("r")
			w.git("r", "submodule", "add", "-q", w.path("lib"), "sub")
		}, attack: func(w *ws) {
			w.git("r/sub", "config", "filter.x.clean", "evil")
			w.write("r/.git/modules/sub/hooks/post-merge", "evil", 0o755)
		}, want: []string{"git-setting r/.git/modules/sub/config commented-out filter.x.clean", "git-hook r/.git/modules/sub/hooks/post-merge quarantined"}},
		{name: "work tree elsewhere", before: func(w *ws) { w.repo("r") }, attack: func(w *ws) { w.git("r", "config", "core.worktree", "/tmp/home") },
			want: []string{"git-setting r/.git/config commented-out core.worktree"}},
		{name: "upper case", attack: func(w *ws) { w.bare("r/.GIT", "[CORE]FsMonitor=evil") },
			want: []string{"git-setting r/.GIT/config commented-out core.fsmonitor"}},
		{name: "names with line ends and escapes", attack: func(w *ws) { w.bare("a\n\x1b[31m\xff/.git", evilConfig) },
			want: []string{"git-setting a\n\x1b[31m\xff/.git/config commented-out core.fsmonitor"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWS(t)
			if c.before != nil {
				c.before(w)
			}
			w.survey()
			c.attack(w)
			w.want(c.want...)
		})
	}
}

// TestGitRunsNothingAfterwards is the same as an effect: git on the host would
// have run the program before, and does not afterwards.
func TestGitRunsNothingAfterwards(t *testing.T) {
	w := newWS(t)
	w.repo("r")
	w.survey()
	proof := w.path("proof")
	w.write("evil.sh", "#!/bin/sh\ntouch "+proof+"\n", 0o755)
	w.git("r", "config", "core.fsmonitor", w.path("evil.sh"))
	w.write("r/.git/hooks/post-commit", "#!/bin/sh\ntouch "+proof+"\n", 0o755)
	w.git("r", "status")
	if _, err := os.Stat(proof); err != nil {
		t.Fatal("control: git did not run the program")
	}
	w.must(os.Remove(proof))
	w.handBack()
	w.git("r", "status")
	w.git("r", "commit", "-q", "--allow-empty", "-m", "x")
	if _, err := os.Stat(proof); err == nil {
		t.Error("git ran the agent's program after the hand-back")
	}
}

func TestSetIDBits(t *testing.T) {
	w := newWS(t)
	w.write("old", "x", 0o4755)
	w.write("rewritten", "x", 0o4755)
	w.write("plain", "x", 0o755)
	w.survey()
	w.write("new", "x", 0o755)
	w.must(unix.Chmod(w.path("new"), 0o6755))
	w.must(os.Link(w.path("new"), w.path("other-name")))
	w.write("rewritten", "evil", 0o4755)
	w.must(os.Mkdir(w.path("shared"), 0o755))
	w.must(unix.Chmod(w.path("shared"), 0o2775)) // harmless: group of new files
	w.must(os.Symlink("/bin/su", w.path("su")))
	w.want("set-id new stripped", "set-id other-name stripped", "set-id rewritten stripped")
	for name, want := range map[string]os.FileMode{"old": os.ModeSetuid, "new": 0, "other-name": 0, "rewritten": 0} {
		st, err := os.Lstat(w.path(name))
		w.must(err)
		if got := st.Mode() & (os.ModeSetuid | os.ModeSetgid); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if st, err := os.Stat("/bin/su"); err == nil && st.Mode()&os.ModeSetuid == 0 && os.Geteuid() == 0 {
		t.Error("followed a symlink out of the workspace")
	}
}

func TestSetIDFilesOfOthersAreLeftAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make files of two users")
	}
	w := newWS(t)
	w.must(os.Chown(w.dir, 1234, 1234))
	w.survey()
	w.write("theirs", "x", 0o755)
	w.must(unix.Chmod(w.path("theirs"), 0o4755))
	w.write("ours", "x", 0o755)
	w.must(os.Chown(w.path("ours"), 1234, 1234))
	w.must(unix.Chmod(w.path("ours"), 0o4755))
	got := w.handBack()
	if len(got) != 2 || got[0].Action != "stripped" || got[0].Path != "ours" || got[1].Action != "reported" || got[1].Err == "" {
		t.Errorf("%+v", got)
	}
}

// A caller who is not root names the directory: what the sandbox could not have
// done there is neither changed nor told.
func TestOthersFilesInADirectoryThatTheCallerNames(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make files of several users")
	}
	const me, mine, other = 1234, 1234, 4321
	for _, discreet := range []bool{false, true} {
		w := newWS(t) // root's
		w.repo("theirs")
		w.repo("ours")
		w.survey()
		w.write("su", "x", 0o755)
		w.must(unix.Chmod(w.path("su"), 0o4757)) // even if everybody can write it
		w.must(unix.Mknod(w.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		w.write("theirs/.git/hooks/closed", "x", 0o755)
		w.write("theirs/.git/hooks/group", "x", 0o775)
		w.must(os.Chown(w.path("theirs/.git/hooks/group"), 0, other))
		w.must(os.Symlink("/elsewhere", w.path("theirs/.git/hooks/link")))
		w.write("ours/.git/hooks/own", "x", 0o755)
		w.must(os.Chown(w.path("ours/.git/hooks/own"), me, mine))
		w.write("ours/.git/hooks/group", "x", 0o755)
		w.must(os.Chown(w.path("ours/.git/hooks/group"), 0, mine))
		w.must(os.Chmod(w.path("ours/.git/hooks/group"), 0o775))
		w.write("ours/.git/hooks/all", "x", 0o755)
		w.must(os.Chmod(w.path("ours/.git/hooks/all"), 0o777))
		root, err := os.Open(w.dir)
		w.must(err)
		found, err := HandBack(t.Context(), root, Options{Run: "run", Baseline: w.base, UIDs: []uint32{me}, GIDs: []uint32{mine}, Discreet: discreet})
		root.Close()
		w.must(err)
		done, told := 0, 0
		for _, f := range found {
			ours := strings.HasPrefix(f.Path, "ours/")
			if ours != (f.Action == actionMoved) {
				t.Errorf("discreet %v: %+v", discreet, f)
			}
			if ours {
				done++
			} else {
				told++
			}
		}
		if done != 3 || discreet != (told == 0) {
			t.Errorf("discreet %v: %d made harmless, %d of others told", discreet, done, told)
		}
		for _, name := range []string{"su", "null", "theirs/.git/hooks/closed", "theirs/.git/hooks/group", "theirs/.git/hooks/link"} {
			if _, err := os.Lstat(w.path(name)); err != nil {
				t.Errorf("discreet %v: %v", discreet, err)
			}
		}
		if st, err := os.Lstat(w.path("su")); err != nil || st.Mode()&os.ModeSetuid == 0 {
			t.Errorf("discreet %v: %v %v", discreet, st, err)
		}
	}
}

func TestDevicesAndCapabilities(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make device nodes")
	}
	w := newWS(t)
	w.survey()
	w.must(unix.Mknod(w.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	w.write("capable", "x", 0o755)
	// VFS_CAP_REVISION_2, effective, CAP_NET_RAW permitted.
	w.must(unix.Setxattr(w.path("capable"), "security.capability", []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
	w.want("file-capability capable stripped", "device-node null removed")
}

func TestQuarantineCannotBeTurnedOutside(t *testing.T) {
	outside := t.TempDir()
	w := newWS(t)
	w.survey()
	w.must(os.Symlink(outside, w.path(quarantine)))
	w.write("r/.git/hooks/x", "evil", 0o755)
	got := w.want("git-hook r/.git/hooks/x quarantined")
	if names, err := os.ReadDir(outside); err != nil || len(names) != 0 {
		t.Errorf("something was written outside: %v %v", names, err)
	}
	st, err := os.Lstat(w.path(got[0].Copy))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v %v", st, err)
	}
	index, err := os.ReadFile(filepath.Join(filepath.Dir(w.path(got[0].Copy)), "index.txt"))
	if err != nil || !strings.Contains(string(index), `"r/.git/hooks/x"`) {
		t.Errorf("index: %q %v", index, err)
	}
}

func TestRunNameTakenByTheAgent(t *testing.T) {
	w := newWS(t)
	w.survey()
	w.write(quarantine+"/run1/0001-x", "mine", 0o755)
	w.write("r/.git/hooks/x", "evil", 0o755)
	got := w.handBack()
	if len(got) != 1 || strings.HasPrefix(got[0].Copy, quarantine+"/run1/") {
		t.Errorf("%+v", got)
	}
	if _, err := HandBack(context.Background(), w.root, Options{Run: "../x"}); err == nil {
		t.Error("a run name with a slash was taken")
	}
}

// deepen makes n directories below rel, past PATH_MAX if need be, and calls
// inside with a descriptor of the last.
func (w *ws) deepen(n int, name string, inside func(fd int)) {
	w.Helper()
	fd, err := unix.Open(w.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	w.must(err)
	for range n {
		w.must(unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		w.must(err)
		unix.Close(fd)
		fd = next
	}
	inside(fd)
	unix.Close(fd)
}

func TestDeeperThanPathMax(t *testing.T) {
	w := newWS(t)
	w.survey()
	name := strings.Repeat("d", 200)
	w.deepen(60, name, func(fd int) { // 12,000 bytes of path
		f, err := unix.Openat(fd, "s", unix.O_CREAT|unix.O_WRONLY, 0o755)
		w.must(err)
		w.must(unix.Fchmod(f, 0o4755))
		unix.Close(f)
	})
	got := w.handBack()
	if len(got) != 1 || got[0].Action != "stripped" {
		t.Errorf("%v", list(got))
	}
	w.deepen(300, "e", func(int) {})
	if got := w.handBack(); len(got) != 1 || got[0].Kind != KindUnseen {
		t.Errorf("%v", list(got))
	}
}

func TestLimits(t *testing.T) {
	w := newWS(t)
	w.repo("z")
	w.survey()
	for i := range 300 {
		w.write("flood/"+strings.Repeat("f", 1+i%100)+string(rune('a'+i/100)), "", 0o644)
	}
	w.git("z", "config", "core.pager", "evil")
	w.write("z/.git/hooks/pre-push", "evil", 0o755)
	small := Limits{Entries: 20}
	if _, _, err := Survey(context.Background(), w.root, small); !errors.As(err, new(*LimitError)) {
		t.Errorf("survey over the limit: %v", err)
	}
	got, err := HandBack(context.Background(), w.root, Options{Run: "r", Baseline: w.base, Limits: small})
	w.must(err)
	text := strings.Join(list(got), "\n")
	for _, want := range []string{"not-scanned", "z/.git/config commented-out core.pager", "z/.git/hooks/pre-push quarantined"} {
		if !strings.Contains(text, want) {
			t.Errorf("over the limit, %q is missing from:\n%s", want, text)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := Survey(ctx, w.root, Limits{}); err == nil && len(w.base.items) > 512 {
		t.Error("a cancelled survey ends well")
	}
}

func TestOtherFileSystemsAreNotEntered(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	w := newWS(t)
	w.must(os.Mkdir(w.path("mnt"), 0o755))
	if err := unix.Mount("t", w.path("mnt"), "tmpfs", 0, ""); err != nil {
		t.Skipf("no tmpfs mount here: %v", err)
	}
	defer unix.Unmount(w.path("mnt"), unix.MNT_DETACH)
	w.survey()
	w.bare("mnt/.git", evilConfig)
	w.want()
}

func TestGuards(t *testing.T) {
	w := newWS(t)
	w.repo("lib")
	w.repo("")
	w.git("", "submodule", "add", "-q", w.path("lib"), "sub")
	w.git("", "worktree", "add", "-q", "wt")
	w.must(os.RemoveAll(w.path("lib/.git/hooks")))
	var got []string
	for _, g := range w.survey() {
		s := g.Path
		if g.ReadOnly {
			s += " ro"
		}
		if !g.Dir {
			s += " file"
		}
		flags, err := unix.FcntlInt(g.File.Fd(), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_PATH == 0 {
			t.Errorf("%s: not an O_PATH descriptor", g.Path)
		}
		got = append(got, s)
	}
	want := []string{".git", ".git/hooks ro", ".git/modules/sub", ".git/modules/sub/hooks ro", "lib/.git", "lib/.git/hooks ro", "sub/.git ro file", "wt/.git ro file"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("guards:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The clock of change times goes in ticks: whatever comes right behind a survey
// has another time than what the survey saw.
func TestARewriteWithinOneTickIsSeen(t *testing.T) {
	for range 60 {
		w := newWS(t)
		w.write("p", "x", 0o4755)
		w.survey()
		w.write("p", "evil", 0o4755)
		w.want("set-id p stripped")
	}
}
