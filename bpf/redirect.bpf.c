/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
//go:build ignore

/*
 * Redirection, for processes that were running before they were fenced, in a
 * network namespace that is not ours and keeps its routes. The hooks give the
 * verdict as the fence does, and send what is allowed to the gateway's listener
 * on the namespace's loopback; what was asked for stays with the socket and is
 * what its owner sees. The other end, on the cgroup of the listeners, is
 * listener.bpf.c.
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
#include "redirect.h"
#include "relay.h"
#include "place.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* See rf_abi in fence.bpf.c. */
const volatile union {
	struct rf_asked asked;
	struct rf_redirect redirect;
	struct rf_flying_key flying;
	enum rf_sockopt sockopt;
	struct rf_relays relays;
} rf_redirect_abi = {};

/* Writes down what the socket asked for and finds the listener it is sent to;
 * 0 when there is none, and the reason. */
static __always_inline __u16 rf_remember(struct bpf_sock_addr *ctx, const struct rf_state *st,
					 struct rf_call *c, enum rf_way way, int v4, int connect)
{
	struct rf_redirect_key key = {.sandbox = st->sandbox};
	struct rf_redirect *to;
	struct rf_asked *a;
	__u8 why = c->j.reason;
	__u16 port;

	c->j.reason = RF_NO_LISTENER;
	key.netns = bpf_get_netns_cookie(ctx);
	to = bpf_map_lookup_elem(&redirects, &key);
	if (!to || !ctx->sk)
		return 0;
	if (!rf_reaches_loopback(ctx->sk, c->dest.proto)) {
		c->j.reason = RF_BOUND;
		return 0;
	}
	if (c->dest.proto == IPPROTO_UDP && way == RF_WAY_GATEWAY) {
		port = rf_relay_to(ctx, to, st, c, v4, connect);
		if (port)
			c->j.reason = why;
		return port;
	}
	port = rf_listener(to, way, c->dest.proto, v4);
	if (!port || !rf_serves(ctx, st->sandbox, port, c->dest.proto, v4))
		return 0;
	a = bpf_sk_storage_get(&asked, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!a)
		return 0;
	rf_write_asked(a, st, c, port);
	c->j.reason = why;
	return port;
}

/* What the socket asked for, if the peer that the kernel names is a listener
 * that it was sent to. */
static __always_inline struct rf_asked *rf_behind(struct bpf_sock_addr *ctx, const struct rf_state *st, __u16 port, int v4)
{
	struct rf_relay *r;
	struct rf_asked *a;

	if (!ctx->sk)
		return 0;
	a = bpf_sk_storage_get(&asked, ctx->sk, 0, 0);
	if (a && a->to_port == port && rf_over4(a) == v4)
		return a;
	if (ctx->sk->protocol != IPPROTO_UDP)
		return 0;
	r = rf_relay_of(ctx->sk, st->sandbox, port, v4);
	return r ? &r->asked : 0;
}

/* A socket has been connected elsewhere: what it was connected to before goes. */
static __always_inline void rf_forget(struct bpf_sock *sk, __u16 port, enum rf_way way)
{
	int relay = port && way == RF_WAY_GATEWAY && sk->protocol == IPPROTO_UDP;
	struct rf_relays *all;

	if (!port || relay)
		bpf_sk_storage_delete(&asked, sk);
	if (relay)
		return;
	all = bpf_sk_storage_get(&relays, sk, 0, 0);
	if (all)
		all->connected = 0;
}

/*
 * The common end of the four address hooks: returns the port of the listener
 * that the call is to be sent to, 0 to let it go where it asked, and below 0
 * when it is refused. connect says that the socket gets a new destination:
 * what it asked for before is forgotten. Without it the call may come from a
 * connected socket and name the listener that it was sent to (an IPv6 socket
 * that is connected to a mapped address meets sendmsg4 with each datagram).
 */
static __always_inline int rf_decide(struct bpf_sock_addr *ctx, struct rf_call *c, int v4, int connect)
{
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	struct rf_asked *a = 0;
	enum rf_way way;
	int port = 0;

	if (!connect && rf_is_listener(&c->dest))
		a = rf_behind(ctx, st, c->dest.port, v4);
	if (a)
		rf_dest_asked(&c->dest, a);
	c->dest.proto = ctx->protocol;
	c->sock_type = ctx->type;
	c->cookie = bpf_get_socket_cookie(ctx);
	way = rf_judge_adopted(st, &c->dest, &c->j);
	if (c->j.verdict == RF_ALLOW && way != RF_WAY_DIRECT) {
		port = rf_remember(ctx, st, c, way, v4, connect);
		if (!port)
			c->j.verdict = RF_DENY; /* rf_remember gave the reason */
	}
	if (c->j.verdict != RF_ALLOW)
		c->error = rf_errno(EACCES);
	rf_count_verdict(c->hook, &c->j);
	rf_hit(st, &c->j);
	rf_report(st, c, 1);
	if (c->j.verdict != RF_ALLOW)
		return -1;
	if (connect && ctx->sk)
		rf_forget(ctx->sk, port, way);
	return port;
}

/* 0.0.0.0 is 127.0.0.1: see rf_addr4 in fence.bpf.c. */
static __always_inline int rf_send4(struct bpf_sock_addr *ctx, __u8 hook, int connect)
{
	struct rf_call c = {.hook = hook, .family = AF_INET};
	__be32 ip = ctx->user_ip4;
	barrier();
	c.dest.port = bpf_ntohs(ctx->user_port);
	barrier();
	int port;

	if (ip == 0) {
		ip = bpf_htonl(0x7f000001);
		ctx->user_ip4 = ip;
	}
	rf_dest_v4(&c.dest, ip);
	port = rf_decide(ctx, &c, 1, connect);
	if (port < 0)
		return rf_refuse(EACCES);
	if (port) {
		ctx->user_ip4 = bpf_htonl(0x7f000001);
		ctx->user_port = bpf_htons(port);
	}
	return 1; /* ALLOW: rf_decide found the reason named in the record */
}

/* Mapped addresses continue as IPv4 in the kernel, and go to the listener of
 * that version; those behind NAT64 and 6to4 stay IPv6. */
static __always_inline int rf_send6(struct bpf_sock_addr *ctx, __u8 hook, int connect)
{
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
	int mapped, port;

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
	mapped = c.dest.form == RF_FORM_MAPPED;
	port = rf_decide(ctx, &c, mapped, connect);
	if (port < 0)
		return rf_refuse(EACCES);
	if (port) {
		ctx->user_ip6[0] = 0;
		ctx->user_ip6[1] = 0;
		ctx->user_ip6[2] = mapped ? bpf_htonl(0xffff) : 0;
		ctx->user_ip6[3] = mapped ? bpf_htonl(0x7f000001) : bpf_htonl(1);
		ctx->user_port = bpf_htons(port);
	}
	return 1; /* ALLOW: rf_decide found the reason named in the record */
}

SEC("cgroup/connect4")
int rf_redirect_connect4(struct bpf_sock_addr *ctx)
{
	return rf_send4(ctx, RF_HOOK_CONNECT4, 1);
}

SEC("cgroup/connect6")
int rf_redirect_connect6(struct bpf_sock_addr *ctx)
{
	return rf_send6(ctx, RF_HOOK_CONNECT6, 1);
}

SEC("cgroup/sendmsg4")
int rf_redirect_sendmsg4(struct bpf_sock_addr *ctx)
{
	return rf_send4(ctx, RF_HOOK_SENDMSG4, 0);
}

SEC("cgroup/sendmsg6")
int rf_redirect_sendmsg6(struct bpf_sock_addr *ctx)
{
	return rf_send6(ctx, RF_HOOK_SENDMSG6, 0);
}

/* Of several resolvers that one unconnected socket asks, the one it asked last
 * is shown: a datagram back does not say more. Other datagrams do. */
static __always_inline int rf_show4(struct bpf_sock_addr *ctx)
{
	__be32 ip = ctx->user_ip4, asked_ip;
	barrier();
	__u16 port = bpf_ntohs(ctx->user_port);
	barrier();
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	struct rf_asked *a;

	if (ip != bpf_htonl(0x7f000001))
		return 1; /* ALLOW: this hook shows, it decides nothing */
	a = rf_behind(ctx, st, port, 1);
	if (a) {
		__builtin_memcpy(&asked_ip, a->addr + 12, 4);
		ctx->user_ip4 = asked_ip;
		ctx->user_port = bpf_htons(a->port);
	}
	return 1; /* ALLOW: likewise */
}

static __always_inline int rf_show6(struct bpf_sock_addr *ctx)
{
	__be32 w[4];
	__be32 a6 = ctx->user_ip6[0];
	barrier();
	__be32 b6 = ctx->user_ip6[1];
	barrier();
	__be32 c6 = ctx->user_ip6[2];
	barrier();
	__be32 d6 = ctx->user_ip6[3];
	barrier();
	__u16 port = bpf_ntohs(ctx->user_port);
	barrier();
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	struct rf_dest d = {};
	struct rf_asked *a;

	rf_dest_v6(&d, a6, b6, c6, d6);
	if (!rf_is_listener(&d))
		return 1; /* ALLOW: this hook shows, it decides nothing */
	a = rf_behind(ctx, st, port, d.is_v4);
	if (a) {
		__builtin_memcpy(w, a->addr, 16);
		ctx->user_ip6[0] = w[0];
		ctx->user_ip6[1] = w[1];
		ctx->user_ip6[2] = w[2];
		ctx->user_ip6[3] = w[3];
		ctx->user_port = bpf_htons(a->port);
	}
	return 1; /* ALLOW: likewise */
}

SEC("cgroup/recvmsg4")
int rf_recvmsg4(struct bpf_sock_addr *ctx)
{
	return rf_show4(ctx);
}

SEC("cgroup/recvmsg6")
int rf_recvmsg6(struct bpf_sock_addr *ctx)
{
	return rf_show6(ctx);
}

SEC("cgroup/getpeername4")
int rf_getpeername4(struct bpf_sock_addr *ctx)
{
	return rf_show4(ctx);
}

SEC("cgroup/getpeername6")
int rf_getpeername6(struct bpf_sock_addr *ctx)
{
	return rf_show6(ctx);
}

/* The flow's name on both sides: its source on the namespace's loopback. */
static __always_inline void rf_source(struct bpf_sock_ops *ctx, struct rf_flying_key *key, __u16 to_port)
{
	__be32 w[4] = {0, 0, bpf_htonl(0xffff), 0};

	if (ctx->family == AF_INET) {
		w[3] = ctx->local_ip4;
	} else {
		w[0] = ctx->local_ip6[0];
		barrier();
		w[1] = ctx->local_ip6[1];
		barrier();
		w[2] = ctx->local_ip6[2];
		barrier();
		w[3] = ctx->local_ip6[3];
		barrier();
	}
	__builtin_memcpy(key->addr, w, 16);
	key->port = ctx->local_port;
	barrier();
	key->to_port = to_port;
	key->netns = bpf_get_netns_cookie(ctx);
}

/* Marks a connection that the cgroup has accepted: where it may answer, the
 * egress hook knows it by that. One from before the fence has no mark. */
static __always_inline void rf_accept(struct bpf_sock_ops *ctx)
{
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	struct bpf_sock *sk = ctx->sk;
	struct rf_asked *a;

	if (!sk || !(st->flags & RF_FLAG_INBOUND))
		return;
	a = bpf_sk_storage_get(&asked, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!a)
		return;
	a->sandbox = st->sandbox;
	a->port = 0;
	a->to_port = 0;
}

/*
 * TCP: the source is known when the kernel is about to send the SYN (of fast
 * open too), and only then. The entry goes with the connection that the gateway
 * accepts, or with the socket: nobody else finds it by using the port again.
 */
SEC("sockops")
int rf_depart(struct bpf_sock_ops *ctx)
{
	struct rf_flying_key key = {};
	struct rf_asked *a, *there;
	struct bpf_sock *sk;
	__u32 op = ctx->op;
	barrier();

	if (op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		rf_accept(ctx);
		return 1;
	}
	if (op != BPF_SOCK_OPS_TCP_CONNECT_CB &&
	    !(op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == BPF_TCP_CLOSE))
		return 1;
	sk = ctx->sk;
	if (!sk)
		return 1;
	a = bpf_sk_storage_get(&asked, sk, 0, 0);
	if (!a)
		return 1;
	rf_source(ctx, &key, a->to_port);
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		bpf_map_update_elem(&flying, &key, a, BPF_ANY);
		return 1;
	}
	there = bpf_map_lookup_elem(&flying, &key);
	if (there && there->asker == a->asker)
		bpf_map_delete_elem(&flying, &key);
	return 1;
}

/* What a packet of an adopted cgroup turned out to be. */
struct rf_outgoing {
	struct rf_relay *relay; /* of a datagram that the gateway relays */
	int meant;              /* for the gateway: a hook sent it there */
};

/* Finds what the packet's socket asked for, if the packet goes to a listener
 * that it was sent to, and makes that its destination. What begins something (a
 * SYN, any datagram) needs one that is there still. */
static __always_inline void rf_meant(struct __sk_buff *skb, const struct rf_state *st,
				     struct rf_dest *d, __u8 tcp_flags, struct rf_outgoing *out)
{
	struct bpf_sock *sk = skb->sk;
	struct rf_asked *a;
	int v4 = d->is_v4;

	if (!sk || !rf_is_listener(d))
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return;
	a = bpf_sk_storage_get(&asked, sk, 0, 0);
	if (!a || a->sandbox != st->sandbox || a->to_port != d->port || rf_over4(a) != v4) {
		if (d->proto != IPPROTO_UDP)
			return;
		out->relay = rf_relay_of(sk, st->sandbox, d->port, v4);
		if (!out->relay)
			return;
		a = &out->relay->asked;
	}
	if ((d->proto != IPPROTO_TCP || (tcp_flags & RF_TCP_SYN)) &&
	    !rf_serves(skb, st->sandbox, d->port, d->proto, v4))
		return;
	out->meant = 1;
	rf_dest_asked(d, a);
}

/* Whether the packet stays on loopback, and a datagram comes from there: the
 * gateway answers nowhere else. */
static __always_inline int rf_on_loopback(struct __sk_buff *skb, const struct rf_dest *d)
{
	__be32 from[4] = {};

	if (skb->ifindex != RF_LO)
		return 0;
	if (d->proto != IPPROTO_UDP)
		return 1;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return !bpf_skb_load_bytes(skb, 12, from, 4) &&
		       (from[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !bpf_skb_load_bytes(skb, 8, from, 16) && from[0] == 0 && from[1] == 0 && from[2] == 0 &&
	       from[3] == bpf_htonl(1);
}

/* The common end for packets to the gateway that are allowed: the number goes
 * with the datagram, and nobody else's does. Priority is not looked at on the
 * way in, and loopback has no queues; a mark might be a rule's of this namespace. */
static __always_inline int rf_hand_over(struct __sk_buff *skb, const struct rf_dest *d, struct rf_relay *r)
{
	if (!rf_on_loopback(skb, d))
		return RF_BOUND;
	if (!r)
		return 0;
	if (!rf_known(r))
		return RF_NO_LISTENER;
	r->used_ns = bpf_ktime_get_ns();
	skb->priority = r->number;
	return 0;
}

/* Whether a packet answers a connection that somebody else began, and that is
 * open: a SYN-ACK of a socket that listens (the program sees the listener, not
 * the request), or one of a marked socket. A raw socket can write any flags: it
 * neither listens nor is marked. */
static __always_inline int rf_answers(struct __sk_buff *skb, const struct rf_state *st,
				      const struct rf_dest *d, __u8 tcp_flags)
{
	struct bpf_sock *sk = skb->sk;
	struct rf_asked *a;

	if (!(st->flags & RF_FLAG_INBOUND) || d->proto != IPPROTO_TCP)
		return 0;
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->type != SOCK_STREAM)
		return 0;
	if (sk->state == BPF_TCP_LISTEN)
		return (tcp_flags & RF_TCP_SYNACK) == RF_TCP_SYNACK;
	a = bpf_sk_storage_get(&asked, sk, 0, 0);
	return a && a->sandbox == st->sandbox && a->port == 0 && a->to_port == 0;
}

/*
 * The backstop. A packet to the gateway's listener is judged as what its socket
 * asked for; any other must go where a rule lets it go directly. So a socket
 * that is older than the fence sends nothing that the hooks would have sent to
 * the gateway, and a switch of the policy reaches redirected flows too.
 */
SEC("cgroup_skb/egress")
int rf_redirect_egress(struct __sk_buff *skb)
{
	struct rf_state *st = bpf_get_local_storage(&state, 0);
	struct rf_call c = {.hook = RF_HOOK_EGRESS};
	struct rf_outgoing out = {};
	__u8 tcp_flags = 0;
	enum rf_way way;
	int reason;

	if (skb->ifindex == RF_LO && (skb->priority & RF_SO_RELAYED))
		skb->priority = 0;
	reason = rf_parse(skb, &c, &tcp_flags);
	if (!st->sandbox) {
		c.j.reason = RF_NO_STATE;
	} else if (reason) {
		c.j.reason = reason;
	} else if (rf_answers(skb, st, &c.dest, tcp_flags)) {
		c.j.reason = RF_ESTABLISHED;
		c.j.verdict = RF_ALLOW; /* ALLOW: others began it, and the operator opened that */
	} else {
		rf_meant(skb, st, &c.dest, tcp_flags, &out);
		way = rf_judge_adopted(st, &c.dest, &c.j);
		if (c.j.verdict == RF_ALLOW && !out.meant && way != RF_WAY_DIRECT) {
			c.j.verdict = RF_DENY;
			c.j.reason = RF_PAST_HOOKS;
		}
		if (c.j.verdict == RF_ALLOW && out.meant) {
			reason = rf_hand_over(skb, &c.dest, out.relay);
			if (reason) {
				c.j.verdict = RF_DENY;
				c.j.reason = reason;
			}
		}
	}
	rf_count_verdict(c.hook, &c.j);
	if (c.j.verdict == RF_ALLOW)
		return 1; /* ALLOW: rf_judge_adopted; the flow was recorded at connect */
	c.error = EPERM;
	c.cookie = bpf_get_socket_cookie(skb);
	rf_report(st, &c, 0);
	return 0;
}
