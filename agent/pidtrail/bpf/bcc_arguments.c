// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The lifecycle from nothing but the tracepoints' own arguments.
 *
 * For kernels without BTF, or whose structures could not be proved. bcc reads the
 * arguments' places from tracefs. Processes are known by the numbers of the first
 * PID namespace; the agent joins start times, arguments and titles from /proc.
 */
#define CLONE_PARENT_ 0x00008000
#define CLONE_THREAD_ 0x00010000

/* When traced processes ended that are not known to be reaped. */
BPF_HASH(zombies, u32, u64, PT_MAX_PROCESSES);

static __always_inline u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/* kernel/fork.c copy_process: in the creator, and with the flags, unlike sched_process_fork. */
int on_fork(struct tracepoint__task__task_newtask *args)
{
	u32 creator = current_tgid(), pid = args->pid;
	u64 flags = args->clone_flags;
	struct tracked *parent = subtree.lookup(&creator);
	struct tracked entry = {};
	SMALL_RECORD(pt_fork, record);

	if (!parent)
		return 0;
	if (flags & CLONE_THREAD_) {
		__sync_fetch_and_add(&parent->threads, 1);
		return 0;
	}
	entry.pid = pid;
	entry.threads = 1;
	if (subtree.update(&pid, &entry))
		count_map_full();
	record = small_room(record, sizeof(*record));
	if (!record)
		return 0;
	__builtin_memset(record, 0, sizeof(*record));
	fill_head(&record->head, PT_FORK, pid, 0);
	/* With CLONE_PARENT the parent is the creator's, who is not among the arguments. */
	record->ppid = flags & CLONE_PARENT_ ? 0 : creator;
	record->creator_pid = creator;
	record->ns_level = PT_NS_LEVELS;
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	submit(args, record, sizeof(*record));
	return 0;
}

int on_exec(struct tracepoint__sched__sched_process_exec *args)
{
	u32 pid = args->pid, old_pid = args->old_pid;
	struct tracked *entry = subtree.lookup(&pid);
	u32 where = args->data_loc_filename & 0xFFFF;
	struct pt_exec *record;
	long named;

	if (!entry)
		return 0;
	/* All other threads are gone by now (fs/exec.c de_thread). */
	entry->threads = 1;
	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	__builtin_memset(record, 0, sizeof(*record));
	fill_head(&record->head, PT_EXEC, pid, 0);
	record->old_tid = old_pid != pid ? old_pid : 0;
	named = bpf_probe_read_str(record->filename, PT_FILENAME_LEN, (char *)args + where);
	record->filename_len = named > 0 ? named - 1 : 0;
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	submit(args, record, sizeof(*record));
	return 0;
}

int on_rename(struct tracepoint__task__task_rename *args)
{
	u32 pid = args->pid;
	struct tracked *entry = subtree.lookup(&pid);
	struct pt_title *record;

	if (!entry)
		return 0;
	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	fill_head(&record->head, PT_TITLE, pid, 0);
	record->title_len = 0;
	record->truncated = 0;
	__builtin_memcpy(record->comm, args->newcomm, PT_COMM_LEN);
	submit(args, record, sizeof(*record));
	return 0;
}

int on_exit(struct tracepoint__sched__sched_process_exit *args)
{
	u32 tgid = current_tgid();
	struct tracked *entry = subtree.lookup(&tgid);
	SMALL_RECORD(pt_exit, record);
	u64 now;

	if (!entry)
		return 0;
#ifdef PT_GROUP_DEAD_ARGUMENT
	if (!args->group_dead)
		return 0;
#else
	/* LLVM ends the whole agent over a fetched result here: BPF before v3 has none. */
	__sync_fetch_and_add(&entry->threads, -1);
	if ((s32)entry->threads > 0)
		return 0;
#endif
	if (subtree.delete(&tgid))
		return 0;
	now = now_ns();
	if (zombies.update(&tgid, &now))
		count_map_full();
	record = small_room(record, sizeof(*record));
	if (!record)
		return 0;
	__builtin_memset(record, 0, sizeof(*record));
	fill_head(&record->head, PT_EXIT, tgid, 0);
	record->head.ts_boot_ns = now;
	submit(args, record, sizeof(*record));
	return 0;
}

int on_free(struct tracepoint__sched__sched_process_free *args)
{
	u32 pid = args->pid;
	u64 *ended = zombies.lookup(&pid);
	SMALL_RECORD(pt_reap, record);

	if (!ended)
		return 0;
	record = small_room(record, sizeof(*record));
	if (record) {
		fill_head(&record->head, PT_REAP, pid, 0);
		record->exit_ts_boot_ns = *ended;
		submit(args, record, sizeof(*record));
	}
	zombies.delete(&pid);
	return 0;
}
