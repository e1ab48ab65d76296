// SPDX-License-Identifier: Apache-2.0

// Package refusal knows which failures of system calls are refusals of a
// sandbox, and puts each into words: what was tried, which layer said no, and
// why. The records come from package kernel.
package refusal

import (
	"maps"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/seccomp"
)

// group is a set of system calls that name the same kind of thing in the same
// argument and are refused alike.
type group struct {
	calls    string // names, separated by spaces
	activity string // the event's verb; "" means the call's own name
	call     kernel.Call
}

// Error numbers that say no to anything: not permitted, no access, a read-only
// file system, and the system call filter's answer to what it does not know.
var anyCall = []unix.Errno{unix.EPERM, unix.EACCES, unix.EROFS, unix.ENOSYS}

func errnos(more ...unix.Errno) []unix.Errno {
	return append(append([]unix.Errno(nil), anyCall...), more...)
}

// missing are what a path that the sandbox's view does not hold answers, or
// holds as a mount of its own.
var missing = []unix.Errno{unix.ENOENT, unix.ENOTDIR, unix.EXDEV}

func path(activity string, arg uint8, calls string, more ...unix.Errno) group {
	return group{calls, activity, kernel.Call{Errnos: errnos(more...), Watched: missing, Subject: kernel.SubjectPath, Arg: arg, Hooks: guardHooks[activity]}}
}

func plain(calls string, more ...unix.Errno) group {
	return group{calls, "", kernel.Call{Errnos: errnos(more...)}}
}

func none(calls string) group { return group{calls: calls} }

// connectHooks judge a connect, sendHooks a send, which may connect too (TCP
// fast open).
var (
	connectHooks = []kernel.Hook{kernel.HookConnect4, kernel.HookConnect6, kernel.HookConnectUnix, kernel.HookLSMConnect}
	sendHooks    = append([]kernel.Hook{kernel.HookSendmsg4, kernel.HookSendmsg6, kernel.HookSendmsgUnix, kernel.HookLSMSendmsg}, connectHooks...)
)

// guardHooks are those of the third lock that judge an activity on a path.
var guardHooks = map[string][]kernel.Hook{
	"open": {kernel.HookLSMEntry}, "create": {kernel.HookLSMEntry}, "link": {kernel.HookLSMEntry}, "rename": {kernel.HookLSMEntry},
	"execute": {kernel.HookLSMExec},
}

// groups is the registration table: every call with a row of its own. All
// others are refused with anyCall.
var groups = []group{
	path("open", 0, "open creat", unix.ETXTBSY),
	path("open", 1, "openat openat2", unix.ETXTBSY),
	path("read", 0, "stat lstat readlink chdir statfs getxattr lgetxattr"),
	path("read", 1, "newfstatat fstatat64 statx readlinkat inotify_add_watch fanotify_mark name_to_handle_at"),
	path("write", 0, "truncate", unix.ETXTBSY),
	path("create", 0, "mkdir mknod"),
	path("create", 1, "mkdirat mknodat symlink"),
	path("create", 2, "symlinkat"),
	path("link", 0, "link", unix.EXDEV),
	path("link", 1, "linkat", unix.EXDEV),
	path("delete", 0, "unlink rmdir", unix.EBUSY),
	path("delete", 1, "unlinkat", unix.EBUSY),
	path("rename", 1, "rename", unix.EBUSY),
	path("rename", 3, "renameat renameat2", unix.EBUSY),
	path("chmod", 0, "chmod chown lchown setxattr lsetxattr removexattr lremovexattr utime utimes"),
	path("chmod", 1, "fchmodat fchmodat2 fchownat utimensat futimesat setxattrat removexattrat file_setattr"),
	path("execute", 0, "execve"),
	path("execute", 1, "execveat"),
	path("mount", 1, "mount move_mount"),
	path("mount", 0, "umount2 umount pivot_root chroot"),

	{"connect", "connect", kernel.Call{Errnos: errnos(unix.ECONNREFUSED, unix.EAFNOSUPPORT), Watched: missing,
		Subject: kernel.SubjectSockaddr, Arg: 1, Hooks: connectHooks}},
	{"bind", "bind", kernel.Call{Errnos: errnos(), Watched: missing, Subject: kernel.SubjectSockaddr, Arg: 1}},
	{"sendto", "sendmsg", kernel.Call{Errnos: errnos(unix.ECONNREFUSED), Watched: missing, Subject: kernel.SubjectSockaddr, Arg: 4, Hooks: sendHooks}},
	{"sendmsg sendmmsg", "sendmsg", kernel.Call{Errnos: errnos(), Hooks: sendHooks}},
	{"socket", "socket", kernel.Call{Errnos: errnos(unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT), Hooks: []kernel.Hook{kernel.HookSockCreate, kernel.HookLSMSocket}}},
	{"socketpair", "socket", kernel.Call{Errnos: errnos(unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT)}},
	{"clone3", "clone3", kernel.Call{Errnos: anyCall, Subject: kernel.SubjectClone, Arg: 0}},

	plain("kill pidfd_open pidfd_send_signal ptrace process_vm_readv process_vm_writev setpriority sched_setaffinity sched_getaffinity sched_setscheduler prlimit64 kcmp", unix.ESRCH),
	plain("setuid setgid setreuid setregid setresuid setresgid setgroups", unix.EINVAL),
	plain("shmget msgget semget", unix.ENOENT),
	{"mq_open", "open", kernel.Call{Errnos: errnos(unix.ENOENT), Subject: kernel.SubjectPath, Arg: 0}},

	// Questions, and what ordinary programs are told all day anywhere: a
	// shell's job control, access(2), epoll(7) on a regular file.
	none("access faccessat faccessat2 setpgid setsid rseq set_robust_list epoll_ctl"),
}

// watched are the paths whose absence from a sandbox's view is worth a record:
// where a host keeps what an agent must not have. A sandbox's own workspace and
// home are excepted when it is launched, and what it guards is watched there.
var watched = map[string]bool{
	"/root": true, "/home": true, "/etc/shadow": true, "/etc/gshadow": true, "/etc/sudoers": true, "/etc/ssh": true,
	"/etc/ringfence": true, "/etc/cron": true, "/etc/ld.so.preload": false, "/etc/systemd": true, "/etc/kubernetes": true,
	"/run/": true, "/var/run/": true, "/run/systemd": false, "/run/nscd": false, "/var/run/nscd": false,
	"/run/utmp": false, "/var/run/utmp": false, "/run/user": true, "/run/current-system": false, "/run/opengl-driver": false,
	"/var/lib/": true, "/var/spool": true, "/var/log": true, "/mnt": true, "/srv": true, "/boot": true,
	"/dev/": true, "/dev/shm": false, "/dev/pts": false,
	"/proc/sys/": true, "/proc/sysrq": true, "/proc/kcore": true, "/proc/kmsg": true,
	"/proc/self/root/": true, "/proc/self/cwd/": true, "../../../..": true,
	"/proc/1": true, "/proc/2": true, "/proc/3": true, "/proc/4": true, "/proc/5": true, // other processes
	"/proc/6": true, "/proc/7": true, "/proc/8": true, "/proc/9": true,
	"/sys/kernel/debug": true, "/sys/kernel/tracing": true, "/sys/kernel/uevent_helper": true, "/sys/fs/bpf": true,
}

// Table is what the kernel is asked to record. More are path prefixes that the
// operator watches besides.
func Table(more []string) *kernel.RefusalTable {
	t := &kernel.RefusalTable{Calls: make(map[uint32]kernel.Call), Others: kernel.Call{Errnos: anyCall}, Watch: maps.Clone(watched)}
	for _, p := range more {
		t.Watch[p] = true
	}
	for _, g := range groups {
		for name := range strings.FieldsSeq(g.calls) {
			if nr, ok := seccomp.Number(name); ok {
				t.Calls[nr] = g.call
			}
		}
	}
	return t
}
