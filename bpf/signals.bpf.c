// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Who ended it: signals sent to traced processes with their sender, and the
 * kernel's choice of an out-of-memory victim.
 */
#include "subtree.bpf.h"

/* include/uapi/asm-generic/signal.h: by default ignored, and sent all the time. */
#define SIGCHLD 17
#define SIGCONT 18
#define SIGURG 23
#define SIGWINCH 28

/* arch/x86/include/uapi/asm/signal.h, the same on arm64: raised by an instruction of the process. */
#define SIGILL 4
#define SIGTRAP 5
#define SIGBUS 7
#define SIGFPE 8
#define SIGSEGV 11
#define SIGSYS 31
#define FAULTS                                                                                     \
	(1U << SIGILL | 1U << SIGTRAP | 1U << SIGBUS | 1U << SIGFPE | 1U << SIGSEGV | 1U << SIGSYS)

/* include/uapi/asm-generic/siginfo.h: si_code of kill, sigqueue and tgkill. */
#define SI_USER 0
#define SI_QUEUE -1
#define SI_TKILL -6
/* What signal_generate reports for the two pseudo siginfo (include/trace/events/signal.h). */
#define SI_KERNEL 0x80

/* include/trace/events/signal.h enum { TRACE_SIGNAL_DELIVERED, TRACE_SIGNAL_IGNORED, ... } */
#define TRACE_SIGNAL_IGNORED 1

#define MM_ANONPAGES 1

SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int sig, struct kernel_siginfo *info, struct task_struct *task, int group,
	     int result)
{
	struct tracked *entry;
	struct pt_signal *record;
	struct task_struct *sender;
	__s32 code;

	if (sig == SIGCHLD || sig == SIGURG || sig == SIGWINCH)
		return 0;
	/* SIGCONT wakes a stopped process even where it is ignored (kernel/signal.c prepare_signal). */
	if (result == TRACE_SIGNAL_IGNORED && sig != SIGCONT)
		return 0;
	entry = tracked_of(task);
	if (!entry)
		return 0;
	/* include/linux/signal_types.h: SEND_SIG_NOINFO is 0 (a process), SEND_SIG_PRIV is 1 (the kernel). */
	if (!info)
		code = SI_USER;
	else if ((unsigned long)info == 1)
		code = SI_KERNEL;
	else
		code = info->si_code;
	/*
	 * Of the kernel's own, the first of each: who handles its faults may raise a hundred
	 * thousand a second, and the last one that ends it shows in the wait status.
	 */
	if (code > 0 && sig > 0 && sig < 32 && (FAULTS & 1U << sig)) {
		if (entry->faults & 1U << sig)
			return 0;
		entry->faults |= 1U << sig;
	}

	record = reserve(sizeof(*record));
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
	if (code == SI_USER || code == SI_QUEUE || code == SI_TKILL) {
		sender = bpf_get_current_task_btf();
		record->sender_pid = pid_of(sender->group_leader);
		record->sender_uid = bpf_get_current_uid_gid();
		record->sender_start_boottime_ns = sender->group_leader->start_boottime;
		bpf_probe_read_kernel(record->sender_comm, sizeof(record->sender_comm),
				      sender->group_leader->comm);
	}
	submit(record);
	return 0;
}

static __always_inline void emit_victim(struct task_struct *task)
{
	struct mm_struct___before_6_2 *old_mm;
	struct tracked *entry = tracked_of(task);
	struct pt_oom *record;
	struct mm_struct *mm;

	if (!entry)
		return;
	record = reserve(sizeof(*record));
	if (!record)
		return;
	fill_head(&record->head, PT_OOM, entry->pid, entry->start_boottime_ns);
	bpf_probe_read_kernel(record->comm, sizeof(record->comm), task->comm);
	record->pad = 0;
	record->has_rss = 0;
	record->total_vm_pages = 0;
	record->anon_rss_pages = 0;
	mm = task->mm;
	if (mm) {
		record->has_rss = 1;
		record->total_vm_pages = BPF_CORE_READ(mm, total_vm);
		old_mm = (void *)mm;
		if (bpf_core_field_exists(old_mm->rss_stat.count))
			record->anon_rss_pages =
				BPF_CORE_READ(old_mm, rss_stat.count[MM_ANONPAGES].counter);
		else
			record->anon_rss_pages = BPF_CORE_READ(mm, rss_stat[MM_ANONPAGES].count);
	}
	submit(record);
}

/*
 * Since 6.8 (72ba14deb40a "mm: update mark_victim tracepoints fields") the
 * first argument is the task; before it was only a number, and the victim's
 * memory is not to be had.
 */
SEC("tp_btf/mark_victim")
int on_oom(__u64 *ctx)
{
	struct tracked *entry;
	struct pt_oom *record;
	__u32 tgid;

	if (bpf_core_field_exists(struct trace_event_raw_mark_victim, anon_rss)) {
		emit_victim((void *)ctx[0]);
		return 0;
	}
	tgid = (__u32)ctx[0];
	entry = bpf_map_lookup_elem(&subtree, &tgid);
	if (!entry)
		return 0;
	record = reserve(sizeof(*record));
	if (!record)
		return 0;
	__builtin_memset(record, 0, sizeof(*record));
	fill_head(&record->head, PT_OOM, entry->pid, entry->start_boottime_ns);
	submit(record);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
