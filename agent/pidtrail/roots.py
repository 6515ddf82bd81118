"""
Airflow's roots on this host as they come and go: for the service, which waits for them.

A look lists /proc every two seconds. Who is new is looked at when first seen and at growing ages:
a process becomes Airflow with an exec, or with a title some seconds later. Now and then
all are looked at, for whoever waits long before it becomes one, as a container's
entrypoint does. Only when somebody shows Airflow's words is it found out, with a look
at everybody, who is a root and who is below one (running.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from pidtrail.airflow.identify import shown_facts
from pidtrail.airflow.running import LEFT_ROLES, ROOT_ROLES, Running, command_line, root_processes
from pidtrail.sources.procdir import ProcDirectory

SECOND_NS: Final = 1_000_000_000
LOOK_EVERY_NS: Final = 2 * SECOND_NS
"""A list of 300 processes takes 0.2 ms; Airflow takes longer than this before it runs a task."""
ALL_EVERY_NS: Final = 60 * SECOND_NS
AGES_NS: Final = tuple(age * SECOND_NS for age in (0, 2, 4, 8, 16, 32))


class Roots:
    """
    Who is to be followed. What is passed are seams for tests.

    `find` returns all roots that run now, `shows` tells whether a process shows Airflow's
    words, `now_ns` is CLOCK_BOOTTIME.
    """

    def __init__(
        self,
        proc: Path = Path("/proc"),
        find: Callable[[], list[Running]] = root_processes,
        shows: Callable[[int], bool] | None = None,
        now_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        self.proc = ProcDirectory(proc)
        self.find = find
        self.shows = shows if shows is not None else shows_airflow
        self.now_ns = now_ns
        self.known: dict[int, int] = {}
        self.young: dict[int, tuple[int, int]] = {}
        """When a process was first seen, and how often it was looked at since."""
        self.look_ns = self.all_ns = 0

    def is_due(self) -> bool:
        """Return whether to look again."""
        return self.now_ns() >= self.look_ns

    def look(self, followed: Collection[int]) -> list[Running]:
        """Return the roots that are not among those who are followed already."""
        now_ns = self.now_ns()
        self.look_ns = now_ns + LOOK_EVERY_NS
        candidates = self.candidates(now_ns)
        if not any(self.shows(pid) for pid in candidates if pid not in followed):
            return []
        return [process for process in self.find() if process.pid not in followed]

    def candidates(self, now_ns: int) -> Collection[int]:
        """Return who is to be looked at now: who is young, or everybody."""
        there = self.proc.numbers() or {}
        known = self.known
        for pid in [pid for pid, inode in there.items() if known.get(pid) != inode]:
            self.young[pid] = now_ns, 0
        self.known = there
        due = []
        for pid, (since_ns, looks) in list(self.young.items()):
            if pid not in there or looks == len(AGES_NS):
                del self.young[pid]
            elif now_ns - since_ns >= AGES_NS[looks]:
                self.young[pid] = since_ns, looks + 1
                due.append(pid)
        if now_ns >= self.all_ns:
            self.all_ns = now_ns + ALL_EVERY_NS
            return there
        return due


def shows_airflow(pid: int) -> bool:
    """Return whether a process shows the words of a root, or of who was left by one."""
    facts = shown_facts(command_line(pid))
    return facts is not None and facts.role in ROOT_ROLES | LEFT_ROLES
