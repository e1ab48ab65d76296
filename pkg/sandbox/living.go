// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A process goes on in its other threads when its first one has ended
// (pthread_exit in main). /proc/PID shows such a process as ended: no
// descriptors, no namespaces. What it holds is read of a thread that lives.

// threadDir is what /proc shows of one thread.
func threadDir(pid, tid int) string { return fmt.Sprintf("/proc/%d/task/%d", pid, tid) }

// eachThread calls fn with the threads of a process, as far as the bounds go
// and until fn says that it is enough; also with those that are ending.
func eachThread(pid int, b *bounds, fn func(tid int) (enough bool, err error)) error {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/task", pid))
	if errors.Is(noThread(err), fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		if errors.Is(err, io.EOF) || errors.Is(noThread(err), fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			tid, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			if !b.take() {
				return nil
			}
			if enough, err := fn(tid); enough || err != nil {
				return err
			}
		}
	}
}

// statusOf reads that of a thread of a process; os.ErrNotExist when it has
// ended or is about to: a thread gives up its memory before its descriptors
// (do_exit in the kernel).
func statusOf(pid, tid int) (map[string]string, error) {
	st, err := readStatus(tid)
	if err == nil && (st["Tgid"] != strconv.Itoa(pid) || st["VmSize"] == "") {
		err = fs.ErrNotExist
	}
	return st, err
}

// livingThread finds a thread that has its descriptors yet, the first one if it
// has; 0 when none does.
func livingThread(pid int, b *bounds) (tid int, err error) {
	if _, err := statusOf(pid, pid); !errors.Is(err, fs.ErrNotExist) {
		return pid, err
	}
	err = eachThread(pid, b, func(t int) (bool, error) {
		_, err := statusOf(pid, t)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		tid = t
		return true, err
	})
	return tid, err
}

// pidfdThread is PIDFD_THREAD (Linux 6.9, sys/pidfd.h).
const pidfdThread = unix.O_EXCL

// openLiving opens a pidfd of a thread.
func openLiving(pid, tid int) (int, error) {
	if tid == pid {
		return unix.PidfdOpen(pid, 0)
	}
	return unix.PidfdOpen(tid, pidfdThread)
}

// otherProcesses are those of the machine but the keeper.
func otherProcesses() (pids []int, err error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
