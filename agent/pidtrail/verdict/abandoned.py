"""
What is left of a scheduler's executor after the scheduler: a finding about no task instance.

LocalExecutor's workers wait on a queue whose writing end they hold themselves, so
they do not notice that nobody writes any more (executors/local_executor.py @ 2.11.2,
3.3.2), and nothing uses PR_SET_PDEATHSIG. After SIGKILL of the scheduler they, and
2.x's process that holds the queues, stay for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pidtrail.airflow.facts import Role
from pidtrail.members import role_at
from pidtrail.verdict.ending import ended_in_words
from pidtrail.verdict.model import Abandoned, Who

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidtrail.correlate import Correlation
    from pidtrail.events import ProcessKey
    from pidtrail.node import Node

EXECUTOR: Final = frozenset({Role.EXECUTOR_WORKER, Role.EXECUTOR_MANAGER})
TOGETHER_NS: Final = 5_000_000_000
"""Who ends this soon after the scheduler was stopped together with it."""


def abandoned(
    correlation: Correlation, wall: Callable[[int | None], str | None]
) -> list[Abandoned]:
    """
    Return for each scheduler that ended what its executor left behind, by end.

    Listed is who was alive when the recording ended, or had outlived its scheduler by
    five seconds. A scheduler that is asked to end waits for its workers. `wall`
    turns CLOCK_BOOTTIME into RFC 3339.
    """
    left: dict[ProcessKey, list[Node]] = {}
    for node in correlation.tree.nodes.values():
        if role(correlation, node) is None:
            continue
        for above in correlation.tree.lineage(node.key)[1:]:
            if role_at(correlation.claims.get(above.key, ()), None) is Role.SCHEDULER:
                if outlived(node, above):
                    left.setdefault(above.key, []).append(node)
                break
    schedulers = [(correlation.tree.nodes[key], nodes) for key, nodes in left.items()]
    return [
        report(scheduler, nodes, correlation, wall)
        for scheduler, nodes in sorted(schedulers, key=lambda pair: pair[0].ended_ns or 0)
    ]


def outlived(node: Node, scheduler: Node) -> bool:
    """Return whether a process went on without its scheduler."""
    if scheduler.ended_ns is None:
        return False
    return node.ended_ns is None or node.ended_ns > scheduler.ended_ns + TOGETHER_NS


def report(
    scheduler: Node,
    left: list[Node],
    correlation: Correlation,
    wall: Callable[[int | None], str | None],
) -> Abandoned:
    """Return the finding about one scheduler."""
    left = sorted(left, key=lambda node: (node.started_ns or 0, node.key.pid))
    alive = [node for node in left if node.ended_ns is None]
    pids = ", ".join(str(node.key.pid) for node in left)
    words = (
        f"The scheduler {scheduler.key.pid} {ended_in_words(scheduler)}, and what its executor had "
        f"started lived on without it: {pids}. "
    )
    if alive:
        still = "all of them" if len(alive) == len(left) else ", ".join(
            str(node.key.pid) for node in alive)  # fmt: skip
        words += (
            f"At the end of what was seen {still} still lived. They wait for work that never comes "
            "and end only if somebody ends them."
        )
    else:
        words += "By the end of what was seen all of them had ended."
    who = [
        Who(node.key.pid, node.key.start_ticks, str(role(correlation, node)), node.comm)
        for node in left
    ]
    first = Who(scheduler.key.pid, scheduler.key.start_ticks, str(Role.SCHEDULER), scheduler.comm)
    seqs = [node.exit.seq for node in (scheduler, *left) if node.exit is not None]
    return Abandoned(
        scheduler=first,
        scheduler_ended=wall(scheduler.ended_ns),
        processes=who,
        alive=[node.key.pid for node in alive],
        summary=words,
        evidence=sorted(seqs),
    )


def role(correlation: Correlation, node: Node) -> Role | None:
    """
    Return what a process is in an executor, also while a 3.x worker supervises a task.

    2.x's Manager has the title that the scheduler bore when it forked it, and says none
    itself (executors/local_executor.py start @ 2.11.2).
    """
    own = correlation.claims.get(node.key)
    if own is None and node.birth_parent is not None and node.fork is not None:
        inherited = role_at(correlation.claims.get(node.birth_parent, ()), node.fork.ts_boot_ns)
        return inherited if inherited is Role.EXECUTOR_MANAGER else None
    return next((claim.role for claim in own or () if claim.role in EXECUTOR), None)
