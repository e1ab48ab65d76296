/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
//go:build ignore

/*
 * Programs that start and end in a sandbox. Audit only: a loader or an
 * interpreter defeats process identity, so nothing is decided here.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "ringfence.h"
#include "maps.h"
#include "task.h"
#include "member.h"
#include "budget.h"

char _license[] SEC("license") = "Dual BSD/GPL";

static __always_inline void rf_parents(struct rf_exec *r, struct task_struct *task)
{
	struct task_struct *p = task;
	int i;

	for (i = 0; i < RF_PARENTS; i++) {
		p = BPF_CORE_READ(p, real_parent);
		if (!p)
			return;
		r->parents[i].pid = BPF_CORE_READ(p, tgid);
		if (!r->parents[i].pid)
			return;
		bpf_probe_read_kernel(r->parents[i].comm, RF_COMM_LEN, &p->comm);
	}
}

static __always_inline void rf_args(struct rf_exec *r, struct task_struct *task)
{
	unsigned long start = BPF_CORE_READ(task, mm, arg_start);
	unsigned long end = BPF_CORE_READ(task, mm, arg_end);
	__u32 len;

	if (end <= start)
		return;
	r->args_total = end - start;
	len = end - start > RF_ARGS_LEN ? RF_ARGS_LEN : end - start;
	barrier_var(len);
	if (len > RF_ARGS_LEN)
		return;
	if (bpf_probe_read_user(r->args, len, (void *)start) == 0)
		r->args_len = len;
}

/* TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm) */
SEC("raw_tracepoint/sched_process_exec")
int rf_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	struct linux_binprm *bprm = (struct linux_binprm *)ctx->args[2];
	__u32 sandbox = rf_sandbox_of(task);
	__u64 ids = bpf_get_current_uid_gid();
	struct rf_exec *r;
	long n;

	if (!sandbox)
		return 0;
	r = bpf_ringbuf_reserve(&flows, sizeof(*r), 0);
	if (!r) {
		rf_count_outcome(RF_RING_FLOWS, RF_FULL);
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->head.time_ns = bpf_ktime_get_boot_ns();
	r->head.sandbox = sandbox;
	r->head.pid = BPF_CORE_READ(task, tgid);
	r->head.type = RF_RECORD_EXEC;
	r->uid = (__u32)ids;
	r->gid = ids >> 32;
	bpf_probe_read_kernel(r->comm, RF_COMM_LEN, &task->comm);
	n = bpf_probe_read_kernel_str(r->filename, RF_PATH_LEN, BPF_CORE_READ(bprm, filename));
	if (n > 0)
		r->filename_len = n - 1;
	rf_args(r, task);
	rf_parents(r, task);
	rf_count_outcome(RF_RING_FLOWS, RF_KEPT);
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

/* TP_PROTO(struct task_struct *p); since 6.16 also (bool group_dead), which
 * says what `live` says: do_exit has counted this thread out before. */
SEC("raw_tracepoint/sched_process_exit")
int rf_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	struct rf_exit *r;
	__u32 sandbox;

	if (BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0;
	sandbox = rf_sandbox_of(task);
	if (!sandbox)
		return 0;
	r = bpf_ringbuf_reserve(&flows, sizeof(*r), 0);
	if (!r) {
		rf_count_outcome(RF_RING_FLOWS, RF_FULL);
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->head.time_ns = bpf_ktime_get_boot_ns();
	r->head.sandbox = sandbox;
	r->head.pid = BPF_CORE_READ(task, tgid);
	r->head.type = RF_RECORD_EXIT;
	r->ppid = BPF_CORE_READ(task, real_parent, tgid);
	r->uid = (__u32)bpf_get_current_uid_gid();
	r->code = BPF_CORE_READ(task, exit_code);
	r->start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	bpf_probe_read_kernel(r->comm, RF_COMM_LEN, &task->comm);
	rf_count_outcome(RF_RING_FLOWS, RF_KEPT);
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}
