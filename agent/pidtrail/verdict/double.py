"""The rules for two starts of one attempt: two at once, one refused, one failed by mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pidtrail.clock import NS_PER_SECOND
from pidtrail.verdict.case import PARKED_STATES, overlap_ns
from pidtrail.verdict.ending import ended_in_words
from pidtrail.verdict.finding import Finding, facts_of, runner_facts
from pidtrail.verdict.result import AT_ONCE_NS, NOT_KEPT, UNKNOWN, kept, told_to_stop
from pidtrail.verdict.sudo import unstarted
from pidtrail.verdict.superseded import later_evidence
from pidtrail.verdict.unforked import unforked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pidtrail.events import AirflowFact, TaskReported
    from pidtrail.members import Member
    from pidtrail.node import Node
    from pidtrail.verdict.case import Case

TOLD_WITHIN_NS: Final = 15 * NS_PER_SECOND
"""Between the reaping of a process and the scheduler's handling of the executor's event."""
UNREAPED_NS: Final = NS_PER_SECOND
"""Longer is not an ordinary collection; 3.x supervisors sleep up to their heartbeat, 5 s."""
CLOCKS_NS: Final = NS_PER_SECOND // 2
NOT_STARTED: Final = "Airflow refused the start, or its API could not be reached"
STATE_MISMATCH: Final = "state mismatch"


def concurrent_duplicate(case: Case) -> Finding | None:
    """
    Two processes ran the same task instance at the same time: a real duplicate.

    Concludes: two runners of one try, or of two tries, lived at once for more
    than a moment, and this attempt has no better reason (orphan-reset, clear, …)
    on its own account.
    Needs: births and ends of both from the kernel; for whose result was kept, the
    row's end_date near the end of one of them, and that one's being able to write
    it: in 2.x every runner is, in 3.x none without supervisor, none that was told
    to stop, none of an id that is no longer the row's.
    Cannot tell: who started it twice (a broker that redelivers, two schedulers, a
    reset), nor what both did to the outside world.
    """
    for one, other, tries in doubles(case):
        shared = overlap_ns(case, one.node, other.node)
        if shared < AT_ONCE_NS:
            continue
        result, proof = kept(case, one.node, other.node)
        pids = f"Processes {one.node.key.pid} and {other.node.key.pid} ran {case.name()}"
        if tries is not None:
            pids = (
                f"Processes {one.node.key.pid} (try {tries[0]}) and {other.node.key.pid} "
                f"(try {tries[1]}) ran {case.name(attempt=False)}"
            )
        return Finding(
            "concurrent-duplicate", "conflict", "proved",
            f"{pids} at the same time for {shared / NS_PER_SECOND:.1f} s; {result or NOT_KEPT}.",
            [*facts_of(one.node), *facts_of(other.node), *proof],
            () if result else (UNKNOWN,),
        )  # fmt: skip
    return None


def doubles(case: Case) -> Iterator[tuple[Member, Member, tuple[int | None, int | None] | None]]:
    """Yield pairs of runners that would be one too many, older first, and their tries if two."""
    runners = case.runners
    for index, one in enumerate(runners):
        for other in runners[index + 1 :]:
            # What runs below sudo is no second runner.
            if one.node not in case.chain(other.node):
                yield one, other, None
    if case.runner is None:
        return
    if case.later is not None and case.later.runners:
        tries = case.task.try_number, case.later.task.try_number
        yield case.runner, case.later.runners[0], tries
    for run in case.earlier[:1]:
        for member in run.runners[-1:]:
            # Its own supervisor ends a process because of a newer one (409, 410).
            if told_to_stop(case, member.node, case.runners[0].node) is None:
                yield member, case.runners[0], (run.task.try_number, case.task.try_number)


def aborted_start(case: Case) -> Finding | None:
    """
    A process was started for the attempt, was not let go on, and ended before any user code.

    Concludes: in 3.x the supervisor forks first and asks then; a start that the
    API refuses (409: not queued, already running), or about which it cannot be
    asked, leaves a process that has lived and was never recorded. The record is of
    another process, or of none. Or, in both versions, sudo was to start a task with
    run_as_user and refused: 3.x has recorded that sudo, 2.x nothing, and its row may
    go on saying running. Or a supervisor of 2.x ended before it forked: it could not load the
    DAG's file, say, and the executor then reports an end while the row is still queued.
    Needs: that process's birth, SIGKILL from its own supervisor and nobody else,
    no child of its own, and rows of the attempt that never carried its pid. Of sudo
    its arguments and its end, and that nothing below it executed the command. Of a
    supervisor its birth, its title and that it failed, no child of its own, no recorded pid.
    Cannot tell: the API's answer itself, nor whether there was one: a refusal stands in
    the api-server's log as `Cannot start Task Instance in invalid state`; without an
    answer the supervisor tries for some 10 to 60 s (`[workers] execution_api_retries`).
    Nor sudo's reason, which stands in the log of the task, nor the supervisor's, which
    stands in that of the executor.
    """
    if (by_nobody := unstarted(case) or unforked(case)) is not None:
        return by_nobody
    if not case.refused:
        return None
    member = case.refused[-1]
    node = member.node
    lived = ((node.ended_ns or 0) - (node.started_ns or 0)) / NS_PER_SECOND
    parent = node.birth_parent.pid if node.birth_parent is not None else "?"
    others = [m for m in case.runners if m not in case.refused]
    ran = f"process {others[-1].node.key.pid} ran it" if others else "no process ran it here"
    recorded = f"recorded is {case.recorded_pid}" if case.recorded_pid else "no PID is recorded"
    sent = [s for s in node.signals if s.sender_pid is not None]
    return Finding(
        "aborted-start", "explained", "proved" if sent else "strong",
        f"Process {node.key.pid} was started for {case.name()} and killed by its supervisor "
        f"{parent} after {lived:.1f} s, before it could run user code: {NOT_STARTED}; "
        f"{ran}, {recorded}.",
        [*runner_facts(case), *facts_of(node), *sent[-1:], *case.reports[-1:]],
    )  # fmt: skip


def stale_executor_event(case: Case) -> Finding | None:
    """
    Airflow failed the attempt on the word of a process that had ended well before.

    Concludes: a poke or a deferred run ended and stayed unreaped; its executor
    told of the end only then, when the next process of the same try was already
    queued, and Airflow took that for a failure. What ran next was failed before
    it had ended, or before it began.
    Needs: the end and the reaping of the earlier process, the row's failure right
    after the reaping, and a next process that outlived the failure, or a row that
    was queued for one. The audit row `state mismatch` makes it proved.
    Cannot tell: why the reaping was late; 3.x supervisors leave a process up to
    5 s (sdk execution_time/supervisor.py @ 1.3.2). Airflow issue #66374: 3.3.2
    guards neither a queued nor a running row (scheduler_job_runner.py
    process_executor_events).
    """
    if not any(r.state in PARKED_STATES for r in case.reports) and not case.events_named(
        "up_for_reschedule", "deferred"
    ):
        return None
    rows = case.events_named(STATE_MISMATCH)
    for index, member in enumerate(case.runners):
        following = case.runners[index + 1 : index + 2]
        for row in case.reports:
            if row.state not in {"failed", "up_for_retry"}:
                continue
            failed_ns = case.boot_ns(row.end_date) or row.ts_boot_ns
            if is_late(case, member.node, row, following, failed_ns, told=bool(rows)):
                return late_finding(case, member.node, row, following, rows)
    return None


def is_late(  # noqa: PLR0913 (two processes, a row, and what was told of it)
    case: Case,
    node: Node,
    row: TaskReported,
    following: list[Member],
    failed_ns: int,
    *,
    told: bool,
) -> bool:
    """Return whether a failure of a row followed the late reaping of an earlier process."""
    if node.ended_ns is None or node.reap is None:
        return False
    reaped_ns = node.reap.ts_boot_ns
    if not reaped_ns - CLOCKS_NS <= failed_ns <= reaped_ns + TOLD_WITHIN_NS:
        return False
    if (node.reap.zombie_ns or 0) < UNREAPED_NS and not told:
        return False
    if following:
        ended = following[0].node.ended_ns
        return ended is None or ended > failed_ns + CLOCKS_NS
    return any(
        r.state == "queued" and node.ended_ns <= r.ts_boot_ns <= row.ts_boot_ns
        for r in case.reports
    )


def late_finding(
    case: Case, node: Node, row: TaskReported, following: list[Member], rows: list[AirflowFact]
) -> Finding:
    """Return the finding of a stale event."""
    zombie = (node.reap.zombie_ns or 0) / NS_PER_SECOND if node.reap is not None else 0
    failed_ns = case.boot_ns(row.end_date) or row.ts_boot_ns
    late = (failed_ns - (node.ended_ns or failed_ns)) / NS_PER_SECOND
    said = f" (audit row `{STATE_MISMATCH}` of {rows[-1].at})" if rows else ""
    then = "the next one was queued"
    if case.refused:
        then += f"; the process that was started for that, {case.refused[-1].node.key.pid}, was"
        then += " refused and killed"
    if following:
        later = following[0].node
        begun = later.started_ns or 0
        was = "was running" if begun < failed_ns else "was about to start"
        then = f"the next one, {later.key.pid}, {was} and {ended_in_words(later)}"
    return Finding(
        "stale-executor-event", "conflict", "proved" if rows else "strong",
        f"Process {node.key.pid} of {case.name()} {ended_in_words(node)} and stayed unreaped for "
        f"{zombie:.1f} s; the executor told of it only then, and Airflow marked the attempt "
        f"{row.state} {late:.1f} s after that end{said}, while {then}.",
        [
            *runner_facts(case), *([node.reap] if node.reap is not None else []), row, *rows[-1:],
            *(later_evidence(case.later) if case.later is not None else ()),
        ],
    )  # fmt: skip
