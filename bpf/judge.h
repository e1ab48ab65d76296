/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The verdict on a destination: the same for every hook. */
#ifndef RINGFENCE_JUDGE_H
#define RINGFENCE_JUDGE_H

struct rf_dest {
	__be32 addr[4]; /* as asked for; IPv4 as ::ffff:a.b.c.d */
	__be32 v4;      /* the IPv4 address it is or hides, if is_v4 */
	__u16 port;     /* host order */
	__u16 proto;
	__u8 is_v4;
	__u8 form;
};

/* All zero: denied. */
struct rf_judgement {
	__u32 rule;
	__u8 verdict;
	__u8 reason;
};

static __always_inline void rf_dest_v4(struct rf_dest *d, __be32 v4)
{
	d->addr[0] = 0;
	d->addr[1] = 0;
	d->addr[2] = bpf_htonl(0xffff);
	d->addr[3] = v4;
	d->v4 = v4;
	d->is_v4 = 1;
	d->form = RF_FORM_NATIVE;
}

/* Finds the IPv4 address that mapped, NAT64 and 6to4 forms hide. */
static __always_inline void rf_dest_v6(struct rf_dest *d, __be32 a, __be32 b, __be32 c, __be32 e)
{
	d->addr[0] = a;
	d->addr[1] = b;
	d->addr[2] = c;
	d->addr[3] = e;
	d->v4 = 0;
	d->is_v4 = 0;
	d->form = RF_FORM_NATIVE;
	if (a == 0 && b == 0 && c == bpf_htonl(0xffff)) {
		d->is_v4 = 1;
		d->form = RF_FORM_MAPPED;
		d->v4 = e;
	} else if (a == bpf_htonl(0x0064ff9b) && b == 0 && c == 0) {
		d->is_v4 = 1;
		d->form = RF_FORM_NAT64;
		d->v4 = e;
	} else if ((a & bpf_htonl(0xffff0000)) == bpf_htonl(0x20020000)) {
		d->is_v4 = 1;
		d->form = RF_FORM_6TO4;
		d->v4 = bpf_htonl(bpf_ntohl(a) << 16 | bpf_ntohl(b) >> 16);
	}
}

/*
 * The sandbox's own addresses: 127/8, ::1, 198.18.0.1. A loopback address
 * hidden behind NAT64 or 6to4 is not one of them: it would be steered.
 */
static __always_inline int rf_is_local(const struct rf_dest *d)
{
	if (d->is_v4) {
		if (d->form != RF_FORM_NATIVE && d->form != RF_FORM_MAPPED)
			return 0;
		return (d->v4 & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) ||
		       d->v4 == bpf_htonl(0xc6120001);
	}
	return d->addr[0] == 0 && d->addr[1] == 0 && d->addr[2] == 0 && d->addr[3] == bpf_htonl(1);
}

static __always_inline int rf_is_virtual(const struct rf_dest *d)
{
	return d->is_v4 && (d->v4 & bpf_htonl(0xfffe0000)) == bpf_htonl(0xc6120000);
}

static __always_inline void rf_judge_name(const struct rf_state *st, const struct rf_dest *d,
					  struct rf_judgement *j)
{
	struct rf_name_key key = {
		.policy = st->policy,
		.port = d->port,
		.proto = d->proto,
	};
	struct rf_name_value *val;

	__builtin_memcpy(key.addr, &d->v4, 4);
	val = bpf_map_lookup_elem(&names, &key);
	if (!val) {
		key.port = 0;
		val = bpf_map_lookup_elem(&names, &key);
	}
	if (!val) {
		j->reason = RF_NO_RULE;
		return;
	}
	j->rule = val->rule;
	j->reason = RF_RULE;
	j->verdict = RF_ALLOW; /* ALLOW: the name behind this virtual address has a rule for the port */
}

static __always_inline void rf_judge_cidr(const struct rf_state *st, const struct rf_dest *d,
					  struct rf_judgement *j)
{
	struct rf_cidr_key key = {
		.prefixlen = RF_CIDR_HEAD_BITS + 128,
		.policy = st->policy,
		.proto = d->proto,
		.port = d->port,
	};
	struct rf_cidr_value *val;
	__be32 words[4];

	if (d->is_v4) {
		words[0] = 0;
		words[1] = 0;
		words[2] = bpf_htonl(0xffff);
		words[3] = d->v4;
	} else {
		words[0] = d->addr[0];
		words[1] = d->addr[1];
		words[2] = d->addr[2];
		words[3] = d->addr[3];
	}
	__builtin_memcpy(key.addr, words, 16);
	val = bpf_map_lookup_elem(&cidrs, &key);
	if (!val) {
		key.port = 0;
		val = bpf_map_lookup_elem(&cidrs, &key);
	}
	if (!val) {
		j->reason = RF_NO_RULE;
		return;
	}
	j->rule = val->rule;
	j->reason = RF_RULE;
	if (val->allow == RF_ALLOW)
		j->verdict = RF_ALLOW; /* ALLOW: the longest matching CIDR of the policy says so */
}

/* st must not be NULL. Fills j; what it leaves alone stays denied. */
static __always_inline void rf_judge(const struct rf_state *st, const struct rf_dest *d,
				     struct rf_judgement *j)
{
	j->rule = 0;
	j->verdict = RF_DENY;
	j->reason = RF_NO_STATE;
	if (!st->sandbox)
		return;
	if (d->proto != IPPROTO_TCP && d->proto != IPPROTO_UDP) {
		j->reason = RF_PROTOCOL;
		return;
	}
	if (d->is_v4 && d->v4 == 0) {
		/* The native and mapped forms were made 127.0.0.1 before. */
		j->reason = RF_UNSPECIFIED;
		return;
	}
	if ((st->flags & RF_FLAG_LOOPBACK) && rf_is_local(d)) {
		j->reason = RF_LOOPBACK;
		j->verdict = RF_ALLOW; /* ALLOW: the profile opens the sandbox's own loopback */
		return;
	}
	if ((st->flags & RF_FLAG_DNS) && d->port == 53) {
		j->reason = RF_DNS;
		j->verdict = RF_ALLOW; /* ALLOW: every port 53 inside ends at the gateway's resolver */
		return;
	}
	/* CIDR rules never reach into the virtual range: an address there
	 * means one name or nothing. */
	if (!(st->flags & RF_FLAG_GATEWAY) && rf_is_virtual(d))
		rf_judge_name(st, d, j);
	else
		rf_judge_cidr(st, d, j);
}

#endif
