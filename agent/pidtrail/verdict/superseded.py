"""
The rules for a process that another one of the same task instance came after.

Either a later attempt (heartbeat-timeout, worker-restart, clear, retry) or a later
process under the same try number (reschedule, deferral). What lived on after what
supervised it is in `orphans`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pidtrail.clock import NS_PER_SECOND
from pidtrail.verdict.case import (
    CLEAR_EVENTS,
    FINAL_STATES,
    PARKED_STATES,
    SUPERVISING,
    WAITING_STATES,
    Case,
)
from pidtrail.verdict.ending import ENDING, HANDLED_WITHIN_NS, ended_in_words
from pidtrail.verdict.finding import Finding, facts_of, runner_facts
from pidtrail.verdict.result import at_once

if TYPE_CHECKING:
    from pidtrail.events import AirflowFact, Record, TaskReported
    from pidtrail.members import Member
    from pidtrail.node import Node
    from pidtrail.taskrun import TaskRun

HEARTBEAT_TIMEOUT: Final = "heartbeat timeout"
"""Audit name (log.event) of the scheduler's purge (scheduler_job_runner.py, 2.10 and 3.x)."""
LIMIT: Final = re.compile(r"\(([0-9]{1,9})(?:\.[0-9]{1,9})? seconds\)")
"""The limit in the `extra` of that row."""
HEARTBEAT_NS: Final = 5 * NS_PER_SECOND
"""How long before its sender's end the last heartbeat may have been: [scheduler] job_heartbeat_sec
of 2.x, [workers] min_heartbeat_interval of 3.x; both are 5 s unless set."""
TOGETHER_NS: Final = 5_000_000_000
"""A runner that ends this soon around its worker's end went down with it."""


def heartbeat_timeout(case: Case) -> Finding | None:
    """
    Airflow heard no heartbeat of the attempt for too long, and failed it or ran it again.

    Concludes: the scheduler gave the attempt up (2.x calls it a zombie), whether
    its process had died or lived on unheard.
    Needs: the audit row `heartbeat timeout`, written from the attempt's start to
    the next one's; the kernel's word on what the process was doing then. 2.x
    writes that row also at once when a process died whose job had ended, and
    names a limit that had not passed (scheduler_job_runner.py
    _find_task_instances_without_heartbeats @ 2.11.2): then it is a plain failure.
    Cannot tell: why a living process was not heard: a killed supervisor is seen,
    an api-server or database that did not answer is not. Limits: [scheduler]
    task_instance_heartbeat_timeout, in 2.x scheduler_zombie_task_threshold (300 s).
    """
    later = started(case.later)
    until = last_sign(later) if later is not None else case.ended_ns
    rows = [
        fact for fact in case.events_named(HEARTBEAT_TIMEOUT)
        if beginning(case.run) <= fact.ts_boot_ns <= until and not is_premature(case, fact)
    ]  # fmt: skip
    if not rows:
        return None
    at_ns = case.boot_ns(rows[-1].at) or rows[-1].ts_boot_ns
    runner = case.runner
    words = "none of its processes was seen"
    if runner is not None:
        ended, pid = runner.node.ended_ns, runner.node.key.pid
        words = f"its process {pid} lived on unheard; it {ended_in_words(runner.node)}"
        if ended is not None and ended <= at_ns:
            ago = (at_ns - ended) / NS_PER_SECOND
            words = f"its process {pid} {ended_in_words(runner.node)}, {ago:.1f} s before"
            before = [r for r in case.reports if r.ts_boot_ns <= at_ns][-1:]
            if any(r.state == "running" and r.recorded_pid == pid for r in before):
                words += ", and until then the row showed it as running"
        gone = case.supervisors_dead_before(runner.node)
        if gone:
            words += f" (its {case.role_words(gone[0])} {gone[0].key.pid} was dead)"
    then = ""
    if later is not None:
        then = f". Airflow ran try {later.task.try_number}: {new_pid(later, case.runner)}"
    both, proof, unknowns = beside(case, later)
    return Finding(
        "heartbeat-timeout", "explained", "proved",
        f"Airflow gave {case.name()} up for want of a heartbeat: {words}{then}.{both}",
        [*runner_facts(case), rows[-1], *proof,
         *(later_evidence(later) if later is not None else ())],
        tuple(unknowns),
    )  # fmt: skip


def beside(case: Case, later: TaskRun | None) -> tuple[str, list[TaskReported], list[str]]:
    """Return what is to be said of an attempt's process and the next attempt's living at once."""
    if case.runner is None or later is None or not later.runners:
        return "", [], []
    return at_once(case, case.runner.node, later.runners[0].node)


def is_premature(case: Case, fact: AirflowFact) -> bool:
    """Return whether Airflow speaks of a limit that no heartbeat can have been late by."""
    limit = LIMIT.search(str((fact.detail or {}).get("extra")))
    if limit is None or case.runner is None:
        return False
    node = case.runner.node
    gone = [n.ended_ns for n in case.chain(node)[1:] if case.role(n) in SUPERVISING]
    ends = [ns for ns in (node.ended_ns, *gone) if ns is not None]
    at_ns = case.boot_ns(fact.at) or fact.ts_boot_ns
    heard_ns = min((ns for ns in ends if ns <= at_ns), default=None)
    limit_ns = int(limit[1]) * NS_PER_SECOND
    # Nobody sends a heartbeat for a dead process, and a dead supervisor sends none.
    return heard_ns is not None and at_ns - heard_ns < limit_ns - max(limit_ns // 10, HEARTBEAT_NS)


def worker_restart(case: Case) -> Finding | None:
    """
    The process went down with its worker or scheduler, and a new attempt began below another one.

    Concludes: the runner ended within seconds of its supervisor, worker or
    scheduler, or while that was being stopped, and the next attempt descends from
    another scheduler or Celery worker, or was recorded on another host.
    Needs: both ends, and the lineage of the next attempt's process or its hostname.
    Cannot tell: who restarted the service, unless it descends from what is traced;
    a restarted Celery worker from another one that took the next attempt.
    """
    runner, later = case.runner, started(case.later)
    if runner is None or later is None or runner.node.ended_ns is None:
        return None
    down = [n for n in case.chain(runner.node)[1:] if went_down(n, runner.node.ended_ns)]
    mine = case.service_of(runner.node)
    where = elsewhere(case, mine, later)
    if not down or mine is None or where is None:
        return None
    born = runner.node.fork
    role = case.role_words(down[0], born.ts_boot_ns if born is not None else None)
    return Finding(
        "worker-restart", "explained", "proved" if later.runners else "strong",
        f"Process {runner.node.key.pid} of {case.name()} {ended_in_words(runner.node)} together "
        f"with its {role} {down[0].key.pid}; {where} ran try "
        f"{later.task.try_number}: {new_pid(later, case.runner)}.",
        [*facts_of(runner.node), *facts_of(down[0]), *later_evidence(later)],
    )  # fmt: skip


def went_down(node: Node, ended_ns: int) -> bool:
    """Return whether a process ended at about an instant, or had been asked to before it."""
    if node.ended_ns is None:
        return False
    asked = [s.ts_boot_ns for s in node.signals if s.sig in ENDING and s.ts_boot_ns <= ended_ns]
    return abs(node.ended_ns - ended_ns) < TOGETHER_NS or (
        bool(asked) and ended_ns <= node.ended_ns < asked[-1] + HANDLED_WITHIN_NS
    )


def elsewhere(case: Case, mine: Node | None, later: TaskRun) -> str | None:
    """Return in words which other service or host ran a later attempt, None for the same one."""
    if later.runners:
        other = case.service_of(later.runners[0].node)
        if mine is None or other is None or other.key == mine.key:
            return None
        role = case.role_words(other)
        after = other.started_ns is not None and other.started_ns > (mine.started_ns or 0)
        began = " that was started after it" if after else ""
        return f"the {role}{began} ({other.key.pid})"
    named = [r.hostname for r in later.reports if case.is_elsewhere(r.hostname)]
    return f"host {named[-1]}" if named else None


def clear(case: Case) -> Finding | None:
    """
    Somebody cleared the task instance, and Airflow ran it again as a new process.

    Concludes: the next attempt began although this one did not ask for a retry.
    Needs: a row in state `restarting`, an audit row of a clear, or a final state
    before the next attempt.
    Cannot tell: who cleared it, unless the audit row names the owner.
    """
    later = started(case.later)
    if later is None:
        return None
    since, until = beginning(case.run), last_sign(later)
    rows = [f for f in case.events_named(*CLEAR_EVENTS) if since <= f.ts_boot_ns <= until]
    live = [r for r in case.reports if r.table != "task_instance_history"]
    decided = [r for r in live if r.state in FINAL_STATES or r.state == "restarting"]
    if not rows and not decided:
        return None
    why = f"audit row `{rows[-1].event}`" if rows else f"state {decided[-1].state} before it"
    owner = (rows[-1].detail or {}).get("owner") if rows else None
    by = f" by user {owner}" if owner else ""
    return Finding(
        "clear", "explained", "proved",
        f"{case.name()} was cleared{by} ({why}) and ran again as try {later.task.try_number}: "
        f"{new_pid(later, case.runner)}.",
        [*runner_facts(case), *rows, *decided[-1:], *later_evidence(later)],
    )  # fmt: skip


def retry(case: Case) -> Finding | None:
    """
    The attempt failed and Airflow retried it: a new attempt is a new process with a new PID.

    Concludes: a later attempt superseded this one, after this one had failed.
    Needs: a later attempt that started, and the failure: state up_for_retry, a
    history row of the failed try, the process's own word through the plugin, or the
    runner's exit.
    Cannot tell: why the user code failed. In 3.x a runner whose task failed may
    still exit with 0, so the row's word counts.
    """
    later = started(case.later)
    if later is None:
        return None
    said = [
        r for r in case.reports
        if r.state == "up_for_retry"
        or (r.table == "task_instance_history" and r.state in {"failed", "up_for_retry"})
    ]  # fmt: skip
    said += [told for told in case.run.told if told.state in {"failed", "up_for_retry", None}]
    runner = case.runner
    failed = (
        runner is not None
        and runner not in case.refused
        and runner.node.exit is not None
        and runner.node.exit.wstatus != 0
    )
    if not said and not failed and not case.events_named("up_for_retry"):
        return None
    words = ended_in_words(runner.node) if runner is not None else "was not seen"
    pid = runner.node.key.pid if runner is not None else "?"
    return Finding(
        "retry", "explained", "proved" if said else "strong",
        f"{case.name()} failed (process {pid} {words}) and was retried as try "
        f"{later.task.try_number}: {new_pid(later, case.runner)}.",
        [*runner_facts(case), *said[-1:], *later_evidence(later)],
    )  # fmt: skip


def reschedule(case: Case) -> Finding | None:
    """
    A sensor in mode reschedule: each poke is a process of its own, under one try number.

    Concludes: the attempt has had several processes one after the other, or waits
    between two, because it gave up its slot between pokes.
    Needs: state up_for_reschedule or rows of task_reschedule, and the processes.
    Cannot tell: the pids of pokes that ran before we looked: Airflow overwrites
    them in place and keeps none (task_reschedule has no pid column).
    """
    rows: list[Record] = [r for r in case.reports if r.state == "up_for_reschedule"]
    rows += [*case.rows_of("task_reschedule"), *case.events_named("up_for_reschedule")]
    return several(case, "reschedule", "a poke of a rescheduling sensor", rows)


def deferral(case: Case) -> Finding | None:
    """
    The task deferred itself: it waits without any process and resumes as a new one.

    Concludes: the attempt has had several processes one after the other under one
    try number, or has none now, because it was deferred to the triggerer.
    Needs: state deferred (or a trigger, or the audit row), and the processes.
    Cannot tell: what the trigger waited for. While it is deferred the row shows
    the pid of the process before, which has ended.
    """
    rows: list[Record] = [r for r in case.reports if r.state == "deferred"]
    rows += case.events_named("deferred")
    return several(case, "deferral", "a run up to a deferral or after it", rows)


def several(case: Case, code: str, what: str, rows: list[Record]) -> Finding | None:
    """Conclude that an attempt had one process per `what`, or waits between two."""
    last = case.last_report
    waits = last is not None and last.state in PARKED_STATES
    if not rows or (len(case.runners) < 2 and not waits):
        return None
    pids = ", ".join(str(m.node.key.pid) for m in case.runners) or "none seen"
    recorded = ", ".join(map(str, case.recorded_pids)) or "none"
    now = " It waits now, and the row shows a process that has ended." if waits else ""
    number = len(case.runners)
    ran = f"one process so far, {what}" if number == 1 else (
        f"{number} processes under one try number, each {what}")  # fmt: skip
    return Finding(
        code, "explained", "proved",
        f"{case.name()} ran as {ran}: {pids}; recorded in turn: {recorded}.{now}",
        [*runner_facts(case), *rows[:1], *rows[-1:]],
    )  # fmt: skip


def started(run: TaskRun | None) -> TaskRun | None:
    """Return an attempt if it has begun: a process, or a row that is past waiting."""
    if run is None:
        return None
    begun = any(r.state not in WAITING_STATES | {"up_for_retry"} for r in run.reports)
    return run if run.runners or begun else None


def beginning(run: TaskRun) -> int:
    """Return CLOCK_BOOTTIME of the first sign of an attempt."""
    signs = [r.ts_boot_ns for r in run.reports[:1]]
    signs += [m.node.started_ns for m in run.runners if m.node.started_ns is not None]
    return min(signs, default=0)


def last_sign(run: TaskRun) -> int:
    """Return CLOCK_BOOTTIME of when an attempt had certainly begun."""
    signs = [r.ts_boot_ns for r in run.reports if r.state not in WAITING_STATES][:1]
    signs += [m.node.started_ns for m in run.runners[:1] if m.node.started_ns is not None]
    return max(signs, default=0)


def new_pid(run: TaskRun, before: Member | None = None) -> str:
    """Return in words under which PID an attempt ran, after one that had another, or the same."""
    if run.runners:
        pid = run.runners[0].node.key.pid
        if before is not None and before.node.key.pid == pid:
            return f"a new process, to which the kernel gave the same PID {pid}"
        return f"a new process, PID {pid}"
    pids = [r.recorded_pid for r in run.reports if r.recorded_pid is not None]
    return f"a new process, recorded as PID {pids[-1]}" if pids else "a new process"


def later_evidence(run: TaskRun) -> list[Record]:
    """Return the records that prove that an attempt began."""
    members: list[Member] = run.runners[:1]
    reports: list[TaskReported] = run.reports[:1]
    return [*(record for m in members for record in facts_of(m.node)), *reports]
