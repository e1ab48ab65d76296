// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// unseen is what a path outside the view answers.
var unseen = errnos("ENOENT", "EACCES", "EPERM", "EROFS", "ENOTDIR")

// row makes an attempt on a file that the parameter key names.
func row(class, name, key, def, layer, control string, run func(path string) error) *Attempt {
	return &Attempt{Name: name, Class: class, Expect: unseen, Params: []string{key}, Layer: layer, Control: control,
		run: func(p params) error { return run(p.get(key, def)) }}
}

func readPath(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var b [1]byte
	n, err := unix.Read(fd, b[:])
	if err == nil && n == 0 {
		return nothing("empty: a decoy")
	}
	return err
}

func listPath(path string) error {
	names, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return nothing("an empty directory")
	}
	return nil
}

// fileAttempts read what lies outside. The secret is a file of the user's home
// outside the workspace.
func fileAttempts() []*Attempt {
	const secret, home = "/root/.ssh/id_ed25519", "/root"
	read := func(name, key, def, control string) *Attempt {
		return row("file-read", name, key, def, "mount", control, readPath)
	}
	out := []*Attempt{
		read("read-ssh-key", "secret", secret, "reads a private key in the user's home"),
		{Name: "read-decoy-key", Class: "file-read", Expect: errnos("ENOENT"), Layer: "mount", Trace: "/.ssh/id_ed25519", Control: "reads the private key in $HOME",
			run: func(params) error { return readPath(os.Getenv("HOME") + "/.ssh/id_ed25519") }},
		read("read-shadow", "shadow", "/etc/shadow", "root reads the password file"),
		read("read-secret-dotdot", "secretdotdot", "../../../../../../../../root/.ssh/id_ed25519", "reads it by a path full of .."),
		read("read-secret-proc-root", "secretproc", "/proc/self/root/root/.ssh/id_ed25519", "reads it through /proc/self/root"),
		read("read-secret-proc-cwd", "secretcwd", "/proc/self/cwd/../../../../../../root/.ssh/id_ed25519", "reads it through /proc/self/cwd"),
		read("read-host-shm", "shmfile", "/dev/shm/escape", "reads another program's shared memory file"),
		read("read-host-tmp", "tmpfile", "/tmp/escape", "reads another program's temporary file"),
		read("read-ringfence-state", "state", "/var/lib/ringfence/secrets/key", "reads a stored secret as root"),
		row("file-read", "list-home", "home", home, "mount", "lists the user's home", listPath),
		row("file-read", "stat-secret", "secret", secret, "mount", "asks for size and time", func(path string) error {
			var st unix.Stat_t
			return unix.Stat(path, &st)
		}),
		row("file-read", "chdir-home", "home", home, "mount", "changes into the user's home", unix.Chdir),
		row("file-read", "watch-home", "home", home, "mount", "watches what changes in the user's home", watch),
		row("file-read", "symlink-to-secret", "secret", secret, "mount", "reads through a symlink it made", func(path string) error {
			return inTemp(func(dir string) error {
				link := filepath.Join(dir, "l")
				if err := os.Symlink(path, link); err != nil {
					return unix.EIO
				}
				return readPath(link)
			})
		}),
		row("file-read", "hardlink-secret", "secret", secret, "mount", "links it into a directory of its own", func(path string) error {
			return inDirOf(path, func(dir string) error { return unix.Link(path, filepath.Join(dir, "hard")) })
		}),
		row("file-read", "name-to-handle", "secret", secret, "seccomp", "asks for the file's handle", nameToHandle),
		{Name: "open-by-handle", Class: "file-read", Expect: errnos("EPERM"), Layer: "seccomp", As: asRoot, Control: "root opens files by inode number",
			run: func(params) error { return byHandle("/") }},
		row("file-read", "secret-openat2", "secret", secret, "seccomp", "opens with openat2", func(path string) error {
			fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC})
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}),
	}
	for _, a := range out {
		if a.Name == "secret-openat2" {
			a.Expect = errnos("ENOSYS")
		}
		switch a.Name {
		case "read-shadow": // Landlock records it where the operator turned its records on
			a.Event, a.Trace, a.Layer, a.As = "file", "/etc/shadow", "landlock", asRoot
		case "read-ringfence-state":
			a.As = asRoot
		}
		if a.Name == "read-secret-dotdot" || a.Name == "list-home" || a.Name == "chdir-home" || a.Name == "read-ssh-key" {
			a.Expect = errnos("ENOENT", "EACCES", "EPERM", "none")
		}
		if a.Name == "name-to-handle" {
			a.Expect = errnos("EPERM")
		}
	}
	return out
}

func watch(path string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_ALL_EVENTS)
	return err
}

func nameToHandle(path string) error {
	_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	return err
}

// byHandle opens a file that does not exist on the file system of path: what
// comes of a handle is told only to those who may use one.
func byHandle(path string) error {
	root, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	fd, err := unix.OpenByHandleAt(root, unix.NewFileHandle(1, make([]byte, 8)), unix.O_RDONLY|unix.O_CLOEXEC)
	if err == unix.ESTALE {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// inTemp runs f in a directory of its own, gone afterwards.
func inTemp(f func(dir string) error) error {
	dir, err := os.MkdirTemp("", "escape")
	if err != nil {
		return nothing("no temporary directory: %v", err)
	}
	defer os.RemoveAll(dir)
	return f(dir)
}

// inDirOf is inTemp on the file system of path, where there is one.
func inDirOf(path string, f func(dir string) error) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), "escape")
	if err != nil {
		return inTemp(f)
	}
	defer os.RemoveAll(dir)
	return f(dir)
}

// writeAttempts change what lies outside. outfile and outdir belong to the user.
func writeAttempts() []*Attempt {
	const file, dir = "/root/.bashrc", "/root"
	onFile := func(name, control string, run func(path string) error) *Attempt {
		return row("file-write", name, "outfile", file, "mount", control, run)
	}
	onDir := func(name, control string, run func(path string) error) *Attempt {
		return row("file-write", name, "outdir", dir, "mount", control, run)
	}
	at := func(dir string) string { return filepath.Join(dir, "escape-made") }
	out := []*Attempt{
		onFile("open-write", "opens a file of the user for writing", func(path string) error { return openOnly(path, unix.O_WRONLY|unix.O_APPEND)(nil) }),
		onFile("truncate", "truncates a file", func(path string) error { return unix.Truncate(path, 1) }),
		onFile("chmod", "changes a mode", func(path string) error { return unix.Chmod(path, 0o777) }),
		onFile("chown", "changes an owner", func(path string) error { return unix.Chown(path, os.Getuid(), os.Getgid()) }),
		onFile("utimes", "changes a time", func(path string) error { return unix.Utimes(path, []unix.Timeval{{}, {}}) }),
		onFile("setxattr", "sets an attribute", func(path string) error { return unix.Setxattr(path, "user.escape", []byte("x"), 0) }),
		onFile("rename-over", "puts a file in the place of another", func(path string) error { return replace(path) }),
		onFile("unlink", "removes a file", func(path string) error { return unix.Unlink(path) }),
		onDir("create", "makes a file outside the workspace", func(dir string) error { return os.WriteFile(at(dir), []byte(proof), 0o600) }),
		onDir("mkdir", "makes a directory", func(dir string) error { return unix.Mkdir(at(dir)+"-d", 0o755) }),
		onDir("symlink", "makes a symlink", func(dir string) error { return unix.Symlink("/", at(dir)+"-l") }),
		onDir("mkfifo", "makes a FIFO", func(dir string) error { return unix.Mkfifo(at(dir)+"-f", 0o600) }),
		onDir("bind-socket", "makes a socket", func(dir string) error { return bindPath(at(dir) + "-s") }),
		onDir("tmpfile-link", "makes a nameless file, then names it", tmpfileLink),
		row("file-write", "write-system-dir", "sysdir", "/usr/bin", "mount", "root makes a nameless file in /usr/bin", func(dir string) error {
			return openOnly(dir, unix.O_TMPFILE|unix.O_WRONLY)(nil)
		}),
		row("file-write", "write-passwd", "passwd", "/etc/passwd", "mount", "root opens the user database for writing", func(path string) error {
			return openOnly(path, unix.O_WRONLY|unix.O_APPEND)(nil)
		}),
		row("file-write", "write-preload", "preload", "/etc", "mount", "root makes a nameless file where ld.so.preload would lie", func(dir string) error {
			return openOnly(dir, unix.O_TMPFILE|unix.O_WRONLY)(nil)
		}),
		row("file-write", "write-cron", "cron", "/etc/cron.d", "mount", "root makes a nameless file in /etc/cron.d", func(dir string) error {
			return openOnly(dir, unix.O_TMPFILE|unix.O_WRONLY)(nil)
		}),
	}
	for _, a := range out {
		switch a.Name {
		case "bind-socket":
			a.Expect = errnos(append(slices.Clone(unseen.Errnos), "EAFNOSUPPORT")...)
		}
		switch a.Params[0] {
		case "cron":
			a.As, a.Needs = asRoot, []string{"file:/etc/cron.d"}
		case "sysdir", "passwd", "preload":
			a.As = asRoot
		default:
			a.Name = "write-" + a.Name
		}
	}
	return out
}

func replace(path string) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(proof), 0o600); err != nil {
		return err
	}
	return unix.Rename(temp, path)
}

func bindPath(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
}

func tmpfileLink(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Linkat(unix.AT_FDCWD, procFD(fd), unix.AT_FDCWD, filepath.Join(dir, "escape-made-t"), unix.AT_SYMLINK_FOLLOW)
}
