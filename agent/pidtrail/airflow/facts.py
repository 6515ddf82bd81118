"""The words in which identification answers: roles, and what one text told."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from pidtrail.events import TaskRef


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
    text was visibly cut, so that what is missing was perhaps there.
    """

    role: Role
    task: TaskRef | None = None
    job_id: int | None = None
    major: int | None = None
    idle: bool | None = None
    command: str | None = None
    truncated: bool = False
