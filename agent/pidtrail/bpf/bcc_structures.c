// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The lifecycle read from the kernel's structures, on raw tracepoints.
 *
 * What bpf/lifecycle.bpf.c and bpf/signals.bpf.c do, for hosts that have bcc.
 * Offsets are defines made from BTF: O(task_struct, tgid). They are proved by
 * walk_tasks, which must find the agent itself (bpf_iter__task), before anything is attached.
 */
#define SIGNAL_GROUP_EXIT 0x00000004
#define SIGCHLD_ 17
/* SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS */
#define FAULTS_ (1U << 4 | 1U << 5 | 1U << 7 | 1U << 8 | 1U << 11 | 1U << 31)
#define SIGCONT_ 18
#define SIGURG_ 23
#define SIGWINCH_ 28
#define SI_USER_ 0
#define SI_QUEUE_ -1
#define SI_KERNEL_ 0x80
#define SI_TKILL_ -6
#define SI_CODE_OFFSET 8 /* include/uapi/asm-generic/siginfo.h: signo, errno, code */
#define TRACE_SIGNAL_IGNORED_ 1

#define O(type, member) O_##type##__##member
#define READ(type, base, offset)                                                       \
	({                                                                             \
		type value_ = 0;                                                       \
		bpf_probe_read_kernel(&value_, sizeof(value_), (void *)((base) + (offset))); \
		value_;                                                                \
	})
#define TASK32(task, member) READ(u32, task, O(task_struct, member))
#define TASK64(task, member) READ(u64, task, O(task_struct, member))
#define SIGNAL32(signal, member) READ(u32, signal, O(signal_struct, member))
#define SIGNAL64(signal, member) READ(u64, signal, O(signal_struct, member))

BPF_HASH(zombies, struct pt_process_key, struct pt_zombie, PT_MAX_PROCESSES);
BPF_HASH(roots, u32, u32, 1024);
BPF_ARRAY(seeded, u64, 1);

/* A task's number at one level of its PID namespaces (kernel/pid.c pid_nr_ns), or 0. */
static __always_inline u32 number_at(u64 pid, u32 level, u32 *inum)
{
	u64 upid = pid + O(pid, numbers) + level * SIZE_upid;
	u64 ns = READ(u64, upid, O(upid, ns));

	*inum = ns ? READ(u32, ns, O(pid_namespace, ns_inum)) : 0;
	return READ(u32, upid, O(upid, nr));
}

/* The number of a task as the agent sees it, or 0 if it has none there. */
static __always_inline u32 pid_of(u64 task)
{
#if AGENT_LEVEL == 0
	return TASK32(task, pid);
#else
	u64 pid = TASK64(task, thread_pid);
	u32 inum, nr;

	if (!pid || READ(u32, pid, O(pid, level)) < AGENT_LEVEL)
		return 0;
	nr = number_at(pid, AGENT_LEVEL, &inum);
	return inum == AGENT_NS ? nr : 0;
#endif
}

static __always_inline u32 fill_ns_pids(u64 leader, u32 *ns_pids, u32 *inum)
{
	u64 pid = TASK64(leader, thread_pid);
	u32 level, ignored, i;

	*inum = 0;
	if (!pid)
		return PT_NS_LEVELS;
	level = READ(u32, pid, O(pid, level));
#pragma unroll
	for (i = 0; i < PT_NS_LEVELS; i++)
		ns_pids[i] = i <= level ? number_at(pid, i, i == level ? inum : &ignored) : 0;
	return level;
}

static __always_inline u64 cgroup_id_of(u64 task)
{
	u64 set = TASK64(task, cgroups);
	u64 group = READ(u64, set, O(css_set, dfl_cgrp));
	u64 node = READ(u64, group, O(cgroup, kn));

	return READ(u64, node, O(kernfs_node, id));
}

static __always_inline struct tracked *tracked_of(u64 task)
{
	u32 tgid = TASK32(task, tgid);

	return subtree.lookup(&tgid);
}

static __always_inline void fill_comm(char *comm, u64 task)
{
	bpf_probe_read_kernel(comm, PT_COMM_LEN, (void *)(task + O(task_struct, comm)));
}

int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u64 parent = ctx->args[0], child = ctx->args[1], real_parent;
	u32 tgid = TASK32(child, tgid);
	struct tracked entry = {};
	SMALL_RECORD(pt_fork, record);

	/* The program runs in the creator: most forks of others end with this look-up. */
	if (!tracked_of(parent) || TASK32(child, pid) != tgid)
		return 0;
	entry.start_boottime_ns = TASK64(child, start_boottime);
	entry.pid = pid_of(child);
	if (subtree.update(&tgid, &entry))
		count_map_full();
	record = small_room(record, sizeof(*record));
	if (!record)
		return 0;
	fill_head(&record->head, PT_FORK, entry.pid, entry.start_boottime_ns);
	/* A fork by a thread makes that thread's tid the real_parent. */
	real_parent = READ(u64, TASK64(child, real_parent), O(task_struct, group_leader));
	record->ppid = pid_of(real_parent);
	record->parent_start_boottime_ns = TASK64(real_parent, start_boottime);
	record->creator_pid = pid_of(TASK64(parent, group_leader));
	record->cgroup_id = cgroup_id_of(child);
	record->ns_level = fill_ns_pids(child, record->ns_pids, &record->pid_ns);
	fill_comm(record->comm, child);
	submit(ctx, record, sizeof(*record));
	return 0;
}

#define EMIT_EXEC(capacity)                                                            \
	do {                                                                           \
		struct {                                                               \
			struct pt_exec exec;                                           \
			char argv[(capacity)];                                         \
		} *record = reserve(sizeof(*record));                                  \
		if (!record)                                                           \
			return 0;                                                      \
		fill_head(&record->exec.head, PT_EXEC, entry->pid,                     \
			  READ(u64, TASK64(task, group_leader),                        \
			       O(task_struct, start_boottime)));                       \
		record->exec.exec_id = TASK64(task, self_exec_id); \
		record->exec.old_tid = from_thread ? old_pid : 0;                      \
		record->exec.argv_full_len = full;                                     \
		named = bpf_probe_read_kernel_str(record->exec.filename, PT_FILENAME_LEN, (void *)filename); \
		record->exec.filename_len = named > 0 ? named - 1 : 0;                 \
		fill_comm(record->exec.comm, task);                                    \
		length = full;                                                         \
		asm volatile("" : "+r"(length));                                       \
		if (length > (capacity))                                               \
			length = (capacity);                                           \
		if (bpf_probe_read_user(record->argv, length, (void *)arg_start))      \
			length = 0;                                                    \
		record->exec.argv_len = length;                                        \
		submit(ctx, record, sizeof(*record));                                  \
	} while (0)

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0], bprm = ctx->args[2], mm, arg_start, full, length, filename;
	u32 old_pid = ctx->args[1];
	struct tracked *entry = tracked_of(task);
	bool from_thread;
	long named;

	if (!entry)
		return 0;
	/* fs/exec.c exec_binprm gives the first namespace's number; it stands for nothing in another. */
	from_thread = old_pid != TASK32(task, tgid) && AGENT_LEVEL == 0;
	mm = TASK64(task, mm);
	arg_start = READ(u64, mm, O(mm_struct, arg_start));
	full = READ(u64, mm, O(mm_struct, arg_end)) - arg_start;
	filename = READ(u64, bprm, O(linux_binprm, filename));
	if (full <= PT_ARGV_SMALL)
		EMIT_EXEC(PT_ARGV_SMALL);
	else if (full <= PT_ARGV_MEDIUM)
		EMIT_EXEC(PT_ARGV_MEDIUM);
	else
		EMIT_EXEC(PT_ARGV_LARGE);
	return 0;
}

/* setproctitle(3) writes the title over argv and then names the task: both are complete here. */
int on_rename(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0], comm = ctx->args[1], mm, arg_start, arg_end;
	struct tracked *entry = tracked_of(task);
	struct pt_title *record;
	char next = 0;
	long length;

	if (!entry || TASK32(task, pid) != TASK32(task, tgid))
		return 0;
	mm = TASK64(task, mm);
	if (!mm)
		return 0;
	arg_start = READ(u64, mm, O(mm_struct, arg_start));
	arg_end = READ(u64, mm, O(mm_struct, arg_end));
	/* During execve the new mm has no arguments yet (fs/exec.c begin_new_exec). */
	if (!arg_start)
		return 0;
	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	fill_head(&record->head, PT_TITLE, entry->pid, TASK64(task, start_boottime));
	bpf_probe_read_kernel(record->comm, PT_COMM_LEN, (void *)comm);
	length = bpf_probe_read_user_str(record->title, sizeof(record->title), (void *)arg_start);
	if (length > 0 && arg_start + length < arg_end)
		bpf_probe_read_user(&next, sizeof(next), (void *)(arg_start + length));
	record->title_len = length > 1 && !next ? length - 1 : 0;
	record->truncated = length == sizeof(record->title);
	submit(ctx, record, sizeof(*record));
	return 0;
}

static __always_inline void add_counters(struct pt_exit *record, u64 task)
{
	record->utime_ns += TASK64(task, utime);
	record->stime_ns += TASK64(task, stime);
	record->runtime_ns += TASK64(task, se_sum_exec_runtime);
	record->voluntary_switches += TASK64(task, nvcsw);
	record->involuntary_switches += TASK64(task, nivcsw);
	record->minor_faults += TASK64(task, min_flt);
	record->major_faults += TASK64(task, maj_flt);
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0], leader, parent, signal;
	struct tracked *entry = tracked_of(task);
	struct pt_process_key key = {};
	struct pt_zombie zombie = {};
	SMALL_RECORD(pt_exit, record);
	u64 migrations;
	u32 tgid, dead;

	if (!entry)
		return 0;
	tgid = TASK32(task, tgid);
	signal = TASK64(task, signal);
#ifdef PT_GROUP_DEAD_ARGUMENT
	dead = ctx->args[1] & 1;
#else
	/* Counted down already (kernel/exit.c do_exit); two may both read 0, the first one wins. */
	dead = SIGNAL32(signal, live_counter) == 0;
#endif
	migrations = TASK64(task, se_nr_migrations);
	if (!dead) {
		__sync_fetch_and_add(&entry->dead_thread_migrations, migrations);
		return 0;
	}
	migrations += entry->dead_thread_migrations;
	zombie.pid = entry->pid;
	if (subtree.delete(&tgid))
		return 0;
	leader = TASK64(task, group_leader);
	zombie.exit_ts_boot_ns = now_ns();
	key.start_boottime_ns = TASK64(leader, start_boottime);
	key.tgid = tgid;
	if (zombies.update(&key, &zombie))
		count_map_full();
	record = small_room(record, sizeof(*record));
	if (!record)
		return 0;
	fill_head(&record->head, PT_EXIT, zombie.pid, key.start_boottime_ns);
	record->head.ts_boot_ns = zombie.exit_ts_boot_ns;
	/* kernel/exit.c wait_task_zombie: what the parent's wait will return. */
	record->wstatus = SIGNAL32(signal, flags) & SIGNAL_GROUP_EXIT
				  ? SIGNAL32(signal, group_exit_code)
				  : TASK32(leader, exit_code);
	parent = TASK64(leader, real_parent);
	record->ppid = pid_of(TASK64(parent, group_leader));
	record->utime_ns = SIGNAL64(signal, utime);
	record->stime_ns = SIGNAL64(signal, stime);
	record->runtime_ns = SIGNAL64(signal, sum_sched_runtime);
	record->voluntary_switches = SIGNAL64(signal, nvcsw);
	record->involuntary_switches = SIGNAL64(signal, nivcsw);
	record->minor_faults = SIGNAL64(signal, min_flt);
	record->major_faults = SIGNAL64(signal, maj_flt);
	/* The leader stays until it is reaped, and this thread is not released yet either. */
	add_counters(record, leader);
	if (task != leader)
		add_counters(record, task);
	record->migrations = migrations;
	record->max_rss_pages = SIGNAL64(signal, maxrss);
	submit(ctx, record, sizeof(*record));
	return 0;
}

int on_free(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	struct pt_process_key key = {};
	struct pt_zombie *zombie;
	SMALL_RECORD(pt_reap, record);

	key.start_boottime_ns = TASK64(task, start_boottime);
	key.tgid = TASK32(task, tgid);
	/* After de_thread (fs/exec.c) the thread that called execve carries the leader's tid. */
	if (TASK32(task, pid) != key.tgid)
		return 0;
	zombie = zombies.lookup(&key);
	if (!zombie)
		return 0;
	record = small_room(record, sizeof(*record));
	if (record) {
		fill_head(&record->head, PT_REAP, zombie->pid, key.start_boottime_ns);
		record->exit_ts_boot_ns = zombie->exit_ts_boot_ns;
		submit(ctx, record, sizeof(*record));
	}
	zombies.delete(&key);
	return 0;
}

int on_signal(struct bpf_raw_tracepoint_args *ctx)
{
	u64 info = ctx->args[1], task = ctx->args[2], sender;
	int sig = ctx->args[0], result = ctx->args[4], code;
	struct tracked *entry;
	SMALL_RECORD(pt_signal, record);

	if (sig == SIGCHLD_ || sig == SIGURG_ || sig == SIGWINCH_)
		return 0;
	/* SIGCONT wakes a stopped process even where it is ignored (kernel/signal.c prepare_signal). */
	if (result == TRACE_SIGNAL_IGNORED_ && sig != SIGCONT_)
		return 0;
	entry = tracked_of(task);
	if (!entry)
		return 0;
	/* include/linux/signal_types.h: SEND_SIG_NOINFO is 0 (a process), SEND_SIG_PRIV is 1. */
	if (!info)
		code = SI_USER_;
	else if (info == 1)
		code = SI_KERNEL_;
	else
		code = READ(int, info, SI_CODE_OFFSET);
	/* Of the kernel's own, the first of each: see bpf/signals.bpf.c. */
	if (code > 0 && sig > 0 && sig < 32 && (FAULTS_ & 1U << sig)) {
		if (entry->faults & 1U << sig)
			return 0;
		entry->faults |= 1U << sig;
	}
	record = small_room(record, sizeof(*record));
	if (!record)
		return 0;
	fill_head(&record->head, PT_SIGNAL, entry->pid, entry->start_boottime_ns);
	record->sig = sig;
	record->code = code;
	record->sender_pid = 0;
	record->sender_uid = 0;
	record->sender_start_boottime_ns = 0;
	__builtin_memset(record->sender_comm, 0, sizeof(record->sender_comm));
	/* Only for these is `current` the sender: a timer or a fault fires on whoever runs. */
	if (code == SI_USER_ || code == SI_QUEUE_ || code == SI_TKILL_) {
		sender = READ(u64, bpf_get_current_task(), O(task_struct, group_leader));
		record->sender_pid = pid_of(sender);
		record->sender_uid = bpf_get_current_uid_gid();
		record->sender_start_boottime_ns = TASK64(sender, start_boottime);
		fill_comm(record->sender_comm, sender);
	}
	submit(ctx, record, sizeof(*record));
	return 0;
}

int on_oom(struct bpf_raw_tracepoint_args *ctx)
{
	struct tracked *entry;
	SMALL_RECORD(pt_oom, record);
	u64 task = 0, mm;
	u32 tgid;

#ifdef PT_VICTIM_IS_TASK
	/* Since 6.8 (72ba14deb40a "mm: update mark_victim tracepoints fields"). */
	task = ctx->args[0];
	tgid = TASK32(task, tgid);
#else
	tgid = ctx->args[0];
#endif
	entry = subtree.lookup(&tgid);
	if (!entry)
		return 0;
	record = small_room(record, sizeof(*record));
	if (!record)
		return 0;
	__builtin_memset(record, 0, sizeof(*record));
	fill_head(&record->head, PT_OOM, entry->pid, entry->start_boottime_ns);
	mm = task ? TASK64(task, mm) : 0;
	if (task)
		fill_comm(record->comm, task);
	if (mm) {
		record->has_rss = 1;
		record->total_vm_pages = READ(u64, mm, O(mm_struct, total_vm));
		record->anon_rss_pages = READ(u64, mm, O(mm_struct, anon_rss));
	}
	submit(ctx, record, sizeof(*record));
	return 0;
}

int on_migrate(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u32 to_cpu = ctx->args[1], from_cpu = READ(u32, task, CPU_OFFSET);
	struct tracked *entry = tracked_of(task);
	SMALL_RECORD(pt_migrate, record);

	if (!entry || from_cpu == to_cpu)
		return 0;
	record = small_room(record, sizeof(*record));
	if (!record)
		return 0;
	fill_head(&record->head, PT_MIGRATE, entry->pid, entry->start_boottime_ns);
	record->tid = pid_of(task);
	record->from_cpu = from_cpu;
	record->to_cpu = to_cpu;
	record->pad = 0;
	submit(ctx, record, sizeof(*record));
	return 0;
}

/* kernel/bpf/task_iter.c; the headers at hand may not have them. The layout is that of bpf_iter_meta. */
struct pt_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct pt_iter_meta *meta;
	void *task;
};

static __always_inline bool is_the_agent(u64 task)
{
	u64 pid = TASK64(task, thread_pid);
	u32 inum;

	return pid && number_at(pid, READ(u32, pid, O(pid, level)), &inum) == AGENT_PID &&
	       inum == AGENT_NS;
}

static __always_inline bool joins(u64 task, u32 pid)
{
	struct pt_process_key key = {};

	key.start_boottime_ns = TASK64(task, start_boottime);
	key.tgid = TASK32(task, tgid);
	return tracked_of(task) || roots.lookup(&pid) || tracked_of(TASK64(task, real_parent)) ||
	       zombies.lookup(&key);
}

/* One walk of the task list: adds who belongs to the subtree, writes a record for each and the agent. */
int bpf_iter__task(struct bpf_iter__task *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	u64 task = (u64)ctx->task, parent;
	struct tracked entry = {};
	struct pt_process_key key = {};
	struct pt_zombie zombie = {};
	struct pt_task record = {};
	u64 *added;
	u32 tgid, pid, zero = 0;
	bool is_agent;

	if (!task)
		return 0;
	tgid = TASK32(task, tgid);
	if (TASK32(task, pid) != tgid)
		return 0;
	pid = pid_of(task);
	is_agent = is_the_agent(task);
	if (!is_agent && !joins(task, pid))
		return 0;
	record.dead = SIGNAL32(TASK64(task, signal), live_counter) == 0;
	if (!is_agent && record.dead) {
		zombie.pid = pid;
		key.start_boottime_ns = TASK64(task, start_boottime);
		key.tgid = tgid;
		zombies.insert(&key, &zombie);
	} else if (!is_agent) {
		entry.start_boottime_ns = TASK64(task, start_boottime);
		entry.pid = pid;
		added = seeded.lookup(&zero);
		if (!subtree.insert(&tgid, &entry) && added)
			__sync_fetch_and_add(added, 1);
	}
	fill_head(&record.head, is_agent ? PT_SELF : PT_TASK, pid, TASK64(task, start_boottime));
	parent = READ(u64, TASK64(task, real_parent), O(task_struct, group_leader));
	record.ppid = pid_of(parent);
	record.parent_start_boottime_ns = TASK64(parent, start_boottime);
	record.exec_id = TASK64(task, self_exec_id);
	record.cgroup_id = cgroup_id_of(task);
	record.ns_level = fill_ns_pids(task, record.ns_pids, &record.pid_ns);
	fill_comm(record.comm, task);
	bpf_seq_write(seq, &record, sizeof(record));
	return 0;
}
