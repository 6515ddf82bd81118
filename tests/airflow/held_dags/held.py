"""
Tasks that end when they are told to, for Airflow 2.x and 3.x alike.

Who plays decides by `let_go` when which try may end, so that no case depends on
how fast a machine is. Each process notes itself (`demo.witness`) where its user
code runs.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

try:
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.providers.standard.sensors.python import PythonSensor
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.x has them in its core
    from airflow import DAG
    from airflow.operators.python import PythonOperator
    from airflow.sensors.python import PythonSensor
from airflow.listeners import hookimpl

from demo.witness import FOLDER_VARIABLE, read_notes, write_note

SECOND = dt.timedelta(seconds=1)
# Longer than any play: who is not let go by then ends the task, not the test.
AT_MOST_S = 150


def dag(name: str) -> DAG:
    """Return a DAG that runs only when it is told to."""
    return DAG(
        f"case_{name}",
        schedule=None,
        start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )


def wait_for(name: str) -> None:
    """Stay until a file of this name is in the folder of the notes."""
    until = time.monotonic() + AT_MOST_S
    while not (Path(os.environ[FOLDER_VARIABLE]) / name).exists() and time.monotonic() < until:
        time.sleep(0.05)


def hold(**context: Any) -> None:
    """Stay until this try of the task is let go."""
    write_note(context, "begin")
    wait_for(f"{context['ti'].dag_id}-{context['ti'].try_number}.go")
    write_note(context, "end")


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
