// SPDX-License-Identifier: Apache-2.0

// Package harden lets an unprivileged process of Ringfence give up what it does
// not need: files, new system calls, core dumps, being looked at.
package harden

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/wire"
)

// Files is what a process may still read. Missing ones are skipped.
type Files struct {
	Dirs  []string
	Files []string
}

// Network is what resolving names and verifying peers reads.
func Network() Files {
	return Files{
		Dirs:  []string{"/etc/ssl", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/pki", "/usr/share/zoneinfo"},
		Files: []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services"},
	}
}

// Process confines the calling process, all threads: not dumpable, no core
// files, Landlock for everything but read, and the system call filter (an
// array of struct sock_filter in a sealed file, which is closed). The process
// must have its own uid and no capabilities already. missing names the walls
// that this kernel does not have; the process is to say so to whom it serves.
func Process(filter *os.File, read Files, log *slog.Logger) (missing []string, err error) {
	if os.Getuid() == 0 || os.Geteuid() == 0 {
		return nil, errors.New("this process must not run as root")
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return nil, fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	if missing, err = restrictFiles(read, log); err != nil {
		return missing, err
	}
	return missing, loadFilter(filter)
}

// restrictFiles allows reading what read names, and nothing else: no
// write, no execution (Landlock, Linux 5.13). A kernel without it leaves the
// uid alone to guard files, which is said.
func restrictFiles(read Files, log *slog.Logger) (missing []string, err error) {
	abi, err := landlockABI()
	if err != nil || abi < 1 {
		log.Warn(NoLandlock)
		return []string{NoLandlock}, nil
	}
	cfg := landlock.V5.BestEffort()
	rules := []landlock.Rule{
		landlock.RODirs(read.Dirs...).IgnoreIfMissing(),
		landlock.ROFiles(read.Files...).IgnoreIfMissing(),
	}
	if err := cfg.RestrictPaths(rules...); err != nil {
		return nil, fmt.Errorf("landlock: %w", err)
	}
	return nil, nil
}

// NoLandlock is what Process says is missing on a kernel without Landlock.
const NoLandlock = "no Landlock on this kernel: files are guarded from this process by its uid alone"

var landlockABI = llsys.LandlockGetABIVersion // replaced by tests

// loadFilter installs the keeper's system call filter on every thread
// (SECCOMP_FILTER_FLAG_TSYNC, Linux 3.17).
func loadFilter(f *os.File) error {
	defer f.Close()
	code, err := wire.ReadSealed(f)
	if err != nil {
		return fmt.Errorf("seccomp filter: %w", err)
	}
	const insn = 8
	if len(code) == 0 || len(code)%insn != 0 || len(code)/insn > unix.BPF_MAXINSNS {
		return fmt.Errorf("seccomp filter of %d bytes", len(code))
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(code) / insn), Filter: (*unix.SockFilter)(unsafe.Pointer(&code[0]))}
	const setModeFilter, tsync = 1, 1
	if r, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, tsync, uintptr(unsafe.Pointer(&prog))); errno != 0 || r != 0 {
		return fmt.Errorf("seccomp: thread %d: %w", r, errno)
	}
	return nil
}
