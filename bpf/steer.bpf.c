/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
//go:build ignore

/*
 * Steering: hands every TCP flow and every datagram that the hooks let out of a
 * sandbox to the gateway's socket in the sandbox's namespace. The accepted TCP
 * socket keeps the destination the agent asked for as its local address, a
 * datagram brings it along (IP_RECVORIGDSTADDR).
 *
 * One small instance per sandbox: sk_lookup (5.9) does not know which namespace
 * it runs in, so the listeners cannot live in a shared map.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "ringfence.h"
#include "kernel.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* 0: TCP over IPv4, 1: TCP over IPv6, 2 and 3: UDP alike */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

SEC("sk_lookup")
int rf_steer(struct bpf_sk_lookup *ctx)
{
	struct bpf_sock *sk;
	__u32 slot = 0;
	long err;

	/* SK_PASS below means the ordinary lookup: a socket of the sandbox. */
	if (ctx->local_port == 53)
		return SK_PASS; /* ALLOW: DNS: our resolver is bound there */
	if (ctx->protocol == IPPROTO_UDP)
		slot = 2;
	else if (ctx->protocol != IPPROTO_TCP)
		return SK_DROP;
	if (ctx->family == AF_INET) {
		__be32 ip = ctx->local_ip4;

		if ((ip & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) ||
		    ip == bpf_htonl(0xc6120001))
			return SK_PASS; /* ALLOW: loopback and own address: servers inside */
	} else if (ctx->family == AF_INET6) {
		__be32 a = ctx->local_ip6[0];
		barrier();
		__be32 b = ctx->local_ip6[1];
		barrier();
		__be32 c = ctx->local_ip6[2];
		barrier();
		__be32 d = ctx->local_ip6[3];
		barrier();

		if (a == 0 && b == 0 && c == 0 && d == bpf_htonl(1))
			return SK_PASS; /* ALLOW: loopback */
		slot++;
	} else {
		return SK_DROP;
	}
	sk = bpf_map_lookup_elem(&listeners, &slot);
	if (!sk)
		return SK_DROP; /* no gateway: refused with a reset, or as a closed port */
	err = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return err ? SK_DROP : SK_PASS; /* ALLOW: to the gateway, which decides on */
}
