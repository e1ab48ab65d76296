/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Datagrams to the gateway, in namespaces that are not ours. A socket has a
 * place for each destination that it sends to; place n stands for the gateway's
 * nth listener of that IP version, so that a datagram and its answer tell by the
 * listener's port what they are for. IPv6 has one loopback address only.
 */
#ifndef RINGFENCE_RELAY_H
#define RINGFENCE_RELAY_H

/* Whether what was asked for is reached over IPv4, as rf_send4 and rf_send6 send
 * it: mapped addresses are. Ports of listeners are told apart by it. */
static __always_inline int rf_over4(const struct rf_asked *a)
{
	__be32 w[4];

	__builtin_memcpy(w, a->addr, 16);
	return w[0] == 0 && w[1] == 0 && w[2] == bpf_htonl(0xffff);
}

/* Whether two destinations are the same one. */
static __always_inline int rf_same_dest(const struct rf_asked *a, const struct rf_dest *d)
{
	__be32 w[4];

	__builtin_memcpy(w, a->addr, 16);
	return a->port == d->port && w[0] == d->addr[0] && w[1] == d->addr[1] && w[2] == d->addr[2] &&
	       w[3] == d->addr[3];
}

/* What a socket's datagrams to this listener are for. */
static __always_inline struct rf_relay *rf_relay_of(struct bpf_sock *sk, __u32 sandbox, __u16 port, int v4)
{
	struct rf_relays *all = bpf_sk_storage_get(&relays, sk, 0, 0);
	int i;

	if (!all || all->sandbox != sandbox)
		return 0;
	for (i = 0; i < RF_RELAYS; i++) {
		struct rf_relay *r = &all->to[i];

		if (r->number && r->asked.to_port == port && rf_over4(&r->asked) == v4)
			return r;
	}
	return 0;
}

/* Whether the gateway can tell what a number stands for. */
static __always_inline int rf_known(struct rf_relay *r)
{
	struct rf_relay *there = bpf_map_lookup_elem(&relayed, &r->number);

	if (!there) { /* pushed out */
		bpf_map_update_elem(&relayed, &r->number, r, BPF_NOEXIST);
		there = bpf_map_lookup_elem(&relayed, &r->number);
	}
	return there && there->asked.asker == r->asked.asker;
}

#endif
