// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process names one process beyond the reuse of its pid.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/PID/stat
}

// ProcessOf reads the start time of a live pid.
func ProcessOf(pid int) (Process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, err
	}
	// The command may hold blanks and parentheses: fields count from the last ')'.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return Process{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	if fields[0][0] == 'X' || fields[0][0] == 'Z' && !goesOn(pid) {
		return Process{}, fmt.Errorf("process %d has ended", pid)
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return Process{PID: pid, Start: start}, nil
}

// goesOn says whether a process whose first thread has ended lives in others.
func goesOn(pid int) bool {
	b := newBounds()
	tid, err := livingThread(pid, &b)
	return err != nil || tid != 0 || b.reached()
}

// Alive says whether the process still runs.
func (p Process) Alive() bool {
	now, err := ProcessOf(p.PID)
	return err == nil && now.Start == p.Start
}

// Await waits for the end of the process, reaps it if it is a child, and returns
// the exit code as a shell reports it: -1 if it cannot be known, because the
// process is not a child or was reaped by somebody else. A pidfd is waited for
// as a socket is: a thread that waits in the kernel would be one for each sandbox.
func (p Process) Await() int {
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK) // Linux 5.10
	if err != nil {
		return -1
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	rc, err := f.SyscallConn()
	if err != nil {
		return -1
	}
	code := -1
	_ = rc.Read(func(fd uintptr) (ended bool) { // fails only for one that is closed
		code, ended = p.reap(int(fd))
		return ended
	})
	return code
}

// reap says whether the process behind a pidfd has ended, and how.
func (p Process) reap(fd int) (code int, ended bool) {
	var about unix.Siginfo
	err := unix.EINTR
	for err == unix.EINTR {
		err, _ = unix.Waitid(unix.P_PIDFD, fd, &about, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil).(unix.Errno) // Linux 5.4
	}
	switch {
	case err == unix.EAGAIN, err == 0 && about.Signo == 0:
		return -1, false
	case err == 0: // the pid is the child's until it is waited for
		return exitCode(p.PID), true
	case !p.Alive(): // no child of ours, or another process that got the number
		return -1, true
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, perr := 0, error(unix.EINTR)
	for errors.Is(perr, unix.EINTR) {
		n, perr = unix.Poll(fds, 0)
	}
	return -1, n > 0 || perr != nil
}

// exitCode reaps a child that has ended.
func exitCode(pid int) int {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return -1
		case ws.Signaled():
			return 128 + int(ws.Signal())
		default:
			return ws.ExitStatus()
		}
	}
}

// kill ends the process, and no other that got its number.
func (p Process) kill() error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd of %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.Alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %d: %w", p.PID, err)
	}
	return nil
}

// leaving says whether the process has ended or is about to: a process gives up
// its memory before its descriptors (do_exit in the kernel).
func leaving(p Process) bool {
	if !p.Alive() {
		return true
	}
	st, err := readStatus(p.PID)
	return err != nil || st["VmSize"] == ""
}
