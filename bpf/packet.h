/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a packet says of itself. */
#ifndef RINGFENCE_PACKET_H
#define RINGFENCE_PACKET_H

/* Reads the destination from the packet; returns 0, or the reason to drop it.
 * Options and extension headers can name other hops than the header does. */
static __always_inline int rf_parse(struct __sk_buff *skb, struct rf_call *c, __u8 *tcp_flags)
{
	__u8 l4[14] = {};
	__u32 off;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct rf_iphdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return RF_SHORT;
		c->family = AF_INET;
		c->dest.proto = ip.protocol;
		rf_dest_v4(&c->dest, ip.daddr);
		if (ip.version_ihl != 0x45)
			return RF_OPTIONS;
		if (ip.frag_off & bpf_htons(0x3fff))
			return RF_FRAGMENT;
		off = sizeof(ip);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct rf_ip6hdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return RF_SHORT;
		c->family = AF_INET6;
		c->dest.proto = ip.nexthdr;
		rf_dest_v6(&c->dest, ip.daddr[0], ip.daddr[1], ip.daddr[2], ip.daddr[3]);
		off = sizeof(ip);
	} else {
		return RF_FAMILY;
	}
	if (c->dest.proto == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, off, l4, 14))
			return RF_SHORT;
		*tcp_flags = l4[13];
	} else if (c->dest.proto == IPPROTO_UDP) {
		if (bpf_skb_load_bytes(skb, off, l4, 8))
			return RF_SHORT;
	} else if (c->family == AF_INET6 &&
		   (c->dest.proto == 0 || c->dest.proto == 43 || c->dest.proto == 44 ||
		    c->dest.proto == 60)) {
		return RF_OPTIONS;
	} else {
		return RF_PROTOCOL;
	}
	c->dest.port = (__u16)l4[2] << 8 | l4[3];
	return 0;
}

#endif
