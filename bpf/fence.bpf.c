/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
//go:build ignore

/*
 * The fence: one data-driven program set for every sandbox and for the
 * gateway. A program learns who it judges from the cgroup storage of the
 * cgroup it is attached to; a sub-cgroup made inside a sandbox inherits the
 * attachment and with it the identity.
 *
 * Return values of cgroup programs: 1 lets the call go on, 0 refuses it.
 * `grep -n ALLOW bpf/` lists every way to be let through.
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
#include "judge.h"
#include "report.h"
#include "refuse.h"
#include "packet.h"
#include "client.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Brings every shared type into the object's BTF, where bpf2go and the layout
 * test find it. */
const volatile union {
	enum rf_layout layout;
	enum rf_hook hook;
	enum rf_verdict_kind verdict_kind;
	enum rf_reason reason;
	enum rf_form form;
	enum rf_record_type record_type;
	enum rf_ring ring;
	enum rf_outcome outcome;
	enum rf_flag flag;
	struct rf_verdict verdict;
	struct rf_exec exec;
	struct rf_exit exit;
	enum rf_subject subject;
	struct rf_call_row call_row;
	struct rf_watch_key watch_key;
	struct rf_refusal refusal;
	struct rf_program program;
	struct rf_read_key read_key;
	struct rf_guard guard;
	enum rf_entry_way entry_way;
	struct rf_entry_key entry_key;
	struct rf_guarded guarded;
	struct rf_hit_key hit_key;
} rf_abi = {};

/* The cookie of the keeper's network namespace; set when loading. 0 is none's. */
const volatile __u64 rf_home = 0;

/*
 * A sandbox lives in a network namespace of its own: there loopback is its own,
 * port 53 the gateway's, and what it may reach is steered. In the keeper's none
 * of that is so, and nothing is let through.
 */
static __always_inline int rf_elsewhere(struct bpf_sock_addr *ctx, const struct rf_state *st)
{
	return !(st->flags & RF_FLAG_GATEWAY) && bpf_get_netns_cookie(ctx) == rf_home;
}

/* Whether what is let through ends at the gateway, which is told whose it is:
 * port 53 does on loopback too. The gateway's own sockets keep no mark: the host
 * may route by them. */
static __always_inline int rf_to_gateway(const struct rf_state *st, const struct rf_call *c)
{
	return !(st->flags & RF_FLAG_GATEWAY) && (c->j.reason != RF_LOOPBACK || c->dest.port == 53);
}

/* The common end of the four address hooks. */
static __always_inline int rf_addr_verdict(struct bpf_sock_addr *ctx, struct rf_state *st,
					   struct rf_call *c)
{
	c->dest.proto = ctx->protocol;
	c->sock_type = ctx->type;
	c->cookie = bpf_get_socket_cookie(ctx);
	rf_judge(st, &c->dest, &c->j);
	if (c->j.verdict == RF_ALLOW && rf_elsewhere(ctx, st)) {
		c->j.verdict = RF_DENY;
		c->j.reason = RF_ELSEWHERE;
	}
	if (c->j.verdict != RF_ALLOW)
		c->error = rf_errno(EACCES);
	rf_count_verdict(c->hook, &c->j);
	rf_hit(st, &c->j);
	rf_report(st, c, 1);
	if (c->j.verdict != RF_ALLOW)
		return rf_refuse(EACCES);
	if (rf_to_gateway(st, c))
		rf_sign(ctx);
	return 1; /* ALLOW: rf_judge found the reason named in the record */
}

/*
 * 0.0.0.0 means "this host", but which address the kernel then takes depends on
 * the socket's source, and here every address is local: a socket bound to a
 * virtual address would reach it unjudged. So say 127.0.0.1.
 *
 * Context fields are read once into locals behind a barrier: clang 14 folds
 * repeated reads into an offset on the context pointer, which the verifier
 * rejects.
 */
static __always_inline int rf_addr4(struct bpf_sock_addr *ctx, __u8 hook)
{
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	struct rf_call c = {.hook = hook, .family = AF_INET};
	__be32 ip = ctx->user_ip4;
	barrier();
	c.dest.port = bpf_ntohs(ctx->user_port);
	barrier();
	if (ip == 0) {
		ip = bpf_htonl(0x7f000001);
		ctx->user_ip4 = ip;
	}
	rf_dest_v4(&c.dest, ip);
	return rf_addr_verdict(ctx, st, &c);
}

/*
 * The unspecified IPv6 address becomes ::1 in the kernel after this hook, on
 * every path (tcp_v6_connect, __ip6_datagram_connect, udpv6_sendmsg), so it is
 * judged as that. Its mapped form continues as IPv4: see rf_addr4.
 */
static __always_inline int rf_addr6(struct bpf_sock_addr *ctx, __u8 hook)
{
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	struct rf_call c = {.hook = hook, .family = AF_INET6};
	__be32 a = ctx->user_ip6[0];
	barrier();
	__be32 b = ctx->user_ip6[1];
	barrier();
	__be32 d = ctx->user_ip6[2];
	barrier();
	__be32 e = ctx->user_ip6[3];
	barrier();
	c.dest.port = bpf_ntohs(ctx->user_port);
	barrier();
	if (a == 0 && b == 0 && e == 0) {
		if (d == bpf_htonl(0xffff)) {
			e = bpf_htonl(0x7f000001);
			ctx->user_ip6[3] = e;
		} else if (d == 0) {
			e = bpf_htonl(1);
			ctx->user_ip6[3] = e;
		}
	}
	rf_dest_v6(&c.dest, a, b, d, e);
	return rf_addr_verdict(ctx, st, &c);
}

SEC("cgroup/connect4")
int rf_connect4(struct bpf_sock_addr *ctx)
{
	return rf_addr4(ctx, RF_HOOK_CONNECT4);
}

SEC("cgroup/connect6")
int rf_connect6(struct bpf_sock_addr *ctx)
{
	return rf_addr6(ctx, RF_HOOK_CONNECT6);
}

SEC("cgroup/sendmsg4")
int rf_sendmsg4(struct bpf_sock_addr *ctx)
{
	return rf_addr4(ctx, RF_HOOK_SENDMSG4);
}

SEC("cgroup/sendmsg6")
int rf_sendmsg6(struct bpf_sock_addr *ctx)
{
	return rf_addr6(ctx, RF_HOOK_SENDMSG6);
}

/* Which socket families and protocols exist at all; returns the errno. */
static __always_inline int rf_judge_socket(const struct rf_state *st, const struct rf_call *c,
					   struct rf_judgement *j)
{
	__u32 proto = c->dest.proto;

	if (!st->sandbox) {
		j->reason = RF_NO_STATE;
		return EACCES;
	}
	if (c->family != AF_INET && c->family != AF_INET6) {
		j->reason = RF_FAMILY;
		return EAFNOSUPPORT;
	}
	if (c->sock_type == SOCK_RAW) {
		j->reason = RF_RAW;
		return EPERM; /* what a process without CAP_NET_RAW sees */
	}
	if (proto == IPPROTO_MPTCP) {
		j->reason = RF_MPTCP;
		return EPROTONOSUPPORT; /* as on a kernel without it: Go falls back to TCP */
	}
	if ((c->sock_type == SOCK_STREAM && proto == IPPROTO_TCP) ||
	    (c->sock_type == SOCK_DGRAM && proto == IPPROTO_UDP)) {
		j->reason = RF_SOCKET;
		j->verdict = RF_ALLOW; /* ALLOW: TCP and UDP meet the address hooks */
		return 0;
	}
	j->reason = RF_PROTOCOL;
	return EPROTONOSUPPORT;
}

SEC("cgroup/sock_create")
int rf_sock_create(struct bpf_sock *ctx)
{
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	struct rf_call c = {.hook = RF_HOOK_SOCK_CREATE};
	int err;

	c.family = ctx->family;
	barrier();
	c.sock_type = ctx->type;
	barrier();
	c.dest.proto = ctx->protocol;
	barrier();
	err = rf_judge_socket(st, &c, &c.j);
	rf_count_verdict(c.hook, &c.j);
	if (c.j.verdict == RF_ALLOW)
		return 1; /* ALLOW: RF_SOCKET; counted, not recorded: the connect is */
	c.error = rf_errno(err);
	rf_report(st, &c, 1);
	return rf_refuse(err);
}

/* All or nothing: the hook sees the caller's spelling of a path, and `..`,
 * symlinks and `//` get past any list of paths. */
static __always_inline int rf_unix(__u8 hook)
{
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	struct rf_call c = {.hook = hook, .family = AF_UNIX};

	c.j.reason = RF_NO_STATE;
	if (st->sandbox) {
		c.j.reason = RF_UNIX;
		if (st->flags & RF_FLAG_UNIX)
			c.j.verdict = RF_ALLOW; /* ALLOW: the profile opens unix sockets */
	}
	rf_count_verdict(hook, &c.j);
	if (c.j.verdict == RF_ALLOW)
		return 1; /* ALLOW: RF_UNIX; counted, not recorded */
	c.error = rf_errno(EACCES);
	rf_report(st, &c, 1);
	return rf_refuse(EACCES);
}

/* Kernels before 6.7 have no unix hooks: the loader leaves these two out. */
SEC("cgroup/connect_unix")
int rf_connect_unix(struct bpf_sock_addr *ctx)
{
	return rf_unix(RF_HOOK_CONNECT_UNIX);
}

SEC("cgroup/sendmsg_unix")
int rf_sendmsg_unix(struct bpf_sock_addr *ctx)
{
	return rf_unix(RF_HOOK_SENDMSG_UNIX);
}

/*
 * The backstop: every packet of the cgroup's sockets is judged once more on
 * what its header says. Replies of connections accepted inside go to loopback.
 * A drop alone would leave TCP hanging: the hooks above refuse first. `current`
 * is arbitrary here.
 */
SEC("cgroup_skb/egress")
int rf_egress(struct __sk_buff *skb)
{
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	struct rf_call c = {.hook = RF_HOOK_EGRESS};
	__u8 tcp_flags = 0;
	int reason;

	reason = rf_parse(skb, &c, &tcp_flags);
	if (!st->sandbox) {
		c.j.reason = RF_NO_STATE;
	} else if (reason) {
		c.j.reason = reason;
	} else if ((st->flags & RF_FLAG_GATEWAY) && c.dest.proto == IPPROTO_TCP &&
		   (tcp_flags & 0x12) != 0x02) {
		/* not SYN alone */
		c.j.reason = RF_ESTABLISHED;
		c.j.verdict = RF_ALLOW; /* ALLOW: the gateway's flow was judged at its SYN, or accepted */
	} else {
		rf_judge(st, &c.dest, &c.j);
	}
	rf_count_verdict(c.hook, &c.j);
	if (c.j.verdict == RF_ALLOW) {
		if (c.dest.proto == IPPROTO_UDP && rf_to_gateway(st, &c))
			rf_sign_datagram(skb);
		return 1; /* ALLOW: rf_judge or RF_ESTABLISHED; the flow was recorded at connect */
	}
	c.error = EPERM;
	c.cookie = bpf_get_socket_cookie(skb);
	rf_report(st, &c, 0);
	return 0;
}
