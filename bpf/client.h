/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Telling the gateway which process is at the other end. Audit only. */
#ifndef RINGFENCE_CLIENT_H
#define RINGFENCE_CLIENT_H

/* The tag of the process that is in the call. */
static __always_inline __u32 rf_own_tag(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return rf_tag(task->tgid, task->group_leader->start_boottime);
}

/*
 * Marks the socket with the tag of the process that connects it or sends with
 * it. In a sandbox's own namespace no rule routes by marks, and without
 * CAP_NET_ADMIN or CAP_NET_RAW a process cannot set one. The mark goes with the
 * SYN to the connection that the gateway accepts (tcp_fwmark_accept, since
 * 3.16), and with each datagram (SO_RCVMARK, since 5.19).
 */
static __always_inline void rf_sign(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u32 tag = rf_own_tag();

	if (sk && sk->mark == tag)
		return;
	bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &tag, sizeof(tag));
}

/*
 * A datagram takes the socket's mark before sendmsg4/6 have set it (udp_sendmsg:
 * ipcm_init_sk comes first), so it gets it here. If another process has sent
 * with the same socket meanwhile, it gets none.
 */
static __always_inline void rf_sign_datagram(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct task_struct *task;
	__u32 tag;

	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return;
	task = bpf_get_current_task_btf();
	tag = sk->mark;
	if ((tag & ((1U << RF_TAG_PID_BITS) - 1)) != (__u32)task->tgid)
		tag = 0;
	skb->mark = tag;
}

#endif
