// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"
)

// initAttempts attack the sandbox's first process, which holds the namespaces
// and runs as the same user. Outside, "pid" is a victim of the same user.
func initAttempts() []*Attempt {
	var out []*Attempt
	add := func(name, layer, control string, expect Expect, run func(pid int) error) *Attempt {
		a := &Attempt{Name: "init-" + name, Class: "init", Expect: expect, Params: []string{"pid"}, Layer: layer, Control: control,
			run: func(p params) error { return run(p.int("pid", 1)) }}
		out = append(out, a)
		return a
	}
	hidden := errnos("EACCES", "EPERM", "ENOENT")
	proc := func(name, file string, flags int, control string) {
		add(name, "dumpable", control, hidden, func(pid int) error { return openOnly(fmt.Sprintf("/proc/%d/%s", pid, file), flags)(nil) })
	}
	add("ptrace-attach", "seccomp", "attaches as a debugger", errnos("EPERM"), func(pid int) error {
		if err := unix.PtraceAttach(pid); err != nil {
			return err
		}
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
			return err
		}
		return unix.PtraceDetach(pid)
	})
	add("ptrace-seize", "seccomp", "seizes it without stopping it", errnos("EPERM"), func(pid int) error {
		return sys(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0)
	})
	proc("mem-write", "mem", unix.O_RDWR, "opens its memory for writing")
	proc("mem-read", "mem", unix.O_RDONLY, "opens its memory for reading")
	proc("maps", "maps", unix.O_RDONLY, "reads its memory map")
	proc("environ", "environ", unix.O_RDONLY, "reads its environment")
	proc("exe", "exe", unix.O_RDONLY, "opens its program")
	proc("auxv", "auxv", unix.O_RDONLY, "reads its start values")
	add("exe-overwrite", "dumpable", "opens its program for writing", errnos("EACCES", "EPERM", "ENOENT", "ETXTBSY", "EROFS"), func(pid int) error {
		err := openOnly(fmt.Sprintf("/proc/%d/exe", pid), unix.O_WRONLY)(nil)
		if err == unix.ETXTBSY && pid != 1 {
			return nil // outside: permitted but for the running program
		}
		return err
	})
	add("fds", "dumpable", "lists its descriptors", errnos("EACCES", "EPERM", "ENOENT", "none"), func(pid int) error {
		return listPath(fmt.Sprintf("/proc/%d/fd", pid))
	})
	add("fd-open", "dumpable", "opens one of its descriptors", hidden, func(pid int) error {
		return openOnly(fmt.Sprintf("/proc/%d/fd/3", pid), unix.O_RDONLY)(nil)
	})
	add("root", "dumpable", "looks through its root", errnos("EACCES", "EPERM", "ENOENT", "none"), func(pid int) error {
		return listPath(fmt.Sprintf("/proc/%d/root/", pid))
	})
	add("cwd", "dumpable", "looks through its working directory", errnos("EACCES", "EPERM", "ENOENT", "none"), func(pid int) error {
		return listPath(fmt.Sprintf("/proc/%d/cwd/", pid))
	})
	add("pidfd-getfd", "seccomp", "takes a descriptor from it", errnos("EPERM"), func(pid int) error {
		pfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(pfd)
		fd, err := unix.PidfdGetfd(pfd, 0, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
	vm := func(name string, nr uintptr, control string) {
		add(name, "seccomp", control, errnos("EPERM"), func(pid int) error {
			iov := [2]uint64{uint64(block(make([]byte, 8))), 8}
			remote := [2]uint64{1, 8} // nothing is ever mapped there
			l, r := block(bytesOf(&iov)), block(bytesOf(&remote))
			return reach(nr, []unix.Errno{unix.EFAULT}, uintptr(pid), l, 1, r, 1, 0)
		})
	}
	vm("vm-read", unix.SYS_PROCESS_VM_READV, "reads its memory")
	vm("vm-write", unix.SYS_PROCESS_VM_WRITEV, "writes its memory")
	kill := func(name, control string, send func(pid int) error) {
		a := add(name, "pidns", control, errnos("none", "EPERM"), func(pid int) error { return killed(pid, send) })
		a.Needs = []string{"victim"}
	}
	kill("kill", "kills it", func(pid int) error { return unix.Kill(pid, unix.SIGKILL) })
	kill("stop", "stops it", func(pid int) error { return unix.Kill(pid, unix.SIGSTOP) })
	kill("term", "asks it to end", func(pid int) error { return unix.Kill(pid, unix.SIGTERM) })
	kill("segv", "sends it a fault", func(pid int) error { return unix.Tgkill(pid, pid, unix.SIGSEGV) })
	kill("pidfd-kill", "kills it by its pidfd", func(pid int) error {
		pfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(pfd)
		return unix.PidfdSendSignal(pfd, unix.SIGKILL, nil, 0)
	})
	// The kernel lets a process of the same user do this; it can only harm the
	// sandbox it is in.
	add("rlimit", "none", "changes its limits", contained(), func(pid int) error {
		var old unix.Rlimit
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
			return err
		}
		return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil)
	})
	return out
}

func bytesOf(v *[2]uint64) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), 16) }

// processAttempts reach for processes of the host, and for the means by which
// processes reach each other.
func processAttempts() []*Attempt {
	var out []*Attempt
	onHost := func(name, control string, run func(pid int) error) {
		out = append(out, &Attempt{Name: "host-" + name, Class: "process", Expect: errnos("ESRCH", "ENOENT", "EPERM"), Params: []string{"hostpid"}, Layer: "pidns", Control: control,
			run: func(p params) error { return run(p.int("hostpid", 3999999)) }})
	}
	onHost("signal", "signals a process of the user", func(pid int) error { return unix.Kill(pid, 0) })
	onHost("pidfd", "opens a pidfd of it", func(pid int) error {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
	onHost("proc", "reads its command line", func(pid int) error { return readPath(fmt.Sprintf("/proc/%d/cmdline", pid)) })
	onHost("environ", "reads its environment", func(pid int) error { return openOnly(fmt.Sprintf("/proc/%d/environ", pid), unix.O_RDONLY)(nil) })
	onHost("root", "looks through its root", func(pid int) error { return listPath(fmt.Sprintf("/proc/%d/root/", pid)) })
	onHost("priority", "changes its priority", func(pid int) error { return unix.Setpriority(unix.PRIO_PROCESS, pid, 19) })
	onHost("affinity", "changes where it runs", func(pid int) error {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &set); err != nil {
			return err
		}
		return unix.SchedSetaffinity(pid, &set)
	})
	onHost("limits", "reads its limits", func(pid int) error { return unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, new(unix.Rlimit)) })
	onHost("ptrace", "seizes it", func(pid int) error { return sys(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0) })
	onHost("compare", "compares its descriptors with ours", func(pid int) error {
		return sys(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), 0, 0, 0)
	})
	add := func(name, control, errno string, run func(p params) error) {
		out = append(out, &Attempt{Name: "process-" + name, Class: "process", Expect: errnos(errno), Layer: "seccomp", Control: control, run: run})
	}
	add("trace-child", "traces a child of its own", "EPERM", func(params) error {
		return withChild(func(pid int) error { return sys(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0) })
	})
	add("take-fd-of-child", "takes a descriptor from a child", "EPERM", func(params) error {
		return withChild(func(pid int) error {
			pfd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return err
			}
			defer unix.Close(pfd)
			fd, err := unix.PidfdGetfd(pfd, 0, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})
	})
	add("madvise", "advises another process's memory", "EPERM", func(params) error {
		return reach(unix.SYS_PROCESS_MADVISE, []unix.Errno{unix.EBADF, unix.EINVAL, unix.EFAULT}, bad, bad, bad, bad, bad)
	})
	out = append(out, &Attempt{Name: "process-outlive", Class: "process", Expect: contained(), Layer: "pidns", Event: "exec", Trace: "--helper daemon", Params: []string{"marker"},
		Control: "leaves a daemon behind that goes on when the command ends", run: func(p params) error { return daemon(p.get("marker", "escape-daemon")) }})
	out = append(out, &Attempt{Name: "process-memfd-exec", Class: "process", Expect: Expect{Contained: true, Errnos: []string{"EPERM"}}, Layer: "bpf-exec", Event: "exec", Trace: "--helper true",
		Control: "runs a program that has no path", run: memfdExec})
	return out
}

// withChild gives f a child that waits to be killed.
func withChild(f func(pid int) error) error {
	cmd := exec.Command("/proc/self/exe", "--helper", "wait")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = f(cmd.Process.Pid)
	in.Close()
	if kerr := cmd.Process.Kill(); err == nil && kerr != nil {
		err = kerr
	}
	_ = cmd.Wait() // killed: that it ended is all there is to know
	return err
}
