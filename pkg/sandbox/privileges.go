// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
)

// undoing are capabilities with which a process can get around a fence that
// consists of programs on its cgroup, by their numbers (linux/capability.h).
var undoing = []struct {
	bit  uint
	name string
	does string
}{
	{13, "CAP_NET_RAW", "can send packets that no hook sees (packet sockets)"},
	{12, "CAP_NET_ADMIN", "can change the routes and packet filters of its network namespace"},
	{21, "CAP_SYS_ADMIN", "can leave its cgroup or take the programs away"},
	{19, "CAP_SYS_PTRACE", "can act through other processes that it sees"},
}

// privileges says what the adopted processes hold that weakens their fence:
// for each capability the first process that has it.
func privileges(pids []int) ([]string, error) {
	var out []string
	for _, c := range undoing {
		for _, pid := range pids {
			has, err := hasCapability(pid, c.bit)
			if err != nil {
				return nil, err
			}
			if has {
				out = append(out, fmt.Sprintf("process %d has %s: it %s", pid, c.name, c.does))
				break
			}
		}
	}
	return out, nil
}

func hasCapability(pid int, bit uint) (bool, error) {
	st, err := readStatus(pid)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, set := range []string{"CapEff", "CapPrm"} {
		v, err := strconv.ParseUint(st[set], 16, 64)
		if err != nil {
			return false, fmt.Errorf("capabilities of process %d: %w", pid, err)
		}
		if v&(1<<bit) != 0 {
			return true, nil
		}
	}
	return false, nil
}
