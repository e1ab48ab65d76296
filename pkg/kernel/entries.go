// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"path"
	"strings"
)

// gitHooks are the programs that git runs by their names in a directory of
// hooks: githooks(5) of git 2.51. The samples it puts there have other names.
const gitHooks = "applypatch-msg commit-msg fsmonitor-watchman p4-changelist p4-post-changelist p4-pre-submit p4-prepare-changelist " +
	"post-applypatch post-checkout post-commit post-index-change post-merge post-receive post-rewrite post-update " +
	"pre-applypatch pre-auto-gc pre-commit pre-merge-commit pre-push pre-rebase pre-receive prepare-commit-msg " +
	"proc-receive push-to-checkout reference-transaction sendemail-validate update"

// GitHooks returns the rows that refuse hooks of git, and what makes hooks of
// files that were made elsewhere. A repository may still be made, with the
// samples that git puts among its hooks.
func GitHooks() []GuardEntry {
	out := []GuardEntry{
		{Parent: ".git", Name: "hooks", Ways: WaySymlink | WayRename},
		{Name: ".git", Ways: WaySymlink | WayRename},
	}
	for name := range strings.FieldsSeq(gitHooks) {
		out = append(out, GuardEntry{Parent: "hooks", Name: name, Ways: WayAny})
	}
	return out
}

// GuardedPath returns the rows that refuse a path, relative to wherever, at any
// depth: the last two names of it, and to put a directory in place of one on
// the way. A name that no row can hold has none.
func GuardedPath(p string) (out []GuardEntry) {
	names := strings.Split(path.Clean(p), "/")
	for i, name := range names {
		e := GuardEntry{Name: name, Ways: WaySymlink | WayRename}
		if i > 0 {
			e.Parent = names[i-1]
		}
		if i == len(names)-1 {
			e.Ways = WayAny
		}
		if len(e.Name) <= maxEntry && len(e.Parent) <= maxEntry {
			out = append(out, e)
		}
	}
	return out
}
