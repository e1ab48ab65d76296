/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
//go:build ignore

/*
 * System calls of a sandbox that the kernel refused, whichever layer it was:
 * the filter, Landlock, the mounts, capabilities, a file's mode. Which errno of
 * which call is a refusal is data (see `calls`). Audit only: nothing is decided
 * here, and arguments are read again after the call.
 *
 * The tracepoint is machine-wide: every system call of every process of the
 * machine pays about 60 ns for it, so it is attached only while a sandbox
 * lives.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "ringfence.h"
#include "kernel.h"
#include "maps.h"
#include "task.h"
#include "member.h"
#include "budget.h"
#include "origin.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define CLONE_NAMESPACES 0x7e020080ULL /* every CLONE_NEW* of clone_args.flags */

static __always_inline __u32 rf_call_number(void *regs)
{
	struct pt_regs___amd64 *amd64 = regs;
	struct pt_regs___arm64 *arm64 = regs;

	if (bpf_core_field_exists(amd64->orig_ax))
		return BPF_CORE_READ(amd64, orig_ax);
	return BPF_CORE_READ(arm64, syscallno);
}

static __always_inline void rf_call_args(void *regs, __u64 *args)
{
	struct pt_regs___amd64 *amd64 = regs;
	struct pt_regs___arm64 *arm64 = regs;

	if (bpf_core_field_exists(amd64->orig_ax)) {
		args[0] = BPF_CORE_READ(amd64, di);
		args[1] = BPF_CORE_READ(amd64, si);
		args[2] = BPF_CORE_READ(amd64, dx);
		args[3] = BPF_CORE_READ(amd64, r10);
		args[4] = BPF_CORE_READ(amd64, r8);
		args[5] = BPF_CORE_READ(amd64, r9);
		return;
	}
	args[0] = BPF_CORE_READ(arm64, orig_x0);
	args[1] = BPF_CORE_READ(arm64, regs[1]);
	args[2] = BPF_CORE_READ(arm64, regs[2]);
	args[3] = BPF_CORE_READ(arm64, regs[3]);
	args[4] = BPF_CORE_READ(arm64, regs[4]);
	args[5] = BPF_CORE_READ(arm64, regs[5]);
}

/*
 * Without the barrier the compiler compares errno and computes the offset from
 * it by a shift and a mask, of which the verifier of Linux 6.1 sees no bound.
 */
static __always_inline int rf_bit(const __u64 *set, __u32 errno)
{
	__u32 word = errno / 64;

	barrier_var(word);
	if (word >= RF_ERRNOS / 64)
		return 0;
	return (set[word] >> (errno % 64)) & 1;
}

static __always_inline __u64 rf_arg(const __u64 *args, __u8 n)
{
	switch (n) {
	case 0: return args[0];
	case 1: return args[1];
	case 2: return args[2];
	case 3: return args[3];
	case 4: return args[4];
	case 5: return args[5];
	}
	return 0;
}

/* A unix socket's path is behind the address family. */
static __always_inline int rf_watched(const struct rf_call_row *row, __u32 sandbox, __u64 subject)
{
	struct rf_watch_key key = {.prefixlen = 32 + RF_WATCH_LEN * 8};
	__u32 *all, *own;

	if (row->subject == RF_SUBJECT_SOCKADDR)
		subject += 2;
	else if (row->subject != RF_SUBJECT_PATH)
		return 0;
	if (bpf_probe_read_user_str(key.path, sizeof(key.path), (void *)subject) <= 0)
		return 0;
	all = bpf_map_lookup_elem(&watch, &key);
	key.sandbox = sandbox;
	own = bpf_map_lookup_elem(&watch, &key);
	return own ? *own : all && *all;
}

/* Takes the mark that a cgroup hook left for the call that ends now. One of
 * another kind of call is stale. */
static __always_inline int rf_was_reported(__u16 hooks)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	__u32 *mark = bpf_map_lookup_elem(&reported, &tid);
	__u32 hook;

	if (!mark)
		return 0;
	hook = *mark;
	bpf_map_delete_elem(&reported, &tid);
	return hook < RF_HOOK_MAX && (hooks >> hook) & 1;
}

static __always_inline int rf_is_refusal(const struct rf_call_row *row, __u32 sandbox, __u32 errno,
					 __u64 subject)
{
	__u64 flags = 0;

	if (row->hooks && rf_was_reported(row->hooks))
		return 0;
	if (row->subject == RF_SUBJECT_CLONE)
		return bpf_probe_read_user(&flags, sizeof(flags), (void *)subject) == 0 &&
		       (flags & CLONE_NAMESPACES);
	return rf_bit(row->errnos, errno) || rf_watched(row, sandbox, subject);
}

static __always_inline void rf_read_subject(struct rf_refusal *r, const struct rf_call_row *row,
					    __u64 subject, __u64 len)
{
	long n;

	r->subject = row->subject;
	if (row->subject == RF_SUBJECT_PATH) {
		n = bpf_probe_read_user_str(r->what, RF_SUBJECT_LEN, (void *)subject);
		if (n > 0)
			r->subject_len = n - 1;
	} else if (row->subject == RF_SUBJECT_SOCKADDR) {
		if (len > RF_SOCKADDR_LEN)
			len = RF_SOCKADDR_LEN;
		barrier_var(len);
		if (len <= RF_SOCKADDR_LEN && bpf_probe_read_user(r->what, len, (void *)subject) == 0)
			r->subject_len = len;
	}
}

/* TP_PROTO(struct pt_regs *regs, long ret) */
SEC("raw_tracepoint/sys_exit")
int rf_refused(struct bpf_raw_tracepoint_args *ctx)
{
	long ret = (long)ctx->args[1];
	struct task_struct *task;
	struct rf_call_row *row;
	struct rf_refusal *r;
	__u64 args[6] = {};
	__u32 sandbox, call, slot, errno;
	__u64 now, subject;
	long flags;

	if (ret >= 0 || ret <= -RF_ERRNOS)
		return 0;
	errno = -ret;
	call = rf_call_number((void *)ctx->args[0]);
	slot = call < RF_CALLS ? call : RF_CALLS;
	row = bpf_map_lookup_elem(&calls, &slot);
	if (!row || !(rf_bit(row->errnos, errno) || rf_bit(row->watched, errno)))
		return 0;
	task = bpf_get_current_task_btf();
	sandbox = rf_sandbox_of(task);
	if (!sandbox)
		return 0;
	rf_call_args((void *)ctx->args[0], args);
	subject = rf_arg(args, row->arg);
	if (!rf_is_refusal(row, sandbox, errno, subject))
		return 0;
	now = bpf_ktime_get_boot_ns();
	r = rf_take(sandbox, RF_RING_REFUSALS, &refusals, sizeof(*r), now, &flags);
	if (!r)
		return 0;
	r->head.pid = task->tgid;
	r->head.type = RF_RECORD_REFUSAL;
	r->call = call;
	r->error = errno;
	rf_origin_of(&r->origin, task);
	__builtin_memcpy(r->args, args, sizeof(r->args));
	rf_read_subject(r, row, subject, rf_arg(args, row->arg + 1));
	bpf_ringbuf_submit(r, flags);
	return 0;
}
