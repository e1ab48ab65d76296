// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// gitAttempts put programs where git on the host would run them. The
// repository in "repo" was there before the run and has a hooks directory.
func gitAttempts() []*Attempt {
	var out []*Attempt
	held := func(name, control string, run func(repo string) error) {
		out = append(out, &Attempt{Name: "git-" + name, Class: "git", Expect: errnos("EROFS", "EBUSY", "EACCES", "EPERM", "EXDEV"), Params: []string{"repo"},
			Layer: "mount", Control: control, run: func(p params) error { return run(p.get("repo", ".")) }})
	}
	hook := func(repo, name string) string { return filepath.Join(repo, ".git/hooks", name) }
	script := []byte("#!/bin/sh\nexit 0\n")
	held("hook-create", "makes a hook", func(repo string) error { return os.WriteFile(hook(repo, "post-merge"), script, 0o755) })
	held("hook-overwrite", "changes the hook that is there", func(repo string) error { return openOnly(hook(repo, "pre-commit"), unix.O_WRONLY)(nil) })
	held("hook-unlink", "removes the hook that is there", func(repo string) error { return unix.Unlink(hook(repo, "pre-commit")) })
	held("hook-rename", "moves a prepared file over the hook", func(repo string) error {
		from := filepath.Join(repo, "escape-hook")
		if err := os.WriteFile(from, script, 0o755); err != nil {
			return err
		}
		defer os.Remove(from)
		return unix.Rename(from, hook(repo, "pre-push"))
	})
	held("hook-link", "links a prepared file as a hook", func(repo string) error {
		from := filepath.Join(repo, "escape-hook")
		if err := os.WriteFile(from, script, 0o755); err != nil {
			return err
		}
		defer os.Remove(from)
		return unix.Link(from, hook(repo, "pre-rebase"))
	})
	held("hook-symlink", "makes a symlink as a hook", func(repo string) error { return unix.Symlink("/bin/true", hook(repo, "post-commit")) })
	held("hook-chmod", "makes a hook executable", func(repo string) error { return unix.Chmod(hook(repo, "pre-commit"), 0o777) })
	held("hooks-rename", "moves the hooks directory away", func(repo string) error {
		return back(filepath.Join(repo, ".git/hooks"), filepath.Join(repo, ".git/hooks-old"))
	})
	held("dir-rename", "moves .git away to put another in its place", func(repo string) error {
		return back(filepath.Join(repo, ".git"), filepath.Join(repo, "git-old"))
	})
	held("dir-exchange", "exchanges .git with a prepared one", func(repo string) error { return exchange(repo) })
	late := func(name, control, trace string, run func(repo string) error) {
		out = append(out, &Attempt{Name: "git-" + name, Class: "git", Expect: contained(), Params: []string{"repo"}, Layer: "hand-back", Event: "workspace", Trace: trace,
			NotIn: []string{readOnly}, Control: control, run: func(p params) error { return run(p.get("repo", ".")) }})
	}
	config := func(text string) func(string) error {
		return func(repo string) error {
			f, err := os.OpenFile(filepath.Join(repo, ".git/config"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString(text)
			return err
		}
	}
	late("config-fsmonitor", "names a program in core.fsmonitor", "repo/.git/config core.fsmonitor", config("[core]\n\tfsmonitor = ./escape.sh\n"))
	late("config-hookspath", "names another hooks directory", "repo/.git/config core.hookspath", config("[core] hooksPath = escape-hooks\n"))
	late("config-alias", "replaces a command", "repo/.git/config alias.st", config("[alias]\n\tst = !touch escaped\n"))
	late("config-filter", "names a filter program", "repo/.git/config filter.x.clean", config("[filter \"x\"]\n\tclean = ./escape.sh\n\tsmudge = ./escape.sh\n"))
	late("config-include", "includes a file of its own", "repo/.git/config include.path", config("[include]\n\tpath = ../escape.cfg\n"))
	late("config-ssh", "names an ssh program", "repo/.git/config core.sshcommand", config("[core]\n\tsshCommand = ./escape.sh\n"))
	late("new-repo-hook", "makes a repository with a hook, deep down", "repo/a/b/c/d/e/.git/hooks/post-checkout", func(repo string) error {
		return newRepo(filepath.Join(repo, "a/b/c/d/e/.git"), "hooks/post-checkout", script)
	})
	out[len(out)-1].Third = errnos("EACCES")
	late("bare-disguise", "makes a bare repository that looks like data", "repo/docs/assets/config", func(repo string) error {
		return newRepo(filepath.Join(repo, "docs/assets"), "config", []byte("[core]\n\tbare = false\n\tfsmonitor = ./escape.sh\n"))
	})
	late("gitfile-out", "makes a .git file that leads out", "repo/pointer/.git", func(repo string) error {
		if err := os.MkdirAll(filepath.Join(repo, "pointer"), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(repo, "pointer/.git"), []byte("gitdir: /tmp/escape-git\n"), 0o644)
	})
	return out
}

// back renames and, when that worked, renames back.
func back(from, to string) error {
	if err := unix.Rename(from, to); err != nil {
		return err
	}
	return unix.Rename(to, from)
}

func exchange(repo string) error {
	other := filepath.Join(repo, "git-new")
	if err := os.MkdirAll(other, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(other)
	swap := func() error {
		return unix.Renameat2(unix.AT_FDCWD, filepath.Join(repo, ".git"), unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
	}
	if err := swap(); err != nil {
		return err
	}
	return swap()
}

func newRepo(dir, file string, content []byte) error {
	for _, sub := range []string{"objects", "refs", "hooks"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "HEAD"), []byte("ref: refs/heads/main\n"), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), content, 0o755)
}
