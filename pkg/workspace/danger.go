// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"path"
	"strings"
)

// danger is one row of the table of git settings that make git run a program,
// or send what it carries somewhere else. Key is "section.name" or
// "section.*.name" (any subsection); a final "*" matches every name.
type danger struct {
	key  string
	why  string
	safe func(v Setting) bool // values that do no harm; nil: none
}

const (
	runs    = "runs a program"
	loads   = "reads further settings from another file"
	diverts = "sends traffic or credentials somewhere else"
	escapes = "makes git write outside the repository"
)

// dangers lists what is known of git (2.39 to 2.50) and of the tools that keep
// their settings in its files. Whatever ends like a command and whatever value
// begins with "!" is caught by [Dangerous] without a row.
var dangers = []danger{
	{"include.path", loads, nil},
	{"includeif.*.path", loads, nil},
	{"core.hookspath", runs, nil},
	{"core.fsmonitor", runs, isBool},
	{"core.sshcommand", runs, nil},
	{"core.editor", runs, nil},
	{"core.pager", runs, nil},
	{"core.askpass", runs, nil},
	{"core.gitproxy", runs, nil},
	{"core.alternaterefscommand", runs, nil},
	{"core.worktree", escapes, nil}, // submodules need it: see observer.config
	{"sequence.editor", runs, nil},
	{"pager.*", runs, isBool},
	{"interactive.difffilter", runs, nil},
	{"diff.external", runs, nil},
	{"diff.*.command", runs, nil},
	{"diff.*.textconv", runs, nil},
	{"difftool.*.cmd", runs, nil},
	{"difftool.*.path", runs, nil},
	{"mergetool.*.cmd", runs, nil},
	{"mergetool.*.path", runs, nil},
	{"merge.*.driver", runs, nil},
	{"filter.*.clean", runs, nil},
	{"filter.*.smudge", runs, nil},
	{"filter.*.process", runs, nil},
	{"alias.*", "replaces what a git command of the user means", nil},
	{"alias.*.*", "replaces what a git command of the user means", nil},
	{"hook.*.*", runs, nil},
	{"gpg.program", runs, nil},
	{"gpg.*.program", runs, nil},
	{"gpg.ssh.defaultkeycommand", runs, nil},
	{"credential.helper", runs, nil},
	{"credential.*.helper", runs, nil},
	{"browser.*.cmd", runs, nil},
	{"browser.*.path", runs, nil},
	{"man.*.cmd", runs, nil},
	{"man.*.path", runs, nil},
	{"web.browser", runs, nil},
	{"help.browser", runs, nil},
	{"guitool.*.*", runs, nil},
	{"instaweb.*", runs, nil},
	{"imap.tunnel", runs, nil},
	{"sendemail.*", runs, nil},
	{"sendemail.*.*", runs, nil},
	{"remote.*.uploadpack", runs, nil},
	{"remote.*.receivepack", runs, nil},
	{"remote.*.vcs", runs, nil},
	{"remote.*.proxy", diverts, nil},
	{"uploadpack.packobjectshook", runs, nil},
	{"gc.recentobjectshook", runs, nil},
	{"trailer.*.command", runs, nil},
	{"trailer.*.cmd", runs, nil},
	{"tar.*.command", runs, nil},
	{"submodule.*.update", runs, func(s Setting) bool { return !strings.HasPrefix(strings.TrimSpace(s.Value), "!") }},
	{"init.templatedir", "copies hooks into new repositories", nil},
	{"http.proxy", diverts, nil},
	{"http.*.proxy", diverts, nil},
	{"https.proxy", diverts, nil},
	{"http.sslverify", diverts, isTrue},
	{"http.*.sslverify", diverts, isTrue},
	{"http.sslcainfo", diverts, nil},
	{"http.*.sslcainfo", diverts, nil},
	{"http.sslcapath", diverts, nil},
	{"http.*.sslcapath", diverts, nil},
	{"http.cookiefile", diverts, nil},
	{"http.*.cookiefile", diverts, nil},
	{"http.curloptresolve", diverts, nil},
	{"http.*.curloptresolve", diverts, nil},
	{"url.*.insteadof", diverts, nil},
	{"url.*.pushinsteadof", diverts, nil},
	{"protocol.allow", "allows transports that run programs", nil},
	{"protocol.*.allow", "allows transports that run programs", func(s Setting) bool { return s.Value == "never" }},
	{"lfs.customtransfer.*.*", runs, nil},
	{"lfs.customtransfer.*", runs, nil},
	{"lfs.extension.*", runs, nil},
	{"lfs.extension.*.*", runs, nil},
	{"lfs.standalonetransferagent", runs, nil},
	{"lfs.*.standalonetransferagent", runs, nil},
	{"lfs.url", diverts, nil},
	{"annex.*", runs, nil},
	{"annex.*.*", runs, nil},
	{"svn-remote.*.*", runs, nil},
	{"gitcvs.*", runs, nil},
	{"gitcvs.*.*", runs, nil},
}

// suffixes of names that mean a program in every tool seen so far.
var programNames = []string{
	"command", "cmd", "program", "helper", "editor", "pager", "hook", "hookspath", "askpass",
	"driver", "textconv", "tunnel", "exec", "shell", "browser",
}

// Dangerous says why a setting is dangerous, or "".
func Dangerous(s Setting) string {
	for _, d := range dangers {
		if matchKey(d.key, s.Key) {
			if d.safe != nil && d.safe(s) {
				return ""
			}
			return d.why
		}
	}
	name := s.Key[strings.LastIndexByte(s.Key, '.')+1:]
	for _, suffix := range programNames {
		if strings.HasSuffix(name, suffix) && !isBool(s) {
			return runs
		}
	}
	switch v := strings.TrimSpace(s.Value); {
	case strings.HasPrefix(v, "!"):
		return runs
	case strings.HasPrefix(s.Key, "remote.") && (name == "url" || name == "pushurl") && strings.Contains(v, "::"):
		return "names a transport helper, which is a program"
	case strings.HasPrefix(s.Key, "remote.") && strings.HasPrefix(name, "annex-"):
		return runs
	case strings.HasPrefix(s.Key, "submodule.") && name == "url" && (strings.HasPrefix(v, "-") || strings.Contains(v, "::")):
		return "passes an option or a transport helper to git"
	}
	return ""
}

// matchKey compares a canonical key with a pattern. A "*" between dots stands
// for a whole subsection, which may hold dots itself.
func matchKey(pattern, key string) bool {
	ps, key2, ok := strings.Cut(pattern, ".")
	section, rest, ok2 := strings.Cut(key, ".")
	if !ok || !ok2 || ps != section {
		return false
	}
	i, j := strings.LastIndexByte(key2, '.'), strings.LastIndexByte(rest, '.')
	if (i < 0) != (j < 0) {
		return false
	}
	psub, pname, sub, name := "", key2, "", rest
	if i >= 0 {
		psub, pname, sub, name = key2[:i], key2[i+1:], rest[:j], rest[j+1:]
	}
	if prefix, star := strings.CutSuffix(psub, "*"); star {
		if !strings.HasPrefix(sub, prefix) {
			return false
		}
	} else if psub != sub {
		return false
	}
	return pname == "*" || pname == name
}

func isBool(s Setting) bool { return isTrue(s) || isFalse(s) }

func isTrue(s Setting) bool {
	if s.Bare {
		return true
	}
	switch strings.ToLower(s.Value) {
	case "true", "yes", "on", "1":
		return true
	}
	return false
}

func isFalse(s Setting) bool {
	if s.Bare {
		return false
	}
	switch strings.ToLower(s.Value) {
	case "false", "no", "off", "0", "":
		return true
	}
	return false
}

// dangerousModule judges a setting of a .gitmodules file, which git reads from
// the work tree of whoever clones or updates.
func dangerousModule(s Setting) string {
	if !strings.HasPrefix(s.Key, "submodule.") {
		return Dangerous(s)
	}
	name := s.Key[strings.LastIndexByte(s.Key, '.')+1:]
	sub := strings.TrimSuffix(strings.TrimPrefix(s.Key, "submodule."), "."+name)
	v := strings.TrimSpace(s.Value)
	switch {
	case name == "update" && strings.HasPrefix(v, "!"):
		return runs
	case (name == "path" || name == "url") && strings.HasPrefix(v, "-"):
		return "passes an option to git"
	case name == "url" && strings.Contains(v, "::"):
		return "names a transport helper, which is a program"
	case name == "path" && leaves(v), leaves(sub):
		return escapes
	}
	return ""
}

// leaves says whether a path has a ".." component or is absolute.
func leaves(p string) bool {
	if path.IsAbs(p) {
		return true
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}
