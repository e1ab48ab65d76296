// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxImages bounds how many file systems an Images holds on to.
const maxImages = 64

// Images remembers the small read-only file systems of which views are made:
// the root with its mount points and decoys, what lies over /etc, /dev. They
// hold nothing of a single sandbox but its account, so that the launches of a
// keeper share them; each view gets a mount of its own. The zero value is
// ready; it is safe for concurrent use.
type Images struct {
	mu  sync.Mutex
	all map[string]*os.File

	stores   []string // see javaStores
	storesAt time.Time
}

// storesStay is for how long found trust stores are taken for all there are.
const storesStay = 10 * time.Second

// javaStores lists the trust stores of the host's Java runtimes. Looking for
// them reads a dozen directories, and a runtime is rarely installed.
func (c *Images) javaStores() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.storesAt.IsZero() && time.Since(c.storesAt) < storesStay {
		return c.stores
	}
	c.stores, c.storesAt = nil, time.Now()
	for _, pattern := range javaPaths {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue // the patterns are ours and well-formed
		}
		c.stores = append(c.stores, found...)
	}
	return c.stores
}

// Close lets go of all. No Plan with this Images may be in progress.
func (c *Images) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.all {
		f.Close()
	}
	c.all = nil
}

// get returns a mount of the image, which is the caller's.
func (c *Images) get(im *image) (*os.File, error) {
	if len(im.blobs) > 0 {
		return im.build() // it is one sandbox's alone
	}
	key := im.key()
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.all[key]; f != nil {
		return cloneMount(f)
	}
	f, err := im.build()
	if err != nil {
		return nil, err
	}
	m, err := cloneMount(f)
	if errors.Is(err, unix.EINVAL) {
		return f, nil // before Linux 6.15 what is not attached cannot be cloned
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if c.all == nil || len(c.all) >= maxImages {
		// Files in use elsewhere are closed by their finaliser.
		c.all = map[string]*os.File{}
	}
	c.all[key] = f
	return m, nil
}

func cloneMount(f *os.File) (*os.File, error) {
	fd, err := rawFD(f)
	if err != nil {
		return nil, err
	}
	m, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.O_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(m), f.Name()), nil
}

// image is the content of one read-only tmpfs, in terms of the view.
type image struct {
	at      string // where it is shown
	mode    uint32
	entries []Mount             // MountDir, MountFile, MountSymlink below at
	blobs   map[string][][]byte // content of files, by target
}

// key names the content.
func (im *image) key() string {
	w := writer{}
	w.str(im.at)
	w.uint(uint64(im.mode))
	for i := range im.entries {
		w.mount(&im.entries[i])
	}
	return string(w.b)
}

// build makes the file system, detached and read-only.
func (im *image) build() (*os.File, error) {
	// A child born now would hold a file open for writing until it executes, and
	// the mount could not be made read-only.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	root, err := newTmpfs(im.mode)
	if err != nil {
		return nil, err
	}
	fd, err := rawFD(root)
	for i := range im.entries {
		if err == nil {
			err = im.write(fd, &im.entries[i])
		}
	}
	if err == nil {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("confine: image of %s: %w", im.at, err)
	}
	return root, nil
}

// newTmpfs makes a detached file system that nobody else has seen.
func newTmpfs(mode uint32) (*os.File, error) {
	fsfd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("confine: tmpfs: %w", err)
	}
	defer unix.Close(fsfd)
	for _, o := range [][2]string{{"source", "tmpfs"}, {"size", "16777216"}, {"mode", fmt.Sprintf("%o", mode)}} {
		if err := unix.FsconfigSetString(fsfd, o[0], o[1]); err != nil {
			return nil, fmt.Errorf("confine: tmpfs option %s: %w", o[0], err)
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

// write makes one entry below root.
func (im *image) write(root int, m *Mount) error {
	rel := strings.TrimPrefix(strings.TrimPrefix(m.Target, im.at), "/")
	dir, err := makeParents(root, path.Dir(rel))
	if err != nil {
		return fmt.Errorf("%s: %w", m.Target, err)
	}
	defer unix.Close(dir)
	name := path.Base(rel)
	switch m.Kind {
	case MountDir:
		if err = unix.Mkdirat(dir, name, m.Mode); errors.Is(err, unix.EEXIST) {
			return nil
		}
		if err == nil {
			err = unix.Fchmodat(dir, name, m.Mode, 0) // whatever our umask is
		}
	case MountSymlink:
		err = unix.Symlinkat(m.Data, dir, name)
	case MountFile:
		parts, ok := im.blobs[m.Target]
		if !ok && m.Data != "" {
			parts = [][]byte{[]byte(m.Data)}
		}
		err = writeParts(dir, name, m.Mode, parts)
	default:
		err = fmt.Errorf("%w: a %s cannot lie in a read-only image", ErrPlan, m.Kind)
	}
	if err == nil && (m.UID != 0 || m.GID != 0) {
		err = fmt.Errorf("%w: only root owns what cannot be written", ErrPlan)
	}
	if err != nil {
		return &fs.PathError{Op: "make", Path: m.Target, Err: err}
	}
	return nil
}

// makeParents opens the directory rel, making what is missing. It follows no
// link: an absolute one would lead to the host's own files.
func makeParents(root int, rel string) (int, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(root, rel, how)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	up, err := makeParents(root, path.Dir(rel))
	if err != nil {
		return -1, err
	}
	defer unix.Close(up)
	name := path.Base(rel)
	if err := unix.Mkdirat(up, name, 0o755); err != nil {
		return -1, err
	}
	if err := unix.Fchmodat(up, name, 0o755, 0); err != nil {
		return -1, err
	}
	return unix.Openat2(up, name, how)
}

func writeParts(dir int, name string, mode uint32, parts [][]byte) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	for _, b := range parts {
		for len(b) > 0 {
			n, err := unix.Write(fd, b)
			if err != nil {
				return err
			}
			b = b[n:]
		}
	}
	return nil
}
