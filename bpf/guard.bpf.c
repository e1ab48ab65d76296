/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
//go:build ignore

/*
 * The guard: a third lock where the kernel runs BPF programs as a security
 * module. Nothing depends on it. What the hooks of a cgroup judge by the cgroup
 * in which a socket was made, and only when it connects or sends to a named
 * address, is judged here by the task that asks: so a socket from before the
 * cgroup, one that came by SCM_RIGHTS and families without a cgroup hook are
 * seen too.
 *
 * These hooks are machine-wide: every process pays for finding out that it is
 * in no sandbox, so they are attached only while a sandbox lives that is
 * guarded.
 *
 * Return values: 0 lets the call go on to the other security modules, a
 * negative errno refuses it.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#include "ringfence.h"
#include "kernel.h"
#include "maps.h"
#include "task.h"
#include "member.h"
#include "object.h"
#include "judge.h"
#include "report.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Who asks. */
struct rf_member {
	struct rf_state state;
	__u32 dev;
};

/* The sandbox of the task that asks, if it is guarded. */
static __always_inline int rf_guarded_task(struct rf_member *m)
{
	struct rf_guard *guard;

	m->state.sandbox = rf_sandbox_of(bpf_get_current_task_btf());
	if (!m->state.sandbox)
		return 0;
	guard = bpf_map_lookup_elem(&guards, &m->state.sandbox);
	if (!guard)
		return 0;
	m->state.policy = guard->policy;
	m->state.generation = guard->generation;
	m->state.flags = guard->flags;
	m->dev = guard->dev;
	return 1;
}

/* Tells of a refused socket call. */
static __always_inline void rf_refused_socket(struct rf_member *m, struct rf_call *c, __u32 error)
{
	c->error = error;
	rf_count_verdict(c->hook, &c->j);
	rf_report(&m->state, c, 1);
}

/* Which sockets may be made: what rf_sock_create and the filter leave. */
SEC("lsm/socket_create")
int rf_lsm_socket(__u64 *ctx)
{
	struct rf_call c = {.hook = RF_HOOK_LSM_SOCKET};
	struct rf_member m = {};
	__u32 type = (__u32)ctx[1] & 0xf, proto = ctx[2];

	if ((int)ctx[3])
		return 0; /* ALLOW: the kernel's own socket */
	if (!rf_guarded_task(&m))
		return 0; /* ALLOW: not a process of a guarded sandbox */
	c.family = ctx[0];
	c.sock_type = type;
	c.dest.proto = proto;
	if (c.family == AF_UNIX)
		return 0; /* ALLOW: socket pairs; where it connects is judged */
	if (c.family == AF_NETLINK && proto == NETLINK_ROUTE)
		return 0; /* ALLOW: routing questions, which the C library asks */
	if (c.family != AF_INET && c.family != AF_INET6) {
		c.j.reason = RF_FAMILY;
		rf_refused_socket(&m, &c, EAFNOSUPPORT);
		return -EAFNOSUPPORT;
	}
	if (type == SOCK_STREAM && (proto == 0 || proto == IPPROTO_TCP))
		return 0; /* ALLOW: TCP meets the address hooks */
	if (type == SOCK_DGRAM && (proto == 0 || proto == IPPROTO_UDP))
		return 0; /* ALLOW: UDP meets the address hooks */
	if (type == SOCK_RAW) {
		c.j.reason = RF_RAW;
		rf_refused_socket(&m, &c, EPERM);
		return -EPERM;
	}
	c.j.reason = proto == IPPROTO_MPTCP ? RF_MPTCP : RF_PROTOCOL;
	rf_refused_socket(&m, &c, EPROTONOSUPPORT);
	return -EPROTONOSUPPORT;
}

/* The unspecified address is this host, as in rf_addr4 and rf_addr6. */
static __always_inline void rf_set_v4(struct rf_dest *d, __be32 ip)
{
	rf_dest_v4(d, ip ? ip : bpf_htonl(0x7f000001));
}

static __always_inline void rf_set_v6(struct rf_dest *d, const __be32 *ip)
{
	__be32 a = ip[0], b = ip[1], c = ip[2], e = ip[3];

	if (a == 0 && b == 0 && e == 0) {
		if (c == bpf_htonl(0xffff))
			e = bpf_htonl(0x7f000001);
		else if (c == 0)
			e = bpf_htonl(1);
	}
	rf_dest_v6(d, a, b, c, e);
}

/* 1: the address is one that names no destination for this socket. */
static __always_inline int rf_read_name(struct rf_call *c, const void *name, int len, __u16 socket)
{
	struct rf_sockaddr a = {};

	if (len < 2 || bpf_probe_read_kernel(&a, sizeof(a), name)) /* a sockaddr_storage, whatever len is */
		return 1;
	c->family = a.family;
	c->dest.port = bpf_ntohs(a.port);
	if (a.family == AF_INET6 && socket == AF_INET6) {
		rf_set_v6(&c->dest, a.v6);
		return 0;
	}
	/* udp_sendmsg takes AF_UNSPEC for AF_INET, and an IPv6 socket both. */
	if (a.family == AF_INET || (a.family == AF_UNSPEC && socket == AF_INET)) {
		c->family = AF_INET;
		rf_set_v4(&c->dest, a.v4);
		return 0;
	}
	return 1;
}

/* 1: the socket has no peer. */
static __always_inline int rf_read_peer(struct rf_call *c, struct sock *sk, __u16 socket)
{
	__be32 v6[4] = {};
	__be16 port = BPF_CORE_READ(sk, __sk_common.skc_dport);

	if (!port)
		return 1;
	c->family = socket;
	c->dest.port = bpf_ntohs(port);
	if (socket == AF_INET) {
		rf_dest_v4(&c->dest, BPF_CORE_READ(sk, __sk_common.skc_daddr));
		return 0;
	}
	BPF_CORE_READ_INTO(&v6, sk, __sk_common.skc_v6_daddr);
	rf_dest_v6(&c->dest, v6[0], v6[1], v6[2], v6[3]);
	return 0;
}

static __always_inline int rf_judge_dest(struct rf_member *m, struct rf_call *c)
{
	rf_judge(&m->state, &c->dest, &c->j);
	if (c->j.verdict == RF_ALLOW)
		return 0; /* ALLOW: rf_judge found the reason */
	rf_refused_socket(m, c, EACCES);
	return -EACCES;
}

/* The family, type and protocol of a socket; what is neither IP nor allowed
 * altogether is judged here. Returns 1 if its addresses are to be judged. */
static __always_inline int rf_open_socket(struct rf_member *m, struct rf_call *c, struct sock *sk)
{
	c->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	c->sock_type = BPF_CORE_READ(sk, sk_type);
	c->dest.proto = BPF_CORE_READ(sk, sk_protocol);
	if (c->family == AF_INET || c->family == AF_INET6)
		return 1;
	if (c->family == AF_NETLINK && c->dest.proto == NETLINK_ROUTE)
		return 0; /* ALLOW: routing questions */
	if (c->family == AF_UNIX) {
		if (m->state.flags & RF_FLAG_UNIX)
			return 0; /* ALLOW: the profile opens unix sockets */
		c->j.reason = RF_UNIX;
	} else {
		c->j.reason = RF_FAMILY;
	}
	rf_refused_socket(m, c, EACCES);
	return -EACCES;
}

/* Arguments: socket, address, its length. */
SEC("lsm/socket_connect")
int rf_lsm_connect(__u64 *ctx)
{
	struct rf_call c = {.hook = RF_HOOK_LSM_CONNECT};
	struct rf_member m = {};
	struct socket *sock = (struct socket *)ctx[0];
	struct sock *sk;

	if (!rf_guarded_task(&m))
		return 0; /* ALLOW: not a process of a guarded sandbox */
	sk = BPF_CORE_READ(sock, sk);
	switch (rf_open_socket(&m, &c, sk)) {
	case 0:
		return 0; /* ALLOW: rf_open_socket says why */
	case 1:
		break;
	default:
		return -EACCES;
	}
	if (rf_read_name(&c, (void *)ctx[1], (int)ctx[2], AF_INET6))
		return 0; /* ALLOW: AF_UNSPEC dissolves a connection; no protocol connects to any other family */
	return rf_judge_dest(&m, &c);
}

/* Arguments: socket, message, its length. */
SEC("lsm/socket_sendmsg")
int rf_lsm_sendmsg(__u64 *ctx)
{
	struct rf_call c = {.hook = RF_HOOK_LSM_SENDMSG};
	struct rf_member m = {};
	struct socket *sock = (struct socket *)ctx[0];
	struct msghdr *msg = (struct msghdr *)ctx[1];
	struct sock *sk;
	void *name;
	__u16 socket;

	if (!rf_guarded_task(&m))
		return 0; /* ALLOW: not a process of a guarded sandbox */
	sk = BPF_CORE_READ(sock, sk);
	name = BPF_CORE_READ(msg, msg_name);
	c.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (c.family == AF_UNIX && !name)
		return 0; /* ALLOW: the peer was judged when it connected, or is the other end of a pair */
	switch (rf_open_socket(&m, &c, sk)) {
	case 0:
		return 0; /* ALLOW: rf_open_socket says why */
	case 1:
		break;
	default:
		return -EACCES;
	}
	socket = c.family;
	if (name && !rf_read_name(&c, name, BPF_CORE_READ(msg, msg_namelen), socket)) {
		if (rf_judge_dest(&m, &c))
			return -EACCES;
		if (c.sock_type != SOCK_STREAM)
			return 0; /* ALLOW: rf_judge_dest; a datagram goes where it says */
	}
	if (rf_read_peer(&c, sk, socket))
		return 0; /* ALLOW: without a peer and a name nothing is sent */
	return rf_judge_dest(&m, &c);
}

/* Tells of anything else. Returns 0 for a record that cannot be kept. */
static __always_inline struct rf_guarded *rf_take_guarded(struct rf_member *m, __u8 hook, __u8 reason, long *flags)
{
	struct rf_judgement j = {.reason = reason};
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_guarded *r;

	rf_count_verdict(hook, &j);
	rf_mark_reported(hook);
	r = rf_take(m->state.sandbox, RF_RING_DENIALS, &denials, sizeof(*r), bpf_ktime_get_boot_ns(), flags);
	if (!r)
		return 0;
	r->head.pid = task->tgid;
	r->head.type = RF_RECORD_GUARD;
	r->head.hook = hook;
	r->head.reason = reason;
	r->head.generation = m->state.generation;
	rf_origin_of(&r->origin, task);
	return r;
}

static __always_inline int rf_entry_refused(const struct rf_entry_key *key, __u32 way)
{
	__u32 *ways = bpf_map_lookup_elem(&entries, key);

	return ways && (*ways & way);
}

/* The two rows that may speak of an entry: below its directory, or below any. */
static __always_inline int rf_judge_entry(const struct rf_entry_key *key, __u32 way)
{
	struct rf_entry_key any = {.sandbox = key->sandbox};

	__builtin_memcpy(any.name, key->name, sizeof(any.name));
	if (rf_entry_refused(key, way) || rf_entry_refused(&any, way))
		return -EACCES;
	return 0; /* ALLOW: no row of the table refuses this name */
}

/* A new entry. A name that is longer than a row's is in no row. */
static __always_inline int rf_entry(struct dentry *dentry, __u32 way)
{
	struct rf_entry_key key = {};
	struct rf_member m = {};
	struct rf_guarded *r;
	long flags;

	if (!rf_guarded_task(&m) || !m.dev)
		return 0; /* ALLOW: nobody who is guarded, or one whose files are not */
	if (BPF_CORE_READ(dentry, d_sb, s_dev) != m.dev)
		return 0; /* ALLOW: not in the file system of the workspace */
	if (bpf_probe_read_kernel_str(key.name, sizeof(key.name), BPF_CORE_READ(dentry, d_name.name)) <= 1)
		return 0; /* ALLOW: no name */
	bpf_probe_read_kernel_str(key.parent, sizeof(key.parent), BPF_CORE_READ(dentry, d_parent, d_name.name));
	key.sandbox = m.state.sandbox;
	if (!rf_judge_entry(&key, way))
		return 0; /* ALLOW: rf_judge_entry says why */
	r = rf_take_guarded(&m, RF_HOOK_LSM_ENTRY, RF_ENTRY, &flags);
	if (r) {
		r->error = EACCES;
		r->way = way;
		__builtin_memcpy(r->parent, key.parent, sizeof(r->parent));
		__builtin_memcpy(r->name, key.name, sizeof(r->name));
		bpf_ringbuf_submit(r, flags);
	}
	return -EACCES;
}

/* Arguments: directory, new entry, mode. */
SEC("lsm/inode_create")
int rf_lsm_create(__u64 *ctx)
{
	return rf_entry((struct dentry *)ctx[1], RF_WAY_CREATE);
}

/* Arguments: directory, new entry, mode, device. */
SEC("lsm/inode_mknod")
int rf_lsm_mknod(__u64 *ctx)
{
	return rf_entry((struct dentry *)ctx[1], RF_WAY_CREATE);
}

/* Arguments: directory, new entry, mode. */
SEC("lsm/inode_mkdir")
int rf_lsm_mkdir(__u64 *ctx)
{
	return rf_entry((struct dentry *)ctx[1], RF_WAY_MKDIR);
}

/* Arguments: directory, new entry, target. */
SEC("lsm/inode_symlink")
int rf_lsm_symlink(__u64 *ctx)
{
	return rf_entry((struct dentry *)ctx[1], RF_WAY_SYMLINK);
}

/* Arguments: old entry, new directory, new entry. */
SEC("lsm/inode_link")
int rf_lsm_link(__u64 *ctx)
{
	return rf_entry((struct dentry *)ctx[2], RF_WAY_LINK);
}

/* Arguments: old directory and entry, new directory and entry. Two names that
 * are exchanged come both ways round. */
SEC("lsm/inode_rename")
int rf_lsm_rename(__u64 *ctx)
{
	return rf_entry((struct dentry *)ctx[3], RF_WAY_RENAME);
}

/* Argument: the program that is to start. */
SEC("lsm/bprm_check_security")
int rf_lsm_exec(__u64 *ctx)
{
	struct linux_binprm *bprm = (struct linux_binprm *)ctx[0];
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_member m = {};
	struct rf_guarded *r;
	long flags;

	if (!rf_guarded_task(&m))
		return 0; /* ALLOW: not a process of a guarded sandbox */
	if (task->atomic_flags & RF_NO_NEW_PRIVS)
		return 0; /* ALLOW: set-id bits and file capabilities give it nothing */
	r = rf_take_guarded(&m, RF_HOOK_LSM_EXEC, RF_PRIVILEGE, &flags);
	if (r) {
		r->error = EPERM;
		bpf_probe_read_kernel_str(r->name, sizeof(r->name), BPF_CORE_READ(bprm, file, f_path.dentry, d_name.name));
		bpf_ringbuf_submit(r, flags);
	}
	return -EPERM;
}

/* A sandbox never gets this: it returns -EPERM to all that is guarded. */
static __always_inline int rf_never(__u8 hook, __u8 reason)
{
	struct rf_member m = {};
	struct rf_guarded *r;
	long flags;

	if (!rf_guarded_task(&m))
		return 0; /* ALLOW: not a process of a guarded sandbox */
	r = rf_take_guarded(&m, hook, reason, &flags);
	if (r) {
		r->error = EPERM;
		bpf_ringbuf_submit(r, flags);
	}
	return -EPERM;
}

/* Since 6.1. */
SEC("lsm/userns_create")
int rf_lsm_userns(__u64 *ctx)
{
	return rf_never(RF_HOOK_LSM_USERNS, RF_NAMESPACE);
}

/* Since 6.15. */
SEC("lsm/uring_allowed")
int rf_lsm_uring(__u64 *ctx)
{
	return rf_never(RF_HOOK_LSM_URING, RF_URING);
}
