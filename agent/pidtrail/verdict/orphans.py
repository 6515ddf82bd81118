"""The rules for a process that lived on after what supervised it: run again, or just going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidtrail.clock import NS_PER_SECOND
from pidtrail.verdict.case import CLEAR_EVENTS, FINAL_STATES, Case
from pidtrail.verdict.ending import ended_in_words
from pidtrail.verdict.finding import Finding, facts_of
from pidtrail.verdict.result import told_to_stop
from pidtrail.verdict.superseded import (
    TOGETHER_NS,
    beginning,
    beside,
    last_sign,
    later_evidence,
    new_pid,
    started,
)

if TYPE_CHECKING:
    from pidtrail.events import AirflowFact
    from pidtrail.node import Node
    from pidtrail.taskrun import TaskRun


def orphan_reset(case: Case) -> Finding | None:
    """
    A scheduler took the attempt for orphaned and started it again while it still ran.

    Concludes: the next attempt was queued after this one's scheduler had ended,
    and while this one's process still lived: a new process, and for a time two.
    Or the process had outlived its scheduler and ended meanwhile, and Airflow never
    heard of it: then strong.
    Needs: the end of the scheduler, or its row in table job, which another one marked
    failed when it no longer heard it; the life of the runner, and the first sign of the
    next attempt. Or, in 3.x, the runner's being told to stop after the date at which the
    reset archived it. And no row of the attempt that gives it up for another reason:
    failed, cleared, waiting for a retry. Whose result was kept is told as in
    concurrent-duplicate.
    Cannot tell: the exact moment of the reset, only the first row that shows it.
    LocalExecutor cannot adopt (executors/local_executor.py
    try_adopt_task_instances); thresholds: scheduler_health_check_threshold,
    orphaned_tasks_check_interval.
    """
    runner, later = case.runner, started(case.later)
    if runner is None or later is None:
        return None
    queued_ns = beginning(later)
    ended = runner.node.ended_ns
    gone = [
        node
        for node in case.supervisors_dead_before(runner.node)
        if node.ended_ns is not None and node.ended_ns < queued_ns
    ]
    marked = [] if gone else marked_failed(case, later)
    since = gone[-1].ended_ns if gone else runner.node.started_ns
    if not (gone or marked) or decided_otherwise(case, since or 0, queued_ns):
        return None
    lived = case.lived_until(runner.node)
    scheduler = gone[-1] if gone else case.service_of(runner.node)
    was = f"while its process {runner.node.key.pid} lived on"
    was += "" if ended is not None else " and still runs"
    at_reset = lived >= queued_ns or told_to_stop(case, runner.node) is not None
    if not at_reset:
        apart = lived - ((scheduler.ended_ns if scheduler else None) or lived)
        if scheduler is not case.service_of(runner.node) or apart < TOGETHER_NS or archived(case):
            return None
        was = f"and its process {runner.node.key.pid}, which lived on for "
        was += f"{apart / NS_PER_SECOND:.1f} s, {ended_in_words(runner.node)} unheard"
    both, proof, unknowns = beside(case, later)
    return Finding(
        "orphan-reset", "explained", "proved" if at_reset else "strong",
        f"{case.name()} was started again as try {later.task.try_number} after its "
        f"{lost_in_words(case, scheduler, marked)}, {was}: "
        f"{new_pid(later, case.runner)}.{both}",
        [*facts_of(runner.node), *(facts_of(scheduler) if scheduler else ()), *marked, *proof,
         *later_evidence(later)],
        tuple(unknowns),
    )  # fmt: skip


def marked_failed(case: Case, later: TaskRun) -> list[AirflowFact]:
    """Return the job rows by which another scheduler took the attempt's for dead."""
    since, until = beginning(case.run), last_sign(later)
    rows = [fact for fact in case.rows_of("job") if fact.event == "failed"]
    return [fact for fact in rows if since <= fact.ts_boot_ns <= until][-1:]


def lost_in_words(case: Case, scheduler: Node | None, marked: list[AirflowFact]) -> str:
    """Return in words that a scheduler had ended, or was only taken for dead."""
    who = "scheduler" if scheduler is None else (
        f"{case.role_words(scheduler)} {scheduler.key.pid}")  # fmt: skip
    if not marked:
        return f"{who} had ended"
    return f"{who} was taken for dead (job {marked[-1].row_id} marked failed)"


def decided_otherwise(case: Case, since: int, until: int) -> bool:
    """Return whether Airflow gave the attempt up by a row between two instants, not by a reset."""
    states = {*FINAL_STATES, "up_for_retry", "restarting"}
    rows = [r for r in case.reports if r.table != "task_instance_history" and r.state in states]
    audit = case.events_named("up_for_retry", *CLEAR_EVENTS)
    return any(since <= record.ts_boot_ns <= until for record in (*rows, *audit))


def archived(case: Case) -> bool:
    """Return whether the history has the attempt's end at about that of its process."""
    ended = case.runner.node.ended_ns if case.runner is not None else None
    dates = [case.boot_ns(r.end_date) for r in case.reports if r.table == "task_instance_history"]
    return ended is not None and any(
        ns is not None and abs(ns - ended) < TOGETHER_NS for ns in dates
    )


def orphaned_still_running(case: Case) -> Finding | None:
    """
    The supervisor, worker or scheduler above the runner died; the runner lived on.

    Concludes: the process kept its PID and went on, adopted by another parent.
    Needs: the end of an ancestor that supervises, clearly before the runner's.
    Cannot tell: whether its result will be kept. With LocalExecutor nothing ends a
    runner when its scheduler dies (nothing uses PR_SET_PDEATHSIG); in 3.x a
    runner without its supervisor cannot report and exits with 126.
    """
    for runner in reversed(case.runners):
        gone = case.supervisors_dead_before(runner.node)
        if not gone:
            continue
        node = runner.node
        recorded = case.recorded_pid
        word = (
            "the PID on record all the time"
            if recorded == node.key.pid
            else f"recorded is {recorded or 'no PID'}"
        )
        adopted = node.exit.ppid if node.exit is not None else None
        by = f", adopted by process {adopted}" if adopted is not None and case.tree.node(
            node.first_parent) in gone else ""  # fmt: skip
        born_ns = node.fork.ts_boot_ns if node.fork is not None else None
        names = " and ".join(
            f"{case.role_words(n, born_ns)} {n.key.pid} {ended_in_words(n)}" for n in gone
        )
        return Finding(
            "orphaned-still-running", "explained", "proved",
            f"{names[0].upper()}{names[1:]}, and process {node.key.pid} of {case.name()} ({word}) "
            f"lived on{by}; it {ended_in_words(node)}.",
            [*facts_of(node), *(r for n in gone for r in facts_of(n)), *case.own_reports[-1:]],
        )  # fmt: skip
    return None
