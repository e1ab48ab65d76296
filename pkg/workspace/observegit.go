// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// gitDir notes the configuration of a git directory.
func (o *observer) gitDir(d *os.File, rel string) {
	for _, name := range []string{"config", "config.worktree"} {
		o.configFile(d, name, join(rel, name))
	}
}

// configFile notes one configuration file and what it includes. A symlink is
// noted as a pointer; if it stays inside, so is what it leads to.
func (o *observer) configFile(d *os.File, name, rel string) {
	if _, seen := o.items[itemKey{itemConfig, rel}]; seen || o.nested > includeDepth {
		return
	}
	st, err := lstat(d, name)
	if err != nil || kindOf(&st) == unix.S_IFDIR {
		return // git cannot read it either
	}
	if kindOf(&st) == unix.S_IFLNK {
		if to := o.pointer(d, name, rel, &st, ""); to != "" {
			o.configAt(to)
		}
		return
	}
	i := o.settings(d, name, rel, func(s Setting) string { return o.judge(s, rel) })
	o.note(itemConfig, rel, i, &st)
	for _, s := range i.Settings {
		o.follow(s, rel)
	}
}

func (o *observer) configAt(rel string) {
	dir, name, err := o.tree.parent(rel)
	if err != nil {
		return
	}
	defer dir.Close()
	o.nested++
	o.configFile(dir, name, rel)
	o.nested--
}

// settings reads a file and keeps the settings that judge calls dangerous.
func (o *observer) settings(d *os.File, name, rel string, judge func(Setting) string) item {
	b, err := readSmall(d, name, configLimit)
	if err != nil {
		i := item{Digest: "unreadable", Err: err.Error()}
		if st, serr := lstat(d, name); serr == nil {
			i.Digest = o.identity(&st)
		}
		return i
	}
	i := item{Digest: digest("config", b)}
	all, err := ParseConfig(b)
	if err != nil {
		i.Err = err.Error()
	}
	for _, s := range all {
		if judge(s) != "" {
			i.Settings = append(i.Settings, s)
		}
	}
	return i
}

// judge is Dangerous with what needs the place of the file: core.worktree is
// how a submodule finds its files, and harmless as long as it stays inside.
func (o *observer) judge(s Setting, rel string) string {
	if s.Key == "core.worktree" {
		if to, ok := o.tree.locate(dirOf(rel), s.Value); ok {
			if f, err := o.tree.open(to, unix.O_PATH); err == nil {
				f.Close()
				return ""
			}
		}
	}
	return Dangerous(s)
}

// follow looks at the files that a setting of the user brings into play and
// that the agent can write.
func (o *observer) follow(s Setting, rel string) {
	switch {
	case s.Key == "include.path" || strings.HasPrefix(s.Key, "includeif.") && strings.HasSuffix(s.Key, ".path"):
		if to, ok := o.tree.locate(dirOf(rel), s.Value); ok {
			o.configAt(to)
		}
	case s.Key == "core.hookspath":
		// Relative to where git runs hooks: the work tree, or a bare repository.
		git := dirOf(rel)
		for _, base := range []string{git, dirOf(git), ""} {
			if to, ok := o.tree.locate(base, s.Value); ok {
				o.addHooks(to)
			}
		}
	}
}
