// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"os"
	"strconv"
)

// pfExiting is PF_EXITING of the kernel's include/linux/sched.h.
const pfExiting = 0x4

// comesOrGoes says that a thread is not in its cgroup yet or any more, though
// /proc shows it and its namespaces: fork makes it visible before it joins the
// cgroup (kernel/fork.c: cgroup_post_fork), and one that ends is left out of
// cgroup.procs before it has left its namespaces, since Linux 7 from the first
// step (seen on 7.3). What has never run, or runs nothing of its own any more,
// gets past nothing.
func comesOrGoes(tid int) bool {
	st, err := readStatus(tid)
	if err != nil || ended(st) {
		return true
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/stat")
	if err != nil {
		return true
	}
	flags, ticks, ok := parseStat(b)
	if !ok {
		return false
	}
	return flags&pfExiting != 0 ||
		ticks == 0 && st["voluntary_ctxt_switches"] == "0" && st["nonvoluntary_ctxt_switches"] == "0"
}

// parseStat reads the kernel's flags of a process and the CPU time it has had in
// ticks out of /proc/PID/stat (proc_pid_stat(5): fields 9, 14 and 15).
func parseStat(b []byte) (flags uint64, ticks uint64, ok bool) {
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // from the third on
	if len(fields) < 13 {
		return 0, 0, false
	}
	var n [3]uint64
	for i, at := range []int{6, 11, 12} {
		v, err := strconv.ParseUint(string(fields[at]), 10, 64)
		if err != nil {
			return 0, 0, false
		}
		n[i] = v
	}
	return n[0], n[1] + n[2], true
}
