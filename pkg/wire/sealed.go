// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// MaxSealed bounds what ReadSealed accepts.
const MaxSealed = 64 << 20

// Seal puts data into an anonymous memory file that nobody can change any
// more (memfd_create(2), F_SEAL_*; Linux 3.17) and returns it, at offset 0.
func Seal(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, fmt.Errorf("memfd %s: %w", name, err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals|unix.F_SEAL_SEAL); err != nil {
		f.Close()
		return nil, fmt.Errorf("memfd %s: seal: %w", name, err)
	}
	return f, nil
}

// seals make what was read stay what it is: the size cannot change between
// looking at it and reading.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// ReadSealed reads the whole of a sealed file, whatever its offset is. A file
// that is not sealed is refused.
func ReadSealed(f *os.File) ([]byte, error) {
	fd, err := rawFD(f)
	if err != nil {
		return nil, err
	}
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	runtime.KeepAlive(f)
	if err != nil || have&seals != seals {
		return nil, errors.New("not a sealed file")
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > MaxSealed {
		return nil, fmt.Errorf("sealed file of %d bytes exceeds %d", st.Size(), MaxSealed)
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}
