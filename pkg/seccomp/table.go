// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Numbers that golang.org/x/sys does not name, or not on every architecture.
const (
	namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME // 0x7e020080
	setIDBits   = unix.S_ISUID | unix.S_ISGID
	openTmpfile = 0o20000000 // __O_TMPFILE without O_DIRECTORY
	sockTypeBit = 0xf        // SOCK_TYPE_MASK
	tiocLinux   = 0x541c
	tiocSTI     = 0x5412
	tiocSETD    = 0x5423
	uname26     = 0x20000
)

// Rules returns the table that Compile turns into a filter, in the order in
// which Text lists it. The caller owns the result.
func Rules(o Options) []Rule {
	var out []Rule
	out = append(out, plainRules()...)
	out = append(out, namespaceRules()...)
	out = append(out, socketRules(o)...)
	out = append(out, argumentRules()...)
	out = append(out, modeRules()...)
	if !o.AllowMemfd {
		out = append(out,
			plain("memory files", "program without a path", "memfd_create memfd_secret"),
			Rule{"memory files", []string{"execveat"}, []Cond{anyBit(4, "flags", "AT_EMPTY_PATH", unix.AT_EMPTY_PATH)},
				syscall.EPERM, "program without a path"})
	}
	if !o.AllowNestedFilters {
		out = append(out,
			Rule{"filters", []string{"seccomp"}, []Cond{eq32(0, "op", "SET_MODE_FILTER", unix.SECCOMP_SET_MODE_FILTER)},
				syscall.EPERM, "profile forbids nested filters"},
			Rule{"filters", []string{"prctl"}, []Cond{eq32(0, "option", "PR_SET_SECCOMP", unix.PR_SET_SECCOMP)},
				syscall.EPERM, "profile forbids nested filters"})
	}
	return out
}

func plain(group, why, calls string) Rule {
	return Rule{Group: group, Calls: strings.Fields(calls), Errno: syscall.EPERM, Why: why}
}

// plainRules are the calls refused whatever their arguments.
func plainRules() []Rule {
	return []Rule{
		plain("async", "ring operations bypass seccomp and Landlock's view of the caller",
			"io_uring_setup io_uring_enter io_uring_register"),
		plain("memory", "makes kernel races easy to win", "userfaultfd"),
		plain("kernel", "loads code into the kernel or reads it out", "bpf perf_event_open lookup_dcookie"),
		plain("tracing", "reads, writes or steals from another process",
			"ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp"),
		plain("keys", "kernel keyrings are not namespaced", "keyctl add_key request_key"),
		plain("mounts", "changes or maps the file system the walls stand on",
			"mount umount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr mount_setattr statmount listmount"),
		plain("kernel", "replaces or extends the kernel",
			"kexec_load kexec_file_load init_module finit_module delete_module create_module get_kernel_syms query_module"),
		plain("kernel", "node-wide state or kernel log",
			"syslog acct quotactl quotactl_fd swapon swapoff reboot sethostname setdomainname vhangup uselib _sysctl nfsservctl sysfs ustat fanotify_init"),
		plain("clock", "sets the clock of the node", "clock_settime clock_adjtime adjtimex settimeofday stime"),
		plain("hardware", "port access and segment tables", "iopl ioperm modify_ldt vm86 vm86old"),
		plain("handles", "reaches files by inode, past every path", "open_by_handle_at name_to_handle_at"),
	}
}

func namespaceRules() []Rule {
	flags := func(arg uint) []Cond { return []Cond{anyBit(arg, "flags", "CLONE_NEW*", namespaceFlags)} }
	const why = "a new namespace brings capabilities or an unwatched network"
	return []Rule{
		plain("namespaces", "joins another namespace", "setns"),
		{"namespaces", []string{"unshare"}, flags(0), syscall.EPERM, why},
		{"namespaces", []string{"clone"}, flags(0), syscall.EPERM, why},
	}
}

// socketRules let through exactly the sockets that the cgroup hooks judge.
func socketRules(o Options) []Rule {
	families, text := []uint64{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}, "INET, INET6, NETLINK"
	if o.AllowUnix {
		families, text = append([]uint64{unix.AF_UNIX}, families...), "UNIX, "+text
	}
	inet := eq32(0, "family", "INET, INET6", unix.AF_INET, unix.AF_INET6)
	family := func(text string, ok ...uint64) Cond {
		return Cond{Arg: 0, Name: "family", Op: NotIn, Mask: all64, Values: ok, Text: text}
	}
	rules := []Rule{
		{"sockets", []string{"socket"}, []Cond{family(text, families...)}, syscall.EAFNOSUPPORT,
			"no address hook sees this family (packet, vsock, xdp, alg, can, tipc, bluetooth, rds, smc ...)"},
		{"sockets", []string{"socketpair"}, []Cond{family("UNIX", unix.AF_UNIX)}, syscall.EAFNOSUPPORT,
			"only unix pairs exist for a reason"},
		{"sockets", []string{"socket"}, []Cond{inet,
			{Arg: 1, Name: "type", Op: NotIn, Mask: sockTypeBit, Values: []uint64{unix.SOCK_STREAM, unix.SOCK_DGRAM}, Text: "STREAM, DGRAM"}},
			syscall.EPERM, "raw and packet sockets forge headers; AF_INET with SOCK_PACKET is a packet socket"},
		{"sockets", []string{"socket"}, []Cond{inet,
			{Arg: 1, Name: "type", Op: In, Mask: sockTypeBit, Values: []uint64{unix.SOCK_STREAM, unix.SOCK_DGRAM}, Text: "STREAM, DGRAM"},
			{Arg: 2, Name: "protocol", Op: NotIn, Mask: all64, Values: []uint64{0, unix.IPPROTO_TCP, unix.IPPROTO_UDP}, Text: "0, TCP, UDP"}},
			syscall.EPROTONOSUPPORT, "MPTCP, SCTP, SMC, UDP-Lite, ping ... pass by rules made for TCP and UDP"},
		{"sockets", []string{"socket"}, []Cond{eq32(0, "family", "NETLINK", unix.AF_NETLINK),
			{Arg: 2, Name: "protocol", Op: NotIn, Mask: all64, Values: []uint64{unix.NETLINK_ROUTE}, Text: "ROUTE"}},
			syscall.EAFNOSUPPORT, "netfilter, audit, crypto, uevent: kernel surface an agent does not need"},
	}
	if !o.AllowMark {
		rules = append(rules, Rule{"sockets", []string{"getsockopt"}, []Cond{eq32(1, "level", "SOL_SOCKET", unix.SOL_SOCKET), eq32(2, "optname", "SO_MARK", unix.SO_MARK)},
			syscall.EPERM, "the fence's mark on a socket holds the process's number on the host"})
	}
	if !o.AllowUnix {
		rules = append(rules, Rule{"sockets", []string{"socketpair"}, []Cond{
			{Arg: 1, Name: "type", Op: In, Mask: sockTypeBit, Values: []uint64{unix.SOCK_DGRAM, unix.SOCK_RAW}, Text: "DGRAM, RAW"}},
			syscall.EAFNOSUPPORT, "a datagram pair can still send to a path"})
	}
	return rules
}

func argumentRules() []Rule {
	return []Rule{
		{"terminal", []string{"ioctl"}, []Cond{eq32(1, "request", "TIOCSTI, TIOCLINUX, TIOCSETD", tiocSTI, tiocLinux, tiocSETD)},
			syscall.EPERM, "types into a terminal, or loads a line discipline"},
		{"memory", []string{"prctl"}, []Cond{eq32(0, "option", "PR_SET_MM", unix.PR_SET_MM)},
			syscall.EPERM, "rewrites /proc/self/exe and the memory map for whoever watches"},
		{"filters", []string{"seccomp"}, []Cond{anyBit(1, "flags", "NEW_LISTENER", unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)},
			syscall.EPERM, "the newest listener answers for all"},
		{"kernel", []string{"personality"}, []Cond{{Arg: 0, Name: "persona", Op: NotIn, Mask: low32,
			Values: []uint64{0, uname26, low32}, Text: "0, UNAME26, query"}},
			syscall.EPERM, "switches off address randomisation and no-exec"},
	}
}

// modeRules keep set-user-ID and set-group-ID bits and device nodes from being
// made: an idmapped workspace would hand them to the host's users. A mode only
// counts in open and openat when the call can create; without O_CREAT the
// register holds whatever the caller left there.
func modeRules() []Rule {
	mode := func(arg uint) Cond { return anyBit(arg, "mode", "S_ISUID, S_ISGID", setIDBits) }
	creates := func(arg uint) Cond { return anyBit(arg, "flags", "O_CREAT, O_TMPFILE", unix.O_CREAT|openTmpfile) }
	node := func(arg uint) Cond {
		return Cond{Arg: arg, Name: "mode", Op: In, Mask: unix.S_IFMT, Values: []uint64{unix.S_IFCHR, unix.S_IFBLK}, Text: "S_IFCHR, S_IFBLK"}
	}
	const why = "a setuid file in the workspace is a way to the host's users"
	return []Rule{
		{"set-id bits", []string{"chmod", "fchmod", "creat", "mkdir", "mknod"}, []Cond{mode(1)}, syscall.EPERM, why},
		{"set-id bits", []string{"fchmodat", "fchmodat2", "mkdirat", "mknodat"}, []Cond{mode(2)}, syscall.EPERM, why},
		{"set-id bits", []string{"open"}, []Cond{creates(1), mode(2)}, syscall.EPERM, why},
		{"set-id bits", []string{"openat"}, []Cond{creates(2), mode(3)}, syscall.EPERM, why},
		{"device nodes", []string{"mknod"}, []Cond{node(1)}, syscall.EPERM, "device nodes reach hardware"},
		{"device nodes", []string{"mknodat"}, []Cond{node(2)}, syscall.EPERM, "device nodes reach hardware"},
	}
}
