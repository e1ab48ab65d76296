/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Redirection: where it is kept, and what a destination means under it. */
#ifndef RINGFENCE_REDIRECT_H
#define RINGFENCE_REDIRECT_H

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct rf_asked);
} asked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 12);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rf_redirect_key);
	__type(value, struct rf_redirect);
} redirects SEC(".maps");

/*
 * The listeners of the gateway, each with the sandbox it serves: the keeper
 * writes it to the socket itself, so it ends with the socket. Whoever takes the
 * port of a listener that is gone has no entry, and nobody is sent there.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} serving SEC(".maps");

/* An entry that is evicted, or was never written, costs its connection: the
 * gateway does not serve one that cannot be told what it asked for. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 15);
	__type(key, struct rf_flying_key);
	__type(value, struct rf_asked);
} flying SEC(".maps");

/* Destinations of a UDP socket that its datagrams to the gateway are for. They
 * are given out under the socket's lock, which the kernel holds around the
 * address hooks of UDP, and end with it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct rf_relays);
} relays SEC(".maps");

/* The same by number, for the gateway to ask for. What was pushed out is written
 * again with the next datagram. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 15);
	__type(key, __u32);
	__type(value, struct rf_relay);
} relayed SEC(".maps");

/* Where an allowed flow goes. */
enum rf_way {
	RF_WAY_NONE,
	RF_WAY_DIRECT,
	RF_WAY_GATEWAY,
	RF_WAY_DNS,
};

/*
 * rf_judge for a namespace that is not ours. Its loopback is shared with
 * whoever lives there and open only if the operator said so; port 53 there may
 * be a resolver that asks the world, so it goes to ours like any other. What a
 * CIDR rule allows on loopback is this namespace's own service: the gateway's
 * loopback is another one.
 */
static __always_inline enum rf_way rf_judge_adopted(const struct rf_state *st, const struct rf_dest *d,
						    struct rf_judgement *j)
{
	enum rf_way way = RF_WAY_DIRECT;

	j->rule = 0;
	j->verdict = RF_DENY;
	j->reason = RF_NO_STATE;
	if (!st->sandbox)
		return RF_WAY_NONE;
	if (d->proto != IPPROTO_TCP && d->proto != IPPROTO_UDP) {
		j->reason = RF_PROTOCOL;
		return RF_WAY_NONE;
	}
	if (d->is_v4 && d->v4 == 0) {
		j->reason = RF_UNSPECIFIED;
		return RF_WAY_NONE;
	}
	if (d->port == 53) {
		j->reason = RF_DNS;
		j->verdict = RF_ALLOW; /* ALLOW: every port 53 ends at the gateway's resolver */
		return RF_WAY_DNS;
	}
	if (rf_is_virtual(d)) {
		rf_judge_name(st, d, j);
		way = RF_WAY_GATEWAY;
	} else if (rf_is_local(d)) {
		if (st->flags & RF_FLAG_LOOPBACK) {
			j->reason = RF_LOOPBACK;
			j->verdict = RF_ALLOW; /* ALLOW: the operator opened the namespace's loopback */
		} else {
			rf_judge_cidr(st, d, j);
		}
	} else {
		rf_judge_cidr(st, d, j);
		if (!(st->flags & RF_FLAG_DIRECT))
			way = RF_WAY_GATEWAY;
	}
	return way;
}

/* The destination that a socket asked for. */
static __always_inline void rf_dest_asked(struct rf_dest *d, const struct rf_asked *a)
{
	__be32 w[4];

	__builtin_memcpy(w, a->addr, 16);
	d->port = a->port;
	rf_dest_v6(d, w[0], w[1], w[2], w[3]);
}

/* The listener that a flow of this protocol and IP version is sent to; those of
 * datagrams other than DNS are many, see relay.h. */
static __always_inline __u16 rf_listener(const struct rf_redirect *to, enum rf_way way, __u16 proto, int v4)
{
	if (way == RF_WAY_GATEWAY && proto == IPPROTO_TCP)
		return v4 ? to->tcp4 : to->tcp6;
	if (way != RF_WAY_DNS)
		return 0;
	if (proto == IPPROTO_TCP)
		return v4 ? to->dns_tcp4 : to->dns_tcp6;
	return v4 ? to->dns_udp4 : to->dns_udp6;
}

/* Whether what has the port on the loopback of ctx's network namespace is the
 * gateway's listener for this sandbox. */
static __always_inline int rf_serves(void *ctx, __u32 sandbox, __u16 port, __u16 proto, int v4)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size, *of;
	int ok = 0;

	if (v4) {
		t.ipv4.saddr = bpf_htonl(0x7f000001);
		t.ipv4.daddr = bpf_htonl(0x7f000001);
		t.ipv4.dport = bpf_htons(port);
		size = sizeof(t.ipv4);
	} else {
		t.ipv6.saddr[3] = bpf_htonl(1);
		t.ipv6.daddr[3] = bpf_htonl(1);
		t.ipv6.dport = bpf_htons(port);
		size = sizeof(t.ipv6);
	}
	if (proto == IPPROTO_TCP)
		sk = bpf_sk_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	of = bpf_sk_storage_get(&serving, sk, 0, 0);
	if (of && *of == sandbox)
		ok = 1;
	bpf_sk_release(sk);
	return ok;
}

/* Loopback as a redirected flow has it: 127.0.0.1 or ::1. */
static __always_inline int rf_is_listener(const struct rf_dest *d)
{
	if (d->is_v4)
		return d->v4 == bpf_htonl(0x7f000001) &&
		       (d->form == RF_FORM_NATIVE || d->form == RF_FORM_MAPPED);
	return d->addr[0] == 0 && d->addr[1] == 0 && d->addr[2] == 0 && d->addr[3] == bpf_htonl(1);
}

#endif
