"""The Airflow processes that run on this host, by what their command lines say."""

from __future__ import annotations

from typing import Final, NamedTuple

import psutil

from pidtrail.airflow.commands import argv_facts
from pidtrail.airflow.facts import Role
from pidtrail.airflow.identify import title_facts

ROOT_ROLES: Final = frozenset({Role.SCHEDULER, Role.CELERY_WORKER, Role.TRIGGERER})


class Running(NamedTuple):
    """One Airflow process; `user` is None where it may not be known."""

    pid: int
    ppid: int | None
    role: Role
    user: str | None


def airflow_processes() -> list[Running]:
    """Return every process whose title or command line is Airflow's, by pid."""
    found = []
    for process in psutil.process_iter(["pid", "ppid", "cmdline", "username"]):
        argv = process.info["cmdline"] or []
        if not argv:
            continue
        facts = (title_facts(argv[0]) if len(argv) == 1 else None) or argv_facts(argv)
        if facts is not None and facts.role is not Role.OTHER:
            found.append(
                Running(process.pid, process.info["ppid"], facts.role, process.info["username"])
            )
    return sorted(found)


def airflow_roots() -> list[int]:
    """
    Return the pids of schedulers, Celery workers and triggerers that have none of these above them.

    What they fork is followed by itself; following both would name it twice.
    """
    roots = {p.pid: p for p in airflow_processes() if p.role in ROOT_ROLES}
    return sorted(p.pid for p in roots.values() if p.ppid not in roots)
