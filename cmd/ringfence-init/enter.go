// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/confine/self"
	"golang.org/x/sys/unix"
)

// enter gives up every right and executes the second run. It returns only on
// failure. All of it happens on one thread: exec ends the others.
func enter(spec *confine.Spec, fds []*os.File) error {
	runtime.LockOSThread()
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := setRlimits(spec.Rlimits); err != nil {
		return err
	}
	if err := self.BecomeAgent(spec.Identity); err != nil {
		return err
	}
	if err := self.DropCapabilities(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become non-dumpable: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := tryOpen(); err != nil { // or its refusal later would prove nothing
		return fmt.Errorf("attest: %s cannot be opened even without Landlock: %w", confine.ProbeFile, err)
	}
	if err := self.RestrictFiles(spec.Landlock); err != nil {
		return err
	}
	return again(spec, fds)
}

// setRlimits sets soft = hard. A limit above the one we were born with is
// left at that: raising needs a right that the keeper may not have.
func setRlimits(limits []confine.Rlimit) error {
	for _, l := range limits {
		if ofChildren(l) {
			continue
		}
		var have syscall.Rlimit
		if err := syscall.Getrlimit(l.Resource, &have); err != nil {
			return fmt.Errorf("resource limit %d: %w", l.Resource, err)
		}
		v := min(l.Value, have.Max)
		if err := syscall.Setrlimit(l.Resource, &syscall.Rlimit{Cur: v, Max: v}); err != nil {
			return fmt.Errorf("resource limit %d: %w", l.Resource, err)
		}
	}
	return nil
}

// ofChildren says that a limit would stop this program itself, whose runtime
// reserves address space generously; it is set on what we start.
func ofChildren(l confine.Rlimit) bool {
	return l.Resource == unix.RLIMIT_AS || l.Resource == unix.RLIMIT_DATA
}

// limitChild sets those. The child is at its first instructions.
func limitChild(pid int, limits []confine.Rlimit) error {
	for _, l := range limits {
		if !ofChildren(l) {
			continue
		}
		var have unix.Rlimit
		if err := unix.Prlimit(pid, l.Resource, nil, &have); err != nil {
			return fmt.Errorf("resource limit %d: %w", l.Resource, err)
		}
		v := min(l.Value, have.Max)
		if err := unix.Prlimit(pid, l.Resource, &unix.Rlimit{Cur: v, Max: v}, nil); err != nil {
			return fmt.Errorf("resource limit %d: %w", l.Resource, err)
		}
	}
	return nil
}

// again executes the sealed memfd with the descriptors the second run needs,
// their numbers put into the specification, and no others.
func again(spec *confine.Spec, fds []*os.File) error {
	rest := *spec
	rest.Mounts = nil
	rest.Landlock = confine.Landlock{MinABI: confine.LandlockABI()} // what is in force, for Ready
	keep := map[int]bool{0: true, 1: true, 2: true, controlFD: true}
	refs := []*int{&rest.SeccompFD, &rest.StatusFD, &rest.ListenFD, &rest.StdioFDs[0], &rest.StdioFDs[1], &rest.StdioFDs[2]}
	for _, ref := range refs {
		if *ref < 0 {
			continue
		}
		if *ref >= len(fds) {
			return fmt.Errorf("no descriptor %d", *ref)
		}
		*ref = int(fds[*ref].Fd())
		keep[*ref] = true
	}
	b, err := rest.AppendBinary(nil)
	if err != nil {
		return err
	}
	f, err := confine.Sealed("spec", b)
	if err != nil {
		return err
	}
	keep[int(f.Fd())] = true
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors close-on-exec: %w", err)
	}
	for fd := range keep {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep descriptor %d: %w", fd, err)
		}
	}
	argv := []*byte{cstr("ringfence-init"), cstr("guard"), cstr(strconv.Itoa(int(f.Fd()))), nil}
	envv := []*byte{cstr("GOMAXPROCS=1"), nil}
	empty := cstr("")
	_, _, e := unix.RawSyscall6(unix.SYS_EXECVEAT, selfFD, uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return fmt.Errorf("execute the second run: %w", e)
}

func cstr(s string) *byte {
	b := append([]byte(s), 0)
	return &b[0]
}
