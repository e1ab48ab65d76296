// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path"
	"strconv"

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
	b.serial++
	name := "file" + strconv.Itoa(b.serial)
	if err := writeFile(b.stash, name, m); err != nil {
		return err
	}
	src, err := unix.Openat(b.stash, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	return bind(src, fd)
}

// bindOver shows one file of the new root at a second place.
func (b *builder) bindOver(m *confine.Mount) error {
	fd, err := b.open(m.Target, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	src, err := b.open(m.Data, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Data, err)
	}
	defer unix.Close(src)
	return bind(src, fd)
}

// bind shows what is at src, read-only, at to as well.
func bind(src, to int) error {
	m, err := protected(src)
	if err != nil {
		return err
	}
	defer unix.Close(m)
	return unix.MoveMount(m, "", to, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// protected clones what is at src into a detached read-only mount.
func protected(src int) (int, error) {
	m, err := unix.OpenTree(src, "", unix.OPEN_TREE_CLONE|unix.O_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("clone: %w", err)
	}
	attr := unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
	}
	if err := unix.MountSetattr(m, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(m)
		return -1, fmt.Errorf("protect: %w", err)
	}
	return m, nil
}

// overlay shows the detached directory m.FD with m.TopFD on top. Both are
// attached to the stash while the overlay is made, for it takes paths.
func (b *builder) overlay(m *confine.Mount) error {
	b.serial++
	layers := ""
	for i, n := range []int{m.TopFD, m.FD} {
		f, err := b.fd(n)
		if err != nil {
			return err
		}
		name := "layer" + strconv.Itoa(b.serial) + "." + strconv.Itoa(i)
		if err := unix.Mkdirat(b.stash, name, 0o755); err != nil {
			return err
		}
		if err := unix.MoveMount(int(f.Fd()), "", b.stash, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("layer: %w", err)
		}
		if i > 0 {
			layers += ":"
		}
		layers += b.stashAt + "/" + name
	}
	attr := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_RDONLY
	if !m.Exec {
		attr |= unix.MOUNT_ATTR_NOEXEC
	}
	fd, err := newFS("overlay", attr, "lowerdir", layers)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("the kernel has no overlay file system (modprobe overlay): %w", err)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return b.attach(fd, m.Target, false)
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
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			err = bind(fd, fd)
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("protect %s: %w", p, err)
		}
	}
	if err := writeFile(b.stash, "empty", &confine.Mount{Mode: 0o444}); err != nil {
		return fmt.Errorf("mask: %w", err)
	}
	if err := unix.Mkdirat(b.stash, "none", 0o555); err != nil {
		return fmt.Errorf("mask: %w", err)
	}
	for _, p := range maskedKernel {
		if err := b.mask(p); err != nil {
			return fmt.Errorf("mask %s: %w", p, err)
		}
	}
	return nil
}

func (b *builder) mask(p string) error {
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
	source := "empty"
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		source = "none"
	}
	src, err := unix.Openat(b.stash, source, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	return bind(src, fd)
}
