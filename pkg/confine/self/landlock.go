// SPDX-License-Identifier: Apache-2.0

package self

import (
	"errors"
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
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
var accessNames = map[string]uint64{
	"r":    accessRead,
	"rx":   accessRead | accessExec,
	"rw":   accessRead | accessMake,
	"rwx":  accessRead | accessMake | accessExec,
	"list": unix.LANDLOCK_ACCESS_FS_READ_DIR,
	"dev":  accessDev,
}

// RestrictFiles enters a Landlock domain with everything the kernel's ABI can
// restrict in files, signals and abstract sockets. TCP ports stay unhandled:
// servers inside the sandbox are its own business, and the way out is judged
// elsewhere by address. Denials after exec are logged where the ABI can. It
// restricts the calling thread, which is locked and about to exec: the library's
// own way stops every thread to restrict each, at ten times the cost.
func RestrictFiles(spec confine.Landlock) error {
	abi := confine.LandlockABI()
	if need := max(1, spec.MinABI); abi < need {
		return fmt.Errorf("landlock: the kernel has ABI %d, the profile requires %d: use Linux %s or later, or boot with lsm=landlock in front of its list", abi, need, confine.LandlockSince(need))
	}
	attr := handled(abi)
	set, err := ll.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return fmt.Errorf("landlock: make rules: %w", err)
	}
	defer unix.Close(set)
	for i := range spec.Rules {
		if err := grant(set, &spec.Rules[i], attr.HandledAccessFS); err != nil {
			return fmt.Errorf("landlock: rule for %s: %w", spec.Rules[i].Path, err)
		}
	}
	flags := uint32(0)
	if abi >= 7 {
		flags = ll.FlagRestrictSelfLogNewExecOn
	}
	if err := ll.LandlockRestrictSelf(set, flags); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

// handled is everything that an ABI can restrict but network ports.
func handled(abi int) ll.RulesetAttr {
	all := []landlock.Config{
		landlock.V1, landlock.V2, landlock.V3, landlock.V4, landlock.V5, landlock.V6,
		landlock.V7, landlock.V8, landlock.V9, landlock.V10, landlock.V11,
	}
	best := all[min(abi, len(all))-1]
	return ll.RulesetAttr{HandledAccessFS: uint64(best.HandledAccessFS), Scoped: uint64(best.Scoped)}
}

// grant adds one rule.
func grant(set int, r *confine.LandlockRule, handled uint64) error {
	access, ok := accessNames[r.Access]
	if !ok {
		return fmt.Errorf("unknown access %q", r.Access)
	}
	fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		if r.Optional && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES)) {
			return nil
		}
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= accessFile
	}
	if access &= handled; access == 0 {
		return nil
	}
	return ll.LandlockAddPathBeneathRule(set, &ll.PathBeneathAttr{AllowedAccess: access, ParentFd: fd}, 0)
}
