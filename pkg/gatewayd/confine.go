// SPDX-License-Identifier: Apache-2.0

package gatewayd

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

// readable is what resolving names and verifying upstreams reads.
var (
	readableDirs  = []string{"/etc/ssl", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/pki", "/usr/share/zoneinfo"}
	readableFiles = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services"}
)

// confineSelf gives up everything that the data path does not need. The
// process has no capabilities and its own uid already.
func confineSelf(filter *os.File, log *slog.Logger) error {
	if os.Getuid() == 0 || os.Geteuid() == 0 {
		return errors.New("the gateway must not run as root")
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	if err := restrictFiles(log); err != nil {
		return err
	}
	return loadFilter(filter)
}

// restrictFiles allows reading what readable names, and nothing else: no
// write, no execution (Landlock, Linux 5.13). A kernel without it leaves the
// uid alone to guard files, which is logged.
func restrictFiles(log *slog.Logger) error {
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		log.Warn("no Landlock on this kernel: the gateway's files are guarded by its uid alone")
		return nil
	}
	cfg := landlock.V5.BestEffort()
	rules := []landlock.Rule{
		landlock.RODirs(readableDirs...).IgnoreIfMissing(),
		landlock.ROFiles(readableFiles...).IgnoreIfMissing(),
	}
	if err := cfg.RestrictPaths(rules...); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

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

// duplicate makes another descriptor of the same socket.
func duplicate(f *os.File) (*os.File, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var derr error
	if err := rc.Control(func(p uintptr) { fd, derr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, fmt.Errorf("duplicate a descriptor: %w", derr)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
