"""
The rules for a number that belongs to another level of the chain of processes.

Airflow 2.x compares the pid on record, or its parent's, with the first process
below the supervisor; 3.x records that first process. With run_as_user there is
sudo in between, on zero, one or two levels (sudo(8), "Process model").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidtrail.airflow.commands import sudo_words
from pidtrail.airflow.facts import Role
from pidtrail.attribution import facts_of as said_by
from pidtrail.members import is_sudo
from pidtrail.verdict.case import command_of
from pidtrail.verdict.ending import ended_in_words, killed_by, signal_name
from pidtrail.verdict.finding import Finding, facts_of

if TYPE_CHECKING:
    from pidtrail.events import Exec, Observed, Record
    from pidtrail.members import Member
    from pidtrail.node import Node
    from pidtrail.verdict.case import Case
    from pidtrail.verdict.model import Confidence


def ancestor_recorded(case: Case) -> Finding | None:
    """
    Another process of the same chain was recorded or compared: one above the runner.

    Concludes: the recorded pid is the runner's supervisor, worker, or another
    ancestor, alive at the same time. Nothing changed its PID; two processes are
    taken for one.
    Needs: the runner's lineage by birth from the kernel.
    Cannot tell: who wrote it. Airflow 2.3.4 to 3.3.2 records the runner, or in 3.x the
    sudo that it starts, and never a process above: a plugin, an operator or a
    person did. Up to 2.3.3 Airflow itself compared with one while the pid was NULL,
    and a message has such a number, not the row.
    """
    runner, pid = case.runner, case.recorded_pid
    if runner is None or pid is None or case.runner_with(pid) is not None:
        return None
    for ancestor in case.chain(runner.node)[1:]:
        if pid in ancestor.numbers and not is_sudo(ancestor):
            # What it was then: a worker of 3.x supervises one task after the other.
            born = runner.node.fork
            role = case.role_words(ancestor, born.ts_boot_ns if born is not None else None)
            here = "".join(f" ({words})" for words in number_here(ancestor, pid))
            return Finding(
                "ancestor-recorded", "explained", sure(case),
                f"Recorded PID {pid}{here} is the {role} above process "
                f"{runner.node.key.pid}, which ran {case.name()}: two processes of one chain, and "
                f"neither changed its PID.",
                [*facts_of(runner.node), *facts_of(ancestor), *case.own_reports[-1:]],
            )  # fmt: skip
    return None


def descendant_observed(case: Case) -> Finding | None:
    """
    Another process of the same chain was recorded or asked for: one below the runner.

    Concludes: the recorded pid is a child that the task started (a shell, another
    interpreter, a worker of multiprocessing). Nothing changed its PID; two
    processes are taken for one.
    Needs: the lineage of that process from the kernel, up to the runner.
    Cannot tell: who recorded it. Airflow itself records the runner and never a
    child of it, so a plugin, an operator or a person did, or somebody asks about
    a number that he saw in `ps` (`explain --pid`).
    """
    runner, pid = case.runner, case.recorded_pid
    if runner is None or pid is None or case.runner_with(pid) is not None:
        return None
    if any(is_sudo(member.node) for member in case.runners):
        return None
    return child_finding(case, pid, "Recorded PID", sure(case))


def number_here(node: Node, pid: int) -> list[str]:
    """Return in words which number a process has here, none where it is the same."""
    return [] if pid == node.key.pid else [f"process {node.key.pid} here"]


def sure(case: Case) -> Confidence:
    """Return how sure it is that a recorded number is of this host, or of its containers."""
    rows = [row for row in case.own_reports if row.recorded_pid is not None]
    return "strong" if rows and case.is_elsewhere(rows[-1].hostname) else "proved"


def descendant_asked(case: Case, pid: int) -> Finding | None:
    """Conclude that a number somebody asks about is a child's, and the runner is another's."""
    ran = {number for member in case.run.runners for number in member.node.numbers}
    if pid in ran or pid in case.recorded_pids:
        return None
    recorded = f"; recorded is {case.recorded_pid}" if case.recorded_pid is not None else ""
    return child_finding(case, pid, "PID", "proved", recorded)


def child_finding(
    case: Case, pid: int, what: str, confidence: Confidence, recorded: str = ""
) -> Finding | None:
    """Return the finding that a number is that of a child of a runner, None if it is not."""
    for member in reversed(case.runners):
        for child in case.tree.descendants(member.node.key):
            if pid in child.numbers:
                called = "; ".join([child.comm or "no name seen", *number_here(child, pid)])
                return Finding(
                    "descendant-observed", "explained", confidence,
                    f"{what} {pid} ({called}) is a child below process "
                    f"{member.node.key.pid}, which ran {case.name()}{recorded}: two processes of "
                    f"one chain, and neither changed its PID.",
                    [*facts_of(member.node), *facts_of(child), *case.own_reports[-1:]],
                )  # fmt: skip
    return None


def impersonation(case: Case) -> Finding | None:
    """
    The task runs as another user, and a level of the chain that sudo adds was compared.

    Concludes: the number on record and the one it was compared with are two
    processes of one chain. 2.x takes the parent of the recorded process for it and
    compares that with the process its supervisor started: right if sudo forked
    once; a false alarm if sudo forked twice (a pty, I/O logging), executed the task
    directly (no pam_session, no pty), or was not needed (run_as_user equal to the
    own user). The process on record is the one that ran the task.
    Needs: the chain from the supervisor down, with the program that each level
    executed. A 2.x runner that was exec'ed, with its job id, proves run_as_user or
    default_impersonation: all others are forked.
    Cannot tell: whether a heartbeat came in the runner's life, and so whether
    the message was printed. Up to 2.10.0 it killed the task; 2.10.1 and newer
    only warn, and 3.x compares no parents (local_task_job_runner.py
    heartbeat_callback @ 2.10.5).
    """
    runner, pid = case.runner, case.recorded_pid
    if runner is None or pid is None:
        return None
    levels = case.levels(runner)
    if pid == runner.node.key.pid:
        return parent_compared(case, levels)
    if pid not in {node.key.pid for node in levels}:
        return None
    return Finding(
        "impersonation", "explained", "proved",
        f"Recorded PID {pid} is one of the chain {chain_in_words(levels)} in which {case.name()} "
        f"ran: Airflow recorded {runner.node.key.pid} of it, and neither changed its PID.",
        [*levels_facts(levels), *case.own_reports[-1:]],
    )  # fmt: skip


def parent_compared(case: Case, levels: list[Node]) -> Finding | None:
    """Conclude that 2.x compares a wrong parent with what it started; None if the right one."""
    node = levels[-1]
    parent = case.tree.node(node.birth_parent)
    if not is_raw(node) or parent is None or parent is levels[0]:
        return None
    if len(levels) == 1 and case.role(parent) is not Role.SUPERVISOR:
        return None
    if len(levels) > 1:
        how = f"below sudo on {len(levels) - 1} levels ({chain_in_words(levels)})"
    elif was_sudo(node):
        how = "and sudo executed it directly, without a process of its own"
    else:
        how = "with run_as_user but no sudo in between"
    ended = killed_by(node, case.tree, lambda other, ns: str(case.role(other, ns)))
    sender = ended.sender if ended is not None else None
    killed = ""
    if ended is not None and sender is not None and sender.pid == case.chain(levels[0])[1].key.pid:
        killed = f" {signal_name(ended.sig)} came from that supervisor, as up to 2.10.0 it does."
    kind = case.role(parent) if len(levels) == 1 else Role.SUDO
    return Finding(
        "impersonation", "explained", "proved",
        f"Recorded PID {node.key.pid} is the process that ran {case.name()}, {how}; at every "
        f"heartbeat Airflow 2.x takes its parent, {kind} {parent.key.pid}, for the recorded "
        f"process and compares it with {levels[0].key.pid}: a false alarm. It "
        f"{ended_in_words(node)}.{killed}",
        [*facts_of(parent), *levels_facts(levels), *case.own_reports[-1:]],
    )  # fmt: skip


def way_in_words(case: Case, runner: Member) -> str:
    """Return how the recorded process came to run user code, where that is not the plain way."""
    levels = case.levels(runner)
    command = command_of(runner.node)
    if command in {"tasks test", "dags test"}:
        return f": `airflow {command}` itself, which starts no process for a task or a try"
    if len(levels) > 1:
        return f", below sudo ({', '.join(str(node.key.pid) for node in levels[:-1])})"
    return ", which sudo executed without another process" if was_sudo(runner.node) else ""


def chain_in_words(levels: list[Node]) -> str:
    """Return processes from above to below."""
    return " > ".join(f"{node.key.pid} {node.comm or '?'}" for node in levels)


def levels_facts(levels: list[Node]) -> list[Record]:
    """Return what proves each level and the programs it executed."""
    return [record for node in levels for record in (*facts_of(node), *node.execs[-1:])]


def is_raw(node: Node) -> bool:
    """Return whether a process executed `tasks run --raw` with its job id; a fork has a title."""
    records: list[Exec | Observed] = [*node.execs, *node.observed]
    said = [facts for record in records if (facts := said_by(record))]
    return any(s.command == "tasks run --raw" and s.job_id is not None for s in said)


def was_sudo(node: Node) -> bool:
    """Return whether a process had executed sudo before it became what it is."""
    return any(record.argv and sudo_words(record.argv) is not None for record in node.execs[:-1])
