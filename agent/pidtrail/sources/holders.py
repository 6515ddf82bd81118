"""
Who has the numbers by now that Airflow's rows go on showing.

A row keeps its pid when the process is gone: while it says `running` for want of a
heartbeat, waits for a retry, or is deferred. The kernel may give the number to
anybody meanwhile, mostly to a process outside of what is traced, of which no source
tells. So when a recording ends, /proc is asked for these few numbers.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final

from pidtrail.airflow.facts import STANDING
from pidtrail.events import Event, Observed, TaskRef, TaskReported
from pidtrail.sources import proc

ORIGIN: Final = "procfs"
HISTORY: Final = "task_instance_history"


class Holders:
    """The rows that stand, by installation and attempt."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str | None, TaskRef], int] = {}

    def take(self, events: Iterable[Event]) -> None:
        """Take in what rows say; one that is over is forgotten."""
        for row in events:
            if not isinstance(row, TaskReported) or row.task is None:
                continue
            if row.via == "plugin" or row.table == HISTORY:
                continue
            if row.recorded_pid is not None and row.state in STANDING:
                self.rows[row.airflow, row.task] = row.recorded_pid
            else:
                self.rows.pop((row.airflow, row.task), None)

    def look(self, known: Container[int], now_ns: int) -> list[Observed]:
        """
        Return who has these numbers now in our PID namespace; `seq` is left to the caller.

        Not of `known` numbers, whose holders are traced, and no arguments: it is
        nobody's business what strangers run.
        """
        found = []
        for pid in sorted(set(self.rows.values())):
            fields = proc.stat_fields(pid)
            ticks = proc.start_ticks(pid)
            if pid in known or fields is None or ticks is None or proc.is_dead(fields):
                continue
            seen = Observed(
                0, now_ns, ORIGIN, pid, ticks, ppid=proc.ppid(pid), comm=proc.comm(pid),
                cgroup=proc.cgroup(pid), ns_pids=proc.ns_pids(pid),
            )  # fmt: skip
            if proc.start_ticks(pid) == ticks:
                found.append(seen)
        return found
