// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// host runs a command of the operator outside any sandbox.
func host(t *testing.T, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=o", "GIT_AUTHOR_EMAIL=o@example.com",
		"GIT_COMMITTER_NAME=o", "GIT_COMMITTER_EMAIL=o@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

// repository is a workspace under git with a hook of the operator.
func repository(t *testing.T, n *node.Node) string {
	t.Helper()
	tool(t, "git")
	ws := n.Workspace(t)
	host(t, ws, "git", "init", "-q", "-b", "main")
	put(t, ws, "a.txt", "one\n")
	host(t, ws, "git", "add", "a.txt")
	host(t, ws, "git", "commit", "-q", "-m", "first")
	need(t, os.Chmod(put(t, ws, ".git/hooks/post-commit", "#!/bin/sh\necho operator hook\n"), 0o755))
	return ws
}

const gitUser = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com\n"

func TestWorkspace(t *testing.T) {
	w := newWorld(t)
	g, err := doubles.NewGit(t.TempDir())
	if err != nil {
		missing(t, "git http-backend")
	}
	w.site(t, "git.test", g)
	n := w.start(t, node.Options{Policies: map[string]string{"git.yaml": `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: git}
scope: org:local
egress:
  - {id: git, allow: "git.test:443", http: {methods: [GET, POST]}}
`}})
	t.Run("git works", func(t *testing.T) { gitWorks(t, n) })
	t.Run("hooks stay", func(t *testing.T) { hooksStay(t, n) })
	t.Run("settings that run programs", func(t *testing.T) { gitSettings(t, n) })
	t.Run("setuid", func(t *testing.T) { setuid(t, n) })
	t.Run("read-only", func(t *testing.T) { readOnly(t, n) })
}

func gitWorks(t *testing.T, n *node.Node) {
	ws := repository(t, n)
	r := sandboxed(t, n, ws, "default", gitUser+`set -e
		echo two >> a.txt; git add a.txt; git commit -q -m second
		git checkout -q -b feature; echo three > b.txt; git add b.txt; git commit -q -m third
		git checkout -q main; git merge -q feature; git branch -d feature; git tag v1
		git config user.email agent@example.com
		git stash list; git rebase -q HEAD~1; git gc -q
		git submodule --quiet add https://git.test/repo.git sub; git commit -q -m submodule; cat sub/README
		git worktree add -q ../tree 2>/dev/null || git worktree add -q tree; git status --short; git log --oneline | wc -l`)
	if r.Code != 0 || !strings.HasSuffix(r.Stdout, "\n4\n") || !strings.Contains(r.Stdout, "from the git double") {
		t.Fatalf("exit %d: %q\n%s", r.Code, r.Stdout, r.Stderr)
	}
	if strings.Contains(r.Stderr, "found in the workspace") {
		t.Errorf("ordinary work was reported: %s", r.Stderr)
	}
	// The operator goes on with what the agent made.
	if log := host(t, ws, "git", "log", "--format=%s"); log != "submodule\nthird\nsecond\nfirst\n" {
		t.Errorf("log %q", log)
	}
	if out := host(t, ws, "git", "submodule", "status"); !strings.Contains(out, "sub") {
		t.Errorf("submodule: %q", out)
	}
	if email := host(t, ws, "git", "config", "user.email"); email != "agent@example.com\n" {
		t.Errorf("a harmless setting was lost: %q", email)
	}
	host(t, ws, "git", "fsck", "--no-progress")
	ownedByOperator(t, ws)
}

// ownedByOperator checks that nothing in the workspace belongs to anyone else.
func ownedByOperator(t *testing.T, ws string) {
	t.Helper()
	if out := host(t, ws, "find", ".", "!", "-uid", "0"); out != "" {
		t.Errorf("not the operator's: %s", out)
	}
}

func hooksStay(t *testing.T, n *node.Node) {
	ws := repository(t, n)
	attempts := `
		echo evil > .git/hooks/post-commit && echo WROTE
		echo evil > .git/hooks/pre-push && echo NEW
		rm -f .git/hooks/post-commit && echo REMOVED
		mv .git/hooks .git/old && echo MOVED-HOOKS
		mv .git .old && echo MOVED-GIT
		rm -rf .git/hooks && echo REMOVED-HOOKS
		chmod 777 .git/hooks/post-commit && echo CHMOD
		ln -f a.txt .git/hooks/post-merge && echo LINKED
		true`
	r := sandboxed(t, n, ws, "default", attempts)
	if r.Stdout != "" {
		t.Errorf("succeeded: %s", r.Stdout)
	}
	if b, err := os.ReadFile(filepath.Join(ws, ".git/hooks/post-commit")); err != nil || string(b) != "#!/bin/sh\necho operator hook\n" {
		t.Errorf("the hook is %q, %v", b, err)
	}
	// Control: outside, each of them works.
	out := host(t, ws, "sh", "-c", attempts)
	contains(t, "control", out, "WROTE", "NEW", "REMOVED", "MOVED-HOOKS", "MOVED-GIT")
}

func gitSettings(t *testing.T, n *node.Node) {
	ws := repository(t, n)
	r := sandboxed(t, n, ws, "default", gitUser+`set -e
		git config core.hooksPath /tmp/evil; git config core.fsmonitor 'touch owned'; git config core.sshCommand 'touch owned'
		git config filter.x.smudge 'touch owned'; git config filter.x.clean 'touch owned'; git config alias.st '!touch owned'
		git config --add remote.origin.url https://git.test/repo.git
		echo '* filter=x' > .gitattributes
		mkdir -p deep/er; git init -q deep/er/new
		printf '#!/bin/sh\ntouch owned\n' > deep/er/new/.git/hooks/post-checkout; chmod +x deep/er/new/.git/hooks/post-checkout
		git -C deep/er/new config core.pager 'touch owned'
		mkdir -p .vscode; echo '{}' > .vscode/tasks.json`)
	if r.Code != 0 {
		t.Fatalf("exit %d: %s", r.Code, r.Stderr)
	}
	contains(t, "the end of the run", r.Stderr, "found in the workspace", "core.hookspath", "core.fsmonitor", "core.sshcommand",
		"filter.x.smudge", "alias.st", "deep/er/new/.git")
	config := host(t, ws, "git", "config", "--local", "--list")
	for _, bad := range []string{"hookspath", "fsmonitor", "sshcommand", "filter.", "alias."} {
		if strings.Contains(config, bad) {
			t.Errorf("%s is still in force:\n%s", bad, config)
		}
	}
	contains(t, "harmless settings", config, "remote.origin.url=https://git.test/repo.git")
	if c := host(t, filepath.Join(ws, "deep/er/new"), "git", "config", "--local", "--list"); strings.Contains(c, "pager") {
		t.Errorf("the new repository: %s", c)
	}
	if st, err := os.Stat(filepath.Join(ws, "deep/er/new/.git/hooks/post-checkout")); err == nil && st.Mode()&0o111 != 0 {
		t.Error("the hook of the new repository is there")
	}
	// The operator's git runs nothing of the agent's.
	host(t, ws, "git", "status")
	host(t, ws, "git", "checkout", "-q", "-b", "next")
	host(t, ws, "git", "add", "-A", ".gitattributes")
	if out := host(t, ws, "find", ".", "-name", "owned"); out != "" {
		t.Errorf("a program of the agent ran: %s", out)
	}
	for _, what := range []string{"core.hookspath", "filter.x.clean", "core.pager"} {
		n.WaitEvent(t, "the finding "+what, func(e *event.Event) bool {
			return e.Kind == event.KindWorkspace && strings.Contains(strings.ToLower(e.Reason+e.Detail+e.Object+e.Path), what)
		})
	}
}

const setuidAttempts = `
	cp /bin/true t && chmod 755 t
	chmod 4755 t && echo SETUID
	chmod u+s t && echo U+S
	chmod g+s t && echo G+S
	install -m 4755 /bin/true i && echo INSTALL
	mkdir -m 2755 d && echo MKDIR
	tar -xpf suid.tar && find . -name tarred -perm /6000 | grep -q . && echo TAR
	cp -p old-suid copied && find . -name copied -perm /6000 | grep -q . && echo COPY
	python3 -c 'import os; os.close(os.open("p", os.O_CREAT|os.O_WRONLY, 0o4755)); os.stat("p").st_mode & 0o6000 and print("OPEN")'
	python3 -c 'import os; os.fchmod(os.open("t", os.O_RDONLY), 0o4755); print("FCHMOD")'
	true`

func setuid(t *testing.T, n *node.Node) {
	tool(t, "python3")
	prepare := func() string {
		ws := n.Workspace(t)
		host(t, ws, "sh", "-c", "cp /bin/true tarred && chmod 4755 tarred && tar -cpf suid.tar tarred && rm tarred && cp /bin/true old-suid && chmod 4755 old-suid")
		return ws
	}
	ws := prepare()
	r := sandboxed(t, n, ws, "default", setuidAttempts)
	if r.Stdout != "" {
		t.Errorf("made: %s", r.Stdout)
	}
	need(t, filepath.WalkDir(ws, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if i, err := d.Info(); err != nil || i.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 && d.Name() != "old-suid" {
			t.Errorf("%s: mode %v %v", path, i.Mode(), err)
		}
		return nil
	}))
	out := host(t, prepare(), "sh", "-c", setuidAttempts)
	contains(t, "control", out, "SETUID", "U+S", "G+S", "INSTALL", "MKDIR", "TAR", "COPY", "OPEN", "FCHMOD")
}

// readOnly shows the default profile: the workspace is read, not written.
func readOnly(t *testing.T, n *node.Node) {
	ws := n.Workspace(t)
	put(t, ws, "a.txt", "read me")
	r := n.CLIIn(t, ws, "run", "--", "sh", "-c", "cat a.txt; echo x > b.txt && echo WROTE; rm -f a.txt && echo REMOVED; echo y > $HOME/c && cat $HOME/c")
	if r.Stdout != "read mey\n" {
		t.Errorf("%q %s", r.Stdout, r.Stderr)
	}
	if _, err := os.Stat(filepath.Join(ws, "a.txt")); err != nil {
		t.Error(err)
	}
}
