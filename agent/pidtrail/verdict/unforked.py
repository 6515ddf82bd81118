"""Whether a supervisor of 2.x ended without having started anything: no user code ran then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pidtrail.airflow.facts import Role
from pidtrail.clock import NS_PER_SECOND
from pidtrail.taskrun import speaks_of
from pidtrail.verdict.ending import ended_in_words
from pidtrail.verdict.finding import Finding, facts_of
from pidtrail.verdict.sudo import failed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pidtrail.events import TaskReported
    from pidtrail.node import Node
    from pidtrail.verdict.case import Case

BEGUN: Final = frozenset({"queued", "running", "restarting", "failed", "up_for_retry"})
"""What a row says whose supervisor has ended before it forked, before and after Airflow noticed."""
UNTOLD: Final = (
    "why its supervisor ended: its words stand in the log of the executor, which is the "
    "scheduler's or the Celery worker's"
)


def unforked(case: Case) -> Finding | None:
    """Conclude that a supervisor started no process, None if there was no such."""
    fidelity = case.scope.header.fidelity
    row = case.last_report
    if (
        case.runners
        or case.task.ti_id is not None
        or case.recorded_pid is not None
        or row is None
        or row.state not in BEGUN
        or not (fidelity.has_titles and fidelity.sees_short_lived)
    ):
        return None
    found = supervisors_of(case)
    if not found or any(not is_barren(case, node) for node in found):
        return None
    node = found[-1]
    lived = ((node.ended_ns or 0) - (node.started_ns or 0)) / NS_PER_SECOND
    return Finding(
        "aborted-start", "explained", "proved",
        f"No user code of {case.name()} ran: its supervisor {node.key.pid} {ended_in_words(node)} "
        f"after {lived:.1f} s without having started a process; no PID is recorded, and the row "
        f"says {row.state}.",
        [*facts_of(node), row],
        (UNTOLD,),
    )  # fmt: skip


def is_barren(case: Case, node: Node) -> bool:
    """
    Return whether a process was seen from its birth to its end, failed, and forked nobody.

    Who exits with 0 was refused: another process may have the attempt.
    """
    return node.fork is not None and failed(node) and not case.tree.children(node.key)


def supervisors_of(case: Case) -> list[Node]:
    """
    Return who called himself supervisor of the attempt, oldest first.

    2.x names no try in that title: of this one is who began after the end of the one
    before, and before its own.
    """
    after = ends(case, [report for run in case.earlier[:1] for report in run.reports])
    before = ends(case, case.reports)
    found = []
    for key, claims in case.claims.items():
        said = [claim for claim in claims if claim.role is Role.SUPERVISOR]
        if not said or not all(c.task and speaks_of(c.task, case.task) for c in said):
            continue
        node = case.tree.nodes[key]
        started_ns = node.started_ns or 0
        if (not after or started_ns > after[-1]) and (not before or started_ns <= before[-1]):
            found.append(node)
    return sorted(found, key=lambda node: node.started_ns or 0)


def ends(case: Case, reports: Iterable[TaskReported]) -> list[int]:
    """Return when rows say that attempts ended, in order: CLOCK_BOOTTIME."""
    return sorted(ns for report in reports if (ns := case.boot_ns(report.end_date)) is not None)
