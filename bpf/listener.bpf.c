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

/*
 * A question by UDP is taken only from a socket that our hooks sent here: the
 * sender is looked up by its address, which is on this machine.
 */
SEC("cgroup_skb/ingress")
int rf_ask(struct __sk_buff *skb)
{
	struct bpf_sock_tuple t = {};
	struct rf_asked *a;
	struct bpf_sock *sk;
	__be16 ports[2];
	int ok;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct rf_iphdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return 0;
		if (ip.protocol == IPPROTO_TCP)
			return 1; /* ALLOW: the gateway asks for what it accepted */
		if (ip.protocol != IPPROTO_UDP || ip.version_ihl != 0x45 ||
		    bpf_skb_load_bytes(skb, sizeof(ip), ports, sizeof(ports)))
			return 0;
		t.ipv4.saddr = ip.daddr;
		t.ipv4.daddr = ip.saddr;
		t.ipv4.sport = ports[1];
		t.ipv4.dport = ports[0];
		sk = bpf_sk_lookup_udp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct rf_ip6hdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return 0;
		if (ip.nexthdr == IPPROTO_TCP)
			return 1; /* ALLOW: likewise */
		if (ip.nexthdr != IPPROTO_UDP || bpf_skb_load_bytes(skb, sizeof(ip), ports, sizeof(ports)))
			return 0;
		__builtin_memcpy(t.ipv6.saddr, ip.daddr, 16);
		__builtin_memcpy(t.ipv6.daddr, ip.saddr, 16);
		t.ipv6.sport = ports[1];
		t.ipv6.dport = ports[0];
		sk = bpf_sk_lookup_udp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
	} else {
		return 0;
	}
	if (!sk)
		return 0;
	a = bpf_sk_storage_get(&asked, sk, 0, 0);
	ok = a && a->to_port == bpf_ntohs(ports[1]);
	bpf_sk_release(sk);
	return ok; /* ALLOW: the sender asked port 53 of some address, and a hook sent it here */
}

/*
 * Answers two questions that no other kernel answers: what a connection of the
 * gateway's was meant for, and whose programs a socket meets. Attached to the
 * listeners' cgroup for the first and to an adopted one for the second. Values
 * over a page cannot be shown to a program: optlen 0 lets them pass as they are.
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
	if (ctx->optname == RF_SO_ASKED) {
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
