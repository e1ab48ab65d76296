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
 * Whether the ring has room for one more of this sandbox. A reader that is slow
 * for a while must not let those that make many records take the room of those
 * that make few.
 */
static __always_inline int rf_room(struct rf_bucket *b, __u32 sandbox, __u32 ring, __u64 filled, __u64 size)
{
	struct rf_read_key key = {.sandbox = sandbox, .ring = ring};
	__u64 most = RF_UNREAD_QUARTER;
	__u64 *read;

	if (filled < size / 4)
		return 1;
	if (filled >= size / 4 * 3)
		most = RF_UNREAD_MOST;
	else if (filled >= size / 2)
		most = RF_UNREAD_HALF;
	read = bpf_map_lookup_elem(&reads, &key);
	return b->outcomes[RF_KEPT] - (read ? *read : 0) < most;
}

/*
 * Takes one record from the sandbox's share of the current window and of the
 * ring. Returns the flags for bpf_ringbuf_submit, or -1 when there is none,
 * which is counted. Windows turn over without a lock: a race may keep a few
 * records more.
 */
static __always_inline long rf_admit(struct rf_bucket *b, __u32 sandbox, __u32 ring, void *map, __u64 now)
{
	__u64 n;

	if (now - b->window_ns >= RF_WINDOW_NS) {
		b->window_ns = now;
		b->count = 0;
	}
	n = b->count;
	if (n >= rf_share(ring) || !rf_room(b, sandbox, ring, bpf_ringbuf_query(map, BPF_RB_AVAIL_DATA),
					    bpf_ringbuf_query(map, BPF_RB_RING_SIZE))) {
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

/*
 * Takes an empty record of size bytes for a sandbox out of a ring, 0 if there is
 * none; it is counted either way. *flags are for its submission.
 */
static __always_inline void *rf_take(__u32 sandbox, __u32 ring, void *map, __u64 size, __u64 now, long *flags)
{
	struct rf_bucket *b = rf_bucket_of(sandbox, ring);
	struct rf_head *head;

	if (!b)
		return 0;
	*flags = rf_admit(b, sandbox, ring, map, now);
	if (*flags < 0)
		return 0;
	head = bpf_ringbuf_reserve(map, size, 0);
	if (!head) {
		rf_count_outcome(b, ring, RF_FULL);
		return 0;
	}
	__builtin_memset(head, 0, size);
	rf_count_outcome(b, ring, RF_KEPT);
	head->nth = b->outcomes[RF_KEPT];
	head->time_ns = now;
	head->sandbox = sandbox;
	return head;
}

#endif
