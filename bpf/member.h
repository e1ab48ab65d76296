/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whose process a task is: for tracing programs, which belong to no cgroup. */
#ifndef RINGFENCE_MEMBER_H
#define RINGFENCE_MEMBER_H

/*
 * The sandbox whose cgroup the task is in, or below; 0 if none. Walks up by
 * hand: bpf_get_current_ancestor_cgroup_id reached tracing programs after 5.15.
 */
static __always_inline __u32 rf_sandbox_of(struct task_struct *task)
{
	struct cgroup *cg = task->cgroups->dfl_cgrp;
	struct cgroup_subsys_state *parent;
	__u32 *sandbox;
	__u64 id;
	int i;

	for (i = 0; i < RF_CGROUP_DEPTH; i++) {
		id = cg->kn->id;
		sandbox = bpf_map_lookup_elem(&members, &id);
		if (sandbox)
			return *sandbox;
		parent = cg->self.parent;
		if (!parent)
			return 0;
		cg = parent->cgroup;
	}
	return 0;
}

#endif
