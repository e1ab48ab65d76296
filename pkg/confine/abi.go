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

// landlockKernels are the first kernels of each ABI, from 1 on.
var landlockKernels = [...]string{"5.13", "5.19", "6.2", "6.7", "6.10", "6.12", "6.15", "7.0", "7.1"}

// LandlockSince is the first kernel with the ABI; of an ABI that is not known
// here, one that no kernel has.
func LandlockSince(abi int) string {
	if abi < 1 || abi > len(landlockKernels) {
		return "9999"
	}
	return landlockKernels[abi-1]
}
