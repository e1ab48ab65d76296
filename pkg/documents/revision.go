// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The revision file holds two slots that are written in turns, in place: that
// takes no space, so a full disk neither keeps a daemon from starting nor a
// change of the policy directory from coming into force. A torn slot does not
// match its checksum, and the other one counts.
const slotFormat = "%020d %08x\n"

func slot(n uint64) string {
	return fmt.Sprintf(slotFormat, n, crc32.ChecksumIEEE([]byte(strconv.FormatUint(n, 10))))
}

// numbers is a file with one number that only grows: the last that was given to
// a revision, say. That is not in the store: most revisions change nothing there,
// and a number must be given, and never twice, also while the store takes nothing.
type numbers string

func numbersIn(dir string) numbers { return numbers(filepath.Join(dir, ".revision")) }

// read returns the last number that was given, 0 if none was.
func (f numbers) read() (uint64, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("documents: %w", err)
	}
	var last uint64
	good := false
	for chunk := range slices.Chunk(b, len(slot(0))) {
		digits, _, _ := strings.Cut(string(chunk), " ")
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil && string(chunk) == slot(n) {
			last, good = max(last, n), true
		}
	}
	if !good {
		return 0, fmt.Errorf("documents: %s: holds no revision number; remove it only with every event log that names revisions", f)
	}
	return last, nil
}

// write stores n durably.
func (f numbers) write(n uint64) error {
	file, err := os.OpenFile(string(f), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return writeDurably(string(f), []byte(slot(n)+slot(n)), 0o600)
	}
	if err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	line := slot(n)
	_, err = file.WriteAt([]byte(line), int64(n%2)*int64(len(line)))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	return nil
}
