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
#include "origin.h"

char _license[] SEC("license") = "Dual BSD/GPL";

static __always_inline void rf_args(struct rf_program *r, struct task_struct *task)
{
	unsigned long start = task->mm->arg_start;
	unsigned long end = task->mm->arg_end;
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

/* Remembers what the process runs from now on; 0 if there is no scratch. */
static __always_inline struct rf_program *rf_remember(struct task_struct *task, struct linux_binprm *bprm)
{
	__u32 tgid = task->tgid, zero = 0;
	struct rf_program *p = bpf_map_lookup_elem(&scratch, &zero);
	long n;

	if (!p)
		return 0;
	__builtin_memset(p, 0, sizeof(*p));
	p->start_ns = task->group_leader->start_boottime;
	n = bpf_probe_read_kernel_str(p->filename, RF_PATH_LEN, BPF_CORE_READ(bprm, filename));
	if (n > 0)
		p->filename_len = n - 1;
	rf_args(p, task);
	bpf_map_update_elem(&programs, &tgid, p, BPF_ANY);
	return p;
}

/* TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm) */
SEC("raw_tracepoint/sched_process_exec")
int rf_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 sandbox = rf_sandbox_of(task);
	__u64 now = bpf_ktime_get_boot_ns();
	struct rf_program *p;
	struct rf_exec *r;
	long flags;

	if (!sandbox)
		return 0;
	p = rf_remember(task, (struct linux_binprm *)ctx->args[2]);
	r = rf_take(sandbox, RF_RING_PROCESSES, &processes, sizeof(*r), now, &flags);
	if (!r)
		return 0;
	r->head.pid = task->tgid;
	r->head.type = RF_RECORD_EXEC;
	r->gid = bpf_get_current_uid_gid() >> 32;
	rf_origin_of(&r->origin, task);
	if (p)
		__builtin_memcpy(&r->program, p, sizeof(r->program));
	bpf_ringbuf_submit(r, flags);
	return 0;
}

/* TP_PROTO(struct task_struct *p); since 6.16 also (bool group_dead), which
 * says what `live` says: do_exit has counted this thread out before. */
SEC("raw_tracepoint/sched_process_exit")
int rf_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 now = bpf_ktime_get_boot_ns();
	struct rf_exit *r;
	__u32 sandbox;
	long flags;

	if (task->signal->live.counter != 0)
		return 0;
	sandbox = rf_sandbox_of(task);
	if (!sandbox)
		return 0;
	r = rf_take(sandbox, RF_RING_PROCESSES, &processes, sizeof(*r), now, &flags);
	if (!r)
		return 0;
	r->head.pid = task->tgid;
	r->head.type = RF_RECORD_EXIT;
	r->ppid = task->real_parent->tgid;
	r->uid = (__u32)bpf_get_current_uid_gid();
	r->code = task->exit_code;
	r->start_ns = task->group_leader->start_boottime;
	rf_copy_comm(r->comm, task);
	bpf_ringbuf_submit(r, flags);
	return 0;
}
