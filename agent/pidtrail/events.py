"""
The canonical records: what sources say, before anyone interprets it.

Rule 1: a record is a fact with its origin, its time (CLOCK_BOOTTIME) and, where
        it speaks of a process, the identity of that process.
Rule 2: unknown is None. Never 0, -1 or "".
Rule 3: a record is never changed; `task` is filled in by making a new one.

`pid` is always the tgid, in the PID namespace of the agent. A bare pid is never
a key: `ProcessKey` is (pid, start_ticks), valid within one boot_id.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

EVENT_SCHEMA = "pidtrail.event/1"
INITIAL_PID_NS: Final = 0xEFFFFFFC
"""The inode of the host's own PID namespace: include/linux/proc_ns.h PROC_PID_INIT_INO."""


class ProcessKey(NamedTuple):
    """
    One process of one boot: tgid and start time in USER_HZ ticks.

    `start_ticks` is None where a source could not know it; such a process is
    unconfirmed and never supports a confident verdict. Two of those that had the
    same number are told apart by `born_ns`, when the source heard of the birth.
    """

    pid: int
    start_ticks: int | None
    born_ns: int | None = None


class TaskRef(msgspec.Struct, frozen=True, gc=False):
    """
    An Airflow task instance attempt, as far as it is known.

    `map_index` is -1 for a task that is not mapped, as in Airflow. `ti_id` is
    the UUID of Airflow 3.x (`task_instance.id`), None in 2.x. A reference
    learned from a 3.x title alone has only `ti_id`.
    """

    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None
    ti_id: str | None = None


class Fidelity(msgspec.Struct, frozen=True):
    """
    What a source can know. Verdicts are no more confident than this.

    A field is True if it holds for every process, also for one that ends at
    once. `has_identity`: start time, numbers in all PID namespaces, cgroup and
    count of images. `has_lineage`: the parent also under CLONE_PARENT, and the
    one at the end. `counts_loss`: exactly. `expected_miss` says in words what a
    source is known to miss, or is None.
    """

    has_argv: bool
    has_titles: bool
    has_wstatus: bool
    has_start_ns: bool
    has_counters: bool
    has_signals: bool
    sees_short_lived: bool
    counts_loss: bool
    expected_miss: str | None = None
    has_identity: bool = True
    has_lineage: bool = True
    has_reaps: bool = True


class Root(msgspec.Struct, frozen=True):
    """A process whose subtree is traced."""

    pid: int
    start_ticks: int | None


class Header(msgspec.Struct, frozen=True, tag_field="type", tag="header"):
    """
    The first line of a stream: where and how the records after it were made.

    `wall_offset_ns` added to a CLOCK_BOOTTIME instant gives nanoseconds since
    the Unix epoch. `pid_ns` is the inode of the agent's PID namespace. `airflow_db`
    and `airflow_api` are addresses without secrets, `airflow_plugin` the path of the
    socket to which Airflow's plugin could send. `began_ns` is CLOCK_BOOTTIME of when the
    stream began, None where its first record tells: a segment of a history (history.py)
    begins with records that are older. `addresses` are those of the agent's network
    namespace but for loopback, None where they were not known.
    """

    schema: str
    host: str
    boot_id: str
    clk_tck: int
    wall_offset_ns: int
    source: str
    fidelity: Fidelity
    roots: list[Root]
    version: str
    kernel: str | None = None
    pid_ns: int | None = None
    refused: dict[str, str] = {}
    airflow_db: str | None = None
    airflow_problem: str | None = None
    airflow_api: str | None = None
    airflow_plugin: str | None = None
    began_ns: int | None = None
    addresses: list[str] | None = None


class Unconfirmed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """
    The field that only records of an unconfirmed process have.

    `born_ns` is CLOCK_BOOTTIME of when its birth was told, for a process whose
    start could not be learned any more.
    """

    born_ns: int | UnsetType = UNSET


class Record(Unconfirmed, frozen=True, gc=False, tag_field="type"):
    """
    Fields common to all records.

    `seq` counts per source without holes; a hole is a loss, and a `lost` record
    tells its size. `extra` keeps fields that a newer pidtrail wrote.
    """

    seq: int
    ts_boot_ns: int
    origin: str
    pid: int | None = None
    start_ticks: int | None = None
    start_ns: int | None = None
    task: TaskRef | None = None

    @property
    def key(self) -> ProcessKey | None:
        """The process that the record speaks of, or None if it speaks of none."""
        if self.pid is None:
            return None
        if self.start_ticks is not None or self.born_ns is UNSET:
            return ProcessKey(self.pid, self.start_ticks)
        return ProcessKey(self.pid, None, self.born_ns)


class Fork(Record, frozen=True, gc=False, tag="fork"):
    """
    A process was born (kernel/fork.c kernel_clone, before it first runs).

    `ppid` is `real_parent->tgid`. `creator_pid` is who called fork, and None
    unless it differs (CLONE_PARENT). `ns_pids` are its numbers in all nested
    PID namespaces, outermost first; `pid_ns` is the inode of the innermost.
    """

    ppid: int | None = None
    parent_start_ticks: int | None = None
    creator_pid: int | None = None
    comm: str | None = None
    ns_pids: list[int] | None = None
    pid_ns: int | None = None
    cgroup_id: int | None = None
    parent_born_ns: int | UnsetType = UNSET
    extra: dict[str, Any] | UnsetType = UNSET

    @property
    def parent_key(self) -> ProcessKey | None:
        """The parent at birth, or None if it is not known."""
        if self.ppid is None:
            return None
        if self.parent_start_ticks is None and self.parent_born_ns is not UNSET:
            return ProcessKey(self.ppid, None, self.parent_born_ns)
        return ProcessKey(self.ppid, self.parent_start_ticks)


class Exec(Record, frozen=True, gc=False, tag="exec"):
    """
    A process became another program image; its pid and start time stay.

    `old_tid` is the thread that called execve, None if it was the leader
    (fs/exec.c de_thread gives a non-leader the leader's tid and start time).
    `exec_id` is the kernel's `self_exec_id`: it starts at the parent's value.
    """

    filename: str | None = None
    argv: list[str] | None = None
    argv_truncated: bool | None = None
    old_tid: int | None = None
    exec_id: int | None = None
    comm: str | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class Title(Record, frozen=True, gc=False, tag="title"):
    """
    A process renamed itself; `title` is None if only the 15 byte `comm` changed.

    Read at `task_rename` from `mm->arg_start`, where setproctitle(3) has just
    written it.
    """

    title: str | None = None
    comm: str | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class Exit(Record, frozen=True, gc=False, tag="exit"):
    """
    The last thread of a process ended (group_dead).

    `wstatus` is the word that the parent's wait would see (kernel/exit.c
    wait_task_zombie). Counters are sums over all threads of the process.
    Exactly one of `exit_code` and `termsig` is None.
    """

    wstatus: int | None = None
    exit_code: int | None = None
    termsig: int | None = None
    core_dumped: bool | None = None
    ppid: int | None = None
    utime_ns: int | None = None
    stime_ns: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    migrations: int | None = None
    max_rss_kib: int | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class Reap(Record, frozen=True, gc=False, tag="reap"):
    """
    A dead process was collected by its parent.

    `zombie_ns` is how long it waited, up to `sched_process_free`, which the
    kernel runs one RCU grace period (some tens of ms) after the collection.
    """

    zombie_ns: int | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class Signal(Record, frozen=True, gc=False, tag="signal"):
    """
    A signal was sent to this process (kernel/signal.c signal_generate).

    The sender is None where the kernel itself sent it; `code` is si_code
    (sigaction(2)): positive from the kernel, zero or negative from a process.
    """

    sig: int | None = None
    sender_pid: int | None = None
    sender_start_ticks: int | None = None
    sender_comm: str | None = None
    sender_uid: int | None = None
    code: int | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class Oom(Record, frozen=True, gc=False, tag="oom"):
    """The kernel chose this process as its out-of-memory victim (mm/oom_kill.c mark_oom_victim)."""

    victim_comm: str | None = None
    total_vm_kib: int | None = None
    anon_rss_kib: int | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class Migrate(Record, frozen=True, gc=False, tag="migrate"):
    """A thread of this process moved between CPUs (kernel/sched/core.c set_task_cpu)."""

    tid: int | None = None
    from_cpu: int | None = None
    to_cpu: int | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class Observed(Record, frozen=True, gc=False, tag="observed"):
    """
    What the kernel's task list or /proc showed of a process at an instant.

    `env` holds allow-listed variables only (`AIRFLOW_CTX_*`). `log_path` is an
    open Airflow task log. `dead` is True for a process that was a zombie then.
    `cgroup` is the one path of /proc/PID/cgroup that tells most (container.py).
    """

    ppid: int | None = None
    parent_start_ticks: int | None = None
    comm: str | None = None
    argv: list[str] | None = None
    cgroup: str | None = None
    cgroup_id: int | None = None
    ns_pids: list[int] | None = None
    pid_ns: int | None = None
    log_path: str | None = None
    env: dict[str, str] | None = None
    exec_id: int | None = None
    dead: bool | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class TaskReported(Record, frozen=True, gc=False, tag="task_reported"):
    """
    What Airflow claims of `task` at an instant; `via` is db, rest, plugin or log.

    `table` says where it stood: `task_instance` (the current row, overwritten
    in place) or `task_instance_history` (an earlier try). Dates are as Airflow
    wrote them, RFC 3339 in UTC.

    Via plugin it is what a process said of itself, and the one kind that speaks of a
    process (`pid`, `start_ticks`): the sender by the kernel's word, whose number is
    `recorded_pid` too. `state` is what it has come to: running, success, skipped, failed,
    up_for_retry, or None for a failure of which Airflow had not decided.

    `airflow` is the installation whose record it is (airflow/installation.py), None where
    that is not known.
    """

    recorded_pid: int | None = None
    hostname: str | None = None
    state: str | None = None
    start_date: str | None = None
    end_date: str | None = None
    via: str | None = None
    table: str | None = None
    unixname: str | None = None
    job_id: int | None = None
    queued_by_job_id: int | None = None
    queued_dttm: str | None = None
    updated_at: str | None = None
    max_tries: int | None = None
    trigger_id: int | None = None
    next_method: str | None = None
    operator: str | None = None
    executor: str | None = None
    external_executor_id: str | None = None
    last_heartbeat_at: str | None = None
    airflow: str | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class AirflowFact(Record, frozen=True, gc=False, tag="airflow_fact"):
    """
    Another row of Airflow's own history that explains a new process.

    `table` is `log` (audit: `event` is its event column), `task_reschedule`,
    `job`, `dag_run` or `log_template`; `at` is when it happened by Airflow's clock;
    `detail` holds the row's other plain columns. Of `log_template` they are `filename`
    and, where Airflow's configuration said it (`airflow-config`), the `folder` of the logs.

    `airflow` is the installation whose row it is, as of `task_reported`. Table `installation`
    is none of Airflow's: it says to which one a root (`pid`, `start_ticks`) belongs by its own
    settings, with `airflow` None where they do not tell.
    """

    table: str | None = None
    row_id: str | None = None
    event: str | None = None
    at: str | None = None
    detail: dict[str, Any] | None = None
    airflow: str | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class Lost(Record, frozen=True, gc=False, tag="lost"):
    """
    Records that the kernel or a reader dropped between two instants.

    `count` is None if nobody can know it.
    """

    count: int | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    reason: str | None = None
    extra: dict[str, Any] | UnsetType = UNSET


class Unknown(Record, frozen=True, gc=False, tag="unknown"):
    """A record of a type that this version does not know; `body` keeps all of it."""

    body: dict[str, Any] | None = None
    extra: dict[str, Any] | UnsetType = UNSET


Event = (
    Fork
    | Exec
    | Title
    | Exit
    | Reap
    | Signal
    | Oom
    | Migrate
    | Observed
    | TaskReported
    | AirflowFact
    | Lost
    | Unknown
)
