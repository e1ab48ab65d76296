// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// privileged is a call that root may make outside. Its arguments cannot do
// anything; arrived are the errors that show that the kernel looked at them.
type privileged struct {
	name, control string
	nr            uintptr
	args          []uintptr
	arrived       []unix.Errno
	expect        []string // nil: EPERM
	need          string
}

var badArg = []unix.Errno{unix.EINVAL, unix.EFAULT, unix.EBADF}

func privilegedCalls() []privileged {
	calls := []privileged{
		{"reboot", "asks for a restart (with a wrong magic number)", unix.SYS_REBOOT, []uintptr{1, 2, 3, 0}, badArg, nil, ""},
		{"kexec-load", "loads another kernel", unix.SYS_KEXEC_LOAD, []uintptr{bad, bad, bad, bad}, badArg, nil, "kernel:KEXEC"},
		{"kexec-file-load", "loads another kernel from a file", unix.SYS_KEXEC_FILE_LOAD, []uintptr{bad, bad, bad, bad, bad}, badArg, nil, "kernel:KEXEC"},
		{"init-module", "loads a module", unix.SYS_INIT_MODULE, []uintptr{bad, 8, bad}, append(badArg, unix.ENOEXEC), nil, "kernel:MODULES"},
		{"finit-module", "loads a module from a file", unix.SYS_FINIT_MODULE, []uintptr{bad, bad, bad}, badArg, nil, "kernel:MODULES"},
		{"delete-module", "removes a module", unix.SYS_DELETE_MODULE, []uintptr{bad, bad}, badArg, nil, "kernel:MODULES"},
		{"syslog", "reads the kernel log", unix.SYS_SYSLOG, []uintptr{3, bad, 0}, badArg, nil, ""},
		{"acct", "writes accounting to a file", unix.SYS_ACCT, []uintptr{bad}, badArg, nil, "kernel:ACCT"},
		{"quotactl", "changes quotas", unix.SYS_QUOTACTL, []uintptr{0x80000100, bad, 0, bad}, badArg, nil, "kernel:QUOTA"},
		{"quotactl-fd", "changes quotas by descriptor", unix.SYS_QUOTACTL_FD, []uintptr{bad, 0x80000100, 0, bad}, badArg, nil, "kernel:QUOTA"},
		{"swapon", "adds swap", unix.SYS_SWAPON, []uintptr{bad, 0}, badArg, nil, ""},
		{"swapoff", "removes swap", unix.SYS_SWAPOFF, []uintptr{bad}, badArg, nil, ""},
		{"settimeofday", "sets the clock", unix.SYS_SETTIMEOFDAY, []uintptr{bad, 0}, badArg, nil, ""},
		{"clock-settime", "sets a clock", unix.SYS_CLOCK_SETTIME, []uintptr{0, bad}, badArg, nil, ""},
		{"clock-adjtime", "adjusts a clock", unix.SYS_CLOCK_ADJTIME, []uintptr{0, bad}, badArg, nil, ""},
		{"adjtimex", "adjusts the clock", unix.SYS_ADJTIMEX, []uintptr{bad}, badArg, nil, ""},
		{"sethostname", "changes the host name", unix.SYS_SETHOSTNAME, []uintptr{bad, 3}, badArg, nil, ""},
		{"setdomainname", "changes the domain name", unix.SYS_SETDOMAINNAME, []uintptr{bad, 3}, badArg, nil, ""},
		{"bpf", "loads a program into the kernel", unix.SYS_BPF, []uintptr{5, bad, 48}, append(badArg, unix.E2BIG), nil, ""},
		{"perf-event-open", "watches the processor", unix.SYS_PERF_EVENT_OPEN, []uintptr{bad, 0, bad, bad, 0}, append(badArg, unix.E2BIG), nil, "kernel:PERF"},
		{"fanotify-init", "watches the whole file system", unix.SYS_FANOTIFY_INIT, []uintptr{bad, 0}, badArg, nil, "kernel:FANOTIFY"},
		{"kcmp", "compares kernel objects of processes", unix.SYS_KCMP, []uintptr{1, 1, 99, 0, 0}, badArg, nil, "kernel:KCMP"},
		{"lookup-dcookie", "asks for a path by cookie", unix.SYS_LOOKUP_DCOOKIE, []uintptr{0, bad, 8}, badArg, nil, "kernel:DCOOKIE"},
		{"personality", "switches address randomisation off", unix.SYS_PERSONALITY, []uintptr{0x0040000}, nil, nil, ""},
		{"personality-exec", "makes readable memory executable", unix.SYS_PERSONALITY, []uintptr{0x0400000}, nil, nil, ""},
		{"personality-high-bits", "with garbage in the upper half", unix.SYS_PERSONALITY, []uintptr{0x0040000 | garbage}, nil, nil, ""},
		{"prctl-mm", "rewrites what /proc says of it", unix.SYS_PRCTL, []uintptr{unix.PR_SET_MM, unix.PR_SET_MM_MAP_SIZE, bad, 0, 0}, badArg, nil, ""},
		{"prctl-mm-high-bits", "with garbage in the upper half", unix.SYS_PRCTL, []uintptr{unix.PR_SET_MM | garbage, unix.PR_SET_MM_MAP_SIZE, bad, 0, 0}, badArg, nil, ""},
		{"seccomp-listener", "answers system calls in place of the kernel", unix.SYS_SECCOMP, []uintptr{1, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, bad}, badArg, nil, ""},
	}
	return append(calls, archPrivileged()...)
}

func privilegedAttempts() []*Attempt {
	var out []*Attempt
	for _, c := range privilegedCalls() {
		expect := errnos("EPERM")
		if c.expect != nil {
			expect = errnos(c.expect...)
		}
		a := &Attempt{Name: "call-" + c.name, Class: "privileged-calls", Expect: expect, Layer: "seccomp", As: asRoot, Control: c.control,
			run: func(params) error { return reach(c.nr, c.arrived, c.args...) }}
		if c.need != "" {
			a.Needs = []string{c.need}
		}
		out = append(out, a)
	}
	return out
}

// futureAttempts are calls that the filter's library has no name for: closed
// until somebody has looked at them. EINVAL and the like mean that the kernel
// has them.
func futureAttempts() []*Attempt {
	var out []*Attempt
	for _, c := range []struct {
		name, control, need string
		nr                  uintptr
	}{
		{"mseal", "seals memory", "linux:6.10", 462},
		{"setxattrat", "sets attributes by descriptor", "linux:6.13", 463},
		{"file-setattr", "sets file attributes by descriptor", "linux:6.17", 469},
		{"statmount", "asks for mounts", "linux:6.8", 457},
		{"lsm-set-self-attr", "changes its own security attributes", "linux:6.8", 460},
	} {
		out = append(out, &Attempt{Name: "future-" + c.name, Class: "abi", Expect: errnos("ENOSYS", "EPERM"), Layer: "seccomp", Needs: []string{c.need}, As: asRoot, Control: c.control,
			run: func(params) error {
				err := sys(c.nr, bad, bad, bad, bad, bad, bad)
				if err == nil || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
					return err
				}
				return nil
			}})
	}
	return out
}
