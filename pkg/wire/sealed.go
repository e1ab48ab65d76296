// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"io"
	"os"

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
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("memfd %s: seal: %w", name, err)
	}
	return f, nil
}

// ReadSealed reads the whole of a sealed file, whatever its offset is.
func ReadSealed(f *os.File) ([]byte, error) {
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
