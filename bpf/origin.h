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

/* A function of its own: every hook needs it, once in each program is enough. */
static __noinline void rf_origin_of(struct rf_origin *o, struct task_struct *task)
{
	struct task_struct *p = task;
	int i;

	if (!o)
		return;
	o->start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	o->uid = (__u32)bpf_get_current_uid_gid();
	bpf_probe_read_kernel(o->comm, RF_COMM_LEN, &task->comm);
	for (i = 0; i < RF_PARENTS; i++) {
		p = BPF_CORE_READ(p, real_parent);
		if (!p)
			return;
		o->parents[i].pid = BPF_CORE_READ(p, tgid);
		if (!o->parents[i].pid)
			return;
		bpf_probe_read_kernel(o->parents[i].comm, RF_COMM_LEN, &p->comm);
	}
}

#endif
