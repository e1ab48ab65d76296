// SPDX-License-Identifier: Apache-2.0

package world

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layout below Options.Dir:
//
//	home/.ssh/id_ed25519   the secret          home/profile   a file to change
//	home/out/              a directory to write into
//	state/key              root's              run/           sockets
//	ws/                    the workspace       ws/repo/.git   a repository with a hook
//	victim                 the user's copy of the attempts program
//	suid                   a set-user-ID root copy of the attempts program
func (w *World) files() error {
	for _, dir := range []string{"home", "home/.ssh", "home/out", "run", "ws", "state"} {
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			return err
		}
		if err := w.own(w.path(dir)); err != nil {
			return err
		}
	}
	secret := w.path("home/.ssh/id_ed25519")
	unique := strings.ToLower(rand.Text()[:10])
	shm, tmp := "/dev/shm/escape-"+unique, "/tmp/escape-"+unique
	for path, mode := range map[string]os.FileMode{secret: 0o600, w.path("state/key"): 0o600, shm: 0o600, tmp: 0o600} {
		if err := w.file(path, "a secret\n", mode); err != nil {
			return err
		}
	}
	if err := os.Chown(w.path("state/key"), os.Getuid(), os.Getgid()); err != nil {
		return err
	}
	w.closers = append(w.closers, func() error { return errors.Join(os.Remove(shm), os.Remove(tmp)) })
	up := strings.Repeat("../", 24)
	for k, v := range map[string]string{
		"secret": secret, "secretdotdot": up + secret[1:], "secretproc": "/proc/self/root" + secret, "secretcwd": "/proc/self/cwd/" + up + secret[1:],
		"shmfile": shm, "tmpfile": tmp, "state": w.path("state/key"), "home": w.path("home"),
		"outfile": w.path("home/profile"), "outdir": w.path("home/out"), "ws": w.path("ws"), "repo": w.path("ws/repo"),
		"suid": w.path("suid"), "marker": "escape-" + unique,
	} {
		w.Params[k] = v
	}
	program, err := os.ReadFile(w.opts.Attempts)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.path("suid"), program, 0o755); err != nil {
		return err
	}
	if err := w.file(w.path("victim"), string(program), 0o755); err != nil {
		return err
	}
	return unix.Chmod(w.path("suid"), 0o4755)
}

func (w *World) file(path, content string, mode os.FileMode) error {
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		return err
	}
	return w.own(path)
}

const profileText = "# the user's own\n"

// Reset puts back what attempts may have changed.
func (w *World) Reset() error {
	for _, dir := range []string{"home/out", "ws"} {
		names, err := os.ReadDir(w.path(dir))
		if err != nil {
			return err
		}
		for _, n := range names {
			if n.Name() == "host.sock" {
				continue
			}
			if err := os.RemoveAll(filepath.Join(w.path(dir), n.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.RemoveAll(w.path("home/profile")); err != nil {
		return err
	}
	if err := w.file(w.path("home/profile"), profileText, 0o644); err != nil {
		return err
	}
	for _, dir := range []string{"repo", "repo/.git", "repo/.git/hooks", "repo/.git/objects", "repo/.git/refs"} {
		if err := os.Mkdir(w.path("ws/"+dir), 0o755); err != nil {
			return err
		}
		if err := w.own(w.path("ws/" + dir)); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{
		"HEAD": "ref: refs/heads/main\n", "config": "[core]\n\trepositoryformatversion = 0\n\tbare = false\n", "hooks/pre-commit": "#!/bin/sh\nexit 0\n",
	} {
		if err := w.file(w.path("ws/repo/.git/"+path), text, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// changed looks at the files outside the workspace.
func (w *World) changed() []string {
	var out []string
	b, err := os.ReadFile(w.path("home/profile"))
	st, serr := os.Stat(w.path("home/profile"))
	switch {
	case err != nil || serr != nil:
		out = append(out, "file gone: home/profile")
	case string(b) != profileText || st.Mode().Perm() != 0o644 || st.ModTime().Unix() == 0:
		out = append(out, "file changed: home/profile")
	}
	if n, err := unix.Getxattr(w.path("home/profile"), "user.escape", nil); err == nil && n > 0 {
		out = append(out, "attribute set: home/profile")
	}
	names, err := os.ReadDir(w.path("home/out"))
	if err != nil {
		return append(out, "directory gone: home/out")
	}
	for _, n := range names {
		out = append(out, "file made: home/out/"+n.Name())
	}
	return out
}

func (w *World) sockets() error {
	unique := w.Params["marker"]
	streams := map[string]string{"unix": w.path("run/daemon.sock"), "docker": w.path("run/docker.sock"), "unixws": w.path("ws/host.sock"), "abstract": "@" + unique + "-s"}
	for key, name := range streams {
		l, err := net.Listen("unix", name)
		if err != nil {
			return err
		}
		w.accept("unix "+key, l)
		w.Params[key] = name
		if err := w.open(name); err != nil {
			return err
		}
	}
	for key, name := range map[string]string{"unixdgram": w.path("run/log.sock"), "abstractdgram": "@" + unique + "-d"} {
		c, err := net.ListenPacket("unixgram", name)
		if err != nil {
			return err
		}
		w.receive("unix "+key, c, nil)
		w.Params[key] = name
		if err := w.open(name); err != nil {
			return err
		}
	}
	link := w.path("run/link.sock")
	if err := os.Symlink("daemon.sock", link); err != nil {
		return err
	}
	w.Params["unixlink"] = link
	w.Params["unixdotdot"] = filepath.Dir(w.path("run")) + "//run/../run//daemon.sock"
	w.Params["unixproc"] = "/proc/self/root" + w.path("run/daemon.sock")
	return nil
}

// open lets everybody use a socket that has a path.
func (w *World) open(name string) error {
	if name[0] == '@' {
		return nil
	}
	return os.Chmod(name, 0o777)
}

// kernelObjects makes System V objects and a POSIX queue for the user. What
// this kernel lacks, or what exists already, is an error: the control needs it.
func (w *World) kernelObjects() error {
	var random [4]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	key := uintptr(binary.NativeEndian.Uint32(random[:])&0x7fffffff | 1) // not IPC_PRIVATE; other worlds have theirs
	w.Params["key"] = fmt.Sprint(key)
	for _, x := range []struct {
		name        string
		get, ctl    uintptr
		args        [3]uintptr
		removeThird bool
	}{
		{"shm", unix.SYS_SHMGET, unix.SYS_SHMCTL, [3]uintptr{key, 4096, unix.IPC_CREAT | unix.IPC_EXCL | 0o666}, false},
		{"msg", unix.SYS_MSGGET, unix.SYS_MSGCTL, [3]uintptr{key, unix.IPC_CREAT | unix.IPC_EXCL | 0o666}, false},
		{"sem", unix.SYS_SEMGET, unix.SYS_SEMCTL, [3]uintptr{key, 1, unix.IPC_CREAT | unix.IPC_EXCL | 0o666}, true},
	} {
		id, _, e := unix.Syscall(x.get, x.args[0], x.args[1], x.args[2])
		if e != 0 {
			return fmt.Errorf("system V %s: %w", x.name, e)
		}
		w.closers = append(w.closers, func() error {
			args := [3]uintptr{id, unix.IPC_RMID, 0}
			if x.removeThird {
				args = [3]uintptr{id, 0, unix.IPC_RMID}
			}
			if _, _, e := unix.Syscall(x.ctl, args[0], args[1], args[2]); e != 0 {
				return fmt.Errorf("remove system V %s: %w", x.name, e)
			}
			return nil
		})
	}
	name := w.Params["marker"]
	ptr, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	fd, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(ptr)), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o666, 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("message queue: %w", e)
	}
	w.Params["mq"] = name
	w.closers = append(w.closers, func() error {
		unix.Close(int(fd))
		if _, _, e := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(ptr)), 0, 0); e != 0 {
			return fmt.Errorf("message queue: %w", e)
		}
		return nil
	})
	return nil
}
