"""
Which task instance, and which part in running it, a process tells of by itself.

Rule 1: pure. Text in, facts out; nothing is read, and nothing here ever raises.
Rule 2: unknown is None. A title cut short by the kernel gives what stands
        before the cut and says `truncated`; it never gives half an id.
Rule 3: -1 is a fact ("not mapped") and is said only where the text proves it.

Titles are what Airflow writes with setproctitle; the places, read in the
released packages, are cited at each parser. A title is a claim: a child shows
its parent's title until it sets its own, and a Celery pool worker of 3.3+
keeps the title of its last task instance. `correlate` weighs that.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from pidtrail.events import TaskRef

from .commands import command_facts


class Role(StrEnum):
    """
    What a process does for Airflow.

    `runner` runs user code and is the one whose pid Airflow records (3.x with
    run_as_user: `sudo`). In 3.x the executor worker is itself the supervisor of
    the task it is busy with, and is called `supervisor` then.
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
