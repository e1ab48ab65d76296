// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	configLimit  = 1 << 20
	pointerLimit = 2 * unix.PathMax
	hookLimit    = 16 << 20
	includeDepth = 10
)

// observer walks a tree and notes every item. It changes nothing.
type observer struct {
	ctx      context.Context
	tree     *tree
	limits   Limits
	deadline time.Time
	entries  int

	items  map[itemKey]item
	repos  []string // git directories with hooks of their own, parents first
	extra  []string // hook directories that settings name, each once
	nested int      // current depth of includes
	flat   bool     // do not go down

	changed int64 // newest change time of an identity, unix nanoseconds
}

func newObserver(ctx context.Context, t *tree, l Limits) *observer {
	l = l.withDefaults()
	return &observer{ctx: ctx, tree: t, limits: l, deadline: time.Now().Add(l.Time), items: map[itemKey]item{}}
}

// run walks everything. A *LimitError means that the items are incomplete.
func (o *observer) run() error {
	dir, err := o.tree.openDir("")
	if err != nil {
		return fmt.Errorf("workspace: open root: %w", err)
	}
	defer dir.Close()
	if err := o.dir(dir, "", 0, false); err != nil {
		return err
	}
	for i := 0; i < len(o.extra); i++ {
		if err := o.hookDir(o.extra[i]); err != nil {
			return err
		}
	}
	return nil
}

// hookDir walks a directory that core.hooksPath or a symlink names.
func (o *observer) hookDir(rel string) error {
	f, err := o.tree.openDir(rel)
	if err != nil {
		return nil // no such directory, or not reachable without symlinks
	}
	defer f.Close()
	return o.dir(f, rel, strings.Count(rel, "/")+1, true)
}

// addHooks notes a directory whose files git runs. Husky names "<dir>/_" and
// keeps what that runs one level up.
func (o *observer) addHooks(rel string) {
	if path.Base(rel) == "_" {
		o.addHooks(dirOf(rel))
	}
	if rel != "" && !slices.Contains(o.extra, rel) {
		o.extra = append(o.extra, rel)
	}
}

// count checks the limits before each name.
func (o *observer) count(rel string) error {
	o.entries++
	if o.entries > o.limits.Entries {
		return &LimitError{"entries", rel}
	}
	if o.entries%512 == 0 {
		if time.Now().After(o.deadline) {
			return &LimitError{"time", rel}
		}
		return o.ctx.Err()
	}
	return nil
}

// dir looks at every name of an open directory, then goes down. inHooks: git
// runs what lies here.
func (o *observer) dir(d *os.File, rel string, depth int, inHooks bool) error {
	names, err := o.names(d, rel)
	if err != nil {
		return err
	}
	git := isGitDir(rel, names)
	if git {
		if !names["commondir"] { // a linked worktree has neither hooks nor settings of its own that a rename could replace
			o.repos = append(o.repos, rel)
		}
		o.gitDir(d, rel)
	}
	for name := range names {
		st, err := lstat(d, name)
		if err != nil {
			continue // gone, or not ours to see
		}
		at := join(rel, name)
		o.special(d, name, at, &st, inHooks, git)
		if kindOf(&st) != unix.S_IFDIR || o.flat {
			continue
		}
		if depth+1 > o.limits.Depth {
			o.note(itemDeep, at, item{Digest: "deep"}, &st)
			continue
		}
		if err := o.below(d, name, at, depth, inHooks || (git && name == "hooks")); err != nil {
			return err
		}
	}
	return nil
}

func (o *observer) below(d *os.File, name, rel string, depth int, inHooks bool) error {
	sub, err := at(d, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		if !errors.Is(err, unix.EXDEV) { // another file system: the sandbox had no part of it
			o.items[itemKey{itemDeep, rel}] = item{Digest: "closed", Err: err.Error()}
		}
		return nil
	}
	defer sub.Close()
	return o.dir(sub, rel, depth+1, inHooks)
}

func (o *observer) names(d *os.File, rel string) (map[string]bool, error) {
	names := map[string]bool{}
	for {
		batch, err := d.Readdirnames(1024)
		for _, n := range batch {
			if err := o.count(join(rel, n)); err != nil {
				return nil, err
			}
			names[n] = true
		}
		if len(batch) == 0 || err != nil {
			return names, nil // EOF; an unreadable rest is a rest nobody can use
		}
	}
}

// isGitDir says whether git might take the directory for a repository, or for
// the common directory of one: what counts is which names are there, of
// whatever type (git follows symlinks here).
func isGitDir(rel string, names map[string]bool) bool {
	return strings.EqualFold(path.Base("/"+rel), ".git") ||
		names["HEAD"] && names["commondir"] ||
		names["objects"] && names["refs"]
}

// special notes what matters about one name whatever directory it is in.
func (o *observer) special(d *os.File, name, rel string, st *unix.Stat_t, inHooks, inGit bool) {
	kind := kindOf(st)
	switch kind {
	case unix.S_IFREG:
		if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
			o.note(itemSetID, rel, item{Digest: o.identity(st)}, st)
		}
		if st.Mode&0o111 != 0 && hasCaps(d, name) {
			o.note(itemCaps, rel, item{Digest: o.identity(st)}, st)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		o.note(itemDevice, rel, item{Digest: o.identity(st)}, st)
		return
	}
	switch {
	case kind == unix.S_IFDIR:
	case inHooks && !strings.HasSuffix(name, ".sample"):
		o.note(itemHook, rel, o.content(d, name, st, hookLimit), st)
	case strings.EqualFold(name, ".git"):
		o.pointer(d, name, rel, st, "gitdir:")
	case inGit && name == "commondir":
		o.pointer(d, name, rel, st, "")
	case inGit && name == "hooks" && kind == unix.S_IFLNK:
		o.addHooks(o.pointer(d, name, rel, st, ""))
	case name == ".gitmodules":
		o.note(itemModules, rel, o.settings(d, name, rel, dangerousModule), st)
	}
}

// identity changes whenever the file was written, renamed or replaced: nobody
// can set a change time back.
func (o *observer) identity(st *unix.Stat_t) string {
	o.changed = max(o.changed, st.Ctim.Nano())
	return fmt.Sprintf("%d:%d:%o:%d:%d.%d", st.Dev, st.Ino, st.Mode, st.Rdev, st.Ctim.Sec, st.Ctim.Nsec)
}

func hasCaps(d *os.File, name string) bool {
	n, err := unix.Lgetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name), "security.capability", nil)
	return err == nil && n > 0
}

func (o *observer) note(kind itemKind, rel string, i item, st *unix.Stat_t) {
	i.UID, i.GID, i.Mode = st.Uid, st.Gid, st.Mode&0o777
	if kindOf(st) == unix.S_IFLNK { // its mode says nothing
		i.Mode = 0
	}
	o.items[itemKey{kind, rel}] = i
}

// content digests a file, or what stands in its place, without reading
// anything that is not a regular file.
func (o *observer) content(d *os.File, name string, st *unix.Stat_t, limit int64) item {
	switch kindOf(st) {
	case unix.S_IFREG:
	case unix.S_IFLNK:
		to, err := readlink(d, name)
		return item{Digest: digest("link", []byte(to)), Target: to, Err: errText(err)}
	default:
		return item{Digest: fmt.Sprintf("kind %o", kindOf(st))}
	}
	f, _, err := openRegular(d, name)
	if err != nil {
		return item{Digest: o.identity(st), Err: err.Error()}
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, limit+1))
	if err != nil || n > limit {
		return item{Digest: o.identity(st), Err: errText(errors.Join(err, errTooBig))}
	}
	return item{Digest: fmt.Sprintf("%t %x", st.Mode&0o111 != 0, h.Sum(nil))}
}

func digest(what string, b []byte) string { return fmt.Sprintf("%s %x", what, sha256.Sum256(b)) }

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// pointer notes a file or symlink by which git finds its directory, and
// returns where in the workspace it leads, or "" if out of it.
func (o *observer) pointer(d *os.File, name, rel string, st *unix.Stat_t, prefix string) string {
	i := o.content(d, name, st, pointerLimit)
	target := i.Target
	if kindOf(st) == unix.S_IFREG {
		b, err := readSmall(d, name, pointerLimit)
		text, found := strings.CutPrefix(string(b), prefix)
		if err != nil || !found {
			i.Err = "not a git pointer: " + errText(err)
		}
		target = strings.TrimRight(strings.TrimLeft(text, " "), "\r\n")
	}
	if target == "" {
		i.Err = "no target"
	}
	to, inside := o.tree.locate(dirOf(rel), target)
	if inside && i.Err == "" {
		if f, err := o.tree.open(to, unix.O_PATH); err == nil {
			f.Close()
		} else {
			inside = false
		}
	}
	i.File = kindOf(st) == unix.S_IFREG
	i.Target, i.Outside = target, !inside || i.Err != ""
	o.note(itemPointer, rel, i, st)
	if i.Outside {
		return ""
	}
	return to
}
