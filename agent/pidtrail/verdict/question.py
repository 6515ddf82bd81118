"""What somebody asks about: a task instance attempt by its names, or a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pidtrail.events import TaskRef
    from pidtrail.taskrun import TaskRun


class Question(NamedTuple):
    """
    Which attempts are meant; a field that is None leaves it open.

    `pid` is a number that was recorded for an attempt, or that a process of it had in any
    PID namespace.
    """

    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None
    pid: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it leaves everything open."""
        return self == Question()

    def names(self, task: TaskRef) -> bool:
        """Return whether a reference is one of those that are meant, whatever its numbers."""
        return all(
            wanted is None or wanted == getattr(task, field)
            for field, wanted in zip(self._fields[:-1], self[:-1], strict=True)
        )

    def means(self, run: TaskRun) -> bool:
        """Return whether an attempt is meant."""
        if not self.names(run.task):
            return False
        return (
            self.pid is None
            or any(report.recorded_pid == self.pid for report in run.reports)
            or any(self.pid in member.node.numbers for member in run.members)
        )
