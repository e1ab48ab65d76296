/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Each sandbox's share of the rings, and what became of its records. */
#ifndef RINGFENCE_BUDGET_H
#define RINGFENCE_BUDGET_H

/*
 * Per-CPU slots are still shared with softirqs and preempting tasks of that
 * CPU: the atomic add keeps "produced = kept + lost" exact.
 */
static __always_inline void rf_count(void *map, __u32 slot)
{
	__u64 *n = bpf_map_lookup_elem(map, &slot);

	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline void rf_count_outcome(__u32 ring, __u32 outcome)
{
	rf_count(&outcomes, ring * RF_OUTCOME_MAX + outcome);
}

/*
 * Takes one record from the sandbox's share of the current window. Returns the
 * flags for bpf_ringbuf_submit, or -1 when the share is used up. Windows turn
 * over without a lock: a race may keep a few records more.
 */
static __always_inline long rf_admit(struct rf_bucket *b, __u32 ring, __u64 now)
{
	__u64 limit = ring == RF_RING_DENIALS ? RF_WINDOW_DENIALS :
		      ring == RF_RING_FLOWS ? RF_WINDOW_FLOWS : RF_WINDOW_REFUSALS;
	__u64 n;

	if (now - b->window_ns >= RF_WINDOW_NS) {
		b->window_ns = now;
		b->count = 0;
	}
	n = b->count;
	if (n >= limit) {
		__sync_fetch_and_add(&b->suppressed, 1);
		return -1;
	}
	__sync_fetch_and_add(&b->count, 1);
	if (ring != RF_RING_FLOWS && n < RF_WINDOW_WAKEUPS)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP; /* a wakeup costs 2 us; the reader's tick finds it */
}

/*
 * What was suppressed since the last kept record, and starts anew. Two CPUs may
 * tell the same and both subtract it; it then counts up from below zero, so the
 * sum of what is told stays right.
 */
static __always_inline __u32 rf_suppressed(struct rf_bucket *b)
{
	__u64 n = b->suppressed;

	if ((__s64)n <= 0)
		return 0;
	__sync_fetch_and_add(&b->suppressed, -n);
	return n > 0xffffffff ? 0xffffffff : n;
}

#endif
