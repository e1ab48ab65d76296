// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// int80 enters the kernel through its 32-bit gate (abi_amd64.s).
func int80(nr, a, b, c, d, e uint32) int32

const x32 = 0x40000000

func archPrivileged() []privileged {
	return []privileged{
		{"iopl", "takes the input/output privilege", unix.SYS_IOPL, []uintptr{99}, badArg, nil, "kernel:IOPORT"},
		{"ioperm", "takes input/output ports", unix.SYS_IOPERM, []uintptr{bad, bad, 1}, badArg, nil, "kernel:IOPORT"},
		{"modify-ldt", "writes a segment table", unix.SYS_MODIFY_LDT, []uintptr{1, bad, 16}, badArg, nil, "kernel:LDT"},
		{"uselib", "maps a library", unix.SYS_USELIB, []uintptr{bad}, badArg, nil, "kernel:USELIB"},
	}
}

// foreign are calls of the 32-bit table, made from a 64-bit program.
var foreign = []struct {
	name, control string
	nr            uint32
	args          []uint32
}{
	{"getpid", "asks for its number", 20, nil},
	{"socketcall", "makes a socket past the 64-bit socket rules", 102, []uint32{1, 0}},
	{"socket", "makes a packet socket", 359, []uint32{unix.AF_PACKET, unix.SOCK_RAW, 0}},
	{"mount", "mounts", 21, nil},
	{"ptrace", "traces", 26, []uint32{99}},
	{"chmod", "sets a set-user-ID bit", 15, nil},
	{"clone", "starts a child in a new namespace", 120, []uint32{0x10000000 | 0x800}},
	{"unshare", "leaves a namespace", 310, []uint32{0}},
	{"ioctl-sti", "types into a terminal", 54, []uint32{99, tiocSTI}},
	{"setns", "joins a namespace", 346, []uint32{0xffffffff, 0}},
	{"io-uring-setup", "makes a ring", 425, nil},
	{"personality", "switches address randomisation off", 136, []uint32{0xffffffff}},
}

func abiAttempts() []*Attempt {
	var out []*Attempt
	for _, f := range foreign {
		out = append(out, &Attempt{Name: "int80-" + f.name, Class: "abi", Expect: errnos("SIGSYS"), Layer: "seccomp", Needs: []string{"kernel:IA32"}, As: asRoot,
			Control: "enters by int 0x80 and " + f.control, run: func(params) error { return viaInt80(f.nr, f.args) }})
	}
	out = append(out, &Attempt{Name: "i386-program", Class: "abi", Expect: errnos("SIGSYS", "EACCES", "ENOENT"), Layer: "seccomp", Needs: []string{"kernel:IA32"},
		Control: "runs a 32-bit program", run: i386Program})
	for _, c := range []struct {
		name string
		nr   uintptr
		args []uintptr
	}{
		{"getpid", unix.SYS_GETPID, nil},
		{"socket", unix.SYS_SOCKET, []uintptr{unix.AF_PACKET, unix.SOCK_RAW, 0}},
		{"ptrace", 521, []uintptr{99}},
		{"execveat", 545, nil},
		{"mount", unix.SYS_MOUNT, []uintptr{bad, bad, bad}},
	} {
		out = append(out, &Attempt{Name: "x32-" + c.name, Class: "abi", Expect: errnos("ENOSYS"), Layer: "seccomp", Needs: []string{"kernel:X32"}, As: asRoot,
			Control: "makes the call by its x32 number", run: func(params) error {
				return reach(c.nr|x32, append(badArg, unix.EPERM, unix.ESRCH, unix.EIO), c.args...)
			}})
	}
	return append(out, futureAttempts()...)
}

// viaInt80 lets a child enter the kernel, for the filter kills it.
func viaInt80(nr uint32, args []uint32) error {
	argv := []string{"--helper", "int80", strconv.FormatUint(uint64(nr), 10)}
	for _, a := range args {
		argv = append(argv, strconv.FormatUint(uint64(a), 10))
	}
	out, err := exec.Command("/proc/self/exe", argv...).Output()
	if sig, ok := signalled(err); ok {
		if sig == unix.SIGSYS {
			return refused{"SIGSYS", "the filter killed the caller"}
		}
		return refused{"none", "no 32-bit gate: " + sig.String()}
	}
	if err != nil {
		return err
	}
	var got int
	if _, err := fmt.Sscan(string(out), &got); err != nil {
		return nothing("no answer: %q", out)
	}
	if got == -int(unix.ENOSYS) {
		return unix.ENOSYS
	}
	return nil // the kernel took the call, whatever it thinks of the arguments
}

func archHelper(args []string) bool {
	if args[0] != "int80" {
		return false
	}
	var v [6]uint32
	for i := range args[1:] {
		n, err := strconv.ParseUint(args[1+i], 10, 32)
		if err != nil || i >= len(v) {
			return false
		}
		v[i] = uint32(n)
	}
	fmt.Println(int80(v[0], v[1], v[2], v[3], v[4], v[5]))
	return true
}

// tiny is a 32-bit program: exit(42).
var tiny = []byte("\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x03\x00\x01\x00\x00\x00\x54\x00\x40\x00\x34\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x34\x00\x20\x00\x01\x00\x00\x00\x00\x00\x00\x00" +
	"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x40\x00\x62\x00\x00\x00\x62\x00\x00\x00\x05\x00\x00\x00\x00\x10\x00\x00" +
	"\xb8\x01\x00\x00\x00\xbb\x2a\x00\x00\x00\xcd\x80\x0f\x0b")

func i386Program(params) error {
	return inTemp(func(dir string) error {
		path := filepath.Join(dir, "tiny")
		if err := os.WriteFile(path, tiny, 0o755); err != nil {
			return nothing("cannot write: %v", err)
		}
		err := exec.Command(path).Run()
		if sig, ok := signalled(err); ok && sig == unix.SIGSYS {
			return refused{"SIGSYS", "the filter killed the program"}
		}
		if e, ok := err.(*exec.ExitError); ok && e.ExitCode() == 42 {
			return nil
		}
		return err
	})
}
