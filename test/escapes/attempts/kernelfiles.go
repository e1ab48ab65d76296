// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelFile is a file of the kernel or a device that root may open outside.
// Opening is all that is tried.
type kernelFile struct {
	name, path string
	flags      int
	control    string
	need       string
}

var kernelFiles = []kernelFile{
	{"core-pattern", "/proc/sys/kernel/core_pattern", unix.O_WRONLY, "names a program that the kernel runs for each crash", ""},
	{"poweroff-cmd", "/proc/sys/kernel/poweroff_cmd", unix.O_WRONLY, "names a program that the kernel runs", ""},
	{"panic", "/proc/sys/kernel/panic_on_oops", unix.O_WRONLY, "changes how the kernel fails", ""},
	{"randomize", "/proc/sys/kernel/randomize_va_space", unix.O_WRONLY, "switches address randomisation off", ""},
	{"binfmt", "/proc/sys/fs/binfmt_misc/register", unix.O_WRONLY, "registers an interpreter for the whole machine", "file:/proc/sys/fs/binfmt_misc/register"},
	{"ip-forward", "/proc/sys/net/ipv4/ip_forward", unix.O_WRONLY, "switches forwarding on", ""},
	{"drop-caches", "/proc/sys/vm/drop_caches", unix.O_WRONLY, "empties the caches of the machine", ""},
	{"sysrq", "/proc/sysrq-trigger", unix.O_WRONLY, "reaches the kernel's debug keys", "file:/proc/sysrq-trigger"},
	{"uevent-helper", "/sys/kernel/uevent_helper", unix.O_WRONLY, "names a program for device events", "file:/sys/kernel/uevent_helper"},
	{"kmsg", "/dev/kmsg", unix.O_RDONLY, "reads the kernel log", ""},
	{"kmsg-write", "/dev/kmsg", unix.O_WRONLY, "writes the kernel log", ""},
	{"mem", "/dev/mem", unix.O_RDONLY, "reads physical memory", "file:/dev/mem"},
	{"kcore", "/proc/kcore", unix.O_RDONLY, "reads kernel memory", "file:/proc/kcore"},
	{"kvm", "/dev/kvm", unix.O_RDWR, "makes virtual machines", "file:/dev/kvm"},
	{"fuse", "/dev/fuse", unix.O_RDWR, "makes a file system", "file:/dev/fuse"},
	{"loop-control", "/dev/loop-control", unix.O_RDWR, "makes a block device", "file:/dev/loop-control"},
	{"console", "/dev/console", unix.O_WRONLY, "writes to the machine's console", "file:/dev/console"},
	{"tty0", "/dev/tty0", unix.O_WRONLY, "writes to the machine's virtual console", "file:/dev/tty0"},
	{"slabinfo", "/proc/slabinfo", unix.O_RDONLY, "reads kernel allocations", ""},
	{"timer-list", "/proc/timer_list", unix.O_RDONLY, "reads kernel timers", "file:/proc/timer_list"},
}

func kernelFileAttempts() []*Attempt {
	var out []*Attempt
	for _, k := range kernelFiles {
		a := &Attempt{Name: "kernel-" + k.name, Class: "kernel-files", Expect: errnos("ENOENT", "EACCES", "EPERM", "EROFS"), Layer: "mount", As: asRoot,
			Control: k.control, run: openOnly(k.path, k.flags)}
		if k.flags == unix.O_RDONLY && strings.HasPrefix(k.path, "/proc/") { // may be masked by an empty file
			a.Expect.Errnos = append(a.Expect.Errnos, "none")
			a.run = func(params) error { return readPath(k.path) }
		}
		if k.need != "" {
			a.Needs = []string{k.need}
		}
		out = append(out, a)
	}
	return append(out,
		&Attempt{Name: "kernel-cgroup-migrate", Class: "kernel-files", Expect: errnos("ENOENT", "EACCES", "EPERM", "EROFS"), Layer: "mount", As: asRoot, Needs: []string{"cgroup2"},
			Control: "opens the root group's process list for writing", run: cgroupFile("cgroup.procs")},
		&Attempt{Name: "kernel-cgroup-make", Class: "kernel-files", Expect: errnos("ENOENT", "EACCES", "EPERM", "EROFS"), Layer: "mount", As: asRoot, Needs: []string{"cgroup2"},
			Control: "makes a group of its own", run: cgroupMake},
		&Attempt{Name: "kernel-block-device", Class: "kernel-files", Expect: errnos("ENOENT", "EACCES", "EPERM"), Layer: "mount", As: asRoot, Needs: []string{"block-device"},
			Control: "opens a disk", run: blockDevice},
	)
}

// cgroupRoot finds where the unified hierarchy is mounted, or says where it
// would be.
func cgroupRoot() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if ok && strings.HasPrefix(after, "cgroup2 ") && len(f) > 4 {
			return f[4], nil
		}
	}
	return "/sys/fs/cgroup", nil
}

func cgroupFile(name string) func(params) error {
	return func(params) error {
		root, err := cgroupRoot()
		if err != nil {
			return err
		}
		return openOnly(filepath.Join(root, name), unix.O_WRONLY)(nil)
	}
}

func cgroupMake(params) error {
	root, err := cgroupRoot()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "escape")
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return unix.Rmdir(dir)
}

// blockDevice opens the first disk that /sys or /dev shows.
func blockDevice(params) error {
	names, err := os.ReadDir("/sys/block")
	if err != nil {
		return unix.ENOENT
	}
	last := error(unix.ENOENT)
	for _, n := range names {
		if last = openOnly("/dev/"+n.Name(), unix.O_RDONLY)(nil); last == nil {
			return nil
		}
	}
	return last
}
