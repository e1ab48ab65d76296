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
