/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counters and records. Nothing here changes a verdict. */
#ifndef RINGFENCE_REPORT_H
#define RINGFENCE_REPORT_H

#include "budget.h"
#include "origin.h"

/* What a hook knows about the call it judged. */
struct rf_call {
	struct rf_dest dest;
	struct rf_judgement j;
	__u64 cookie;
	__u32 error;
	__u16 family;
	__u8 sock_type;
	__u8 hook;
};

static __always_inline void rf_count_verdict(__u32 hook, const struct rf_judgement *j)
{
	rf_count(&verdicts, (hook * RF_VERDICT_MAX + j->verdict) * RF_REASON_MAX + j->reason);
}

/* Counts for the rule that decided a call. */
static __always_inline void rf_hit(const struct rf_state *st, const struct rf_judgement *j)
{
	struct rf_hit_key key = {.policy = st->policy, .rule = j->rule};
	__u64 one = 1, *n;

	if (!key.rule || (st->flags & RF_FLAG_GATEWAY))
		return;
	n = bpf_map_lookup_elem(&hits, &key);
	if (!n) {
		if (!bpf_map_update_elem(&hits, &key, &one, BPF_NOEXIST))
			return;
		n = bpf_map_lookup_elem(&hits, &key); /* another was first */
	}
	if (n)
		__sync_fetch_and_add(n, 1);
}

/* Tells rf_refused that the call this thread is in has its record. */
static __always_inline void rf_mark_reported(__u32 hook)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tid = task->pid;

	bpf_map_update_elem(&reported, &tid, &hook, BPF_ANY);
}

static __always_inline void rf_fill_verdict(struct rf_verdict *r, const struct rf_state *st,
					    const struct rf_call *c)
{
	r->head.generation = st ? st->generation : 0;
	r->head.type = RF_RECORD_VERDICT;
	r->head.hook = c->hook;
	r->head.verdict = c->j.verdict;
	r->head.reason = c->j.reason;
	r->cookie = c->cookie;
	r->policy = st ? st->policy : 0;
	r->rule = c->j.rule;
	r->error = c->error;
	r->family = c->family;
	r->proto = c->dest.proto;
	r->port = c->dest.port;
	r->sock_type = c->sock_type;
	r->form = c->dest.form;
	__builtin_memcpy(r->addr, c->dest.addr, 16);
}

/* Writes one verdict record. with_task is false where `current` is arbitrary. */
static __always_inline void rf_report(const struct rf_state *st, const struct rf_call *c,
				      int with_task)
{
	__u32 ring = c->j.verdict == RF_ALLOW ? RF_RING_FLOWS : RF_RING_DENIALS;
	__u32 sandbox = st ? st->sandbox : 0;
	__u64 now = bpf_ktime_get_boot_ns();
	struct task_struct *task;
	struct rf_verdict *r;
	long flags;

	if (with_task && c->j.verdict != RF_ALLOW)
		rf_mark_reported(c->hook);
	if (ring == RF_RING_FLOWS)
		r = rf_take(sandbox, RF_RING_FLOWS, &flows, sizeof(*r), now, &flags);
	else
		r = rf_take(sandbox, RF_RING_DENIALS, &denials, sizeof(*r), now, &flags);
	if (!r)
		return;
	rf_fill_verdict(r, st, c);
	if (with_task) {
		task = bpf_get_current_task_btf();
		r->head.pid = task->tgid;
		rf_origin_of(&r->origin, task);
	}
	bpf_ringbuf_submit(r, flags);
}

#endif
