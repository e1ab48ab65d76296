// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/ringfence/ringfence/pkg/confine"
	"golang.org/x/sys/unix"
)

// builder puts a root together below one mount. Beside it, in the old root,
// the stash holds overlay layers and the sources of single-file mounts; it goes
// with the old root.
type builder struct {
	root    int    // O_PATH descriptor of the mount that becomes /
	stash   int    // likewise of a tmpfs
	stashAt string // where it is mounted in the old root
	userns  bool
	fds     []*os.File
	serial  int
}

// buildRoot replaces the process's root by the one in spec. The old root is
// gone when it returns without error.
func buildRoot(spec *confine.Spec, fds []*os.File) error {
	unix.Umask(0) // modes below are meant as written
	defer unix.Umask(0o022)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	b := &builder{fds: fds, userns: spec.Identity.UserNS}
	if err := b.start(spec.RootFD); err != nil {
		return err
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if err := b.apply(m); err != nil {
			return fmt.Errorf("mount %s (%s): %w", m.Target, m.Kind, err)
		}
	}
	if err := b.maskKernel(); err != nil {
		return err
	}
	return b.finish()
}

// start mounts the root and the stash over directories that every host has.
func (b *builder) start(rootFD int) error {
	root, err := b.fd(rootFD)
	if err != nil {
		return fmt.Errorf("root: %w", err)
	}
	b.root = int(root.Fd())
	b.stash, err = newFS("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, "mode", "0755", "size", "33554432")
	if err != nil {
		return fmt.Errorf("stash: %w", err)
	}
	places := []string{"/tmp", "/mnt", "/run", "/var", "/dev", "/proc"}
	for _, m := range []int{b.root, b.stash} {
		err := error(unix.ENOENT)
		for err != nil && len(places) > 0 {
			b.stashAt, places = places[0], places[1:]
			err = unix.MoveMount(m, "", unix.AT_FDCWD, b.stashAt, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
		if err != nil {
			return fmt.Errorf("attach the new root: %w", err)
		}
	}
	return nil
}

func (b *builder) apply(m *confine.Mount) error {
	if !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" {
		return errors.New("target is not a clean absolute path")
	}
	switch m.Kind {
	case confine.MountFD:
		f, err := b.fd(m.FD)
		if err != nil {
			return err
		}
		return b.attach(int(f.Fd()), m.Target, m.IsFile)
	case confine.MountBind:
		return b.bindOver(m)
	case confine.MountOverlay:
		return b.overlay(m)
	case confine.MountTmpfs:
		return b.tmpfs(m)
	case confine.MountProc:
		return b.fresh(m, "proc", "hidepid", m.Data)
	case confine.MountSysfs:
		return b.fresh(m, "sysfs")
	case confine.MountMqueue:
		return b.fresh(m, "mqueue")
	case confine.MountDevpts:
		return b.devpts(m)
	case confine.MountDir:
		return b.dir(m)
	case confine.MountFile:
		return b.file(m)
	case confine.MountSymlink:
		return b.symlink(m)
	}
	return errors.New("unknown kind")
}

func (b *builder) fd(n int) (*os.File, error) {
	if n < 0 || n >= len(b.fds) {
		return nil, fmt.Errorf("no descriptor %d", n)
	}
	return b.fds[n], nil
}

// newFS makes a detached mount of a fresh file system; opts are key, value
// pairs, and a value of "" makes a flag.
func newFS(kind string, attr int, opts ...string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", kind, err)
	}
	defer unix.Close(fs)
	opts = append([]string{"source", kind}, opts...)
	for i := 0; i+1 < len(opts); i += 2 {
		if opts[i+1] == "" {
			err = unix.FsconfigSetFlag(fs, opts[i])
		} else {
			err = unix.FsconfigSetString(fs, opts[i], opts[i+1])
		}
		if err != nil {
			return -1, fmt.Errorf("%s option %s=%s: %w", kind, opts[i], opts[i+1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create %s: %w", kind, err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, fmt.Errorf("fsmount %s: %w", kind, err)
	}
	return m, nil
}

// open resolves target inside the new root without following any link: what
// lies there may belong to the agent.
func (b *builder) open(target string, flags uint64) (int, error) {
	rel := strings.TrimPrefix(target, "/")
	if rel == "" {
		rel = "."
	}
	return unix.Openat2(b.root, rel, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// parent opens the directory that target lies in, making it if need be.
func (b *builder) parent(target string) (int, error) {
	dir := path.Dir(target)
	fd, err := b.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	up, err := b.parent(dir)
	if err != nil {
		return -1, err
	}
	defer unix.Close(up)
	if err := unix.Mkdirat(up, path.Base(dir), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, fmt.Errorf("make %s: %w", dir, err)
	}
	return b.open(dir, unix.O_PATH|unix.O_DIRECTORY)
}

// attach moves a detached mount to target, making the mount point.
func (b *builder) attach(mount int, target string, isFile bool) error {
	fd, err := b.open(target, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		fd, err = b.mountPoint(target, isFile)
	}
	if err != nil {
		return fmt.Errorf("mount point: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(mount, "", fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

func (b *builder) mountPoint(target string, isFile bool) (int, error) {
	up, err := b.parent(target)
	if err != nil {
		return -1, err
	}
	defer unix.Close(up)
	if isFile {
		fd, err := unix.Openat(up, path.Base(target), unix.O_CREAT|unix.O_EXCL|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o444)
		if err != nil {
			return -1, err
		}
		unix.Close(fd)
	} else if err := unix.Mkdirat(up, path.Base(target), 0o755); err != nil {
		return -1, err
	}
	return b.open(target, unix.O_PATH|unix.O_NOFOLLOW)
}

// finish leaves the old root, and the stash with it.
func (b *builder) finish() error {
	if err := unix.Fchdir(b.root); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	// "." is now the old root, stacked on the new one.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	unix.Close(b.stash)
	return nil
}
