"""
Where the kernel's structures keep what we read, from BTF, as defines for bcc's compiler.

The names are those of kernel 6.x; where a kernel had another one it stands here
with the change that brought it. A kernel without BTF, or with other structures,
raises BtfError, and the source goes on with the tracepoints' arguments alone.
"""

from __future__ import annotations

from typing import Final

from pidtrail.sources.btf import Btf, BtfError

MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    "task_struct": (
        *("pid", "tgid", "real_parent", "group_leader", "start_boottime", "comm", "thread_pid"),
        *("signal", "mm", "exit_code", "self_exec_id", "cgroups", "utime", "stime", "nvcsw"),
        *("nivcsw", "min_flt", "maj_flt", "se.sum_exec_runtime", "se.nr_migrations"),
    ),
    "signal_struct": (
        *("flags", "group_exit_code", "live.counter", "utime", "stime", "sum_sched_runtime"),
        *("nvcsw", "nivcsw", "min_flt", "maj_flt", "maxrss"),
    ),
    "pid": ("level", "numbers"),
    "upid": ("nr", "ns"),
    "pid_namespace": ("ns.inum",),
    "mm_struct": ("arg_start", "arg_end", "total_vm"),
    "linux_binprm": ("filename",),
    "css_set": ("dfl_cgrp",),
    "cgroup": ("kn",),
    "kernfs_node": ("id",),
}
MM_ANONPAGES: Final = 1
WORD: Final = 8


def defines(btf: Btf) -> list[str]:
    """Return the compiler's arguments. Raises BtfError for a kernel that has no such members."""
    numbers = {
        f"O_{name}__{path.replace('.', '_')}": btf.offset(name, path)
        for name, paths in MEMBERS.items()
        for path in paths
    }
    numbers["SIZE_upid"] = btf.size("upid")
    numbers["O_mm_struct__anon_rss"] = anonymous_memory(btf)
    numbers["CPU_OFFSET"] = cpu(btf)
    flags = [
        flag
        for flag, name, path in (
            # 6.16 and on.
            ("PT_GROUP_DEAD_ARGUMENT", "trace_event_raw_sched_process_exit", "group_dead"),
            # 6.8 and on.
            ("PT_VICTIM_IS_TASK", "trace_event_raw_mark_victim", "anon_rss"),
        )
        if btf.has(name, path)
    ]
    return [*(f"-D{name}={number}" for name, number in numbers.items()), *(f"-D{f}" for f in flags)]


def anonymous_memory(btf: Btf) -> int:
    """Return where mm_struct counts anonymous pages: a percpu_counter since 6.2 (f1a7941243c1)."""
    if btf.has("mm_struct", "rss_stat.count"):
        return btf.offset("mm_struct", "rss_stat.count") + MM_ANONPAGES * WORD
    return (
        btf.offset("mm_struct", "rss_stat")
        + MM_ANONPAGES * btf.size("percpu_counter")
        + btf.offset("percpu_counter", "count")
    )


def cpu(btf: Btf) -> int:
    """Return where task_cpu() looks: in thread_info since 5.16 (bcf9033e5449)."""
    try:
        return btf.offset("task_struct", "thread_info.cpu")
    except BtfError:
        return btf.offset("task_struct", "cpu")
