// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownDir is where the files lie that describe a sandbox to its programs.
const ownDir = "/etc/ringfence"

// planOwnMount makes the file system shown at ownDir and writes into it what
// was planned there. It is done here and not by init because the files are
// large: as part of the specification each would be copied five times.
func (pl *planner) planOwnMount() error {
	root, err := newTmpfs(ownSize)
	if err != nil {
		return err
	}
	// A child born now would hold a file open for writing until it executes, and
	// the mount could not be sealed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	rest := pl.p.Spec.Mounts[:0]
	for _, m := range pl.p.Spec.Mounts {
		if m.Target == ownDir || !under(m.Target, ownDir) {
			rest = append(rest, m)
			continue
		}
		if err == nil {
			err = pl.writeOwn(root, &m)
		}
	}
	pl.p.Spec.Mounts = rest
	if err == nil {
		err = sealMount(root)
	}
	if err != nil {
		root.Close()
		return fmt.Errorf("confine: %s: %w", ownDir, err)
	}
	pl.mount(Mount{Kind: MountFD, Target: ownDir, FD: pl.p.add(root), ReadOnly: true})
	return nil
}

const ownSize = "size=4194304"

// newTmpfs makes a detached file system that nobody else has seen.
func newTmpfs(options ...string) (*os.File, error) {
	fsfd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("confine: tmpfs: %w", err)
	}
	defer unix.Close(fsfd)
	for _, o := range append(options, "source=tmpfs", "mode=0755") {
		k, v, _ := strings.Cut(o, "=")
		if err := unix.FsconfigSetString(fsfd, k, v); err != nil {
			return nil, fmt.Errorf("confine: tmpfs %s: %w", o, err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, fmt.Errorf("confine: tmpfs: %w", err)
	}
	m, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("confine: tmpfs: %w", err)
	}
	return os.NewFile(uintptr(m), "tmpfs"), nil
}

// sealMount makes a detached mount read-only for good.
func sealMount(m *os.File) error {
	fd, err := rawFD(m)
	if err != nil {
		return err
	}
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// writeOwn makes what m describes. Only the planner's own paths come here, and
// nobody else can reach the file system yet.
func (pl *planner) writeOwn(root *os.File, m *Mount) error {
	fd, err := rawFD(root)
	if err != nil {
		return err
	}
	rel := strings.TrimPrefix(m.Target, ownDir+"/")
	if dir := path.Dir(rel); dir != "." && !pl.ownDirs[dir] {
		if err := pl.writeOwn(root, &Mount{Kind: MountDir, Target: path.Join(ownDir, dir), Mode: 0o755}); err != nil {
			return err
		}
	}
	switch m.Kind {
	case MountDir:
		if pl.ownDirs[rel] {
			return nil
		}
		pl.ownDirs[rel] = true
		if err := unix.Mkdirat(fd, rel, m.Mode); err != nil {
			return &fs.PathError{Op: "mkdir", Path: m.Target, Err: err}
		}
		return unix.Fchmodat(fd, rel, m.Mode, 0)
	case MountSymlink:
		return unix.Symlinkat(m.Data, fd, rel)
	case MountFile:
		parts := pl.blobs[m.Target]
		if parts == nil {
			parts = [][]byte{[]byte(m.Data)}
		}
		return writeParts(fd, rel, m.Mode, parts)
	}
	return fmt.Errorf("%w: a %s cannot lie in %s", ErrPlan, m.Kind, ownDir)
}

func writeParts(dir int, name string, mode uint32, parts [][]byte) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return &fs.PathError{Op: "create", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, mode); err != nil { // whatever our umask is
		return &fs.PathError{Op: "chmod", Path: name, Err: err}
	}
	for _, b := range parts {
		for len(b) > 0 {
			n, err := unix.Write(fd, b)
			if err != nil {
				return &fs.PathError{Op: "write", Path: name, Err: err}
			}
			b = b[n:]
		}
	}
	return nil
}

// blob plans a large file below ownDir. The parts are not copied.
func (pl *planner) blob(p string, parts [][]byte) {
	if pl.isGuarded(p) {
		return // the profile wants a decoy there
	}
	pl.blobs[p] = slices.Clone(parts)
	pl.ownFile(p, "")
}
