"""
Whether sudo was to start an attempt's user code and did not.

sudo ends with 1 where its rules forbid the command, where it needs a password and has
no terminal to ask on, and where there is no such user or command (sudo(8), "Exit value").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pidtrail.airflow.commands import behind_sudo, sudo_words, user_of_sudo
from pidtrail.airflow.facts import Role
from pidtrail.members import is_sudo
from pidtrail.taskrun import speaks_of
from pidtrail.verdict.ending import ended_in_words
from pidtrail.verdict.finding import Finding, facts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pidtrail.node import Node
    from pidtrail.verdict.case import Case

UNTOLD = "why sudo did not start it: its own words stand in the log of the task or of the executor"


class Refusal(NamedTuple):
    """
    A sudo that started nothing; `user` is whom it was to run it as.

    `supervisor` is set where it was an errand: 2.x has the configuration of the task
    given to that user before it starts the task (base_task_runner.py @ 2.11.2).
    """

    node: Node
    user: str
    supervisor: Node | None = None

    @property
    def words(self) -> str:
        """What became of it, in words."""
        if self.supervisor is not None:
            return (
                f"`sudo {self.command}` (process {self.node.key.pid}), with which its supervisor "
                f"{self.supervisor.key.pid} gives the task's settings to user {self.user}, "
                f"{ended_in_words(self.node)}"
            )
        return (
            f"sudo ({self.node.key.pid}), which was to run it as user {self.user}, "
            f"{ended_in_words(self.node)} without starting anything"
        )

    @property
    def command(self) -> str:
        """The first word behind sudo's options."""
        return next(iter(command_of(self.node)), "?")


def refusal_by_sudo(case: Case) -> Refusal | None:
    """Return the sudo that did not start the attempt's user code, None if there was no such."""
    if not (case.scope.header.fidelity.has_argv and case.scope.header.fidelity.sees_short_lived):
        return None
    if case.runner is None:
        return next(errands(case), None)
    node = case.runner.node
    if not is_sudo(node) or not failed(node) or started(case, node):
        return None
    return Refusal(node, user_of_sudo(sudo_words(node.argv or []) or []) or "?")


def command_of(sudo: Node) -> list[str]:
    """Return the command that a sudo was to run, with its arguments."""
    return behind_sudo(sudo_words(sudo.argv or []) or [])


def failed(node: Node) -> bool:
    """Return whether a process ended by a signal or with a status that is not 0."""
    ended = node.exit
    return ended is not None and (ended.termsig is not None or bool(ended.exit_code))


def started(case: Case, sudo: Node) -> bool:
    """
    Return whether anything below a sudo executed its command.

    What else it may execute: a program that sends mail, or one that asks for passwords.
    """
    command = next(iter(command_of(sudo)), None)
    if command is None:
        return True
    for node in case.tree.descendants(sudo.key):
        for record in node.execs:
            words = [record.filename or "", *(record.argv or [])[:2]]
            if record.argv is None or base(command) in map(base, words):
                return True
    return False


def base(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def errands(case: Case) -> Iterator[Refusal]:
    """Yield what a supervisor of the attempt had sudo do in vain, the last one first."""
    # Of a later try the supervisor started after this one's end.
    ends = [ns for report in case.reports if (ns := case.boot_ns(report.end_date)) is not None]
    for key, claims in reversed(case.claims.items()):
        said = [c for c in claims if c.task is not None]
        supervises = any(c.role is Role.SUPERVISOR for c in said)
        if not supervises or not all(c.task and speaks_of(c.task, case.task) for c in said):
            continue
        supervisor = case.tree.nodes[key]
        if ends and (supervisor.started_ns or 0) > max(ends):
            continue
        for child in reversed(case.tree.children(key)):
            words = command_of(child)
            if is_sudo(child) and failed(child) and words[:1] == ["chown"] and len(words) > 1:
                yield Refusal(child, words[1], supervisor)


def unstarted(case: Case) -> Finding | None:
    """Conclude that sudo started nothing, None if there was no such sudo."""
    refusal = refusal_by_sudo(case)
    if refusal is None:
        return None
    pid, last = case.recorded_pid, case.last_report
    if pid is None:
        record = "no PID is recorded"
    elif pid in refusal.node.numbers:
        record = f"recorded PID {pid} is that sudo"
    else:
        record = f"recorded is {pid}"
    state = "" if last is None else f", and the row says {last.state}"
    above = [] if refusal.supervisor is None else facts_of(refusal.supervisor)
    return Finding(
        "aborted-start", "explained", "proved",
        f"No user code of {case.name()} ran: {refusal.words}; {record}{state}.",
        [*above, *facts_of(refusal.node), *refusal.node.execs[-1:], *case.reports[-1:]],
        (UNTOLD,),
    )  # fmt: skip
