// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// planGuarded lays an empty decoy over every guarded path that the view could
// show, and where nothing is shown puts one anyway, so that a look for secrets
// is refused and recorded instead of passing as "no such file". Guarded paths
// of homes are covered in the caller's and, where the view shows it, in
// everybody's; in the sandbox's own home there is nothing to cover. The decoys are
// world-readable: it is Landlock that refuses them, and the real content is not
// in the mount namespace at all. Where the agent may write a directory of the
// host, Landlock cannot except a file in it; there the decoy has mode 0.
//
// It looks at the host as the caller: a decoy shows that there is something, in
// /guarded and in the list of mounts, and what is closed to the caller the
// agent, who may do no more, cannot reach anyway.
func (pl *planner) planGuarded() error { return withRights(pl.in.Caller, pl.planGuardedPaths) }

func (pl *planner) planGuardedPaths() error {
	patterns := pl.in.Walls.Guarded
	if patterns == nil {
		patterns = defaultGuarded
	}
	var paths []string
	for _, pattern := range patterns {
		l, err := pl.guardedPaths(pattern)
		if err != nil {
			return err
		}
		paths = append(paths, l...)
	}
	sort.Strings(paths) // parents first
	for _, p := range slices.Compact(paths) {
		if err := pl.guard(p); err != nil {
			return err
		}
	}
	return nil
}

// guardedPaths lists the places inside at which a pattern applies.
func (pl *planner) guardedPaths(pattern string) ([]string, error) {
	rest, inHome := strings.CutPrefix(pattern, "~/")
	if !inHome && !path.IsAbs(pattern) {
		return nil, fmt.Errorf("%w: guarded path %q is not absolute", ErrPlan, pattern)
	}
	glob := strings.ContainsAny(pattern, `*?[\`)
	var out []string
	add := func(full string) error {
		if !glob {
			out = append(out, full)
			return nil
		}
		found, err := filepath.Glob(full)
		if err != nil {
			return fmt.Errorf("%w: guarded path %q: %w", ErrPlan, pattern, err)
		}
		out = append(out, found...)
		return nil
	}
	if !inHome {
		err := add(pattern)
		return out, err
	}
	var errs []error
	if h := pl.in.RealHome; cleanAbs(h) && h != "/" {
		errs = append(errs, add(path.Join(h, rest)))
	}
	for _, h := range pl.in.Homes {
		if cleanAbs(h) && h != "/" && pl.showsHost(path.Join(h, rest)) {
			errs = append(errs, add(path.Join(h, rest)))
		}
	}
	return out, errors.Join(errs...)
}

// showsHost says whether the view has a directory of the host at p.
func (pl *planner) showsHost(p string) bool {
	switch pl.area(pl.canon(p)).kind {
	case regionHost, regionOverlay, regionShared:
		return true
	}
	return false
}

// isGuarded says whether p is, or lies below, a guarded path.
func (pl *planner) isGuarded(p string) bool {
	for _, g := range pl.guarded {
		if under(p, g) {
			return true
		}
	}
	for _, g := range pl.elsewhere {
		if under(p, g) {
			return true
		}
	}
	return false
}

// moveDecoy puts the decoy of p below GuardDir and a link to it at p, so that
// everything around p can be granted with one rule.
func (pl *planner) moveDecoy(p string, isDir bool) {
	if isDir {
		pl.mount(Mount{Kind: MountDir, Target: GuardDir + p, Mode: 0o555})
		pl.guarded = append(pl.guarded, GuardDir+p)
	} else {
		pl.decoy(GuardDir+p, 0o444)
	}
	pl.privateDirs(path.Dir(p))
	pl.etcDir(path.Dir(p))
	pl.mount(Mount{Kind: MountSymlink, Target: p, Data: GuardDir + p})
	pl.files[p] = true
	pl.elsewhere = append(pl.elsewhere, p)
}

func (pl *planner) guard(p string) error {
	p = pl.canon(p)
	if pl.isGuarded(p) || pl.files[p] {
		return nil
	}
	if under("/etc/ringfence", p) {
		return fmt.Errorf("%w: %s cannot be guarded: the sandbox's certificates are there", ErrPlan, p)
	}
	a := pl.area(p)
	for _, b := range pl.areas {
		if under(b.at, p) {
			pl.note("guarded path %s is not hidden: the profile shows %s", p, b.at)
			return nil
		}
	}
	switch a.kind {
	case regionKernel:
		return nil
	case regionRoot:
		pl.decoy(p, 0o444)
	case regionTmpfs:
		pl.moveDecoy(p, false)
	case regionHost, regionOverlay, regionShared:
		return pl.guardHost(p, a)
	}
	return nil
}

func (pl *planner) decoy(p string, mode uint32) {
	pl.mount(Mount{Kind: MountFile, Target: p, Mode: mode})
	pl.guarded = append(pl.guarded, p)
	pl.files[p] = true
}

// guardHost covers a path that exists in a directory of the host. A symbolic
// link is left alone, and what it points to is covered instead.
func (pl *planner) guardHost(p string, a area) error {
	var mode uint32 = 0o444
	if a.kind == regionShared {
		mode = 0
	}
	st, err := statBeneath(a.host, strings.TrimPrefix(p, a.at))
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil
	case errors.Is(err, unix.EACCES) && pl.in.Caller != nil && a.kind != regionShared:
		// Closed to the caller, hence to the agent, who cannot open it up in a
		// read-only mount. In a writable one it could: there this is an error.
		return nil
	case errors.Is(err, unix.ELOOP):
		return pl.guardTarget(p, a)
	case err != nil:
		return fmt.Errorf("confine: guarded path %s: %w", p, err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return pl.guardTarget(p, a)
	case a.kind == regionOverlay:
		pl.moveDecoy(p, isDir)
	case isDir:
		if mode != 0 {
			mode = 0o555
		}
		pl.mount(Mount{Kind: MountTmpfs, Target: p, Size: 4 << 10, Mode: mode, ReadOnly: true})
		pl.guarded = append(pl.guarded, p)
		pl.files[p] = true
	default:
		pl.decoy(p, mode)
	}
	return nil
}

// guardTarget covers what a link leads to. A link in a directory that the
// agent may write can be the agent's own, of an earlier run: it hides nothing
// but a file of such a directory, or anybody's programs would be covered.
func (pl *planner) guardTarget(p string, a area) error {
	to, err := filepath.EvalSymlinks(p)
	if err != nil || to == p {
		return nil // dangling, or closed to the caller: nothing to hide
	}
	if a.kind == regionShared {
		fi, err := os.Lstat(to)
		if err != nil || !fi.Mode().IsRegular() || pl.area(pl.canon(to)).kind != regionShared {
			return nil
		}
	}
	return pl.guard(to)
}

// statBeneath looks at rel below dir without following any link.
func statBeneath(dir *os.File, rel string) (*unix.Stat_t, error) {
	fd, err := rawFD(dir)
	if err != nil {
		return nil, err
	}
	f, err := unix.Openat2(fd, strings.TrimPrefix(rel, "/"), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(f)
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return nil, err
	}
	return &st, nil
}

// planRules turns the areas into Landlock rules. Landlock has no exceptions, so
// a read-only directory with guarded paths in it is granted child by child.
func (pl *planner) planRules() error {
	if pl.in.Walls.UnixSockets && LandlockABI() < 9 {
		pl.note("unix sockets that host programs keep inside the workspace can be reached (needs Landlock ABI 9, Linux 7.1)")
	}
	ll := &pl.p.Spec.Landlock
	ll.MinABI = max(1, pl.in.Walls.MinLandlockABI)
	ll.Rules = append(ll.Rules, LandlockRule{Path: "/", Access: "list"})
	for _, a := range pl.areas {
		if a.access == "" {
			continue
		}
		if a.host == nil || a.kind == regionShared || !pl.guardsBelow(a.at) {
			ll.Rules = append(ll.Rules, LandlockRule{Path: a.at, Access: a.access})
			continue
		}
		if err := pl.expand(a, a.at); err != nil {
			return err
		}
	}
	own := make([]string, 0, len(pl.files))
	for p := range pl.files {
		if !pl.isGuarded(p) {
			own = append(own, p)
		}
	}
	sort.Strings(own)
	for _, p := range own {
		if a := pl.area(p); a.kind == regionOverlay && pl.guardsBelow(a.at) || a.kind == regionRoot {
			ll.Rules = append(ll.Rules, LandlockRule{Path: p, Access: "r"})
		}
	}
	return nil
}

func (pl *planner) guardsBelow(dir string) bool {
	for _, g := range pl.guarded {
		if g != dir && under(g, dir) {
			return true
		}
	}
	return false
}

func (pl *planner) expand(a area, dir string) error {
	fd, err := rawFD(a.host)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/self/fd/%d%s", fd, strings.TrimPrefix(dir, a.at)))
	if err != nil {
		return fmt.Errorf("confine: list %s: %w", dir, err)
	}
	for _, e := range entries {
		child := path.Join(dir, e.Name())
		switch {
		case pl.isGuarded(child), e.Type()&fs.ModeSymlink != 0, pl.area(child).at != a.at:
		case e.IsDir() && pl.guardsBelow(child):
			if err := pl.expand(a, child); err != nil {
				return err
			}
		default:
			pl.p.Spec.Landlock.Rules = append(pl.p.Spec.Landlock.Rules, LandlockRule{Path: child, Access: a.access, Optional: true})
		}
	}
	return nil
}
