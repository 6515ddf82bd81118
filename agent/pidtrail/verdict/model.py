"""
The form of a verdict, schema `pidtrail.verdict/1`.

Everything a reader needs to check it is in it: what Airflow recorded, which
processes there were, which records (by seq) prove it, and what is not known.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from pidtrail.events import TaskRef

VERDICT_SCHEMA: Final = "pidtrail.verdict/1"

Outcome = Literal["match", "explained", "conflict", "undetermined"]
Confidence = Literal["proved", "strong", "weak"]


class Who(msgspec.Struct, frozen=True):
    """A process by number, and its role where it has one."""

    pid: int | None
    start_ticks: int | None = None
    role: str | None = None
    comm: str | None = None


class KilledBy(msgspec.Struct, frozen=True):
    """
    How a process ended.

    `oom`: the kernel chose it as its victim; `signal`: someone sent it, `sender`
    is None if that was the kernel, and without pid if it was not seen; `self`: it
    raised the signal itself (a fault, abort()); `exit`: it called exit. `why` is what
    Airflow's records tell of the reason or, where the kernel sent SIGKILL, whose end
    it was for: that of process 1 of a PID namespace. None where nothing is told.
    """

    kind: Literal["oom", "signal", "self", "exit"]
    sig: int | None = None
    sender: Who | None = None
    why: str | None = None


class ProcessReport(msgspec.Struct, frozen=True):
    """
    One process of a task instance attempt. Times are RFC 3339 in UTC.

    `chain` is the lineage by birth upwards from this process, itself first.
    `reparented_to` is the pid of who had adopted it when it ended. Counters are
    None while it lives and where the source cannot count. `ns_pids` are its numbers
    in all nested PID namespaces, outermost first. `container` (its id in full),
    `pod_uid` and `unit` (of systemd) are read from its cgroup's name. `core_dumped` is
    bit 7 of the wait status: whether the kernel wrote all that it could of it (core(5)).
    """

    role: str
    pid: int | None
    start_ticks: int | None
    birth_parent: Who | None = None
    chain: list[Who] = []
    identified_by: str | None = None
    started: str | None = None
    ended: str | None = None
    exit_code: int | None = None
    termsig: int | None = None
    killed_by: KilledBy | None = None
    migrations: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None
    major_faults: int | None = None
    zombie_ns: int | None = None
    reparented_to: int | None = None
    ns_pids: list[int] | None = None
    title: str | None = None
    container: str | None = None
    pod_uid: str | None = None
    unit: str | None = None
    core_dumped: bool | None = None


class Recorded(msgspec.Struct, frozen=True):
    """
    What Airflow recorded, each time it was another pid or state; `seen_at` is our clock.

    `external_executor_id` is the executor's own name of the attempt: with Celery the
    message's id. Over the REST API it is not to be had.
    """

    pid: int | None
    hostname: str | None
    state: str | None
    via: str | None
    seen_at: str | None
    try_number: int | None = None
    table: str | None = None
    external_executor_id: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """
    The judgement of one task instance attempt; see design section 8 for the codes.

    `boot_id` is there only where it is another than the report's, `airflow`, the address of the
    database, only where the attempts may be of several installations; None if it is not known
    of which.
    """

    task: TaskRef
    recorded: list[Recorded]
    processes: list[ProcessReport]
    code: str
    outcome: Outcome
    confidence: Confidence
    pid_changed_in_kernel: bool
    summary: str
    evidence: list[int]
    unknowns: list[str]
    boot_id: str | UnsetType = UNSET
    airflow: str | UnsetType | None = UNSET


class Abandoned(msgspec.Struct, frozen=True):
    """
    What a scheduler's executor left behind: processes that nobody gives work or ends.

    `alive` are the pids of those that lived when the recording ended; times are RFC 3339.
    """

    scheduler: Who
    scheduler_ended: str | None
    processes: list[Who]
    alive: list[int]
    summary: str
    evidence: list[int]


class Report(msgspec.Struct, frozen=True):
    """
    All verdicts of a stream, as `explain --json` prints them.

    `pid_ns` is the inode of the PID namespace whose numbers each `pid` of a process is.
    `left_out` is how many verdicts there are besides, of attempts that nobody asked about.
    """

    verdicts: list[Verdict]
    schema: str = VERDICT_SCHEMA
    host: str | None = None
    boot_id: str | None = None
    source: str | None = None
    unknowns: list[str] = []
    abandoned: list[Abandoned] = []
    pid_ns: int | None = None
    left_out: int | UnsetType = UNSET
