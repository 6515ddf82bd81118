"""The Airflow processes that run on this host, by what their command lines say."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import psutil

from pidtrail.airflow.facts import Role
from pidtrail.airflow.identify import shown_facts

ROOT_ROLES: Final = frozenset({Role.SCHEDULER, Role.CELERY_WORKER, Role.TRIGGERER})
EXECUTOR_ROLES: Final = frozenset({Role.EXECUTOR_WORKER, Role.EXECUTOR_MANAGER})
LEFT_ROLES: Final = EXECUTOR_ROLES | {Role.SUPERVISOR, Role.RUNNER}
"""What may live on, and run user code, when the one above it was killed."""


class Running(NamedTuple):
    """
    One Airflow process; `user` is None where it may not be known.

    `abandoned` says that it belongs to an executor and nothing that could give it work
    is above it: its scheduler died, and it waits for ever. `above` are the pids of all
    who are above it, nearest first.
    """

    pid: int
    ppid: int | None
    role: Role
    user: str | None
    abandoned: bool = False
    above: tuple[int, ...] = ()


def airflow_processes() -> list[Running]:
    """Return every process whose title or command line is Airflow's, by pid."""
    found: dict[int, Running] = {}
    parents: dict[int, int | None] = {}
    for process in psutil.process_iter(["pid", "ppid", "username"]):
        parents[process.pid] = process.info["ppid"]
        argv = command_line(process.pid)
        facts = shown_facts(argv)
        if facts is not None and facts.role is not Role.OTHER:
            found[process.pid] = Running(
                process.pid, process.info["ppid"], facts.role, process.info["username"]
            )
    found = without_copies(found)
    feeding = {pid for pid, one in found.items() if one.role in ROOT_ROLES}
    placed = []
    for pid, one in sorted(found.items()):
        above = ancestors(pid, parents)
        abandoned = one.role in EXECUTOR_ROLES and feeding.isdisjoint(above)
        placed.append(one._replace(abandoned=abandoned, above=above))
    return placed


def without_copies(processes: dict[int, Running]) -> dict[int, Running]:
    """
    Return processes without the forks of a root that show its own words.

    Pool processes of a Celery worker do until their first task, its cleaner of
    stale bundles always.
    """
    return {
        pid: process
        for pid, process in processes.items()
        if process.role not in ROOT_ROLES
        or (above := processes.get(process.ppid or 0)) is None
        or above.role is not process.role
    }


def command_line(pid: int) -> list[str]:
    """Return the arguments of a process, a title as one; none if it ended or has none."""
    # psutil takes the zeros behind a title for arguments, or splits a title at its blanks.
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
    except OSError:
        return []
    return [part.decode("utf-8", "replace") for part in raw.split(b"\0")] if raw else []


def ancestors(pid: int, parents: dict[int, int | None]) -> tuple[int, ...]:
    """Return who is above a process, nearest first."""
    found: list[int] = []
    above = parents.get(pid)
    while above and above not in found:
        found.append(above)
        above = parents.get(above)
    return tuple(found)


def root_processes() -> list[Running]:
    """
    Return the schedulers, Celery workers and triggerers, and what others have left.

    Workers, supervisors and runners whose scheduler was killed may run user code still, beside
    a second start of it. Nobody is named who has another one above: what they fork is followed
    by itself, and following both would name it twice. Those who need a database come first.
    """
    processes = [p for p in airflow_processes() if p.role in ROOT_ROLES | LEFT_ROLES]
    followed = {p.pid for p in processes}
    tops = [p for p in processes if followed.isdisjoint(p.above)]
    return sorted(tops, key=lambda p: (p.role not in ROOT_ROLES, p.pid))


def airflow_roots() -> list[int]:
    """Return the pids of those to follow, as `root_processes` has them."""
    return [process.pid for process in root_processes()]
