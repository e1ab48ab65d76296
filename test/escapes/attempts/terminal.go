// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tiocSTI   = 0x5412
	tiocLinux = 0x541c
	tiocCons  = 0x541d
	tiocSETD  = 0x5423
)

// terminalAttempts type into a terminal. The terminal is one of their own: the
// system call must be refused whatever it is used on.
func terminalAttempts() []*Attempt {
	var out []*Attempt
	add := func(name, control string, expect Expect, run func(tty int) error) *Attempt {
		a := &Attempt{Name: "tty-" + name, Class: "terminal", Expect: expect, Layer: "seccomp", As: asRoot, Control: control,
			run: func(params) error { return withTTY(run) }}
		out = append(out, a)
		return a
	}
	push := func(request uintptr) func(int) error {
		return func(tty int) error {
			c := [1]byte{'x'}
			return sys(unix.SYS_IOCTL, uintptr(tty), request, uintptr(unsafe.Pointer(&c)))
		}
	}
	add("sti", "types a character into a terminal", errnos("EPERM"), push(tiocSTI))
	add("sti-high-bits", "with garbage in the upper half of the request", errnos("EPERM"), push(tiocSTI|garbage))
	add("sti-bit-32", "with one bit above the request", errnos("EPERM"), push(tiocSTI|1<<32))
	add("sti-sign", "with a negative request", errnos("EPERM"), push(tiocSTI|0xffffffff<<32))
	add("discipline", "loads a line discipline", errnos("EPERM"), func(tty int) error {
		n := [1]int32{0}
		return sys(unix.SYS_IOCTL, uintptr(tty), tiocSETD, uintptr(unsafe.Pointer(&n)))
	})
	add("linux", "pastes on the virtual console", errnos("EPERM"), func(tty int) error {
		c := [1]byte{99}
		return reach(unix.SYS_IOCTL, []unix.Errno{unix.ENOTTY, unix.EINVAL}, uintptr(tty), tiocLinux, uintptr(unsafe.Pointer(&c)))
	})
	out = append(out,
		&Attempt{Name: "tty-console-redirect", Class: "terminal", Expect: errnos("EPERM", "EACCES", "EBUSY"), Layer: "capabilities", As: asRoot, Control: "redirects the machine's console",
			run: func(params) error {
				return withTTY(func(tty int) error {
					return reach(unix.SYS_IOCTL, []unix.Errno{unix.EBUSY, unix.EIO}, uintptr(tty), tiocCons, 0)
				})
			}},
		&Attempt{Name: "tty-vhangup", Class: "terminal", Expect: errnos("EPERM"), Layer: "seccomp", As: asRoot, Control: "hangs a terminal up",
			run: func(params) error { return withTTY(func(int) error { return sys(unix.SYS_VHANGUP) }) }},
	)
	return out
}

// withTTY gives f a pty of its own as controlling terminal, in its own session.
func withTTY(f func(tty int) error) error {
	signal.Ignore(unix.SIGHUP, unix.SIGTTOU) // closing the master hangs up
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nothing("no pty: %v", err)
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nothing("no pty: %v", err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return nothing("no pty: %v", err)
	}
	_, _ = unix.Setsid() // fails when it already leads one, which is as good
	unix.IoctlSetInt(0, unix.TIOCNOTTY, 0)
	tty, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nothing("no pty: %v", err)
	}
	defer unix.Close(tty)
	return f(tty)
}
