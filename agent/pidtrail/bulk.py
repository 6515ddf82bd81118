"""
Which records are bulk: those of silent processes below one that runs a task's user code.

A task may start any number of processes, and they are nearly all of a recording. What one of
them did matters to whom it descends from, whom it signalled, and who asks for its number; to no
other attempt. So who asks about one attempt can leave out the bulk of the others.

Taken for bulk is only a process whose birth below a runner was told before anything else of
it. What it shows of itself is never bulk: by that a reader knows that its other
records are wanted too (verdict/selection.py).
"""

from __future__ import annotations

from typing import Final

from pidtrail.airflow.facts import Role
from pidtrail.attribution import facts_of
from pidtrail.events import Event, Exec, Exit, Fork, Migrate, Observed, Oom, Reap, Signal, Title

SPEAKING: Final = frozenset({Title, Exec, Observed})
SILENT: Final = frozenset({Exit, Reap, Signal, Oom, Migrate})
"""What tells of a process, and nothing that it shows of itself."""


class Bulk:
    """
    Sorts the records of a stream as they come.

    By number and start, so that a number that is given out again is another process; who
    has no start time known is never bulk. Bounded by how many numbers the kernel has.
    """

    def __init__(self) -> None:
        self.inside: dict[int, int] = {}
        self.runners: dict[int, int] = {}

    def has(self, event: Event) -> bool:
        """Return whether a record is bulk. Never raises."""
        pid, ticks = event.pid, event.start_ticks
        if pid is None or ticks is None:
            return False
        if isinstance(event, Fork):
            return self.is_born_inside(event, pid, ticks)
        known = self.inside.get(pid) == ticks
        kind = type(event)
        if kind in SPEAKING:
            return self.listen(event, pid, ticks, known=known)  # type: ignore[arg-type]
        if known and kind is Reap:
            del self.inside[pid]
        return known and kind in SILENT

    def is_born_inside(self, event: Fork, pid: int, ticks: int) -> bool:
        """Take in a birth; return whether it is below a runner."""
        above, above_ticks = event.ppid, event.parent_start_ticks
        if above is not None and above_ticks is not None:
            known = self.runners.get(above) == above_ticks
            if known or self.inside.get(above) == above_ticks:
                self.inside[pid] = ticks
                self.runners.pop(pid, None)
                return True
        self.inside.pop(pid, None)
        return False

    def listen(self, event: Title | Exec | Observed, pid: int, ticks: int, *, known: bool) -> bool:
        """Take in what a process may show of itself; return whether it showed nothing inside."""
        facts = facts_of(event)
        seen = isinstance(event, Observed) and not (event.log_path is None and event.env is None)
        if facts is None:
            return known and not seen
        if facts.role is Role.RUNNER:
            self.runners[pid] = ticks
        else:
            self.runners.pop(pid, None)
        if known:
            del self.inside[pid]
        return False
