"""
What single processes say of themselves, and what stands between a supervisor and user code.

A claim is one word of one process; which attempt it belongs to is for
`correlate` to find out.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from pidtrail.airflow.commands import sudo_words
from pidtrail.airflow.facts import Role
from pidtrail.airflow.identify import env_task, merge
from pidtrail.airflow.lognames import LogNames
from pidtrail.attribution import facts_of
from pidtrail.events import Exec, Observed, ProcessKey, TaskRef, TaskReported, Title
from pidtrail.node import Node, when
from pidtrail.tree import ProcessTree

RUNS_USER_CODE: Final = frozenset({Role.RUNNER, Role.SUDO})
PLUGIN: Final = "plugin"
BEST_FIRST: Final = {"log": 0, PLUGIN: 1}
"""By what an attribution has all names; it is better than by a title or arguments."""


class Claim(NamedTuple):
    """
    What a process showed of itself at an instant, and in what (`by`).

    `lingers`: a title that stays on after the work, as that of a 3.3+ Celery pool process.
    """

    ts_boot_ns: int
    role: Role
    task: TaskRef | None
    by: str
    seq: int
    job_id: int | None = None
    lingers: bool = False


class Member(NamedTuple):
    """
    A process of an attempt; `by` says how it was attributed, `seq` which record proves it.

    `recorded` says whether it is the one of its chain that Airflow records: below
    a sudo of 2.x that is the process that runs user code, in 3.x the first sudo.
    """

    node: Node
    role: Role
    by: str
    seq: int | None
    recorded: bool = True


def claims_of(node: Node, names: LogNames) -> list[Claim]:
    """Return what a process showed of itself, in order of time."""
    records: list[Title | Exec | Observed] = [*node.titles, *node.execs, *node.observed]
    found = []
    for record in sorted(records, key=when):
        facts = facts_of(record)
        if facts is not None:
            by = "title" if isinstance(record, Title) else "argv"
            told = (facts.role, facts.task, by, record.seq, facts.job_id, facts.lingers)
            found.append(Claim(record.ts_boot_ns, *told))
        if isinstance(record, Observed):
            role = found[-1].role if found else Role.OTHER
            for by, task in (
                ("log", names.task(record.log_path) if record.log_path else None),
                ("env", env_task(record.env) if record.env else None),
            ):
                if task is not None:
                    role = Role.OPERATOR_CHILD if by == "env" else role
                    found.append(Claim(record.ts_boot_ns, role, task, by, record.seq))
    return found


def hear(
    tree: ProcessTree, claims: dict[ProcessKey, list[Claim]], told: Iterable[TaskReported]
) -> list[TaskReported]:
    """
    Add to the claims what processes told of themselves through the plugin, oldest first.

    Returns what is believed of it: the word of a process that was alive then, so that no
    other can be meant that had its number; that no runner started, for user code has
    no say in who runs another attempt; and that shows nothing else of itself, which
    holds against user code in the runner's own process.
    """
    believed = []
    known: dict[ProcessKey, bool | None] = {}
    for report in told:
        node = tree.node(report.key)
        if node is None or report.task is None or not node.alive_at(report.ts_boot_ns):
            continue
        own = claims.setdefault(node.key, [])
        shown = [claim.task for claim in own if claim.task is not None and claim.by != PLUGIN]
        if below_runner(tree, claims, node, known) or not all(merge(t, report.task) for t in shown):
            continue
        claim = Claim(report.ts_boot_ns, Role.RUNNER, report.task, PLUGIN, report.seq)
        insort(own, claim, key=lambda one: one.ts_boot_ns)
        known.pop(node.key, None)
        believed.append(report)
    return believed


def below_runner(
    tree: ProcessTree,
    claims: dict[ProcessKey, list[Claim]],
    node: Node,
    known: dict[ProcessKey, bool | None],
) -> bool:
    """
    Return whether an ancestor is a runner: then the title is a copy, this a child of it.

    `known` has what was found out of ancestors, as long as their claims stay the same:
    a worker has thousands of them, and as many runners.
    """
    for ancestor in tree.ancestors(node):
        key = ancestor.key
        if key not in known:
            known[key] = starts_user_code(claims.get(key, ()))
        if (starts := known[key]) is not None:
            return starts
    return False


def starts_user_code(claims: Sequence[Claim]) -> bool | None:
    """Return whether who is born of a process is user code's, by its claims; None if unknown."""
    roles = {claim.role for claim in claims if claim.task}
    if roles & RUNS_USER_CODE:
        return True
    return False if Role.SUPERVISOR in roles else None


def role_at(claims: Sequence[Claim], ts_boot_ns: int | None) -> Role:
    """
    Return the last role that was claimed up to an instant, or at all; OTHER if none was.

    Where none was up to then, the next one counts. The claims are in order of time.
    """
    until = len(claims)
    if ts_boot_ns is not None:
        until = bisect_right(claims, ts_boot_ns, key=lambda claim: claim.ts_boot_ns)
    for at in range(until - 1, -1, -1):
        claim = claims[at]
        # A log says nothing of roles; a title does, also where it is none that we know by name.
        if claim.role is not Role.OTHER:
            return claim.role
        if claim.by in {"title", "argv"}:
            break
    later = (claims[at].role for at in range(until, len(claims)))
    return next((role for role in later if role is not Role.OTHER), Role.OTHER)


def is_errand(node: Node) -> bool:
    """
    Return whether a process was forked to become a program that is none of Airflow's.

    2.x has the configuration of a run_as_user task given away and removed with
    sudo (task/task_runner/base_task_runner.py @ 2.11.2); any interpreter that
    imports Airflow calls file(1) (platform.py architecture()). A task in another
    language (3.3) is no errand: it is told where its supervisor listens
    (sdk coordinators/_subprocess.py @ 1.3.2).
    """
    if not node.execs or any(record.argv is None for record in node.execs):
        return False
    if any(facts_of(record) is not None for record in node.execs):
        return False
    return not any(word.startswith("--comm=") for word in node.execs[-1].argv or ())


def levels_of(
    tree: ProcessTree, claims: dict[ProcessKey, list[Claim]], top: Member
) -> list[Member]:
    """
    Return a runner with what sudo puts between it and the user code: itself, if nothing.

    sudo forks none, one or two levels (sudo(8), "Process model"). Below, 2.x runs
    `tasks run --raw` with its job id and records that process; 3.x has recorded
    the one that became sudo.
    """
    if top.role is not Role.SUDO:
        return [top]
    between: list[Member] = []
    node: Node | None = top.node
    while node is not None:
        children = tree.children(node.key)
        for child in children:
            said = [c for c in claims.get(child.key, ()) if c.role is Role.RUNNER]
            if said:
                inside = any(claim.job_id is not None for claim in said)
                return [
                    top._replace(recorded=not inside),
                    *between,
                    Member(child, Role.RUNNER, said[0].by, said[0].seq, recorded=inside),
                ]
        node = next((child for child in children if is_sudo(child)), None)
        if node is not None:
            between.append(Member(node, Role.SUDO, "lineage", None, recorded=False))
    return [top]


def is_sudo(node: Node) -> bool:
    """Return whether a process is sudo: by its last program, or as a fork of sudo (its monitor)."""
    argv = node.argv
    if argv:
        return sudo_words(argv) is not None
    return not node.titles and node.comm == "sudo"
