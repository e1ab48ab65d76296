// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func needTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("RINGFENCE_CI") == "1" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
}

// gitList asks git itself. ok is false when git refuses the file.
func gitList(t testing.TB, dir string, data []byte) (list []Setting, ok bool) {
	t.Helper()
	file := filepath.Join(dir, "c")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "config", "--no-includes", "--file", file, "--list", "-z")
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+dir)
	out, err := cmd.Output()
	if err != nil {
		return nil, false
	}
	for item := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if item == "" {
			continue
		}
		k, v, has := strings.Cut(item, "\n")
		list = append(list, Setting{Key: k, Value: v, Bare: !has})
	}
	return list, true
}

// spaces folds white space: git before 2.45 turned each into one blank, later
// ones keep it. No judgement depends on it.
func spaces(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\r' {
			return ' '
		}
		return r
	}, s)
}

func sameAsGit(t testing.TB, dir string, data []byte) {
	t.Helper()
	got, err := ParseConfig(data)
	want, ok := gitList(t, dir, data)
	if err != nil {
		return // stricter than git is allowed: the file counts as dangerous
	}
	if !ok {
		t.Fatalf("git refuses what we parse: %q -> %v", data, got)
	}
	if !slices.EqualFunc(got, want, func(a, b Setting) bool {
		return a.Key == b.Key && a.Bare == b.Bare && spaces(a.Value) == spaces(b.Value)
	}) {
		t.Fatalf("%q:\n ours %q\n git  %q", data, show(got), show(want))
	}
}

func show(l []Setting) (out []string) {
	for _, s := range l {
		out = append(out, fmt.Sprintf("%s=%s/%v", s.Key, s.Value, s.Bare))
	}
	return out
}

var configSamples = []string{
	"", "\n", "[core]\n\tbare = false\n", "\xef\xbb\xbf[core]\nbare\n",
	"[core] fsmonitor = evil", "[core]fsmonitor=evil;comment\n[Alias \"Sub\"]X = !sh\n",
	"[a \"b\\\"c\\\\d\"]\r\nk = v \\\r\n  w # c\r\nj\r\n", "[a.B.c]\nk=\"q # ;\" tail  \n", "[a]k = a\\tb\\nc\\\"d\\\\\n",
	"[a]\nk = \"unterminated\n", "[a]\nk = x\\y\n", "[a]\nk = v\\", "[a]\nk = \\\n\\\n\\\n", "[a]\n1k = v\n", "k = v\n", "[a \"b]\nk=v\n",
	"[]\nk=v\n", "[a ]\nk=v\n", "[a\t\"x\"]k=v", "[a\n\"x\"]k=v", "[a]\nk v\n", "[a]\nk\t =\tv\t\n", "[a]\nk # no\n", "[a]\nk=#no\n",
	"[a]\nk = v\rw\n", "[a]\nk-x1 = \"\"\n[a-b.c]z=;", "[include]\npath = x\n", "[a]\nk = one \\\n # still value?\n", "\xef\xbb[a]", "[a] # c\n [b] ; d\n k",
	"[a]k=\"a\\\nb\"\n", "[a]k=\" x \" y \n", "[a \"\"]\nk=v\n", "[a.]\nk=v\n", "[.a]\nk=v\n", "[a]\nk=v\n[b", "[a]\n=v\n", "[a]k=\xff\xfe\n",
}

func TestParseConfigLikeGit(t *testing.T) {
	needTool(t, "git")
	dir := t.TempDir()
	for _, s := range configSamples {
		t.Run(fmt.Sprintf("%q", s), func(t *testing.T) { sameAsGit(t, dir, []byte(s)) })
	}
}

// TestParseConfigAcceptsWhatGitWrites: being strict must not mean calling
// ordinary files dangerous.
func TestParseConfigAcceptsWhatGitWrites(t *testing.T) {
	for _, s := range []string{
		configSamples[2], configSamples[3], configSamples[4], configSamples[5], configSamples[6], configSamples[7], configSamples[8],
		"[remote \"origin\"]\n\turl = git@github.com:a/b.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n[branch \"feature/x#1\"]\n\tmerge = refs/heads/feature/x#1\n",
	} {
		if _, err := ParseConfig([]byte(s)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestParseConfigRandomLikeGit(t *testing.T) {
	needTool(t, "git")
	pieces := []string{"[", "]", "a", "B", "core", "\"", "\\", "\n", "\r\n", "\r", " ", "\t", "=", "#", ";", "-", ".", "1", "!", "[a]\n", "k = ", "[a \"x\"]", "\\\n", "\"\"", "\x80"}
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 700 {
		b := []byte("[s]\nk = ")
		if rnd.IntN(3) == 0 {
			b = nil
		}
		for range rnd.IntN(14) {
			b = append(b, pieces[rnd.IntN(len(pieces))]...)
		}
		sameAsGit(t, dir, b)
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, s := range configSamples {
		f.Add([]byte(s))
	}
	_, err := exec.LookPath("git")
	git := err == nil
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := ParseConfig(data)
		if err != nil {
			return
		}
		out, err := commentOut(data, all, func(s Setting) bool { return Dangerous(s) != "" || strings.HasSuffix(s.Key, "k") })
		if err != nil {
			t.Fatalf("%q: %v (%q)", data, err, out)
		}
		if git && len(data) < 200 {
			sameAsGit(t, t.TempDir(), data)
			sameAsGit(t, t.TempDir(), out)
		}
	})
}

func TestCommentOutKeepsTheRest(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"[core]\n\tbare = false\n\tfsmonitor = evil\n\tx = y\n", "[core]\n\tbare = false\n\t\n# quarantined by ringfence:\n#   fsmonitor = evil\n\n\tx = y\n"},
		{"[core] fsmonitor = a\\\nb = c ; d\n[x]y=z", "[core] \n# quarantined by ringfence:\n#   fsmonitor = a\\\n#   b = c ; d\n\n[x]y=z"},
		{"[core]fsmonitor=evil", "[core]\n# quarantined by ringfence:\n#   fsmonitor=evil\n"},
	} {
		all, err := ParseConfig([]byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		out, err := commentOut([]byte(c.in), all, func(s Setting) bool { return Dangerous(s) != "" })
		if err != nil || !bytes.Equal(out, []byte(c.out)) {
			t.Errorf("%q -> %q (%v), want %q", c.in, out, err, c.out)
		}
	}
}

func TestDangerous(t *testing.T) {
	bad := []string{
		"core.hooksPath=x", "core.fsmonitor=./x", "core.sshCommand=x", "core.editor=x", "core.pager=x", "core.gitProxy=x", "core.askPass=x",
		"filter.lfs.clean=x", "filter.a.b.smudge=x", "filter..process=x", "diff.external=x", "diff.img.textconv=x", "diff.x.command=x",
		"merge.x.driver=x", "alias.st=!sh", "alias.st=-c core.pager=x status", "credential.helper=x", "credential.https://h/p.helper=x",
		"gpg.program=x", "gpg.ssh.program=x", "include.path=x", "includeIf.gitdir:/.path=x", "uploadpack.packObjectsHook=x",
		"remote.origin.uploadpack=x", "remote.origin.receivepack=x", "remote.origin.vcs=x", "remote.o.url=ext::sh -c x", "sequence.editor=x",
		"http.proxy=x", "http.https://a.b/.proxy=x", "pager.log=less x", "submodule.a.update=!sh", "protocol.ext.allow=always", "url.a.insteadOf=b",
		"trailer.x.cmd=x", "tar.tgz.command=x", "mergetool.x.cmd=x", "some.tool.command=x", "other.thing=!x", "lfs.customtransfer.a.path=x",
		"http.sslVerify=false", "core.worktree=/home/u", "hook.x.command=y", "sendemail.smtpserver=/x", "interactive.diffFilter=x",
	}
	good := []string{
		"core.bare=false", "core.fsmonitor=true", "core.fsmonitor=0", "user.name=x", "user.email=x@y", "remote.origin.url=https://h/r", "remote.origin.url=git@h:r",
		"branch.main.remote=origin", "branch.main.vscode-merge-base=origin/main", "submodule.a.update=rebase", "submodule.a.url=https://x/y", "submodule.active=.",
		"pager.log=false", "merge.tool=vimdiff", "diff.tool=meld", "commit.gpgsign=true", "http.sslVerify=true", "http.postBuffer=1", "extensions.worktreeConfig=true",
		"core.autocrlf=input", "color.ui=auto", "push.default=simple", "filter.lfs.required=true", "lfs.repositoryformatversion=0", "protocol.ext.allow=never",
	}
	canon := func(s string) Setting {
		k, v, _ := strings.Cut(s, "=")
		i, j := strings.IndexByte(k, '.'), strings.LastIndexByte(k, '.')
		if strings.HasPrefix(k, "credential.http") || strings.HasPrefix(k, "http.http") { // the subsection holds dots and slashes
			i, j = strings.IndexByte(k, '.'), strings.LastIndexByte(k, '.')
		}
		return Setting{Key: strings.ToLower(k[:i]) + k[i:j] + strings.ToLower(k[j:]), Value: v}
	}
	for _, s := range bad {
		if Dangerous(canon(s)) == "" {
			t.Errorf("%s counts as harmless", s)
		}
	}
	for _, s := range good {
		if why := Dangerous(canon(s)); why != "" {
			t.Errorf("%s counts as dangerous: %s", s, why)
		}
	}
}
