// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"slices"
	"strings"
)

// ownDir is where the files lie that describe a sandbox to its programs.
const ownDir = "/etc/ringfence"

// planImages takes out of the plan whatever lies in a file system that the
// agent cannot write, and plans that file system as a whole: the root, what is
// laid over a directory of the host, and every read-only tmpfs.
func (pl *planner) planImages() error {
	s := &pl.p.Spec
	// Parents before children; equal depth keeps the order of planning.
	slices.SortStableFunc(s.Mounts, func(a, b Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	images := map[string]*image{"/": {at: "/", mode: 0o755}}
	for _, m := range s.Mounts {
		switch {
		case m.Kind == MountOverlay:
			images[m.Target] = &image{at: m.Target, mode: 0o755}
		case m.Kind == MountTmpfs && m.ReadOnly:
			images[m.Target] = &image{at: m.Target, mode: m.Mode}
		}
	}
	all := s.Mounts
	s.Mounts = make([]Mount, 0, len(all))
	for _, m := range all {
		im := images[cover(all, m.Target)]
		switch {
		case isEntry(m.Kind):
			if im == nil {
				s.Mounts = append(s.Mounts, m)
				continue
			}
		case im != nil && m.Kind != MountBind && !isOverlay(all, im.at):
			s.Mounts = append(s.Mounts, m)
			point := Mount{Kind: MountDir, Target: m.Target, Mode: 0o755}
			if m.IsFile {
				point.Kind, point.Mode = MountFile, 0o444
			}
			m = point
		default:
			s.Mounts = append(s.Mounts, m)
			continue
		}
		im.entries = append(im.entries, m)
		if parts, ok := pl.blobs[m.Target]; ok {
			if im.blobs == nil {
				im.blobs = map[string][][]byte{}
			}
			im.blobs[m.Target] = parts
		}
	}
	return pl.makeImages(images)
}

func (pl *planner) makeImages(images map[string]*image) error {
	cache, s := pl.shared(), &pl.p.Spec
	root, err := cache.get(images["/"])
	if err != nil {
		return err
	}
	s.RootFD = pl.p.add(root)
	for i := range s.Mounts {
		m := &s.Mounts[i]
		im := images[m.Target]
		if im == nil || m.Kind != MountOverlay && m.Kind != MountTmpfs {
			continue
		}
		f, err := cache.get(im)
		if err != nil {
			return err
		}
		if m.Kind == MountOverlay {
			m.TopFD = pl.p.add(f)
			continue
		}
		*m = Mount{Kind: MountFD, Target: m.Target, FD: pl.p.add(f), ReadOnly: true}
	}
	return nil
}

// shared is what outlives this plan, if the caller keeps it.
func (pl *planner) shared() *Images {
	if pl.in.Images != nil {
		return pl.in.Images
	}
	return &pl.images
}

// isEntry says that a step makes something in a mount and is none itself.
func isEntry(k MountKind) bool { return k == MountDir || k == MountFile || k == MountSymlink }

func isOverlay(all []Mount, at string) bool {
	return slices.ContainsFunc(all, func(m Mount) bool { return m.Kind == MountOverlay && m.Target == at })
}

// cover finds the mount that p lies in, itself not counted.
func cover(all []Mount, p string) string {
	best := "/"
	for i := range all {
		t := all[i].Target
		if len(t) > len(best) && t != p && !isEntry(all[i].Kind) && all[i].Kind != MountBind && under(p, t) {
			best = t
		}
	}
	return best
}

// blob plans a large file below ownDir. The parts are not copied.
func (pl *planner) blob(p string, parts [][]byte) error {
	if !under(p, ownDir) {
		return fmt.Errorf("%w: %s does not lie in %s", ErrPlan, p, ownDir)
	}
	if pl.isGuarded(p) {
		return nil // the profile wants a decoy there
	}
	pl.blobs[p] = slices.Clone(parts)
	pl.ownFile(p, "")
	return nil
}
