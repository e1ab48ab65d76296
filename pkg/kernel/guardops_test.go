// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inherited is the number of the first descriptor that a helper is born with.
const inherited = 3

// guardOps are what the guard judges and no hook of the cgroup, by name.
var guardOps = map[string]func(attempt) result{
	"socket-packet": func(attempt) result { return makeSocket(unix.AF_PACKET, unix.SOCK_DGRAM, 0) },
	"socket-uevent": func(attempt) result { return makeSocket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT) },
	"socket-route":  func(attempt) result { return makeSocket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE) },
	"socket-pair":   socketPair,
	"disconnect":    disconnect,
	"passed-write":  func(a attempt) result { return done("write", write(inherited+a.N)) },
	"passed-connect": func(a attempt) result {
		sa, _ := sockaddr(a.Addr)
		return done("connect", unix.Connect(inherited+a.N, sa))
	},
	"entry-create":    entryCreate,
	"entry-mknod":     func(a attempt) result { return done("mknod", unix.Mknod(a.Addr, unix.S_IFIFO|0o600, 0)) },
	"entry-mkdir":     func(a attempt) result { return done("mkdir", unix.Mkdir(a.Addr, 0o700)) },
	"entry-symlink":   func(a attempt) result { return done("symlink", unix.Symlink("elsewhere", a.Addr)) },
	"entry-link":      func(a attempt) result { return done("link", unix.Link(beside(a.Addr, "old"), a.Addr)) },
	"entry-rename":    func(a attempt) result { return done("rename", unix.Rename(beside(a.Addr, "old"), a.Addr)) },
	"entry-exchange":  func(a attempt) result { return done("renameat2", exchange(a.Addr, beside(a.Addr, "other"))) },
	"entry-renamedir": func(a attempt) result { return done("rename", unix.Rename(beside(a.Addr, "dir"), a.Addr)) },
	"exec-plain":      func(attempt) result { return done("exec", exec.Command("/bin/true").Run()) },
	"exec-confined":   execConfined,
	"userns":          newUserns,
	"io_uring":        ioUring,
}

func done(step string, err error) result {
	if err == nil {
		return result{}
	}
	e := unix.Errno(0)
	if errors.As(err, &e) {
		return fail(step, e)
	}
	return fail(step, err)
}

func beside(path, name string) string { return filepath.Join(filepath.Dir(path), name) }

func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

func write(fd int) error {
	_, err := unix.Write(fd, []byte("hello"))
	return err
}

func makeSocket(family, typ, proto int) result {
	fd, err := unix.Socket(family, typ, proto)
	if err != nil {
		return fail("socket", err)
	}
	return done("close", unix.Close(fd))
}

// socketPair writes from one end to the other.
func socketPair(attempt) result {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return fail("socketpair", err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	return done("write", write(p[0]))
}

// disconnect dissolves a UDP socket's connection to the loopback.
func disconnect(attempt) result {
	fd, err := open(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fail("connect", err)
	}
	var none [16]byte // AF_UNSPEC
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), uintptr(len(none))); e != 0 {
		return fail("disconnect", e)
	}
	return result{}
}

func entryCreate(a attempt) result {
	fd, err := unix.Open(a.Addr, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o755)
	if err != nil {
		return fail("open", err)
	}
	return done("close", unix.Close(fd))
}

// execConfined starts a program as a sandbox does.
func execConfined(attempt) result {
	ch := make(chan result)
	go func() {
		runtime.LockOSThread() // the thread ends with what it has set
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			ch <- fail("prctl", err)
			return
		}
		ch <- done("exec", exec.Command("/bin/true").Run())
	}()
	return <-ch
}

// newUserns starts a program that is confined in a user namespace of its own.
func newUserns(attempt) result {
	ch := make(chan result)
	go func() {
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			ch <- fail("prctl", err)
			return
		}
		cmd := exec.Command("/bin/true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		ch <- done("clone", cmd.Run())
	}()
	return <-ch
}

func ioUring(attempt) result {
	var params [120]byte // struct io_uring_params
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if e != 0 {
		return fail("io_uring_setup", e)
	}
	return done("close", unix.Close(int(fd)))
}
