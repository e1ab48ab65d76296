// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Sealed returns a sealed, close-on-exec memfd with the given content: nobody,
// the keeper included, can change it any more.
func Sealed(name string, content []byte) (*os.File, error) {
	return sealed(name, 0o400, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}

// InitBinary copies the program at path into a sealed memfd. The file is
// execute-only (0111), so whoever runs it without being able to read it is
// non-dumpable from its first instruction. The keeper makes it once and keeps
// it open.
func InitBinary(path string) (*os.File, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("confine: init binary: %w", err)
	}
	defer src.Close()
	return sealed("ringfence-init", 0o111, func(f *os.File) error {
		_, err := io.Copy(f, src)
		return err
	})
}

func sealed(name string, mode uint32, fill func(*os.File) error) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	exec := unix.MFD_NOEXEC_SEAL // 6.3
	if mode&0o111 != 0 {
		exec = unix.MFD_EXEC
	}
	fd, err := unix.MemfdCreate(name, flags|exec)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("confine: memfd %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := fill(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("confine: fill memfd %s: %w", name, err)
	}
	// NOEXEC_SEAL has sealed the mode's execute bits; others may still change.
	if err := unix.Fchmod(fd, mode); err != nil {
		f.Close()
		return nil, fmt.Errorf("confine: memfd %s: %w", name, err)
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("confine: seal memfd %s: %w", name, err)
	}
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("confine: memfd %s: %w", name, err)
	}
	return f, nil
}
