"""
Tasks that end when they are told to, for Airflow 2.x and 3.x alike.

Who plays decides by `let_go` when which try may end, so that no case depends on
how fast a machine is. Each process notes itself (`demo.witness`) where its user
code runs.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

try:
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.providers.standard.sensors.python import PythonSensor
except ImportError:  # Airflow 2.x has them in its core
    from airflow.operators.python import PythonOperator
    from airflow.sensors.python import PythonSensor
from airflow.listeners import hookimpl

from demo.witness import FOLDER_VARIABLE, read_notes, write_note
from tests.airflow.holding import dag, hold, wait_for

SECOND = dt.timedelta(seconds=1)


class SlowEnding:
    """A listener that takes its time after the task has told its state, as those of lineage do."""

    def __init__(self, name: str) -> None:
        self.name = name

    @hookimpl
    def before_stopping(self) -> None:
        """Hold the process up until it is let go."""
        wait_for(self.name)


def poke(**context: Any) -> bool:
    """At the first poke say no when told to, and end slowly; stay and say yes at the second."""
    write_note(context, "begin")
    task = context["ti"]
    folder = Path(os.environ[FOLDER_VARIABLE])
    pokes = [note for note in read_notes(folder) if note.dag_id == task.dag_id]
    if len(pokes) > 1:
        wait_for(f"{task.dag_id}-second.go")
        return True
    from airflow.sdk.listener import get_listener_manager  # noqa: PLC0415 (3.x alone has it)

    get_listener_manager().add_listener(SlowEnding(f"{task.dag_id}-first.go"))
    wait_for(f"{task.dag_id}-poke.go")
    return False


with dag("reset"):
    PythonOperator(task_id="t", python_callable=hold)

with dag("reset_orphan"):
    PythonOperator(task_id="t", python_callable=hold)

with dag("unheard"):
    PythonOperator(task_id="t", python_callable=hold, retries=1, retry_delay=SECOND)

with dag("chain"):
    PythonOperator(task_id="t", python_callable=hold)

for case in ("late", "late_queued"):
    with dag(case):
        PythonSensor(task_id="t", python_callable=poke, mode="reschedule", poke_interval=1)
