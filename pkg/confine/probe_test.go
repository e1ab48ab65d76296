// SPDX-License-Identifier: Apache-2.0

package confine_test

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// probe is this test binary run inside a sandbox (or outside, as the control):
// it tries one thing and prints the errno.
func probe(name string, args []string) int {
	switch name {
	case "read":
		return say(try(args[0], os.O_RDONLY))
	case "write":
		return say(try(args[0], os.O_WRONLY|os.O_CREATE))
	case "rdwr":
		return say(try(args[0], os.O_RDWR))
	case "connect":
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: args[0]})
		}
		return say(err)
	case "status":
		return showStatus()
	case "fds":
		return showFDs()
	case "kill":
		return say(unix.Kill(1, unix.SIGTERM))
	}
	fmt.Println("unknown probe", name)
	return 2
}

func try(path string, flags int) error {
	f, err := os.OpenFile(path, flags, 0o644)
	if err == nil {
		f.Close()
	}
	return err
}

func say(err error) int {
	var e unix.Errno
	switch {
	case err == nil:
		fmt.Println("ok")
	case errors.As(err, &e):
		fmt.Println(unix.ErrnoName(e))
	default:
		fmt.Println(err)
	}
	return 0
}

func showStatus() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return say(err)
	}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch k {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "NSpid", "SigIgn", "SigBlk":
			fmt.Printf("%s=%s\n", k, strings.Join(strings.Fields(v), " "))
		}
	}
	return 0
}

// showFDs lists descriptors that were inherited: the Go runtime's own are
// close-on-exec, so they are told apart by that flag.
func showFDs() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return say(err)
	}
	var list []string
	for _, e := range entries {
		var n int
		if _, err := fmt.Sscan(e.Name(), &n); err != nil {
			return say(err)
		}
		flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			list = append(list, e.Name())
		}
	}
	sort.Strings(list)
	fmt.Println(strings.Join(list, " "))
	return 0
}
