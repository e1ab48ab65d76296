/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What address hooks write down of a socket that is sent to the gateway, and the
 * place that a UDP socket has for a destination (see relay.h). */
#ifndef RINGFENCE_PLACE_H
#define RINGFENCE_PLACE_H

/* Who asks: the process's tag comes with what it asks for, since marks of this
 * namespace are not ours. */
static __always_inline __u64 rf_asker(__u64 cookie)
{
	return (__u64)rf_own_tag() << 32 | (__u32)cookie;
}

static __always_inline void rf_write_asked(struct rf_asked *a, const struct rf_state *st,
					   const struct rf_call *c, __u16 port)
{
	__builtin_memcpy(a->addr, c->dest.addr, 16);
	a->asker = rf_asker(c->cookie);
	a->sandbox = st->sandbox;
	a->port = c->dest.port;
	a->to_port = port;
}

/* Whether answers find back to the socket. They come from loopback, so they go
 * to loopback: the listener's cgroup sends nowhere else. */
static __always_inline int rf_reaches_loopback(struct bpf_sock *sk, __u16 proto)
{
	__be32 a, b, c, d;

	if (sk->bound_dev_if && sk->bound_dev_if != RF_LO)
		return 0;
	if (proto != IPPROTO_UDP)
		return 1;
	if (sk->family == AF_INET) {
		d = sk->src_ip4;
		return d == 0 || (d & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	}
	a = sk->src_ip6[0];
	b = sk->src_ip6[1];
	c = sk->src_ip6[2];
	d = sk->src_ip6[3];
	if (a || b)
		return 0;
	if (c == bpf_htonl(0xffff))
		return d == 0 || (d & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return c == 0 && (d == 0 || d == bpf_htonl(1));
}

/* Draws a number that nobody has. */
static __always_inline int rf_draw(struct rf_relay *r)
{
	int i;

	for (i = 0; i < 2; i++) {
		r->number = (bpf_get_prandom_u32() & (RF_SO_RELAYED - 1)) | RF_SO_RELAYED;
		if (!bpf_map_update_elem(&relayed, &r->number, r, BPF_NOEXIST))
			return 1;
	}
	r->number = 0;
	return 0;
}

/* Finds the socket's place for a destination, or a free one; RF_RELAYS if there
 * is none. A place that is in use is not given to another: what waits in the
 * socket's queue would be shown as from there. */
static __always_inline __u32 rf_place(const struct rf_relays *all, const __u16 *ports, const struct rf_dest *d, __u64 now)
{
	__u32 i;

	for (i = 0; i < RF_RELAYS; i++) {
		const struct rf_relay *r = &all->to[i];

		if (r->number && r->asked.to_port == ports[i] && rf_same_dest(&r->asked, d))
			return i;
	}
	for (i = 0; i < RF_RELAYS; i++) {
		const struct rf_relay *r = &all->to[i];

		if (ports[i] && (!r->number || (r->used_ns + RF_RELAY_IDLE_NS < now && all->connected != i + 1)))
			return i;
	}
	return i;
}

/* The listener for the datagrams of a socket to one destination. */
static __always_inline __u16 rf_relay_to(struct bpf_sock_addr *ctx, const struct rf_redirect *to,
					 const struct rf_state *st, struct rf_call *c, int v4, int connect)
{
	const __u16 *ports = v4 ? to->udp4 : to->udp6;
	__u64 now = bpf_ktime_get_ns();
	struct rf_relays *all;
	struct rf_relay *r;
	__u32 i;

	c->j.reason = RF_NO_RELAY;
	if (!ports[0])
		return 0;
	c->j.reason = RF_NO_LISTENER;
	all = bpf_sk_storage_get(&relays, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!all)
		return 0;
	if (all->sandbox != st->sandbox) { /* new, or of an adoption that was released */
		for (i = 0; i < RF_RELAYS; i++)
			all->to[i].number = 0;
		all->connected = 0;
		all->sandbox = st->sandbox;
	}
	if (connect)
		all->connected = 0;
	/* By way of memory the verifier looks at what follows once, not for each place. */
	all->chosen = rf_place(all, ports, &c->dest, now);
	barrier();
	i = all->chosen;
	if (i >= RF_RELAYS) {
		c->j.reason = RF_TOO_MANY;
		return 0;
	}
	r = &all->to[i];
	if (!rf_serves(ctx, st->sandbox, ports[i], IPPROTO_UDP, v4))
		return 0;
	r->used_ns = now;
	if (!r->number || r->asked.to_port != ports[i] || !rf_same_dest(&r->asked, &c->dest)) {
		if (r->number)
			bpf_map_delete_elem(&relayed, &r->number);
		rf_write_asked(&r->asked, st, c, ports[i]);
		r->taken = 0;
		if (!rf_draw(r))
			return 0;
	}
	if (connect)
		all->connected = i + 1;
	return ports[i];
}

#endif
