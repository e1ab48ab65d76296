// SPDX-License-Identifier: Apache-2.0

package stateformat

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// save copies paths of dir into backup. It counts once its last file is there.
func save(dir, backup string, paths []string) error {
	if err := os.RemoveAll(backup); err != nil { // of an attempt that was interrupted in the copying
		return err
	}
	if err := os.MkdirAll(backup, 0o700); err != nil {
		return err
	}
	if err := writeDurably(filepath.Join(backup, doingFile), nil); err != nil {
		return err
	}
	for _, p := range paths {
		if err := copyTree(filepath.Join(dir, p), filepath.Join(backup, p)); err != nil {
			return err
		}
	}
	if err := syncDir(backup); err != nil {
		return err
	}
	if err := writeDurably(filepath.Join(backup, wholeFile), nil); err != nil {
		return err
	}
	return errors.Join(syncDir(backup), syncDir(filepath.Dir(backup)), syncDir(dir))
}

// restore puts paths back as the backup has them; what it has not, goes.
func restore(dir, backup string, paths []string) error {
	for _, p := range paths {
		if err := os.RemoveAll(filepath.Join(dir, p)); err != nil {
			return err
		}
		if err := copyTree(filepath.Join(backup, p), filepath.Join(dir, p)); err != nil {
			return err
		}
	}
	return syncTree(dir, paths)
}

// copyTree copies files and directories with their modes, durably. What is not
// there is not copied; anything else than files and directories is an error:
// the state directory has none.
func copyTree(from, to string) error {
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case info.IsDir():
			return os.MkdirAll(target, info.Mode().Perm())
		case info.Mode().IsRegular():
			return copyFile(path, target, info.Mode().Perm())
		}
		return fmt.Errorf("%s is neither a file nor a directory", path)
	})
	if errors.Is(err, fs.ErrNotExist) && !exists(from) {
		return nil
	}
	return err
}

func copyFile(from, to string, mode fs.FileMode) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}

func writeDurably(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncTree makes what a step wrote durable.
func syncTree(dir string, paths []string) error {
	for _, p := range paths {
		err := filepath.WalkDir(filepath.Join(dir, p), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return syncDir(path) // a file is synced the same way
		})
		if err != nil && exists(filepath.Join(dir, p)) {
			return err
		}
	}
	return syncDir(dir)
}
