// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	atCWD   = ^uintptr(99) // AT_FDCWD as a register value
	garbage = uintptr(0xdead) << 32
)

// setIDAttempts make set-user-ID and set-group-ID files in the workspace. What
// the calls say is not enough: the file itself is looked at.
func setIDAttempts() []*Attempt {
	var out []*Attempt
	add := func(name, control string, make func(path string) error) *Attempt {
		a := &Attempt{Name: "setid-" + name, Class: "set-id", Expect: errnos("EPERM"), Params: []string{"ws"}, Layer: "seccomp", NotIn: []string{readOnly}, Control: control,
			run: func(p params) error { return setID(p.get("ws", "."), make) }}
		out = append(out, a)
		return a
	}
	existing := func(change func(path string) error) func(string) error {
		return func(path string) error {
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
				return nothing("no file to change: %v", err)
			}
			return change(path)
		}
	}
	raw := func(name, control string, nr uintptr, args func(path uintptr, fd int) []uintptr) *Attempt {
		return add(name, control, existing(func(path string) error {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return sys(nr, args(cstring(path), fd)...)
		}))
	}
	add("chmod", "sets the bit with chmod", existing(func(path string) error { return unix.Chmod(path, 0o4755) }))
	add("chmod-group", "sets the group bit", existing(func(path string) error { return unix.Chmod(path, 0o2755) }))
	add("chmod-proc-fd", "sets the bit through /proc/self/fd", existing(func(path string) error {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Chmod(procFD(fd), 0o6755)
	}))
	raw("fchmod", "sets the bit with fchmod", unix.SYS_FCHMOD, func(_ uintptr, fd int) []uintptr { return []uintptr{uintptr(fd), 0o4755} })
	raw("fchmodat", "sets the bit with fchmodat", unix.SYS_FCHMODAT, func(path uintptr, _ int) []uintptr { return []uintptr{atCWD, path, 0o4755} })
	raw("fchmodat-high-bits", "with garbage in the upper half of the mode", unix.SYS_FCHMODAT, func(path uintptr, _ int) []uintptr { return []uintptr{atCWD, path, 0o4755 | garbage} })
	a := raw("fchmodat2", "sets the bit with fchmodat2", 452, func(path uintptr, _ int) []uintptr { return []uintptr{atCWD, path, 0o4755, 0} })
	a.Expect, a.Needs = errnos("EPERM", "ENOSYS"), []string{"linux:6.6"}
	add("openat", "creates it with the bit set", func(path string) error {
		_, err := sysr(unix.SYS_OPENAT, atCWD, cstring(path), unix.O_CREAT|unix.O_WRONLY, 0o4755)
		return err
	})
	add("openat-high-bits", "creates it with garbage in the upper half", func(path string) error {
		_, err := sysr(unix.SYS_OPENAT, atCWD, cstring(path), unix.O_CREAT|unix.O_WRONLY|garbage, 0o6755|garbage)
		return err
	})
	add("tmpfile", "makes a nameless file with the bit, then names it", func(path string) error {
		fd, err := sysr(unix.SYS_OPENAT, atCWD, cstring(filepath.Dir(path)), unix.O_TMPFILE|unix.O_WRONLY, 0o4755)
		if err != nil {
			return err
		}
		return unix.Linkat(unix.AT_FDCWD, procFD(int(fd)), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	})
	add("openat2", "creates it with openat2, whose mode lies in memory", func(path string) error {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0o4755})
		if err == nil {
			unix.Close(fd)
		}
		return err
	}).Expect = errnos("ENOSYS")
	add("mknodat", "makes a regular file with mknod", func(path string) error {
		return unix.Mknodat(unix.AT_FDCWD, path, unix.S_IFREG|0o4755, 0)
	})
	// The kernel itself keeps no set-id bit of mkdir; the bit is refused all the same.
	add("chmod-dir", "makes a set-group-ID directory", func(path string) error {
		if err := unix.Mkdir(path, 0o755); err != nil {
			return nothing("no directory: %v", err)
		}
		return unix.Chmod(path, 0o2755)
	})
	for _, x := range legacyModes() {
		add(x.name, x.control, x.make)
	}
	out = append(out,
		&Attempt{Name: "suid-exec", Class: "set-id", Expect: errnos("none", "EACCES", "ENOENT"), Params: []string{"suid"}, Layer: "no-new-privs",
			Control: "gains root by running a set-user-ID program", run: func(p params) error { return suidExec(p.get("suid", "/usr/bin/su"), p["suid"] != "") }},
		&Attempt{Name: "device-block", Class: "set-id", Expect: errnos("EPERM"), Params: []string{"ws"}, Layer: "seccomp", As: asRoot,
			Control: "root makes a block device", run: func(p params) error { return device(p.get("ws", "."), unix.S_IFBLK, int(unix.Mkdev(7, 0))) }},
		&Attempt{Name: "device-char", Class: "set-id", Expect: errnos("EPERM"), Params: []string{"ws"}, Layer: "seccomp", As: asRoot,
			Control: "root makes a character device", run: func(p params) error { return device(p.get("ws", "."), unix.S_IFCHR, int(unix.Mkdev(1, 3))) }},
		&Attempt{Name: "file-capability", Class: "set-id", Expect: errnos("EPERM", "EACCES", "EROFS"), Params: []string{"ws"}, Layer: "capabilities", As: asRoot, NotIn: []string{readOnly},
			Control: "root gives a file capabilities", run: func(p params) error {
				return inWorkspace(p.get("ws", "."), func(path string) error {
					if err := os.WriteFile(path, nil, 0o755); err != nil {
						return nothing("no file to change: %v", err)
					}
					caps := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
					return unix.Setxattr(path, "security.capability", caps, 0)
				})
			}},
	)
	return out
}

func device(dir string, kind uint32, dev int) error {
	return inWorkspace(dir, func(path string) error { return unix.Mknod(path, kind|0o600, dev) })
}

// inWorkspace gives f a path that does not exist, and removes what it made.
func inWorkspace(dir string, f func(path string) error) error {
	path := filepath.Join(dir, "escape-file")
	os.Remove(path)
	defer os.Remove(path)
	return f(path)
}

// setID makes a file and looks whether it has a bit that it must not have.
func setID(dir string, make func(path string) error) error {
	return inWorkspace(dir, func(path string) error {
		if err := make(path); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
			return nothing("the bit is not there")
		}
		return nil
	})
}
