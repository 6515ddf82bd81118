// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Birth, program image, title, end and reaping of the traced processes, and the
 * snapshot of those that were there before.
 *
 * A process is traced if it is in `subtree`. A child joins at fork when whoever
 * created it is in; it leaves at group_dead. Everyone else costs one failed
 * look-up. Only processes count here: a new thread makes no record, and a
 * thread's end only adds to the counters of its process.
 */
#include "subtree.bpf.h"

/* include/linux/sched/signal.h */
#define SIGNAL_GROUP_EXIT 0x00000004

/* Numbers (as the agent sees them) of the processes that the user named. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} roots SEC(".maps");

/* How many processes walks of the task list added; the agent walks until it stays as it is. */
__u32 seeded = 0;

static __always_inline __u64 cgroup_id_of(struct task_struct *task)
{
	return task->cgroups->dfl_cgrp->kn->id;
}

static __always_inline __u32 fill_ns_pids(struct task_struct *leader, __u32 *ns_pids, __u32 *inum)
{
	struct pid *pid = leader->thread_pid;
	__u32 level, ignored, i;

	*inum = 0;
	if (!pid)
		return PT_NS_LEVELS;
	level = BPF_CORE_READ(pid, level);
#pragma unroll
	for (i = 0; i < PT_NS_LEVELS; i++)
		ns_pids[i] = i <= level ? number_at(pid, i, i == level ? inum : &ignored) : 0;
	return level;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct task_struct *real_parent, *parent_leader;
	struct tracked entry = {};
	struct pt_fork *record;
	__u32 tgid = child->tgid;
	__u32 level;

	if (child->pid != child->tgid)
		return 0;
	if (!tracked_of(parent))
		return 0;

	entry.start_boottime_ns = child->start_boottime;
	entry.pid = pid_of(child);
	if (bpf_map_update_elem(&subtree, &tgid, &entry, BPF_ANY))
		count_map_full();

	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	fill_head(&record->head, PT_FORK, entry.pid, child->start_boottime);
	/* A fork by a thread makes that thread's tid the real_parent; the leader has the process's number. */
	real_parent = child->real_parent;
	parent_leader = real_parent->group_leader;
	record->ppid = pid_of(parent_leader);
	record->parent_start_boottime_ns = parent_leader->start_boottime;
	record->creator_pid = pid_of(parent->group_leader);
	record->cgroup_id = cgroup_id_of(child);
	level = fill_ns_pids(child, record->ns_pids, &record->pid_ns);
	record->ns_level = level;
	bpf_probe_read_kernel(record->comm, sizeof(record->comm), child->comm);
	submit(record);
	return 0;
}

/*
 * argv as it stands in the new image. The pages were written by this very
 * execve (fs/exec.c copy_strings), so the read does not fault.
 */
#define EMIT_EXEC(capacity)                                                             \
	do {                                                                            \
		struct {                                                                \
			struct pt_exec exec;                                            \
			char argv[(capacity)];                                          \
		} *record = reserve(sizeof(*record));                                   \
		if (!record)                                                            \
			return 0;                                                       \
		fill_head(&record->exec.head, PT_EXEC, entry->pid, start);              \
		record->exec.exec_id = task->self_exec_id;                              \
		record->exec.old_tid = from_thread ? old_pid : 0;                       \
		record->exec.argv_full_len = full;                                      \
		named = bpf_probe_read_kernel_str(record->exec.filename,                \
						  PT_FILENAME_LEN, bprm->filename);     \
		record->exec.filename_len = named > 0 ? named - 1 : 0;                  \
		bpf_probe_read_kernel(record->exec.comm, PT_COMM_LEN, task->comm);      \
		length = full;                                                          \
		asm volatile("" : "+r"(length));                                        \
		if (length > (capacity))                                                \
			length = (capacity);                                            \
		if (bpf_probe_read_user(record->argv, length, (void *)arg_start))       \
			length = 0;                                                     \
		record->exec.argv_len = length;                                         \
		submit(record);                                                         \
	} while (0)

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	struct tracked *entry = tracked_of(task);
	unsigned long arg_start;
	__u64 start, full, length;
	bool from_thread;
	long named;

	if (!entry)
		return 0;
	/* fs/exec.c exec_binprm gives the first namespace's number; it stands for nothing in another. */
	from_thread = old_pid != task->tgid && config.agent_ns_level == 0;
	start = task->group_leader->start_boottime;
	arg_start = task->mm->arg_start;
	full = task->mm->arg_end - arg_start;
	if (full <= PT_ARGV_SMALL)
		EMIT_EXEC(PT_ARGV_SMALL);
	else if (full <= PT_ARGV_MEDIUM)
		EMIT_EXEC(PT_ARGV_MEDIUM);
	else
		EMIT_EXEC(PT_ARGV_LARGE);
	return 0;
}

/*
 * setproctitle(3) writes the title over argv (and on into the environment) and
 * then names the task, so that at this point both are complete, however soon
 * the process ends. A bare prctl(PR_SET_NAME) leaves argv alone: then another
 * argument still follows the first, and title_len stays 0.
 *
 * Only the leader is heard: a thread that names itself has not renamed its
 * process. During execve the new mm has no arguments yet (fs/exec.c
 * begin_new_exec names the task before fs/binfmt_elf.c sets arg_start).
 */
SEC("tp_btf/task_rename")
int BPF_PROG(on_rename, struct task_struct *task, const char *comm)
{
	unsigned long arg_start, arg_end;
	struct pt_title *record;
	struct tracked *entry;
	char next = 0;
	long length;

	if (task->pid != task->tgid || !task->mm)
		return 0;
	entry = tracked_of(task);
	if (!entry)
		return 0;
	arg_start = task->mm->arg_start;
	arg_end = task->mm->arg_end;
	if (!arg_start)
		return 0;
	/* A sibling may write our /proc comm file; it shares the mm, so the read is right all the same. */
	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	fill_head(&record->head, PT_TITLE, entry->pid, task->start_boottime);
	bpf_probe_read_kernel(record->comm, sizeof(record->comm), comm);
	length = bpf_probe_read_user_str(record->title, sizeof(record->title), (void *)arg_start);
	if (length > 0 && arg_start + length < arg_end)
		bpf_probe_read_user(&next, sizeof(next), (void *)(arg_start + length));
	record->title_len = length > 1 && !next ? length - 1 : 0;
	record->truncated = length == sizeof(record->title);
	submit(record);
	return 0;
}

/*
 * Whether this is the end of the process and not only of one thread.
 *
 * Newer kernels (6.16 and on) hand group_dead to the tracepoint. Before, signal->live has already
 * been counted down (kernel/exit.c do_exit), and two threads that end together
 * may both read 0: the caller lets the first one win.
 */
static __always_inline bool is_group_dead(__u64 *ctx, struct task_struct *task)
{
	if (bpf_core_field_exists(struct trace_event_raw_sched_process_exit, group_dead))
		return ctx[1];
	if (bpf_core_field_exists(task->signal->live))
		return task->signal->live.counter == 0;
	return task->signal->nr_threads <= 1;
}

SEC("tp_btf/sched_process_exit")
int on_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct task_struct *leader, *parent_leader;
	struct signal_struct *signal;
	struct pt_process_key key = {};
	struct pt_zombie zombie = {};
	struct pt_exit *record;
	struct tracked *entry;
	__u64 migrations;
	__u32 tgid = task->tgid;

	entry = tracked_of(task);
	if (!entry)
		return 0;
	/* The kernel keeps no sum of the migrations of ended threads, unlike all other counters. */
	if (!is_group_dead(ctx, task)) {
		__sync_fetch_and_add(&entry->dead_thread_migrations, task->se.nr_migrations);
		return 0;
	}
	migrations = entry->dead_thread_migrations + task->se.nr_migrations;
	leader = task->group_leader;
	signal = task->signal;
	zombie.pid = entry->pid;
	if (bpf_map_delete_elem(&subtree, &tgid))
		return 0;
	zombie.exit_ts_boot_ns = bpf_ktime_get_boot_ns();
	key.start_boottime_ns = leader->start_boottime;
	key.tgid = tgid;
	if (bpf_map_update_elem(&zombies, &key, &zombie, BPF_ANY))
		count_map_full();

	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	fill_head(&record->head, PT_EXIT, zombie.pid, leader->start_boottime);
	record->head.ts_boot_ns = zombie.exit_ts_boot_ns;
	/* kernel/exit.c wait_task_zombie: what the parent's wait will return. */
	record->wstatus = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code
							    : leader->exit_code;
	parent_leader = leader->real_parent->group_leader;
	record->ppid = pid_of(parent_leader);
	/*
	 * Released threads are summed in signal (kernel/exit.c __exit_signal); the leader stays
	 * until it is reaped, and this thread is not released yet either.
	 */
	record->utime_ns = signal->utime + leader->utime;
	record->stime_ns = signal->stime + leader->stime;
	record->runtime_ns = signal->sum_sched_runtime + leader->se.sum_exec_runtime;
	record->voluntary_switches = signal->nvcsw + leader->nvcsw;
	record->involuntary_switches = signal->nivcsw + leader->nivcsw;
	record->minor_faults = signal->min_flt + leader->min_flt;
	record->major_faults = signal->maj_flt + leader->maj_flt;
	if (task->pid != tgid) {
		record->utime_ns += task->utime;
		record->stime_ns += task->stime;
		record->runtime_ns += task->se.sum_exec_runtime;
		record->voluntary_switches += task->nvcsw;
		record->involuntary_switches += task->nivcsw;
		record->minor_faults += task->min_flt;
		record->major_faults += task->maj_flt;
	}
	record->migrations = migrations;
	record->max_rss_pages = signal->maxrss;
	submit(record);
	return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(on_free, struct task_struct *task)
{
	struct pt_process_key key = {};
	struct pt_zombie *zombie;
	struct pt_reap *record;

	/* After de_thread (fs/exec.c) the thread that called execve carries the leader's tid and start time. */
	if (task->pid != task->tgid)
		return 0;
	key.start_boottime_ns = task->start_boottime;
	key.tgid = task->tgid;
	zombie = bpf_map_lookup_elem(&zombies, &key);
	if (!zombie)
		return 0;
	record = reserve(sizeof(*record));
	if (record) {
		fill_head(&record->head, PT_REAP, zombie->pid, key.start_boottime_ns);
		record->exit_ts_boot_ns = zombie->exit_ts_boot_ns;
		submit(record);
	}
	bpf_map_delete_elem(&zombies, &key);
	return 0;
}

/* By its number in its own namespace, so that it is found at whatever depth that is. */
static __always_inline bool is_the_agent(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;
	__u32 inum;

	return pid &&
	       number_at(pid, BPF_CORE_READ(pid, level), &inum) == config.agent_pid &&
	       inum == config.agent_ns_inum;
}

/* A process belongs to the snapshot if it is or was traced, is a named root, or has a traced parent. */
static __always_inline bool joins(struct task_struct *task, __u32 pid)
{
	struct pt_process_key key = { task->start_boottime, task->tgid, 0 };

	return tracked_of(task) || bpf_map_lookup_elem(&roots, &pid) ||
	       tracked_of(task->real_parent) || bpf_map_lookup_elem(&zombies, &key);
}

/*
 * One walk of the task list: adds to the subtree what belongs to it, and writes
 * a record for each traced process and one for the agent itself.
 */
SEC("iter/task")
int walk_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_struct *parent_leader;
	struct tracked entry = {};
	struct pt_process_key key = {};
	struct pt_zombie zombie = {};
	struct pt_task record = {};
	bool is_agent;
	__u32 tgid, pid;

	if (!task || task->pid != task->tgid)
		return 0;
	tgid = task->tgid;
	pid = pid_of(task);
	is_agent = is_the_agent(task);
	if (!is_agent && !joins(task, pid))
		return 0;
	record.dead = task->signal->live.counter == 0;
	if (!is_agent && record.dead) {
		zombie.pid = pid;
		key.start_boottime_ns = task->start_boottime;
		key.tgid = tgid;
		bpf_map_update_elem(&zombies, &key, &zombie, BPF_NOEXIST);
	} else if (!is_agent) {
		entry.start_boottime_ns = task->start_boottime;
		entry.pid = pid;
		/* Not if on_fork was faster: its entry may already have counted a thread's end. */
		if (!bpf_map_update_elem(&subtree, &tgid, &entry, BPF_NOEXIST))
			__sync_fetch_and_add(&seeded, 1);
	}
	fill_head(&record.head, is_agent ? PT_SELF : PT_TASK, pid, task->start_boottime);
	parent_leader = task->real_parent->group_leader;
	record.ppid = pid_of(parent_leader);
	record.parent_start_boottime_ns = parent_leader->start_boottime;
	record.exec_id = task->self_exec_id;
	/* cgroup_exit() leaves a zombie in init_css_set, but the pointers stay valid. */
	record.cgroup_id = cgroup_id_of(task);
	record.ns_level = fill_ns_pids(task, record.ns_pids, &record.pid_ns);
	bpf_probe_read_kernel(record.comm, sizeof(record.comm), task->comm);
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
