"""One attempt of a task instance, and when a reference means it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidtrail.members import RUNS_USER_CODE, Member

if TYPE_CHECKING:
    from pidtrail.events import AirflowFact, TaskRef, TaskReported


class TaskRun:
    """
    One attempt (try) of one task instance: its processes and what Airflow claims of it.

    `told` is what its processes said through the plugin: of themselves, no record of Airflow's.
    """

    def __init__(self, task: TaskRef) -> None:
        self.task = task
        self.members: list[Member] = []
        self.reports: list[TaskReported] = []
        self.told: list[TaskReported] = []
        self.facts: list[AirflowFact] = []
        self.children_left_out = 0

    @property
    def runners(self) -> list[Member]:
        """
        The processes that ran its user code, oldest first: several for pokes and resumes.

        With sudo in between it is, of each chain, the process that Airflow records.
        """
        found = [m for m in self.members if m.role in RUNS_USER_CODE and m.recorded]
        return sorted(found, key=lambda member: member.node.started_ns or 0)

    @property
    def instance(self) -> tuple[object, ...]:
        """The task instance without the try."""
        return (self.task.dag_id, self.task.task_id, self.task.run_id, self.task.map_index)


def same_run(one: TaskRef, other: TaskRef) -> bool:
    """Return whether two task instances are of one run of a DAG."""
    return (one.dag_id, one.run_id) == (other.dag_id, other.run_id)


def speaks_of(task: TaskRef, run: TaskRef) -> bool:
    """Return whether a reference, perhaps a partial one, means this attempt."""
    if task.dag_id is None or task.dag_id != run.dag_id:
        return False
    pairs = (
        (task.task_id, run.task_id),
        (task.run_id, run.run_id),
        (task.map_index, run.map_index),
        (task.try_number, run.try_number),
    )
    return all(one is None or one == other for one, other in pairs)


def beginning(run: TaskRun) -> tuple[int, str]:
    """Return what attempts are ordered by: the first record of them."""
    times = [member.node.started_ns or 0 for member in run.runners]
    times += [report.ts_boot_ns for report in run.reports[:1]]
    return (min(times, default=0), repr(run.task))
