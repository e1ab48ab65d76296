// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/confine"
	"golang.org/x/sys/unix"
)

func octal(mode uint32) string { return "0" + strconv.FormatUint(uint64(mode), 8) }

const (
	bytesPerInode = 8 << 10
	minInodes     = 1 << 10
)

func (b *builder) tmpfs(m *confine.Mount) error {
	attr := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	if !m.Exec {
		attr |= unix.MOUNT_ATTR_NOEXEC
	}
	// Empty files cost the host memory that the size does not count.
	inodes := max(minInodes, m.Size/bytesPerInode)
	fd, err := newFS("tmpfs", attr, "mode", octal(m.Mode), "size", strconv.FormatInt(m.Size, 10), "nr_inodes", strconv.FormatInt(inodes, 10),
		"uid", strconv.FormatUint(uint64(m.UID), 10), "gid", strconv.FormatUint(uint64(m.GID), 10))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if m.ReadOnly {
		b.sealed = append(b.sealed, m.Target)
	}
	return b.attach(fd, m.Target, false)
}

// fresh mounts a kernel file system of the sandbox's own namespaces.
func (b *builder) fresh(m *confine.Mount, kind string, opts ...string) error {
	attr := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if m.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if len(opts) == 2 && opts[1] == "" {
		opts = nil
	}
	fd, err := newFS(kind, attr, opts...)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return b.attach(fd, m.Target, false)
}

func (b *builder) devpts(m *confine.Mount) error {
	opts := []string{"ptmxmode", "0666", "mode", "0620"}
	if !b.userns {
		opts = append(opts, "gid", "5") // tty; a user namespace maps only gid 0
	}
	fd, err := newFS("devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, opts...)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return b.attach(fd, m.Target, false)
}

func (b *builder) dir(m *confine.Mount) error {
	up, err := b.parent(m.Target)
	if err != nil {
		return err
	}
	defer unix.Close(up)
	return makeDir(up, path.Base(m.Target), m)
}

func makeDir(up int, name string, m *confine.Mount) error {
	if err := unix.Mkdirat(up, name, m.Mode); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	}
	return unix.Fchownat(up, name, int(m.UID), int(m.GID), unix.AT_SYMLINK_NOFOLLOW)
}

func (b *builder) symlink(m *confine.Mount) error {
	up, err := b.parent(m.Target)
	if err != nil {
		return err
	}
	defer unix.Close(up)
	err = unix.Symlinkat(m.Data, up, path.Base(m.Target))
	if errors.Is(err, unix.EEXIST) {
		// A directory of the host that brings its own link, such as /var/run.
		var st unix.Stat_t
		if unix.Fstatat(up, path.Base(m.Target), &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return nil
		}
	}
	return err
}

// file makes a regular file, or binds one over what an earlier mount shows.
func (b *builder) file(m *confine.Mount) error {
	fd, err := b.open(m.Target, unix.O_PATH|unix.O_NOFOLLOW)
	if err == nil {
		defer unix.Close(fd)
		return b.fileOver(m, fd)
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	up, err := b.parent(m.Target)
	if err != nil {
		return err
	}
	defer unix.Close(up)
	return writeFile(up, path.Base(m.Target), m)
}

func writeFile(up int, name string, m *confine.Mount) error {
	fd, err := unix.Openat(up, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, m.Mode)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for data := []byte(m.Data); len(data) > 0; {
		n, err := unix.Write(fd, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// fileOver binds a file from the stash over the one at fd.
func (b *builder) fileOver(m *confine.Mount, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	name, err := b.stashFile(m)
	if err != nil {
		return err
	}
	return b.bind(name, fd, "")
}

// stashFile writes m's content under a new name in the stash.
func (b *builder) stashFile(m *confine.Mount) (string, error) {
	dir, err := b.open("/"+stash, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	b.serial++
	name := "file" + strconv.Itoa(b.serial)
	return "/" + stash + "/" + name, writeFile(dir, name, m)
}

// bindOver shows one file of the new root at a second place.
func (b *builder) bindOver(m *confine.Mount) error {
	fd, err := b.open(m.Target, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return b.bind(m.Data, fd, "")
}

// bind clones what is at source, read-only, and moves it to (to, name).
func (b *builder) bind(source string, to int, name string) error {
	src, err := b.open(source, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	m, err := unix.OpenTree(src, "", unix.OPEN_TREE_CLONE|unix.O_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("clone %s: %w", source, err)
	}
	defer unix.Close(m)
	attr := unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
	}
	if err := unix.MountSetattr(m, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("protect %s: %w", source, err)
	}
	return unix.MoveMount(m, "", to, name, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// overlay shows the detached directory m.FD with the files, directories and
// links that lie directly in it (not in a later mount below it) on top.
func (b *builder) overlay(m *confine.Mount, i int, done []bool) error {
	f, err := b.fd(m.FD)
	if err != nil {
		return err
	}
	b.serial++
	base := "/" + stash + "/layer" + strconv.Itoa(b.serial)
	lower, top := base+".lower", base+".top"
	if err := b.attach(int(f.Fd()), lower, false); err != nil {
		return err
	}
	if err := b.dir(&confine.Mount{Target: top, Mode: 0o755}); err != nil {
		return err
	}
	for j := i + 1; j < len(b.mounts); j++ {
		s := b.mounts[j]
		if !strings.HasPrefix(s.Target, m.Target+"/") || b.covered(i, s.Target) {
			continue
		}
		if s.Kind != confine.MountDir && s.Kind != confine.MountFile && s.Kind != confine.MountSymlink {
			continue
		}
		s.Target = top + strings.TrimPrefix(s.Target, m.Target)
		if err := b.apply(&s, j, done); err != nil {
			return fmt.Errorf("%s: %w", b.mounts[j].Target, err)
		}
		done[j] = true
	}
	attr := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_RDONLY
	if !m.Exec {
		attr |= unix.MOUNT_ATTR_NOEXEC
	}
	fd, err := newFS("overlay", attr, "lowerdir", b.at+top+":"+b.at+lower)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("the kernel has no overlay file system (modprobe overlay): %w", err)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return b.attach(fd, m.Target, false)
}

// covered says whether another mount below overlay i holds target.
func (b *builder) covered(i int, target string) bool {
	for j := range b.mounts {
		switch b.mounts[j].Kind {
		case confine.MountDir, confine.MountFile, confine.MountSymlink:
			continue
		}
		t := b.mounts[j].Target
		if j != i && strings.HasPrefix(t, b.mounts[i].Target+"/") && strings.HasPrefix(target, t+"/") {
			return true
		}
	}
	return false
}

// Parts of /proc and /sys that the agent may look at but not change, and parts
// it may not even look at.
var (
	readOnlyKernel = []string{
		"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs",
	}
	maskedKernel = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/kallsyms", "/proc/kmsg",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/fs/selinux",
	}
)

// maskKernel covers them; what the kernel does not have is skipped.
func (b *builder) maskKernel() error {
	for _, p := range readOnlyKernel {
		fd, err := b.open(p, unix.O_PATH|unix.O_NOFOLLOW)
		if err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			return fmt.Errorf("protect %s: %w", p, err)
		}
		err = b.bind(p, fd, "")
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("protect %s: %w", p, err)
		}
	}
	file, err := b.stashFile(&confine.Mount{Mode: 0o444})
	if err != nil {
		return err
	}
	dir := "/" + stash + "/empty"
	if err := b.dir(&confine.Mount{Target: dir, Mode: 0o555}); err != nil {
		return err
	}
	for _, p := range maskedKernel {
		if err := b.mask(p, file, dir); err != nil {
			return fmt.Errorf("mask %s: %w", p, err)
		}
	}
	return nil
}

func (b *builder) mask(p, file, dir string) error {
	fd, err := b.open(p, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	source := file
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		source = dir
	}
	return b.bind(source, fd, "")
}
