// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoIdmap says that a file system cannot be shown with other owners
// (MOUNT_ATTR_IDMAP: ext4, xfs, btrfs, tmpfs from 5.12 to 6.3, overlay 5.19,
// never NFS or 9p).
var ErrNoIdmap = errors.New("file system does not support idmapped mounts")

// attrs are the properties of one detached mount.
type attrs struct {
	readOnly, exec, dev, recursive bool
	userns                         *os.File // idmap, nil = none
}

// detach clones the mount under f (an O_PATH descriptor) into a detached,
// private mount with the given properties. nosuid always.
func detach(f *os.File, a attrs) (*os.File, error) {
	fd, err := rawFD(f)
	if err != nil {
		return nil, err
	}
	flags := uint(unix.OPEN_TREE_CLONE | unix.O_CLOEXEC | unix.AT_EMPTY_PATH)
	set := uint(unix.AT_EMPTY_PATH)
	if a.recursive {
		flags |= unix.AT_RECURSIVE
		set |= unix.AT_RECURSIVE
	}
	m, err := unix.OpenTree(fd, "", flags)
	if err != nil {
		if errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("confine: clone mount of %s: %w (is it in another mount namespace than the daemon?)", f.Name(), err)
		}
		return nil, fmt.Errorf("confine: clone mount of %s: %w", f.Name(), err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_PRIVATE}
	if a.readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if !a.exec {
		attr.Attr_set |= unix.MOUNT_ATTR_NOEXEC
	}
	if !a.dev {
		attr.Attr_set |= unix.MOUNT_ATTR_NODEV
	}
	if a.userns != nil {
		ufd, err := rawFD(a.userns)
		if err != nil {
			unix.Close(m)
			return nil, err
		}
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(ufd)
	}
	if err := unix.MountSetattr(m, "", set, &attr); err != nil {
		unix.Close(m)
		if a.userns != nil && errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("confine: %s is on %s: %w; use a directory on ext4, xfs or btrfs, or run as the directory's owner",
				f.Name(), fsName(fd), ErrNoIdmap)
		}
		return nil, fmt.Errorf("confine: set attributes of mount of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(m), f.Name()), nil
}

// fsName names the file system behind fd as mountinfo does.
func fsName(fd int) string {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return "an unknown file system"
	}
	id := ""
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id = strings.TrimSpace(v)
		}
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "an unknown file system"
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if before, after, ok := strings.Cut(sc.Text(), " - "); ok && id != "" && strings.HasPrefix(before, id+" ") {
			if name, _, ok := strings.Cut(after, " "); ok {
				return name
			}
		}
	}
	return "an unknown file system"
}

// withRights runs fn with the caller's rights to files when there is an
// unprivileged caller: the keeper must not lend its own, neither to open a path
// nor to say whether it is there.
func withRights(as *Credential, fn func() error) error {
	if as == nil {
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		// The thread ends with the goroutine, because it is never unlocked:
		// nothing else ever runs with these credentials.
		runtime.LockOSThread()
		err := becomeForFiles(as)
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// openPath opens p with O_PATH, following links, as somebody who may read it.
func openPath(p string, as *Credential) (f *os.File, err error) {
	err = withRights(as, func() (err error) {
		if f, err = os.OpenFile(p, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil || as == nil {
			return err
		}
		fd, err := rawFD(f)
		if err == nil {
			err = unix.Faccessat(fd, "", unix.R_OK, unix.AT_EMPTY_PATH|unix.AT_EACCESS)
		}
		if err != nil {
			f.Close()
			return &os.PathError{Op: "open", Path: p, Err: err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// MayUse says whether somebody (nil is root) may list and enter a directory
// that is theirs to name: opening it with O_PATH asks nothing of it.
func MayUse(dir *os.File, as *Credential) error {
	if as == nil {
		return nil
	}
	fd, err := rawFD(dir)
	if err != nil {
		return err
	}
	return withRights(as, func() error {
		return unix.Faccessat(fd, "", unix.R_OK|unix.X_OK, unix.AT_EMPTY_PATH|unix.AT_EACCESS)
	})
}

// Visible says whether somebody (nil is root) can see that there is something
// at p. Whatever lies in a directory that is closed to them they cannot see.
func Visible(p string, as *Credential) (bool, error) {
	there := false
	err := withRights(as, func() error {
		_, err := os.Stat(p)
		there = err == nil
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("confine: %w", err)
	}
	return there, nil
}

// becomeForFiles gives the calling thread the caller's identity for file
// access. Raw calls: the wrappers would change every thread.
func becomeForFiles(as *Credential) error {
	groups := append([]uint32{as.GID}, as.Groups...)
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return os.NewSyscallError("setgroups", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, ^uintptr(0), uintptr(as.GID), ^uintptr(0)); e != 0 {
		return os.NewSyscallError("setresgid", e)
	}
	// Leaving effective uid 0 clears the effective capabilities.
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(as.UID), ^uintptr(0)); e != 0 {
		return os.NewSyscallError("setresuid", e)
	}
	return nil
}
