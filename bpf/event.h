/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The wire: what BPF programs put into the ring, and nothing else.
 *
 * The one definition of it. agent/pidtrail/sources/wire.py mirrors it, and
 * tests/unit/test_abi.py compiles this file and compares every size and offset.
 *
 * Rules. All padding is named (-Wpadded -Werror); nothing is packed, which would
 * make clang write byte by byte. Every record starts with pt_head. Numbers of
 * processes are in the PID namespace of the agent; 0 means "no number there".
 * Times are CLOCK_BOOTTIME nanoseconds.
 */
#ifndef PIDTRAIL_EVENT_H
#define PIDTRAIL_EVENT_H

#define PT_ABI_VERSION 1

#define PT_COMM_LEN 16
/* include/linux/pid_namespace.h MAX_PID_NS_LEVEL is 32; deeper than 8 is reported as unknown. */
#define PT_NS_LEVELS 8
#define PT_FILENAME_LEN 256
#define PT_ARGV_SMALL 256
#define PT_ARGV_MEDIUM 2048
#define PT_ARGV_LARGE 16384
#define PT_TITLE_LEN 2048

#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic error "-Wpadded"
#endif

enum pt_kind {
	PT_INVALID = 0,
	PT_FORK = 1,
	PT_EXEC = 2,
	PT_TITLE = 3,
	PT_EXIT = 4,
	PT_REAP = 5,
	PT_SIGNAL = 6,
	PT_OOM = 7,
	PT_MIGRATE = 8,
	PT_TASK = 9,	/* snapshot: a traced process */
	PT_SELF = 10,	/* snapshot: the agent itself, for its self-test */
};

struct pt_head {
	pt_u32 kind;
	pt_u32 pid;			/* tgid */
	pt_u64 ts_boot_ns;
	pt_u64 start_boottime_ns;	/* of the group leader */
};

struct pt_fork {
	struct pt_head head;
	pt_u32 ppid;			/* real_parent->tgid */
	pt_u32 creator_pid;		/* current->tgid */
	pt_u64 parent_start_boottime_ns;
	pt_u64 cgroup_id;
	pt_u32 pid_ns;			/* inode of the innermost namespace */
	pt_u32 ns_level;		/* ns_pids[0..ns_level] are valid */
	pt_u32 ns_pids[PT_NS_LEVELS];
	char comm[PT_COMM_LEN];
};

struct pt_exec {
	struct pt_head head;
	pt_u64 exec_id;			/* self_exec_id */
	pt_u32 old_tid;			/* 0: the leader itself called execve */
	pt_u32 argv_len;		/* bytes of argv after this struct, or 0 */
	pt_u32 argv_full_len;		/* arg_end - arg_start */
	pt_u32 filename_len;		/* without the NUL */
	char comm[PT_COMM_LEN];
	char filename[PT_FILENAME_LEN];
};

struct pt_title {
	struct pt_head head;
	pt_u32 title_len;		/* without the NUL; 0: only comm changed */
	pt_u32 truncated;
	char comm[PT_COMM_LEN];
	char title[PT_TITLE_LEN];
};

struct pt_exit {
	struct pt_head head;
	pt_u32 wstatus;
	pt_u32 ppid;
	pt_u64 utime_ns;
	pt_u64 stime_ns;
	pt_u64 runtime_ns;		/* sum_exec_runtime, all threads */
	pt_u64 voluntary_switches;
	pt_u64 involuntary_switches;
	pt_u64 minor_faults;
	pt_u64 major_faults;
	pt_u64 migrations;
	pt_u64 max_rss_pages;
};

struct pt_reap {
	struct pt_head head;
	pt_u64 exit_ts_boot_ns;		/* 0: it had ended before we attached */
};

struct pt_signal {
	struct pt_head head;		/* the target */
	pt_s32 sig;
	pt_s32 code;			/* si_code */
	pt_u32 sender_pid;		/* 0: the kernel, or no number here */
	pt_u32 sender_uid;
	pt_u64 sender_start_boottime_ns; /* 0: the kernel sent it */
	char sender_comm[PT_COMM_LEN];
};

struct pt_oom {
	struct pt_head head;
	pt_u64 total_vm_pages;
	pt_u64 anon_rss_pages;
	pt_u32 has_rss;
	pt_u32 pad;
	char comm[PT_COMM_LEN];
};

struct pt_migrate {
	struct pt_head head;
	pt_u32 tid;
	pt_u32 from_cpu;
	pt_u32 to_cpu;
	pt_u32 pad;
};

struct pt_task {
	struct pt_head head;
	pt_u32 ppid;
	pt_u32 dead;			/* group_dead already: a zombie */
	pt_u64 parent_start_boottime_ns;
	pt_u64 cgroup_id;
	pt_u64 exec_id;
	pt_u32 pid_ns;
	pt_u32 ns_level;
	pt_u32 ns_pids[PT_NS_LEVELS];
	char comm[PT_COMM_LEN];
};

/* Map `zombies`: traced processes that ended and are not known to be reaped. */
struct pt_process_key {
	pt_u64 start_boottime_ns;
	pt_u32 tgid;			/* of the first PID namespace */
	pt_u32 pad;
};

struct pt_zombie {
	pt_u64 exit_ts_boot_ns;
	pt_u32 pid;
	pt_u32 pad;
};

/* The one variable of .rodata, set before load; abi_version is there already. */
struct pt_config {
	pt_u32 abi_version;
	pt_u32 agent_pid;
	pt_u32 agent_ns_level;		/* depth of the agent's PID namespace; 0 is the first */
	pt_u32 agent_ns_inum;
};

/* The one value of map `losses`; monotonic. */
struct pt_losses {
	pt_u64 ring_full;		/* records that found no room */
	pt_u64 last_ns;			/* when the last of them was dropped */
	pt_u64 map_full;		/* processes that could not be followed */
};

#ifdef __clang__
#pragma clang diagnostic pop
#endif

#endif
