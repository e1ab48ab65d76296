/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
//go:build ignore

/*
 * The gateway's end of redirection: programs on the cgroup in which the keeper
 * makes listeners for namespaces that are not ours. Whoever lives there can
 * reach a listener on loopback; what these programs say decides who is served.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "ringfence.h"
#include "kernel.h"
#include "maps.h"
#include "judge.h"
#include "redirect.h"
#include "relay.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/*
 * A connection is complete: what its peer asked for becomes its own. The peer
 * is still alive and has its port, so the entry is the peer's or nobody's. One
 * without an entry was not sent here by our hooks and is not served.
 */
SEC("sockops")
int rf_arrive(struct bpf_sock_ops *ctx)
{
	struct rf_flying_key key = {};
	struct rf_asked *from, *mine;
	__be32 w[4] = {0, 0, bpf_htonl(0xffff), 0};
	struct bpf_sock *sk;

	if (ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	barrier();
	sk = ctx->sk;
	if (!sk)
		return 1;
	barrier();
	if (ctx->family == AF_INET) {
		w[3] = ctx->remote_ip4;
	} else {
		w[0] = ctx->remote_ip6[0];
		barrier();
		w[1] = ctx->remote_ip6[1];
		barrier();
		w[2] = ctx->remote_ip6[2];
		barrier();
		w[3] = ctx->remote_ip6[3];
		barrier();
	}
	__builtin_memcpy(key.addr, w, 16);
	key.port = bpf_ntohl(ctx->remote_port);
	barrier();
	key.to_port = ctx->local_port;
	barrier();
	key.netns = bpf_get_netns_cookie(ctx);
	from = bpf_map_lookup_elem(&flying, &key);
	if (!from)
		return 1;
	mine = bpf_sk_storage_get(&asked, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!mine)
		return 1;
	*mine = *from;
	bpf_map_delete_elem(&flying, &key);
	return 1;
}

/* The two ends of a datagram between a listener and a socket of its namespace.
 * The tuple is as the listener's end would be asked for: by the other one. */
struct rf_ends {
	struct bpf_sock_tuple tuple;
	__u16 ours; /* port, host order */
	__u8 v4;
	__u8 proto;
};

/* Reads both ends; false for what is none. ours says which end is the listener:
 * the destination of what comes in, the source of what goes out. */
static __always_inline int rf_ends(struct __sk_buff *skb, struct rf_ends *e, int incoming)
{
	__be16 ports[2]; /* source, destination */

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct rf_iphdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return 0;
		e->proto = ip.protocol;
		if (ip.protocol == IPPROTO_TCP)
			return 1;
		if (ip.protocol != IPPROTO_UDP || ip.version_ihl != 0x45 ||
		    bpf_skb_load_bytes(skb, sizeof(ip), ports, sizeof(ports)))
			return 0;
		e->v4 = 1;
		e->tuple.ipv4.saddr = incoming ? ip.daddr : ip.saddr;
		e->tuple.ipv4.daddr = incoming ? ip.saddr : ip.daddr;
		e->tuple.ipv4.sport = incoming ? ports[1] : ports[0];
		e->tuple.ipv4.dport = incoming ? ports[0] : ports[1];
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct rf_ip6hdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return 0;
		e->proto = ip.nexthdr;
		if (ip.nexthdr == IPPROTO_TCP)
			return 1;
		if (ip.nexthdr != IPPROTO_UDP || bpf_skb_load_bytes(skb, sizeof(ip), ports, sizeof(ports)))
			return 0;
		__builtin_memcpy(e->tuple.ipv6.saddr, incoming ? ip.daddr : ip.saddr, 16);
		__builtin_memcpy(e->tuple.ipv6.daddr, incoming ? ip.saddr : ip.daddr, 16);
		e->tuple.ipv6.sport = incoming ? ports[1] : ports[0];
		e->tuple.ipv6.dport = incoming ? ports[0] : ports[1];
	} else {
		return 0;
	}
	e->ours = bpf_ntohs(incoming ? ports[1] : ports[0]);
	return 1;
}

/* The socket at the other end, to be released. */
static __always_inline struct bpf_sock *rf_other_end(struct __sk_buff *skb, struct rf_ends *e)
{
	if (e->v4)
		return bpf_sk_lookup_udp(skb, &e->tuple, sizeof(e->tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	return bpf_sk_lookup_udp(skb, &e->tuple, sizeof(e->tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* The sandbox that the packet's socket, a listener, serves; 0: none. */
static __always_inline __u32 rf_served(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u32 *of;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	of = bpf_sk_storage_get(&serving, sk, 0, 0);
	return of ? *of : 0;
}

/*
 * A datagram is taken only from a socket that our hooks sent here. One to be
 * relayed brings the number of what it is for, which only the egress hook of an
 * adopted cgroup gives it. A question to the resolver brings none: its sender is
 * looked up by its address, which is on this machine. What is taken gets a mark
 * for the gateway to read (SO_RCVMARK): the number, or the asking process's tag;
 * at this point the kernel has done with marks.
 */
SEC("cgroup_skb/ingress")
int rf_ask(struct __sk_buff *skb)
{
	__u32 number = skb->priority, tag = 0;
	struct rf_ends e = {};
	struct rf_relay *r;
	struct rf_asked *a;
	struct bpf_sock *sk;

	if (!rf_ends(skb, &e, 1))
		return 0;
	if (e.proto == IPPROTO_TCP)
		return 1; /* ALLOW: the gateway asks for what it accepted */
	if (number & RF_SO_RELAYED) {
		r = bpf_map_lookup_elem(&relayed, &number);
		if (!r || r->asked.to_port != e.ours || rf_over4(&r->asked) != e.v4 || r->asked.sandbox != rf_served(skb))
			return 0;
		skb->mark = number;
		return 1; /* ALLOW: a hook judged the destination that the number stands for */
	}
	sk = rf_other_end(skb, &e);
	if (!sk)
		return 0;
	a = bpf_sk_storage_get(&asked, sk, 0, 0);
	if (a && (a->to_port != e.ours || rf_over4(a) != e.v4))
		a = 0;
	if (a)
		tag = a->asker >> 32;
	bpf_sk_release(sk);
	if (!a)
		return 0;
	skb->mark = tag;
	return 1; /* ALLOW: the sender asked port 53 of some address, and a hook sent it here */
}

/*
 * An answer goes to a socket that has asked here, and not to whoever has its
 * port now. One of a destination goes only after the gateway has asked what its
 * number stands for: by then it has ended what the port stood for before.
 */
SEC("cgroup_skb/egress")
int rf_reply(struct __sk_buff *skb)
{
	struct rf_relay *r = 0, *known;
	struct rf_ends e = {};
	struct rf_asked *a;
	struct bpf_sock *sk;
	__u32 sandbox;
	int ok;

	if (!rf_ends(skb, &e, 0))
		return 0;
	if (e.proto == IPPROTO_TCP)
		return 1; /* ALLOW: the fence's own egress judges it */
	sandbox = rf_served(skb);
	if (!sandbox || skb->ifindex != RF_LO)
		return 0;
	sk = rf_other_end(skb, &e);
	if (!sk)
		return 0;
	a = bpf_sk_storage_get(&asked, sk, 0, 0);
	ok = a && a->sandbox == sandbox && a->to_port == e.ours && rf_over4(a) == e.v4;
	if (!ok)
		r = rf_relay_of(sk, sandbox, e.ours, e.v4);
	if (r) {
		if (!r->taken) {
			known = bpf_map_lookup_elem(&relayed, &r->number);
			if (known && known->asked.asker == r->asked.asker && known->taken)
				r->taken = 1;
		}
		r->used_ns = bpf_ktime_get_ns();
		if (r->taken)
			ok = 1;
	}
	bpf_sk_release(sk);
	if (!ok)
		return 0;
	return 1; /* ALLOW: it asked, and the answer is of what it asked for */
}

/* Tells the gateway what a number stands for, on the listener that it came in
 * by; whoever else asks is told nothing. */
static __always_inline void rf_tell(struct bpf_sockopt *ctx)
{
	__u32 number = ctx->optname;
	void *end = ctx->optval_end;
	void *val = ctx->optval;
	struct rf_relay *r;
	__u32 *of;

	if (!ctx->sk || val + sizeof(r->asked) > end)
		return;
	of = bpf_sk_storage_get(&serving, ctx->sk, 0, 0);
	r = bpf_map_lookup_elem(&relayed, &number);
	if (!of || !r || r->asked.sandbox != *of || r->asked.to_port != ctx->sk->src_port)
		return;
	__builtin_memcpy(val, &r->asked, sizeof(r->asked));
	r->taken = 1;
	ctx->optlen = sizeof(r->asked);
	barrier();
	ctx->retval = 0;
}

/*
 * Answers questions that no other kernel answers: what a connection of the
 * gateway's, or a datagram, was meant for, and whose programs a socket meets.
 * Attached to the listeners' cgroup for the first and to an adopted one for the
 * second. Values over a page cannot be shown to a program: optlen 0 lets them
 * pass as they are.
 */
SEC("cgroup/getsockopt")
int rf_answer(struct bpf_sockopt *ctx)
{
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	void *end = ctx->optval_end;
	void *val = ctx->optval;

	if (ctx->level != RF_SOL) {
		if (ctx->optlen > 4096)
			ctx->optlen = 0;
		return 1; /* ALLOW: not ours */
	}
	if (ctx->optname & RF_SO_RELAYED) {
		rf_tell(ctx);
	} else if (ctx->optname == RF_SO_ASKED) {
		struct rf_asked *a = 0;

		if (ctx->sk)
			a = bpf_sk_storage_get(&asked, ctx->sk, 0, 0);
		if (!a || val + sizeof(*a) > end)
			return 1; /* ALLOW: the kernel's own answer, ENOPROTOOPT */
		__builtin_memcpy(val, a, sizeof(*a));
		ctx->optlen = sizeof(*a);
		barrier();
		ctx->retval = 0;
	} else if (ctx->optname == RF_SO_FENCE) {
		if (!st->sandbox || val + sizeof(__u32) > end)
			return 1; /* ALLOW: likewise */
		*(__u32 *)val = st->sandbox;
		ctx->optlen = sizeof(__u32);
		barrier();
		ctx->retval = 0;
	}
	return 1; /* ALLOW: it is read, nothing is decided */
}
