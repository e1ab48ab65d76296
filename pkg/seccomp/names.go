// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"

	lib "github.com/seccomp/libseccomp-golang"
)

// alsoNamed are calls after libseccomp 2.5's table that people meet by name.
var alsoNamed = map[string]uint32{
	"cachestat": 451, "map_shadow_stack": 453, "futex_wake": 454, "futex_wait": 455, "futex_requeue": 456,
	"lsm_get_self_attr": 459, "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462,
	"setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466, "file_getattr": 468, "file_setattr": 469,
}

// Number returns the number of a system call on this machine's architecture.
func Number(name string) (nr uint32, ok bool) {
	if n, err := lib.GetSyscallFromName(name); err == nil {
		return uint32(n), n >= 0
	}
	for _, names := range []map[string]uint32{newer, alsoNamed} {
		if nr, ok := names[name]; ok {
			return nr, true
		}
	}
	return 0, false
}

// Name returns the name of a system call number of this machine's
// architecture, "call 1234" where nobody has one, and says so of x32.
func Name(nr uint32) string {
	if nr >= x32Bit {
		return fmt.Sprintf("x32 call %d", nr&^x32Bit)
	}
	if name, err := lib.ScmpSyscall(nr).GetName(); err == nil {
		return name
	}
	for _, names := range []map[string]uint32{newer, alsoNamed} {
		for name, n := range names {
			if n == nr {
				return name
			}
		}
	}
	return fmt.Sprintf("call %d", nr)
}
