"""Whose result stands in the row, where two processes ran one task instance at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pidtrail.clock import NS_PER_SECOND
from pidtrail.verdict.case import FINAL_STATES, overlap_ns
from pidtrail.verdict.ending import ended_in_words

if TYPE_CHECKING:
    from pidtrail.events import TaskReported
    from pidtrail.node import Node
    from pidtrail.verdict.case import Case

AT_ONCE_NS: Final = 2 * NS_PER_SECOND
"""Less is the winding down of a process (callbacks, listeners) that has reported already."""
WROTE_WITHIN_NS: Final = 5 * NS_PER_SECOND
"""Between a row's end_date and the end of the process that wrote it."""
NOT_KEPT: Final = "whose result was kept is undetermined"
UNKNOWN: Final = "whose result was kept: no end_date is near the end of one alone"


def at_once(case: Case, older: Node, newer: Node) -> tuple[str, list[TaskReported], list[str]]:
    """
    Return a sentence on two processes that lived at once, the rows it rests on, what is unknown.

    Empty if they did so for no more than a moment.
    """
    shared = overlap_ns(case, older, newer)
    if shared < AT_ONCE_NS:
        return "", [], []
    words, rows = kept(case, older, newer)
    by = told_to_stop(case, older, newer)
    stopped = "" if by is None else (
        f"; {older.key.pid} was told to stop by its supervisor {by.key.pid}")  # fmt: skip
    return (
        f" Both lived at once for {shared / NS_PER_SECOND:.1f} s{stopped}; {words or NOT_KEPT}.",
        rows,
        [] if words else [UNKNOWN],
    )


def kept(case: Case, older: Node, newer: Node) -> tuple[str | None, list[TaskReported]]:
    """
    Return in words whose result is in the row, None if that cannot be told, and the row.

    The end_date of the row tells, with who of the two could have written it: 2.x
    processes write it themselves and over one another, those of 3.x have it written
    by their supervisor, if that lives and was not refused. From 3.1.8 on a reset gives
    the row another id, and what is told of the id before is refused (404, 410).
    """
    runs = [case.run, *([case.later] if case.later is not None else [])]
    rows = [
        row
        for run in reversed(runs)
        for row in reversed(run.reports)
        if row.end_date is not None
        and row.state in FINAL_STATES
        and row.table != "task_instance_history"
    ][:1]
    if not rows:
        return None, []
    row = rows[0]
    wrote_ns = case.boot_ns(row.end_date) or row.ts_boot_ns
    able = [node for node in (older, newer) if may_report(case, node, newer, row)]
    near = [
        (apart, node)
        for node in able
        if node.ended_ns is not None and (apart := abs(node.ended_ns - wrote_ns)) < WROTE_WITHIN_NS
    ]
    near.sort(key=lambda pair: pair[0])
    if not near or (len(near) > 1 and near[1][0] <= WROTE_WITHIN_NS // 2):
        return None, rows
    node = near[0][1]
    return (
        f"the row's {row.state} is of {row.end_date}, when {node.key.pid} "
        f"{ended_in_words(node)}: its result was kept"
    ), rows


def may_report(case: Case, node: Node, newer: Node, row: TaskReported) -> bool:
    """Return whether the result of a process could reach a row."""
    if row.task is None or row.task.ti_id is None:
        return True
    own = [
        run.task.ti_id
        for run in (case.run, *case.siblings)
        if any(m.node is node for m in run.runners)
    ]
    if any(ti_id not in (None, row.task.ti_id) for ti_id in own):
        return False
    parents = case.chain(node)[1:2]
    if any(parent in case.supervisors_dead_before(node) for parent in parents):
        return False
    return node is newer or told_to_stop(case, node, newer) is None


def told_to_stop(case: Case, older: Node, newer: Node | None = None) -> Node | None:
    """
    Return who above a process sent it a signal once it had been given up, or None.

    A supervisor of 3.x does so when its heartbeat is refused (409, 410). That may be as
    soon as the attempt is in the history, with that date as its end, before a newer
    process is there.
    """
    given_up = [] if newer is None or newer.started_ns is None else [newer.started_ns]
    for run in (case.run, *case.siblings):
        if any(member.node is older for member in run.runners):
            archived = [r.end_date for r in run.reports if r.table == "task_instance_history"]
            given_up += [ns for date in archived if (ns := case.boot_ns(date)) is not None]
    if not given_up:
        return None
    for parent in case.chain(older)[1:]:
        for sent in older.signals:
            sender = (sent.sender_pid, sent.sender_start_ticks)
            if sender == parent.key[:2] and sent.ts_boot_ns >= min(given_up):
                return parent
    return None
