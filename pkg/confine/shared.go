// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// expandHome replaces a leading "~/" by the caller's real home.
func (pl *planner) expandHome(p string) (string, error) {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		if !cleanAbs(pl.in.RealHome) {
			return "", fmt.Errorf("%w: %s: the caller has no home directory", ErrPlan, p)
		}
		p = path.Join(pl.in.RealHome, rest)
	}
	if p = path.Clean(p); !path.IsAbs(p) {
		return "", fmt.Errorf("%w: path %q is not absolute", ErrPlan, p)
	}
	return p, nil
}

// planShared adds the workspace, the binds in it, and the profile's own paths.
func (pl *planner) planShared() error {
	w := pl.in.Walls
	if w.Workspace != WorkspaceNone {
		ro := w.Workspace == WorkspaceReadOnly
		if err := pl.share(pl.in.Workspace, pl.in.WorkspaceTarget, ro, true); err != nil {
			return err
		}
	}
	for _, b := range pl.in.Binds {
		if !cleanAbs(b.Target) || !under(b.Target, pl.in.WorkspaceTarget) || w.Workspace == WorkspaceNone {
			return fmt.Errorf("%w: %q is not inside the workspace", ErrPlan, b.Target)
		}
		if err := pl.share(b.Source, b.Target, b.ReadOnly || w.Workspace == WorkspaceReadOnly, false); err != nil {
			return err
		}
	}
	type want struct {
		list  []string
		exec  bool
		write bool
	}
	for _, l := range []want{{w.Exec, true, false}, {w.Read, false, false}, {w.Write, false, true}} {
		for _, name := range l.list {
			if err := pl.addPath(name, l.exec, l.write); err != nil {
				return err
			}
		}
	}
	return nil
}

func (pl *planner) addPath(name string, exec, write bool) error {
	p, err := pl.expandHome(name)
	if err != nil {
		return err
	}
	target := pl.canon(p)
	switch a := pl.area(target); {
	case !write && (a.kind == regionHost || a.kind == regionOverlay) && (!exec || a.access == "rx"):
		return nil // shown already
	case a.kind == regionKernel || under(target, GuardDir) || target == "/":
		return fmt.Errorf("%w: %s cannot be granted", ErrPlan, name)
	case !write && a.kind == regionShared:
		return nil
	}
	if strings.HasPrefix(name, "~/") {
		pl.homeLink(strings.TrimPrefix(name, "~/"), target)
	}
	if !write {
		return pl.bindHost(p, target, pl.in.Caller, exec)
	}
	if err := checkTarget(target); err != nil {
		return err
	}
	f, err := openPath(p, pl.in.Caller)
	if err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	defer f.Close()
	return pl.share(f, target, false, true)
}

// share shows a directory or file of the caller, with its owner mapped to the
// agent when the caller is root.
func (pl *planner) share(f *os.File, target string, readOnly, newArea bool) error {
	fd, err := rawFD(f)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("confine: %s: %w", target, err)
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !dir && (newArea || st.Mode&unix.S_IFMT != unix.S_IFREG) {
		return fmt.Errorf("%w: %s is not a directory", ErrPlan, target)
	}
	a := attrs{readOnly: readOnly, exec: true}
	if pl.in.Caller == nil && (st.Uid != pl.in.HostUID || st.Gid != pl.in.HostGID) {
		if a.userns, err = pl.idmap(st.Uid, st.Gid); err != nil {
			return err
		}
	}
	m, err := detach(f, a)
	if err != nil {
		return err
	}
	pl.mount(Mount{Kind: MountFD, Target: target, FD: pl.p.add(m), IsFile: !dir, ReadOnly: readOnly, Exec: true})
	if newArea {
		access := "rwx"
		if readOnly {
			access = "rx"
		}
		host, err := pl.keep(f)
		if err != nil {
			return err
		}
		pl.areas = append(pl.areas, area{at: target, kind: regionShared, access: access, host: host})
	}
	return nil
}

// idmap returns the map from a directory's owner to the agent.
func (pl *planner) idmap(uid, gid uint32) (*os.File, error) {
	maps := pl.in.Idmaps
	if maps == nil {
		maps = &pl.maps
	}
	return maps.get(uid, gid, pl.in.HostUID, pl.in.HostGID)
}

// keep duplicates f for looking at the host until the plan is done.
func (pl *planner) keep(f *os.File) (*os.File, error) {
	d, err := dupFile(f)
	if err != nil {
		return nil, err
	}
	pl.kept = append(pl.kept, d)
	return d, nil
}
