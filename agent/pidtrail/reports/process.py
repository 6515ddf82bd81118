"""One process as a reader meets it, in a terminal or as JSON: all that the tree knows of it."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from pidtrail.airflow.facts import Role
from pidtrail.clock import rfc3339
from pidtrail.correlate import correlate
from pidtrail.events import AirflowFact, Header, ProcessKey, TaskRef, TaskReported
from pidtrail.members import RUNS_USER_CODE, role_at
from pidtrail.node import Node
from pidtrail.tree import ProcessTree

TREE_SCHEMA: Final = "pidtrail.tree/1"


class Who(msgspec.Struct, frozen=True):
    """A reference to another process of the tree; `start_ticks` is None where unknown."""

    pid: int
    start_ticks: int | None


class Image(msgspec.Struct, frozen=True):
    """A program that the process became by execve; `time` is RFC 3339 in UTC."""

    time: str
    filename: str | None
    argv: list[str] | None


class Process(msgspec.Struct, frozen=True):
    """
    A process. Times are RFC 3339 in UTC, counters are of its whole life; unknown is None.

    `ppid` is the parent by the last word on it, `birth_parent` by lineage, and
    `reparented_to` is set where the two differ. `started` of a process that was
    there before tracing is as exact as its source: to a clock tick or better.
    `container`, `pod_uid` and `unit` are read from the name of its cgroup.
    `sender` is who sent the signal that ended it.
    """

    pid: int
    start_ticks: int | None
    role: str | None
    task: TaskRef | None
    ppid: int | None
    birth_parent: Who | None
    reparented_to: int | None
    creator_pid: int | None
    comm: str | None
    title: str | None
    argv: list[str] | None
    ns_pids: list[int] | None
    container: str | None
    pod_uid: str | None
    unit: str | None
    started: str | None
    ended: str | None
    exit_code: int | None
    termsig: int | None
    core_dumped: bool | None
    out_of_memory: bool
    sender: Who | None
    migrations: int | None
    voluntary_switches: int | None
    involuntary_switches: int | None
    minor_faults: int | None
    major_faults: int | None
    utime_ns: int | None
    stime_ns: int | None
    max_rss_kib: int | None
    zombie_ns: int | None
    images: list[Image]
    children: list[Who]


class TreeReport(msgspec.Struct, frozen=True):
    """What `tree --json` prints: parents come before their children, oldest first."""

    processes: list[Process]
    schema: str = TREE_SCHEMA
    host: str | None = None
    boot_id: str | None = None
    source: str | None = None
    unknowns: list[str] = []


class Label(NamedTuple):
    """What a process does for Airflow; `tasks` are all that it worked for, the last one last."""

    role: Role | None
    tasks: tuple[TaskRef, ...]


NOTHING: Final = Label(None, ())


def labels_of(
    tree: ProcessTree,
    reports: Iterable[TaskReported] = (),
    facts: Iterable[AirflowFact] = (),
) -> dict[ProcessKey, Label]:
    """Return the labels of the processes that have to do with Airflow."""
    found = correlate(tree, reports, facts)
    roles: dict[ProcessKey, Role] = {
        key: role for key, claims in found.claims.items() if (role := role_at(claims, None))
    }
    tasks: dict[ProcessKey, list[TaskRef]] = {}
    for run in found.runs:
        for member in run.members:
            key = member.node.key
            tasks.setdefault(key, []).append(run.task)
            if member.role is not Role.SUPERVISOR:
                roles[key] = member.role
    labels = {key: Label(roles.get(key), tuple(tasks.get(key, ()))) for key in {*roles, *tasks}}
    # Correlation lists so many children of an attempt and no more; the others inherit.
    for key in [k for k, label in labels.items() if label.role in RUNS_USER_CODE]:
        for child in tree.descendants(key):
            labels.setdefault(child.key, Label(Role.OPERATOR_CHILD, labels[key].tasks))
    return labels


def process_of(tree: ProcessTree, node: Node, header: Header, label: Label = NOTHING) -> Process:
    """Return one process of a tree."""
    offset = header.wall_offset_ns
    birth, parent, end = node.first_parent, tree.parent(node), node.exit
    started, ended = node.started_ns, node.ended_ns
    place = tree.place(node)
    adopted = parent is not None and birth is not None and parent.pid != birth.pid
    return Process(
        pid=node.key.pid,
        start_ticks=node.key.start_ticks,
        role=None if label.role is None else str(label.role),
        task=label.tasks[-1] if label.tasks else None,
        ppid=parent.pid if parent is not None else None,
        birth_parent=None if birth is None else Who(birth.pid, birth.start_ticks),
        reparented_to=parent.pid if parent is not None and adopted else None,
        creator_pid=node.fork.creator_pid if node.fork is not None else None,
        comm=node.comm,
        title=node.title,
        argv=node.argv,
        ns_pids=node.ns_pids,
        container=place.container_id,
        pod_uid=place.pod_uid,
        unit=place.unit,
        started=None if started is None else rfc3339(started + offset),
        ended=None if ended is None else rfc3339(ended + offset),
        exit_code=None if end is None else end.exit_code,
        termsig=None if end is None else end.termsig,
        core_dumped=None if end is None else end.core_dumped,
        out_of_memory=node.oom is not None,
        sender=sender_of(node),
        migrations=None if end is None else end.migrations,
        voluntary_switches=None if end is None else end.voluntary_switches,
        involuntary_switches=None if end is None else end.involuntary_switches,
        minor_faults=None if end is None else end.minor_faults,
        major_faults=None if end is None else end.major_faults,
        utime_ns=None if end is None else end.utime_ns,
        stime_ns=None if end is None else end.stime_ns,
        max_rss_kib=None if end is None else end.max_rss_kib,
        zombie_ns=None if node.reap is None else node.reap.zombie_ns,
        images=[
            Image(rfc3339(record.ts_boot_ns + offset), record.filename, record.argv)
            for record in node.execs
        ],
        children=[Who(child.key.pid, child.key.start_ticks) for child in tree.children(node.key)],
    )


def sender_of(node: Node) -> Who | None:
    """Return who sent the signal that ended a process; None if the kernel did, or nobody saw it."""
    if node.exit is None or node.exit.termsig is None:
        return None
    sent = [record for record in node.signals if record.sig == node.exit.termsig]
    if not sent or sent[-1].sender_pid is None:
        return None
    return Who(sent[-1].sender_pid, sent[-1].sender_start_ticks)


def tree_report(
    tree: ProcessTree,
    header: Header,
    labels: dict[ProcessKey, Label],
    keys: Iterable[ProcessKey],
    unknowns: list[str],
) -> TreeReport:
    """Return the processes `keys` of a tree as one report."""
    processes = [
        process_of(tree, tree.nodes[key], header, labels.get(key, NOTHING)) for key in keys
    ]
    return TreeReport(
        processes,
        host=header.host,
        boot_id=header.boot_id,
        source=header.source,
        unknowns=unknowns,
    )


def signal_name(number: int) -> str:
    """Return a signal's name; a real-time signal between the named ones by its distance."""
    try:
        return signal.Signals(number).name
    except ValueError:
        low = int(signal.SIGRTMIN)
        return f"SIGRTMIN+{number - low}" if number > low else f"signal {number}"


def task_label(task: TaskRef) -> str:
    """Return a task instance attempt in words: `dag.task[map] try N`; ids as they came."""
    if task.dag_id is None and task.task_id is None:
        return f"task instance {task.ti_id}"
    index = f"[{task.map_index}]" if task.map_index is not None and task.map_index >= 0 else ""
    attempt = f" try {task.try_number}" if task.try_number is not None else ""
    return f"{task.dag_id or '?'}.{task.task_id or '?'}{index}{attempt}"
