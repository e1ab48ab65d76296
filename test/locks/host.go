// SPDX-License-Identifier: Apache-2.0

package locks

// processes are the ways to other processes and into the kernel.
func processes() []Way {
	return append(descriptors(), kernelWays()...)
}

func descriptors() []Way {
	return []Way{
		{Name: "inherited", Text: "descriptors that the launcher left open", Locks: shown(Launch, "test/escapes.TestEscapes", "pkg/confine.TestPlanRefuses"),
			Note: "stdio is a FIFO, a file, /dev/null or an own pty; all others are closed before the agent exists"},
		{Name: "older-sockets", Text: "sockets older than the cgroup", Locks: shown(Launch, "pkg/kernel.TestAttachRefuses"),
			Note: "the programs are attached while the cgroup is empty, and no socket is handed in"},
		{Name: "taken-descriptors", Text: "`pidfd_getfd` and ptrace of its own processes and of PID 1", Locks: all(Seccomp), Attempts: []string{"process-take-fd-of-child", "process-trace-child"},
			Tests: []string{"test/escapes.TestEscapes"}, Note: "PID 1 is not dumpable besides"},
		{Name: "passed-descriptors", Text: "descriptors passed over a unix socket", Locks: shown(View, "test/escapes.TestPassing"),
			Note: "no socket of the host or of another sandbox is in the view; a socket keeps the verdicts of the cgroup it was made in, whoever holds it; **unix sockets in a shared workspace: see residuals**"},
		{Name: "host-processes", Text: "signalling processes of the host", Locks: all(View, Scopes, Rights), Attempts: []string{"host-signal"}},
		{Name: "host-proc", Text: "their memory, environment, root, descriptors", Locks: all(View, Landlock, Rights), Attempts: []string{"host-environ", "host-root"}},
		{Name: "neighbours", Text: "another sandbox: its processes, abstract sockets, System V and POSIX objects, /tmp, /dev/shm, loopback, gateway listeners", Locks: shown(View, "test/escapes.TestNeighbours", "test/escapes.TestPeers"),
			Note: "own namespaces of every kind but user, also between sandboxes of one uid; Landlock and seccomp besides"},
		{Name: "ipc", Text: "System V and POSIX objects of the host", Locks: all(Shared), Attempts: []string{"ipc-sysv-shm", "ipc-sysv-msg", "ipc-sysv-sem", "ipc-mqueue"},
			Note: "their modes besides"},
		{Name: "cgroup", Text: "leaving the cgroup", Locks: all(View, Landlock, Rights), Attempts: []string{"kernel-cgroup-migrate", "kernel-cgroup-make"},
			Note: "attested each minute; a cgroup below carries the programs too; outside of it `netns + gateway` still holds, as for TCP"},
		{Name: "namespaces", Text: "new namespaces but user", Locks: all(Seccomp, Rights),
			Attempts: []string{"ns-unshare-net", "ns-unshare-mount", "ns-unshare-pid", "ns-unshare-ipc", "ns-unshare-uts", "ns-unshare-cgroup", "ns-clone-net", "ns-clone-mount", "ns-clone-high-bits", "ns-clone3-net"},
			Note:     "clone3 answers ENOSYS; the hooks follow into a new network namespace"},
		{Name: "user-namespaces", Text: "a user namespace of its own", Locks: all(Seccomp), Attempts: []string{"ns-unshare-user", "ns-clone-user", "ns-clone3-user"},
			Note: "the kernel lets everybody; network programs, Landlock and the filter hold in it as outside"},
		{Name: "setns", Text: "joining namespaces of the host", Locks: all(View, Seccomp, Rights), Attempts: []string{"ns-setns-net", "ns-setns-uts", "ns-setns-ipc", "ns-setns-pidfd"},
			Note: "in the machine's network namespace the hooks let nothing pass, and egress still holds, as for TCP"},
	}
}

func kernelWays() []Way {
	return []Way{
		{Name: "setuid-programs", Text: "setuid and file-capability programs", Locks: all(View, Rights), Attempts: []string{"suid-exec"}, Tests: []string{"test/escapes.TestEscapes"},
			Note: "no_new_privs; nosuid mounts; empty bounding set; securebits"},
		{Name: "host-root", Text: "uid 0 inside", Locks: shown(Rights, "pkg/confine.TestHostNeverSeesUID0"),
			Note: "never host uid 0: a user namespace of one uid, no capabilities"},
		{Name: "privileged-calls", Text: "kexec, modules, swap, accounting, files by handle", Locks: all(Seccomp, Rights),
			Attempts: []string{"call-kexec-load", "call-kexec-file-load", "call-init-module", "call-finit-module", "call-delete-module", "call-swapon", "call-acct", "open-by-handle"}},
		{Name: "checked-late", Text: "bpf, perf, setting clocks", Locks: all(Seccomp), Attempts: []string{"call-bpf", "call-perf-event-open", "call-settimeofday", "call-clock-settime"},
			Note: "capabilities besides, which the kernel asks for after it has read the arguments, and of bpf and perf only as the machine is set"},
		{Name: "mounts", Text: "the mount family", Locks: all(Seccomp, Rights),
			Attempts: []string{"mount-tmpfs", "mount-bind", "mount-umount", "mount-pivot-root", "mount-chroot", "mount-fsopen", "mount-open-tree", "mount-move-mount"}},
		{Name: "keyrings", Text: "keyrings, userfaultfd", Locks: all(Seccomp), Attempts: []string{"ipc-key-add", "ipc-key-session", "ipc-key-join", "ipc-key-request", "ipc-userfaultfd"}},
		{Name: "foreign-abi", Text: "other ABIs (int 0x80, x32), unknown numbers", Locks: shown(Seccomp, "pkg/seccomp.TestForeignABIKills", "pkg/seccomp.TestX32NumbersAreRefused", "pkg/seccomp.TestPrologueRefusesForeignNumbers"),
			Note: "killed, ENOSYS, ENOSYS"},
		{Name: "kernel-files", Text: "/proc/sys, core_pattern, uevent_helper, sysrq", Locks: all(View, Landlock, Rights),
			Attempts: []string{"kernel-core-pattern", "kernel-poweroff-cmd", "kernel-panic", "kernel-drop-caches", "kernel-sysrq", "kernel-uevent-helper"}},
		{Name: "devices", Text: "device nodes of the host: kmsg, mem, kvm, fuse, loop", Locks: all(View, Landlock),
			Attempts: []string{"kernel-kmsg", "kernel-mem", "kernel-kvm", "kernel-fuse", "kernel-loop-control"}, Note: "their modes besides"},
		{Name: "init", Text: "init (PID 1): memory, signals, its sockets", Locks: shown(Launch, "pkg/confine.TestInitMemory", "test/escapes.TestTakenOverInit", "pkg/confine.TestFirstThreadBlocksNoSignal"),
			Note: "not dumpable before the agent exists; not visible in /proc; takes no deadly signals; sealed binary. If it is taken over all the same: it has the agent's rights and no others, frames have a fixed size, the kernel lets no descriptors through (6.16), and the first word that no init says ends the sandbox, with a `tamper` event"},
		{Name: "terminal", Text: "terminal injection", Locks: shown(Seccomp, "test/escapes.TestEscapes", "pkg/seccomp.TestKernelRefuses"),
			Note: "own pty; TIOCSTI, TIOCLINUX, TIOCSETD refused; what the tool prints about a sandbox is escaped. **What the agent draws on its own terminal reaches yours unfiltered**, as with any program"},
		{Name: "daemons", Text: "daemons that outlive the command", Locks: shown(View, "pkg/confine.TestNothingStays", "test/escapes.TestEscapes"), Note: "the cgroup is emptied besides"},
		{Name: "exhaustion", Text: "fork bomb, memory", Locks: shown(Launch, "pkg/confine.TestResourceLimits"), Note: "rlimits; pids and memory limits besides where cgroup v2 has the controllers"},
	}
}

// files are the ways to what lies outside the workspace, and to whoever uses
// it afterwards.
func files() []Way {
	return []Way{
		{Name: "read", Text: "reading home, keys, secrets of the node", Locks: all(View, Landlock, Rights),
			Attempts: []string{"read-ssh-key", "read-secret-dotdot", "read-secret-proc-root", "read-secret-proc-cwd", "read-shadow", "read-ringfence-state"}},
		{Name: "shared-files", Text: "/tmp and /dev/shm of the host", Locks: all(View, Rights), Attempts: []string{"read-host-shm", "read-host-tmp"}},
		{Name: "write", Text: "making, writing, removing outside workspace, home, /tmp", Locks: all(View, Landlock, Rights),
			Attempts: []string{"write-open-write", "write-rename-over", "write-unlink", "write-create", "write-mkdir", "write-symlink", "write-mkfifo", "write-tmpfile-link", "write-system-dir", "write-passwd", "write-preload", "write-cron"}},
		{Name: "attributes", Text: "changing modes, owners, times there", Locks: all(View, Rights), Attempts: []string{"write-chmod", "write-chown", "write-utimes", "write-setxattr"},
			Note: "Landlock does not judge these"},
		{Name: "races", Text: "symlinks, `..`, races with the keeper", Locks: shown(Launch, "pkg/confine.TestCallerRights", "pkg/sandbox.TestASymlinkedGuardedPathRefusesTheLaunch"),
			Note: "openat2 beneath the descriptor, no links; the caller opens its own paths"},
		{Name: "workspace-of-others", Text: "somebody else's directory as the workspace of a member", Locks: shown(Launch, "test/escapes.TestPeers"),
			Note: "the caller must be allowed to list and enter it; at the end the keeper changes, and tells of, only what the sandbox's user could have written"},
		{Name: "setuid-files", Text: "setuid files through an idmapped workspace", Locks: all(Seccomp),
			Attempts: []string{"setid-chmod", "setid-chmod-group", "setid-chmod-proc-fd", "setid-openat", "setid-openat-high-bits", "setid-tmpfile", "setid-openat2", "setid-mknodat"},
			Note:     "in every call with a mode; openat2 answers ENOSYS; stripped at the end besides, with an event"},
		{Name: "device-nodes", Text: "making device nodes", Locks: all(Seccomp, Landlock, Rights), Attempts: []string{"device-char", "device-block"}, Note: "nodev; found at the end"},
		{Name: "git-hooks", Text: "git hooks", Locks: shown(View, "test/escapes.TestEscapes", "test/e2e.TestWorkspace"),
			Note: "read-only, bound so that they cannot be replaced; new ones are quarantined at the end"},
		{Name: "git-settings", Text: "git settings that run programs, submodules, `.git` pointers", Locks: shown(Launch, "test/escapes.TestEscapes"),
			Note: "quarantined at the end, at any depth, if they were not there before"},
		{Name: "tool-settings", Text: "editor and agent settings (`.vscode/tasks.json`, `.mcp.json`, `.envrc` ...)", Locks: shown(View, "pkg/confine.TestReadOnlyWorkspaceAndBinds", "pkg/sandbox.TestGuardedFilesDoNotDependOnGit"),
			Note: "existing ones read-only, new ones **reported, not removed**"},
		{Name: "environment", Text: "environment of the caller", Locks: shown(Launch, "test/escapes.TestEscapes", "pkg/confine.TestEnvironment"),
			Note: "allow-list; credential-like names cannot be passed by a profile"},
	}
}
