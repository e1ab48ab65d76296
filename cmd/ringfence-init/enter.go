// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/ringfence/ringfence/pkg/confine"
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
	if err := becomeAgent(spec.Identity); err != nil {
		return err
	}
	if err := dropCapabilities(); err != nil {
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
	if err := restrictFiles(spec.Landlock); err != nil {
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

// becomeAgent switches to the agent's identity, on this thread alone. In a
// user namespace that is uid 0 already, and the groups are gone.
func becomeAgent(id confine.Identity) error {
	if !id.UserNS && (id.UID == 0 || id.GID == 0) {
		return errors.New("refusing to run as uid or gid 0 of the host")
	}
	// The securebits come first: they need a capability. NOROOT keeps uid 0 of
	// a user namespace from regaining anything at exec.
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, secureBits, 0, 0, 0); err != nil {
		return fmt.Errorf("set securebits: %w", err)
	}
	if err := dropBounding(); err != nil {
		return err
	}
	var list unsafe.Pointer
	if len(id.Groups) > 0 {
		list = unsafe.Pointer(&id.Groups[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(id.Groups)), uintptr(list), 0); e != 0 {
		return fmt.Errorf("set groups: %w", e)
	}
	gid, uid := uintptr(id.GID), uintptr(id.UID)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); e != 0 {
		return fmt.Errorf("set gid: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); e != 0 {
		return fmt.Errorf("set uid: %w", e)
	}
	return nil
}

// SECBIT_NOROOT, NO_SETUID_FIXUP off, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, each locked.
const secureBits = 1<<0 | 1<<1 | 1<<3 | 1<<5 | 1<<6 | 1<<7

func dropBounding() error {
	for c := uintptr(0); c <= 63; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // past the last capability of this kernel
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}

func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
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
