/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which process a record is about. Audit only. */
#ifndef RINGFENCE_ORIGIN_H
#define RINGFENCE_ORIGIN_H

#define RF_TAG_PID_BITS 22 /* PID_MAX_LIMIT of 64-bit kernels is 1 << 22 */

/*
 * A process in 32 bits, which is what a socket's mark holds: its pid, and a hash
 * of its start that tells it from others that have had that pid. Never 0.
 * Package kernel has its twin.
 */
static __always_inline __u32 rf_tag(__u32 pid, __u64 start_ns)
{
	__u32 hash = start_ns * 0x9e3779b97f4a7c15ULL >> (32 + RF_TAG_PID_BITS);

	return hash << RF_TAG_PID_BITS | pid;
}

/* Four loads instead of a helper; where comm lies is a multiple of four. */
static __always_inline void rf_copy_comm(__u8 *to, const struct task_struct *task)
{
	const __u32 *from = (const __u32 *)task->comm;
	__u32 *into = (__u32 *)to;

	into[0] = from[0];
	into[1] = from[1];
	into[2] = from[2];
	into[3] = from[3];
}

/* task is the current one. Not a function of its own: with one the verifier of
 * Linux 6.1 compares states by every number in them, and processes four to
 * nine times as much. */
static __always_inline void rf_origin_of(struct rf_origin *o, struct task_struct *task)
{
	struct task_struct *p = task;
	int i;

	o->start_ns = task->group_leader->start_boottime;
	o->uid = (__u32)bpf_get_current_uid_gid();
	rf_copy_comm(o->comm, task);
	for (i = 0; i < RF_PARENTS; i++) {
		p = p->real_parent;
		if (!p)
			return;
		o->parents[i].pid = p->tgid;
		if (!o->parents[i].pid)
			return;
		rf_copy_comm(o->parents[i].comm, p);
	}
}

#endif
