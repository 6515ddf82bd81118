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
    `airflow` is the installation whose it is, None where there is one or it is not known, and
    then `could_be` are those of which it, or what belongs to it, may be (installations.py).
    """

    def __init__(self, task: TaskRef, airflow: str | None = None) -> None:
        self.task = task
        self.airflow = airflow
        self.could_be: tuple[str, ...] = ()
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
        task = self.task
        return (self.airflow, task.dag_id, task.task_id, task.run_id, task.map_index)

    def take(self, other: TaskRun) -> None:
        """Take over what is known of a reference that means this attempt."""
        self.members += other.members
        self.told += other.told
        self.reports = sorted([*self.reports, *other.reports], key=lambda one: one.ts_boot_ns)
        self.children_left_out += other.children_left_out


def same_run(one: TaskRun, other: TaskRun) -> bool:
    """Return whether two attempts are of one run of a DAG."""
    names = [(run.airflow, run.task.dag_id, run.task.run_id) for run in (one, other)]
    return names[0] == names[1]


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
