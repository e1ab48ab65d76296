/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* All maps of the shared program set. Sizes are set by the loader. */
#ifndef RINGFENCE_MAPS_H
#define RINGFENCE_MAPS_H

/*
 * Keyed by cgroup id alone: one value per cgroup, shared by every program
 * attached to it (since 5.9). The kernel makes the zero value on first attach
 * and drops it with the cgroup.
 */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, struct rf_state);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 18);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rf_name_key);
	__type(value, struct rf_name_value);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 22);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rf_cidr_key);
	__type(value, struct rf_cidr_value);
} cidrs SEC(".maps");

/* How often each rule decided: a call of an address hook, whatever came of its
 * record. A rule that finds no room is not counted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 18);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rf_hit_key);
	__type(value, __u64);
} hits SEC(".maps");

/* Cgroups whose processes are recorded: cgroup id -> sandbox. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 14);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u32);
} members SEC(".maps");

/* Sandboxes that the guard judges, by id. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 14);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct rf_guard);
} guards SEC(".maps");

/* Names that may not be given: rf_entry_key -> ways. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 18);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rf_entry_key);
	__type(value, __u32);
} entries SEC(".maps");

/* Record budget per sandbox; key 0 is shared by cgroups without state. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 14);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct rf_rate);
} rates SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rf_read_key);
	__type(value, __u64);
} reads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} denials SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} refusals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 21);
} processes SEC(".maps");

/* What each process of a sandbox runs, by its pid: records of what it does
 * then are read together with it. One that was pushed out is not known. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 13);
	__type(key, __u32);
	__type(value, struct rf_program);
} programs SEC(".maps");

/* Too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rf_program);
} scratch SEC(".maps");

/* By system call number; the last row stands for every number without one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_CALLS + 1);
	__type(key, __u32);
	__type(value, struct rf_call_row);
} calls SEC(".maps");

/* Paths whose absence is worth a record: 1 watched, 0 not. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 18);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rf_watch_key);
	__type(value, __u32);
} watch SEC(".maps");

/* Threads whose current call a cgroup hook has refused and reported, and which
 * hook. Evicting one costs a second record of the same refusal. A call that
 * succeeds in part (sendmmsg) leaves it: it hides the thread's next refused
 * call of the same kind, one for one. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 12);
	__type(key, __u32);
	__type(value, __u32);
} reported SEC(".maps");

/* ring * RF_OUTCOME_MAX + outcome */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RF_RING_MAX * RF_OUTCOME_MAX);
	__type(key, __u32);
	__type(value, __u64);
} outcomes SEC(".maps");

/* (hook * RF_VERDICT_MAX + verdict) * RF_REASON_MAX + reason */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RF_HOOK_MAX * RF_VERDICT_MAX * RF_REASON_MAX);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

#endif
