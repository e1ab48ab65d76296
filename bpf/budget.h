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

/* b is the sandbox's bucket of that ring, if it has one. */
static __always_inline void rf_count_outcome(struct rf_bucket *b, __u32 ring, __u32 outcome)
{
	rf_count(&outcomes, ring * RF_OUTCOME_MAX + outcome);
	if (b)
		__sync_fetch_and_add(&b->outcomes[outcome], 1);
}

static __always_inline __u64 rf_share(__u32 ring)
{
	switch (ring) {
	case RF_RING_DENIALS: return RF_WINDOW_DENIALS;
	case RF_RING_FLOWS: return RF_WINDOW_FLOWS;
	case RF_RING_PROCESSES: return RF_WINDOW_PROCESSES;
	}
	return RF_WINDOW_REFUSALS;
}

/*
 * Takes one record from the sandbox's share of the current window. Returns the
 * flags for bpf_ringbuf_submit, or -1 when the share is used up, which is
 * counted. Windows turn over without a lock: a race may keep a few records
 * more.
 */
static __always_inline long rf_admit(struct rf_bucket *b, __u32 ring, __u64 now)
{
	__u64 n;

	if (now - b->window_ns >= RF_WINDOW_NS) {
		b->window_ns = now;
		b->count = 0;
	}
	n = b->count;
	if (n >= rf_share(ring)) {
		rf_count_outcome(b, ring, RF_THROTTLED);
		return -1;
	}
	__sync_fetch_and_add(&b->count, 1);
	if ((ring == RF_RING_DENIALS || ring == RF_RING_REFUSALS) && n < RF_WINDOW_WAKEUPS)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP; /* a wakeup costs 2 us; the reader's tick finds it */
}

/* The sandbox's bucket of a ring; a record without one is counted as throttled. */
static __always_inline struct rf_bucket *rf_bucket_of(__u32 sandbox, __u32 ring)
{
	struct rf_rate *rate = bpf_map_lookup_elem(&rates, &sandbox);

	if (rate && ring < RF_RING_MAX)
		return &rate->ring[ring];
	rf_count_outcome(0, ring, RF_THROTTLED);
	return 0;
}

#endif
