// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// identityAttempts try to become somebody else or to shed a limit.
func identityAttempts() []*Attempt {
	var out []*Attempt
	add := func(name, layer, control string, expect Expect, run func(p params) error) *Attempt {
		a := &Attempt{Name: "identity-" + name, Class: "identity", Expect: expect, Layer: layer, As: asRoot, Control: control, run: run}
		out = append(out, a)
		return a
	}
	// Only this thread changes: the program ends right after.
	raw := func(nr uintptr, args ...uintptr) func(params) error {
		return func(params) error {
			_, _, e := unix.RawSyscall6(nr, args[0], args[1], args[2], 0, 0, 0)
			if e != 0 {
				return e
			}
			return nil
		}
	}
	for _, c := range []struct {
		name, control string
		nr            uintptr
		args          []uintptr
	}{
		{"setuid", "becomes root again", unix.SYS_SETUID, []uintptr{0, 0, 0}},
		{"setgid", "takes root's group", unix.SYS_SETGID, []uintptr{0, 0, 0}},
		{"setresuid", "takes root's saved uid", unix.SYS_SETRESUID, []uintptr{0, 0, 0}},
		{"setreuid", "takes root's real uid", unix.SYS_SETREUID, []uintptr{0, 0, 0}},
	} {
		add(c.name, "capabilities", c.control, errnos("EPERM"), raw(c.nr, c.args...)).NotIn = []string{rootInside}
	}
	add("setuid-other", "capabilities", "becomes another user", errnos("EPERM", "EINVAL"), raw(unix.SYS_SETUID, 12345, 0, 0))
	add("setgroups", "capabilities", "takes another group", errnos("EPERM"), func(params) error {
		gid := [1]uint32{0}
		_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&gid)), 0)
		if e != 0 {
			return e
		}
		return nil
	})
	add("capset", "capabilities", "gives itself capabilities", errnos("EPERM"), func(params) error {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		want := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN}}
		return unix.Capset(&hdr, &want[0])
	})
	add("bounding-drop", "capabilities", "changes the bounding set", errnos("EPERM"), func(params) error {
		return sys(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, unix.CAP_WAKE_ALARM)
	})
	add("securebits", "capabilities", "changes the secure bits", errnos("EPERM"), func(params) error {
		return sys(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 0)
	})
	add("nice", "capabilities", "takes a better priority", errnos("EACCES", "EPERM"), func(params) error {
		return unix.Setpriority(unix.PRIO_PROCESS, 0, -10)
	})
	add("realtime", "capabilities", "takes a realtime priority", errnos("EPERM"), func(params) error {
		prio := [1]int32{1}
		return sys(unix.SYS_SCHED_SETSCHEDULER, 0, 1 /* SCHED_FIFO */, uintptr(unsafe.Pointer(&prio)))
	})
	add("rlimit-core", "rlimits", "raises a hard limit", errnos("EPERM"), func(params) error {
		var now unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &now); err != nil {
			return err
		}
		if now.Max == unix.RLIM_INFINITY {
			now.Max = 1 << 40 // lower it first, then raise it again
			if err := unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &now, nil); err != nil {
				return err
			}
		}
		now.Max++
		return unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &now, nil)
	}).Needs = []string{"cap:SYS_RESOURCE"}
	add("oom", "capabilities", "protects itself from the out-of-memory killer", errnos("EACCES", "EPERM", "EROFS", "ENOENT"), func(params) error {
		return writeTo("/proc/self/oom_score_adj", "-500")
	}).Needs = []string{"cap:SYS_RESOURCE"}
	oom := out[len(out)-1]
	oom.Event, oom.Trace, oom.Layer = "file", "oom_score_adj", "landlock"
	return out
}

func writeTo(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(text))
	return err
}

// environmentAttempts look for what the launcher should not have handed over.
func environmentAttempts() []*Attempt {
	var out []*Attempt
	for _, name := range []string{
		"AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "DATABASE_URL", "ESCAPE_SECRET", "LD_PRELOAD", "NODE_OPTIONS", "PYTHONSTARTUP",
		"BASH_ENV", "GIT_SSH_COMMAND", "DOCKER_HOST", "KUBECONFIG", "DBUS_SESSION_BUS_ADDRESS",
	} {
		out = append(out, &Attempt{Name: "env-" + name, Class: "environment", Expect: errnos("none"), Layer: "environment", Env: []string{name + "=escape-value"},
			Control: "finds the caller's variable", run: func(params) error {
				if v, ok := syscall.Getenv(name); ok && v == "escape-value" {
					return nil
				}
				return nothing("not there, or not the caller's")
			}})
	}
	return append(out,
		&Attempt{Name: "fd-inherited", Class: "environment", Expect: errnos("EBADF", "none"), Layer: "launch", Params: []string{"fd"}, Needs: []string{"extra-fd"},
			Control: "uses a descriptor that the launcher left open", run: func(p params) error { return inherited(p.int("fd", -1)) }},
		&Attempt{Name: "fd-directory", Class: "environment", Expect: errnos("EBADF", "none", "ENOTDIR"), Layer: "launch", Params: []string{"fd"}, Needs: []string{"extra-fd"},
			Control: "leaves its root through an inherited directory", run: func(p params) error {
				fd, err := unix.Openat(p.int("fd", 9), "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				return unix.Close(fd)
			}},
	)
}

// inherited looks for open descriptors beyond stdio that this program did not
// open: those of the Go runtime (epoll, eventfd) do not count.
func inherited(only int) error {
	for fd := 3; fd < 64; fd++ {
		if only >= 0 && fd != only {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT == 0 { // anonymous inodes have no type
			continue
		}
		return nil
	}
	return unix.EBADF
}
