/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What both bcc programs share: transport, the set of traced processes, losses.
 *
 * The agent puts the text together: defines, event.h, this file, and one of
 * bcc_structures.c and bcc_arguments.c. bcc allows calls of its maps' functions
 * neither in macros nor in other files, so they are wrapped in inline functions.
 *
 * Headers of another kernel compile all the same and would read garbage, so no
 * kernel type is named here: only the tracepoints' own arguments, and offsets
 * that the agent took from BTF and proved.
 */
#define PT_MAX_PROCESSES 65536

struct tracked {
	u64 start_boottime_ns;		/* 0: not known to the program */
	u64 dead_thread_migrations;
	u32 pid;
	u32 threads;
	u32 faults;			/* signals raised by its own instructions that were told */
	u32 pad;
};

BPF_HASH(subtree, u32, struct tracked, PT_MAX_PROCESSES);
BPF_ARRAY(losses, struct pt_losses, 1);

static __always_inline u64 now_ns(void)
{
#ifdef PT_MONOTONIC
	/* bpf_ktime_get_boot_ns is of 5.8; the agent adds the difference. */
	return bpf_ktime_get_ns();
#else
	return bpf_ktime_get_boot_ns();
#endif
}

static __always_inline void count_full(void)
{
	u32 zero = 0;
	struct pt_losses *counters = losses.lookup(&zero);

	if (counters) {
		__sync_fetch_and_add(&counters->ring_full, 1);
		counters->last_ns = now_ns();
	}
}

static __always_inline void count_map_full(void)
{
	u32 zero = 0;
	struct pt_losses *counters = losses.lookup(&zero);

	if (counters)
		__sync_fetch_and_add(&counters->map_full, 1);
}

#ifdef PT_RING
BPF_RINGBUF_OUTPUT(events, PT_RING_PAGES);

/* Room for a record of constant size, or NULL and one more loss counted. */
static __always_inline void *reserve(u64 size)
{
	void *room = events.ringbuf_reserve(size);

	if (!room)
		count_full();
	return room;
}

#define SMALL_RECORD(type, name) struct type *name = NULL
#define small_room(record, size) reserve(size)

static __always_inline void submit(void *ctx, void *record, u64 size)
{
	events.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}
#else
BPF_PERF_OUTPUT(events);

struct room {
	char bytes[sizeof(struct pt_exec) + PT_ARGV_LARGE];
};

/*
 * For what is larger than the stack: exec and title. Both are made in process
 * context with preemption off (include/linux/tracepoint.h), one after the other.
 * The others may come in an interrupt, as sched_process_free does from RCU, and
 * have their records on the stack.
 */
BPF_PERCPU_ARRAY(scratch, struct room, 1);

static __always_inline void *reserve(u64 size)
{
	u32 zero = 0;

	return scratch.lookup(&zero);
}

#define SMALL_RECORD(type, name)     \
	struct type name##_room = {}; \
	struct type *name = &name##_room
#define small_room(record, size) (record)

/* -ENOSPC: the buffer of this CPU is full (kernel/events/ring_buffer.c). */
static __always_inline void submit(void *ctx, void *record, u64 size)
{
	if (events.perf_submit(ctx, record, size))
		count_full();
}
#endif

static __always_inline void fill_head(struct pt_head *head, u32 kind, u32 pid, u64 start)
{
	head->kind = kind;
	head->pid = pid;
	head->ts_boot_ns = now_ns();
	head->start_boottime_ns = start;
}
