/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which process a record is about. Audit only. */
#ifndef RINGFENCE_ORIGIN_H
#define RINGFENCE_ORIGIN_H

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
