// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestUIDLocksLieWhereNobodyElseCanWrite(t *testing.T) {
	for name, c := range map[string]struct {
		make func(dir string) error
		ok   bool
	}{
		"made by us":      {func(string) error { return nil }, true},
		"there":           {func(d string) error { return os.Mkdir(d, 0o755) }, true},
		"for everybody":   {func(d string) error { return errors.Join(os.Mkdir(d, 0o777), os.Chmod(d, 0o1777)) }, false},
		"for the group":   {func(d string) error { return errors.Join(os.Mkdir(d, 0o770), os.Chmod(d, 0o770)) }, false},
		"a symbolic link": {func(d string) error { return os.Symlink(t.TempDir(), d) }, false},
		"a stranger's": {func(d string) error {
			if os.Geteuid() != 0 {
				return os.Mkdir(d, 0o002) // refused for its mode then
			}
			return errors.Join(os.Mkdir(d, 0o700), os.Chown(d, 65534, 0))
		}, false},
	} {
		dir := filepath.Join(t.TempDir(), "uids")
		if err := c.make(dir); err != nil {
			t.Fatal(name, err)
		}
		uid, err := UIDs{Dir: dir, Range: UIDRange{1 << 30, 1}}.Acquire(0)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		uid.Release()
	}
}
