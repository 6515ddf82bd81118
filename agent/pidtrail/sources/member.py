"""A process that a source follows by what it hears and what /proc shows."""

from __future__ import annotations

from dataclasses import dataclass

from pidtrail.clock import TICK_NS


@dataclass(slots=True)
class Member:
    """
    A traced process: what identifies it, how many threads it has, what it last called itself.

    `losses` is how many there had been when it became known. `found` is True if that was in
    /proc, so that how many threads it had is not known for sure.
    """

    start_ticks: int | None
    born_ns: int
    threads: int = 1
    argv: list[str] | None = None
    losses: int = 0
    found: bool = False

    def head(self, pid: int) -> dict[str, int | None]:
        """Return the identifying fields of its records."""
        if self.start_ticks is None:
            return {"pid": pid, "start_ticks": None, "born_ns": self.born_ns}
        return {"pid": pid, "start_ticks": self.start_ticks}

    def owns(self, start_ticks: int | None) -> bool:
        """Return whether a start in /proc is the one of this process."""
        if self.start_ticks is None:
            return fitting(start_ticks, self.born_ns) is not None
        return start_ticks == self.start_ticks


def fitting(start_ticks: int | None, born_ns: int) -> int | None:
    """
    Return a start time from /proc if it can be that of a process born just before `born_ns`.

    copy_process takes the start time some microseconds before it tells of the
    fork, so it is in the same tick or in the one before.
    """
    if start_ticks is None:
        return None
    return start_ticks if 0 <= born_ns // TICK_NS - start_ticks <= 1 else None
