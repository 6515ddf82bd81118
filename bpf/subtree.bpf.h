/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What all programs share: the ring, the set of traced processes, identity.
 *
 * The objects are loaded one by one; the first one's maps are handed to the
 * others by name (bpf_map__reuse_fd), so there is one ring and one subtree.
 */
#ifndef PIDTRAIL_SUBTREE_BPF_H
#define PIDTRAIL_SUBTREE_BPF_H

#include "vmlinux_min.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "event.h"

const volatile struct pt_config config = { .abi_version = PT_ABI_VERSION };

struct tracked {
	__u64 start_boottime_ns;
	__u64 dead_thread_migrations;
	__u32 pid;
	__u32 faults;	/* signals raised by its own instructions that were told */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} events SEC(".maps");

/* Live processes that are traced, by tgid of the initial PID namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct tracked);
} subtree SEC(".maps");

/*
 * Traced processes that ended and are not reaped. Keyed by identity: the number
 * is free for the next process before sched_process_free has run for this one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct pt_process_key);
	__type(value, struct pt_zombie);
} zombies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pt_losses);
} losses SEC(".maps");

static __always_inline struct pt_losses *loss_counters(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&losses, &zero);
}

static __always_inline void count_ring_full(void)
{
	struct pt_losses *counters = loss_counters();

	if (counters) {
		__sync_fetch_and_add(&counters->ring_full, 1);
		counters->last_ns = bpf_ktime_get_boot_ns();
	}
}

static __always_inline void count_map_full(void)
{
	struct pt_losses *counters = loss_counters();

	if (counters)
		__sync_fetch_and_add(&counters->map_full, 1);
}

/* Room for a record of constant size, or NULL and one more loss counted. */
#define reserve(size)                                                   \
	({                                                              \
		void *room = bpf_ringbuf_reserve(&events, (size), 0);   \
		if (!room)                                              \
			count_ring_full();                              \
		room;                                                   \
	})

/* Without a wake-up per record: the agent looks at the ring on a timer (5-9 times cheaper here). */
#define submit(record) bpf_ringbuf_submit((record), BPF_RB_NO_WAKEUP)

static __always_inline struct tracked *tracked_of(struct task_struct *task)
{
	__u32 tgid = task->tgid;

	return bpf_map_lookup_elem(&subtree, &tgid);
}

/*
 * The number of a process at one level of its PID namespaces (kernel/pid.c
 * pid_nr_ns), or 0. numbers[] has a variable length, so it is read by address.
 */
static __always_inline __u32 number_at(struct pid *pid, __u32 level, __u32 *ns_inum)
{
	__u64 stride = bpf_core_type_size(struct upid);
	const char *base = (const char *)__builtin_preserve_access_index(&pid->numbers[0]);
	struct upid *upid = (struct upid *)(base + level * stride);
	struct pid_namespace *ns = NULL;
	__u32 nr = 0;

	bpf_core_read(&nr, sizeof(nr), &upid->nr);
	bpf_core_read(&ns, sizeof(ns), &upid->ns);
	*ns_inum = 0;
	if (ns)
		bpf_core_read(ns_inum, sizeof(*ns_inum), &ns->ns.inum);
	return nr;
}

/*
 * The number of a task as the agent sees it: the tid, which for a group leader
 * is the tgid; 0 if it has no number in the agent's namespace.
 */
static __always_inline __u32 pid_of(struct task_struct *task)
{
	struct pid *pid;
	__u32 inum;
	__u32 nr;

	if (config.agent_ns_level == 0)
		return task->pid;
	pid = task->thread_pid;
	if (!pid || BPF_CORE_READ(pid, level) < config.agent_ns_level)
		return 0;
	nr = number_at(pid, config.agent_ns_level, &inum);
	return inum == config.agent_ns_inum ? nr : 0;
}

static __always_inline void fill_head(struct pt_head *head, __u32 kind, __u32 pid, __u64 start)
{
	head->kind = kind;
	head->pid = pid;
	head->ts_boot_ns = bpf_ktime_get_boot_ns();
	head->start_boottime_ns = start;
}

#endif
