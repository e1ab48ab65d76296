// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// tree is the workspace as a descriptor. Paths are relative to it, slash
// separated, without "." and ".."; "" is the root itself.
type tree struct {
	root *os.File // a real directory descriptor, not O_PATH
	path string   // where the root is on the host, "" if it has no path
}

// openTree reopens a directory, which may be an O_PATH descriptor. The caller
// keeps root and closes the tree.
func openTree(root *os.File) (*tree, error) {
	fd, err := unix.Openat(int(root.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("workspace: open root: %w", err)
	}
	t := &tree{root: os.NewFile(uintptr(fd), "workspace")}
	if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && strings.HasPrefix(name, "/") {
		t.path = name
	}
	return t, nil
}

func (t *tree) close() { t.root.Close() }

// at opens one name in a directory without following anything.
func at(dir *os.File, name string, flags int) (*os.File, error) {
	how := &unix.OpenHow{Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK), Resolve: beneath}
	if flags&unix.O_PATH != 0 {
		how.Flags &^= unix.O_NONBLOCK // openat2 takes few flags beside O_PATH
	}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), name, how)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
	}
}

// open opens a path component by component, so that its length is not bounded
// by PATH_MAX.
func (t *tree) open(rel string, flags int) (*os.File, error) {
	dir, err := at(t.root, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil || rel == "" {
		return dir, err
	}
	parts := strings.Split(rel, "/")
	for i, name := range parts {
		f := unix.O_PATH | unix.O_DIRECTORY
		if i == len(parts)-1 {
			f = flags
		}
		next, err := at(dir, name, f)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

// openDir opens a directory for listing and for use with *at calls.
func (t *tree) openDir(rel string) (*os.File, error) {
	return t.open(rel, unix.O_RDONLY|unix.O_DIRECTORY)
}

// parent opens the directory that holds rel and returns its last name.
func (t *tree) parent(rel string) (*os.File, string, error) {
	dir, name := path.Split(rel)
	f, err := t.openDir(strings.TrimSuffix(dir, "/"))
	return f, name, err
}

func lstat(dir *os.File, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func fstat(f *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st, err
}

func kindOf(st *unix.Stat_t) uint32 { return st.Mode & unix.S_IFMT }

var errNotRegular = errors.New("not a regular file")

// openRegular opens a file for reading after it was seen to be a regular one,
// and looks again at what it got.
func openRegular(dir *os.File, name string) (*os.File, unix.Stat_t, error) {
	st, err := lstat(dir, name)
	if err == nil && kindOf(&st) != unix.S_IFREG {
		err = errNotRegular
	}
	if err != nil {
		return nil, st, err
	}
	f, err := at(dir, name, unix.O_RDONLY|unix.O_NOCTTY)
	if err != nil {
		return nil, st, err
	}
	if st, err = fstat(f); err == nil && kindOf(&st) != unix.S_IFREG {
		err = errNotRegular
	}
	if err != nil {
		f.Close()
		return nil, st, err
	}
	return f, st, nil
}

var errTooBig = errors.New("file is larger than any file of its kind")

// readSmall reads a regular file of at most limit bytes.
func readSmall(dir *os.File, name string, limit int64) ([]byte, error) {
	f, _, err := openRegular(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errTooBig
	}
	return b, err
}

func readlink(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// locate turns a path that a file of the workspace mentions into one relative
// to the root. base is the directory the mention is relative to. ok is false
// when it leads out of the workspace. Symlinks are judged when it is opened.
func (t *tree) locate(base, target string) (rel string, ok bool) {
	if strings.ContainsRune(target, 0) || strings.HasPrefix(target, "~") {
		return "", false
	}
	if path.IsAbs(target) {
		clean := path.Clean(target)
		if t.path == "" || t.path == "/" {
			return "", false
		}
		if clean == t.path {
			return "", true
		}
		return strings.CutPrefix(clean, t.path+"/")
	}
	rel = path.Join(base, target)
	if rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	if rel == "." {
		rel = ""
	}
	return rel, true
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// dirOf is path.Dir with "" for the root.
func dirOf(rel string) string {
	dir, _ := path.Split(rel)
	return strings.TrimSuffix(dir, "/")
}
