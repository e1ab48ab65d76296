// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	"github.com/ringfence/ringfence/pkg/confine"
	"golang.org/x/sys/unix"
)

const (
	accessRead = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	accessMake = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER
	accessExec = unix.LANDLOCK_ACCESS_FS_EXECUTE
	accessDev  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// accessFile are the rights that a rule on something other than a directory may hold.
	accessFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// Making device nodes is handled (so: refused) and never granted.
var accessNames = map[string]landlock.AccessFSSet{
	"r":    accessRead,
	"rx":   accessRead | accessExec,
	"rw":   accessRead | accessMake,
	"rwx":  accessRead | accessMake | accessExec,
	"list": unix.LANDLOCK_ACCESS_FS_READ_DIR,
	"dev":  accessDev,
}

// restrictFiles enters a Landlock domain with everything the kernel's ABI can
// restrict in files, signals and abstract sockets. TCP ports stay unhandled:
// servers inside the sandbox are its own business, and the way out is judged
// elsewhere by address. Denials after exec are logged where the ABI can.
func restrictFiles(spec confine.Landlock) error {
	abi := confine.LandlockABI()
	if abi < max(1, spec.MinABI) {
		return fmt.Errorf("landlock: the kernel has ABI %d, the profile requires %d: use a newer kernel, or boot with lsm=landlock in front of its list", abi, max(1, spec.MinABI))
	}
	cfg, err := fileConfig(abi)
	if err != nil {
		return err
	}
	var rules []landlock.Rule
	for _, r := range spec.Rules {
		access, ok := accessNames[r.Access]
		if !ok {
			return fmt.Errorf("landlock: unknown access %q for %s", r.Access, r.Path)
		}
		var st unix.Stat_t
		if err := unix.Stat(r.Path, &st); err != nil {
			if r.Optional && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES)) {
				continue
			}
			return fmt.Errorf("landlock: rule for %s: %w", r.Path, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			access &= accessFile
		}
		if access &= cfg.HandledAccessFS; access != 0 {
			rules = append(rules, landlock.PathAccess(access, r.Path))
		}
	}
	if err := cfg.Restrict(rules...); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

func fileConfig(abi int) (landlock.Config, error) {
	all := []landlock.Config{
		landlock.V1, landlock.V2, landlock.V3, landlock.V4, landlock.V5, landlock.V6,
		landlock.V7, landlock.V8, landlock.V9, landlock.V10, landlock.V11,
	}
	best := all[min(abi, len(all))-1]
	args := []any{best.HandledAccessFS}
	if best.Scoped != 0 {
		args = append(args, best.Scoped)
	}
	cfg, err := landlock.NewConfig(args...)
	if err != nil {
		return landlock.Config{}, fmt.Errorf("landlock: %w", err)
	}
	if abi >= 7 {
		return cfg.EnableLoggingForSubprocesses(), nil
	}
	return *cfg, nil
}
