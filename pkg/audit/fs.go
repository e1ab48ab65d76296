// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// FS is the edge to the file system: one directory. Tests put a fault-injecting
// one in its place.
type FS interface {
	// Lock takes the single-writer lock; ErrLocked when another has it.
	Lock() (io.Closer, error)
	// List returns the names in the directory in any order.
	List() ([]string, error)
	// Create makes a new empty file, open for reading and writing; fs.ErrExist
	// when the name is taken. It is durable after SyncDir only.
	Create(name string) (File, error)
	// Open opens an existing file, for reading only unless write is set.
	Open(name string, write bool) (File, error)
	Remove(name string) error
	SyncDir() error
	// Close ends the use of the directory.
	Close() error
}

// File is an open file of FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync makes content and size durable.
	Sync() error
	Size() (int64, error)
	// Linked says whether the file still has a name.
	Linked() (bool, error)
}

// ErrLocked is returned by Open when another process writes this log.
var ErrLocked = errors.New("audit: the log is in use by another process")

// dirFS is the real directory. All names are single path elements; symbolic
// links are never followed.
type dirFS struct {
	dir  *os.File
	root *os.Root
}

// DirFS opens the directory, which must exist.
func DirFS(dir string) (FS, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	d, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("audit: %w", err)
	}
	return &dirFS{dir: d, root: root}, nil
}

type dirLock struct{ *os.File }

func (d *dirFS) Lock() (io.Closer, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("audit: lock %s: %w", d.root.Name(), err)
	}
	return dirLock{f}, nil
}

func (d *dirFS) List() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d *dirFS) Create(name string) (File, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return dirFile{f}, nil
}

func (d *dirFS) Open(name string, write bool) (File, error) {
	mode := os.O_RDONLY
	if write {
		mode = os.O_RDWR
	}
	f, err := d.root.OpenFile(name, mode|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("audit: %s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return dirFile{f}, nil
}

func (d *dirFS) Remove(name string) error { return d.root.Remove(name) }

func (d *dirFS) SyncDir() error { return d.dir.Sync() }

func (d *dirFS) Close() error { return errors.Join(d.dir.Close(), d.root.Close()) }

type dirFile struct{ *os.File }

func (f dirFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (f dirFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f dirFile) Linked() (bool, error) {
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return !ok || sys.Nlink > 0, nil
}
