"""
The rules for a number that belongs to another level of the chain of processes.

Airflow 2.x compares the pid on record, or its parent's, with the first process
below the supervisor; 3.x records that first process. With run_as_user there is
sudo in between, on zero, one or two levels (sudo(8), "Process model").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidtrail.airflow.facts import Role
from pidtrail.verdict.ending import ended_in_words, killed_by, signal_name
from pidtrail.verdict.finding import Finding, facts_of

if TYPE_CHECKING:
    from pidtrail.tree import Node
    from pidtrail.verdict.case import Case


def ancestor_recorded(case: Case) -> Finding | None:
    """
    Another process of the same chain was recorded or compared: one above the runner.

    Concludes: the recorded pid is the runner's supervisor, worker, or another
    ancestor, alive at the same time. Nothing changed its PID; two processes are
    taken for one.
    Needs: the runner's lineage by birth from the kernel.
    Cannot tell: which Airflow setting caused it; impersonation (run_as_user)
    and a wrapper in between look alike from here.
    """
    runner, pid = case.runner, case.recorded_pid
    if runner is None or pid is None or case.runner_with(pid) is not None:
        return None
    for ancestor in case.chain(runner.node)[1:]:
        if ancestor.key.pid == pid and not is_sudo(ancestor):
            role = case.role(ancestor)
            return Finding(
                "ancestor-recorded", "explained", "proved",
                f"Recorded PID {pid} is the {role} above process {runner.node.key.pid}, which ran "
                f"{case.name()}: two processes of one chain, and neither changed its PID.",
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
    child of it, so a plugin, an operator or a person did.
    """
    runner, pid = case.runner, case.recorded_pid
    if runner is None or pid is None or case.runner_with(pid) is not None:
        return None
    if any(is_sudo(member.node) for member in case.runners):
        return None
    for member in reversed(case.runners):
        for child in case.tree.descendants(member.node.key):
            if child.key.pid == pid:
                return Finding(
                    "descendant-observed", "explained", "proved",
                    f"Recorded PID {pid} ({child.comm or 'no name seen'}) is a child below process "
                    f"{member.node.key.pid}, which ran {case.name()}: two processes of one chain, "
                    f"and neither changed its PID.",
                    [*facts_of(member.node), *facts_of(child), *case.own_reports[-1:]],
                )  # fmt: skip
    return None


def impersonation(case: Case) -> Finding | None:
    """
    The task runs as another user, and a level of the chain that sudo adds was compared.

    Concludes: the number on record and the one it was compared with are two
    processes of one chain: sudo and what runs below it, or (2.x, run_as_user
    equal to the own user, so without sudo) the runner and its supervisor. A
    false alarm: the process on record is the one that was started.
    Needs: the chain from the supervisor down, with the program that each level
    executed. A 2.x runner that was exec'ed below a supervisor that was not
    proves run_as_user or default_impersonation.
    Cannot tell: whether a heartbeat came in the runner's life, and so whether
    the message was printed. Up to 2.10.0 it killed the task; 2.10.1 and newer
    only warn, and 3.x compares no parents (local_task_job_runner.py
    heartbeat_callback @ 2.10.5).
    """
    runner, pid = case.runner, case.recorded_pid
    if runner is None or pid is None:
        return None
    top = below_supervisor(case, runner.node)
    if not is_sudo(top):
        return own_user(case, runner.node)
    levels = [top]
    while inner := [c for c in case.tree.children(levels[-1].key) if is_sudo(c)]:
        levels.append(inner[0])
    worker = next(
        (c for c in case.tree.children(levels[-1].key) if not is_sudo(c)), None
    )  # fmt: skip
    if worker is None or pid not in {worker.key.pid, *(node.key.pid for node in levels)}:
        return None
    sudo = ", ".join(str(node.key.pid) for node in levels)
    if pid == worker.key.pid:
        parent = levels[-1].key.pid
        same = ", and they are the same" if parent == top.key.pid else ": a false alarm"
        words = (
            f"Recorded PID {pid} is the process that runs below sudo ({sudo}); Airflow 2.x takes "
            f"the number of its parent, {parent}, and compares it with {top.key.pid}{same}"
        )
    else:
        words = f"Recorded PID {pid} is sudo; user code ran below it, in process {worker.key.pid}"
    return Finding(
        "impersonation", "explained", "proved",
        f"{words}. Of {case.name()} neither process changed its PID; {worker.key.pid} "
        f"{ended_in_words(worker)}.",
        [
            *(r for node in (*levels, worker) for r in [*facts_of(node), *node.execs[-1:]]),
            *case.own_reports[-1:],
        ],
    )  # fmt: skip


def own_user(case: Case, node: Node) -> Finding | None:
    """Conclude that 2.x took the supervisor for the recorded process of its exec'ed runner."""
    parent = case.tree.node(node.birth_parent)
    if parent is None or case.recorded_pid != node.key.pid or not node.execs:
        return None
    says = case.claims.get(node.key, ())
    raw = any(c.by == "argv" and c.role is Role.RUNNER and c.job_id is not None for c in says)
    if not raw or parent.execs or not (parent.title or "").startswith("airflow task supervisor: "):
        return None
    ended = killed_by(node, case.tree, lambda other: str(case.role(other)))
    sender = ended.sender if ended is not None else None
    killed = ""
    if ended is not None and sender is not None and sender.pid == parent.key.pid:
        killed = f" {signal_name(ended.sig)} came from that supervisor, as up to 2.10.0 it does."
    return Finding(
        "impersonation", "explained", "proved",
        f"Recorded PID {node.key.pid} is the process that ran {case.name()}; with run_as_user but "
        f"no sudo in between, Airflow 2.x takes its parent, supervisor {parent.key.pid}, for the "
        f"recorded process at every heartbeat: a false alarm. It {ended_in_words(node)}.{killed}",
        [*facts_of(parent), *facts_of(node), *node.execs[-1:], *case.own_reports[-1:]],
    )  # fmt: skip


def below_supervisor(case: Case, node: Node) -> Node:
    """Return the process of a runner's chain that its supervisor forked: what Airflow started."""
    top = node
    for ancestor in case.chain(node)[1:]:
        if case.role(ancestor) not in {Role.RUNNER, Role.SUDO} and not is_sudo(ancestor):
            break
        top = ancestor
    return top


def is_sudo(node: Node) -> bool:
    """Return whether a process is sudo: by its last program, or as a fork of sudo (its monitor)."""
    argv = node.argv
    if argv:
        return argv[0].rpartition("/")[2] == "sudo"
    return not node.titles and node.comm == "sudo"
