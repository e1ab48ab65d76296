/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Kernel types reduced to the members we read; CO-RE finds their real offsets
 * at load time. They are read by plain loads from bpf_get_current_task_btf, which
 * every program type has since 5.15: the verifier checks the types, and a load
 * that faults reads 0. bpf_probe_read_kernel is a call for each member, some
 * 25 ns with retpolines, and a record of a process reads thirty.
 */
#ifndef RINGFENCE_TASK_H
#define RINGFENCE_TASK_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	__u64 id;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct css_set *cgroups;
	struct mm_struct *mm;
	struct signal_struct *signal;
	unsigned long atomic_flags;
	__u64 start_boottime;
	char comm[RF_COMM_LEN];
};

struct file;

struct linux_binprm {
	struct file *file;
	const char *filename;
};

/* The registers at a system call's exit; the flavours carry the members of one
 * architecture each, and CO-RE takes the one the kernel has. */
struct pt_regs___amd64 {
	unsigned long di, si, dx, r10, r8, r9, orig_ax;
};

struct pt_regs___arm64 {
	__u64 regs[31];
	__u64 orig_x0;
	int syscallno;
};

#pragma clang attribute pop

#endif
