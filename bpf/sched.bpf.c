// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Every move of a traced thread to another CPU. Loaded only when asked for:
 * the sum is had at exit for nothing (se.nr_migrations).
 */
#include "subtree.bpf.h"

static __always_inline __u32 cpu_of(struct task_struct *task)
{
	struct task_struct___before_5_16 *old = (void *)task;

	if (bpf_core_field_exists(task->thread_info.cpu))
		return BPF_CORE_READ(task, thread_info.cpu);
	return BPF_CORE_READ(old, cpu);
}

/*
 * `current` is whoever moved the task (a waker, a softirq), so the moved one is
 * the argument. The tracepoint also fires when the target is the CPU it is on
 * already (kernel/sched/core.c set_task_cpu); nr_migrations is then not
 * counted, and nothing is reported.
 */
SEC("tp_btf/sched_migrate_task")
int BPF_PROG(on_migrate, struct task_struct *task, int to_cpu)
{
	struct tracked *entry = tracked_of(task);
	struct pt_migrate *record;
	__u32 from_cpu;

	if (!entry)
		return 0;
	from_cpu = cpu_of(task);
	if (from_cpu == (__u32)to_cpu)
		return 0;
	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	fill_head(&record->head, PT_MIGRATE, entry->pid, entry->start_boottime_ns);
	record->tid = pid_of(task);
	record->from_cpu = from_cpu;
	record->to_cpu = to_cpu;
	record->pad = 0;
	submit(record);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
