"""The words in which identification answers: roles, and what one text told."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import structs

from pidtrail.events import TaskRef, TaskReported

STANDING: Final = frozenset(
    {"running", "restarting", "up_for_retry", "up_for_reschedule", "deferred"}
)
"""The states in which a row shows a pid as that of an attempt which is not over."""
INSTALLATION: Final = "installation"
"""The table of the `airflow_fact` records that say to which installation a root belongs."""
_BETWEEN_TRIES: Final = {None, "up_for_retry", "restarting"}


class Role(StrEnum):
    """
    What a process does for Airflow.

    `runner` runs user code and is the one whose pid Airflow records (3.x with
    run_as_user: `sudo`). In 3.x the executor worker is itself the supervisor of
    the task instance it is busy with, and is called `supervisor` while it is.
    """

    SCHEDULER = "scheduler"
    EXECUTOR_WORKER = "executor_worker"
    SUPERVISOR = "supervisor"
    RUNNER = "runner"
    SUDO = "sudo"
    OPERATOR_CHILD = "operator_child"
    TRIGGERER = "triggerer"
    OTHER = "other"
    DAG_PROCESSOR = "dag_processor"
    API_SERVER = "api_server"
    EXECUTOR_MANAGER = "executor_manager"
    CELERY_WORKER = "celery_worker"


class TitleFacts(NamedTuple):
    """
    What one title or command line tells of the process that shows it.

    `task` is the task instance that the process serves at that moment, None for
    a process that serves none or does not say. `job_id` is the LocalTaskJob of
    2.x. `major` is the Airflow generation (2 or 3) where the text is peculiar
    to one. `idle` is True or False for executor workers only. `command` is the
    Airflow command, e.g. `scheduler` or `tasks run`. `truncated` says that the
    text was visibly cut, so that what is missing was perhaps there. `lingers` says
    that the title stays on after the work: it proves only that `task` was served.
    """

    role: Role
    task: TaskRef | None = None
    job_id: int | None = None
    major: int | None = None
    idle: bool | None = None
    command: str | None = None
    truncated: bool = False
    lingers: bool = False


def uuid_in(report: TaskReported) -> TaskRef | None:
    """
    Return what the UUID in a row or answer stands for, None if there is none (2.x).

    When a try has failed or was cleared the row gets the UUID of the next one at
    once, but its `try_number` is raised only when that is scheduled
    (models/taskinstance.py prepare_db_for_next_try, models/dagrun.py schedule_tis
    @ 3.0.6-3.3.2): in between, the number is that of the try before.
    """
    task = report.task
    if task is None or task.ti_id is None:
        return None
    if report.table != "task_instance_history" and report.state in _BETWEEN_TRIES:
        return structs.replace(task, try_number=None)
    return task


def short(hostname: str) -> str:
    """Return a host's name without its domain: Airflow records it with (net.py getfqdn) or not."""
    return hostname if is_address(hostname) else hostname.partition(".")[0].lower()


def is_address(hostname: str) -> bool:
    """Return whether a host is given by address (hostname_callable may be get_host_ip_address)."""
    return ":" in hostname or hostname.replace(".", "").isdigit()
