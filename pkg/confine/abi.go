// SPDX-License-Identifier: Apache-2.0

package confine

import "golang.org/x/sys/unix"

// LandlockABI returns the kernel's Landlock ABI, 0 when Landlock is missing or
// off.
func LandlockABI() int {
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0
	}
	return int(v)
}
